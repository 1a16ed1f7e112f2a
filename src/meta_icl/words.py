"""Numbers as the text of labels and names. No library is imported: the command line starts with this."""


def in_words(value: float) -> str:
    """A number as text that tells it from every other: in six digits where those do."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
