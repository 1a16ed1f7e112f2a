"""`python -m meta_icl` is the command line."""

import sys

from meta_icl.apps.cli import program

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose modules must not be imported by chance, as with `meta-icl`
    program()
