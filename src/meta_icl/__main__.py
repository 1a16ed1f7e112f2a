"""`python -m meta_icl` is the command line."""

import sys

from meta_icl.apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
