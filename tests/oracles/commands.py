"""Commands called as a person calls them."""

from meta_icl.apps import cli


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of a command."""
    try:
        status = cli.main(list(arguments))
    except SystemExit as end:  # help
        status = end.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err
