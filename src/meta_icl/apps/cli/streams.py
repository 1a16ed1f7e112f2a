"""Standard output and standard error as they are: any encoding, any width, full disks and closed pipes."""

import codecs
import os
import re
import shutil
import sys
import textwrap
import unicodedata

ASCII = {  # one letter for one where there is one, so that columns stay
    "×": "x", "·": ".", "−": "-", "–": "-", "—": "-", "‑": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*",
    "✓": "+", "✗": "x", "○": "o", "→": "->", "±": "+-", "∞": "inf", "…": "...", "≤": "<=",
    "≥": ">=", "≈": "~", "≠": "!=",
    "│": "|", "┃": "|", "─": "-", "━": "-", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "╴": "-", "╶": "-", "╸": "-",
    "╺": "-", "┼": "+", "√": "sqrt ", "Σ": "sum ", "∑": "sum ", "²": "^2", "³": "^3", "½": "1/2", "∝": "~", "∂": "d",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "eps", "η": "eta", "λ": "lambda", "μ": "mu", "µ": "mu",
    "σ": "sigma", "τ": "tau", "φ": "phi", "ω": "omega", "Δ": "Delta", "Λ": "Lambda", "Ω": "Omega", "ℓ": "l",
}  # fmt: skip


def plain(sign: str) -> str:
    """A sign, or several, in ASCII: a known word for it, its letter without accents, else its number."""
    known = "".join(ASCII.get(one, one) for one in sign)
    bare = unicodedata.normalize("NFKD", known).encode("ascii", "ignore").decode()
    return bare or (known if known.isascii() else sign.encode("ascii", "backslashreplace").decode())


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(plain(sign) for sign in error.object[error.start : error.end]), error.end


codecs.register_error("meta_icl.ascii", _in_ascii)


def prepare() -> None:
    """Have both streams write what their encoding lacks in ASCII; a stream that was closed swallows all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for the rest of the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="meta_icl.ascii")


def encodable(text: str) -> str:
    """A text with ASCII in the place of what standard output cannot encode: before columns are measured."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "meta_icl.ascii").decode(encoding)


def visible(text: str) -> str:
    """A text whose control signs, such as the escape codes of terminals, are written out."""
    return "".join(one if one == "\n" or not _controls(one) else repr(one)[1:-1] for one in text)


def _controls(sign: str) -> bool:
    """Whether a sign steers a terminal or the direction of writing, or is half of one."""
    return (
        unicodedata.category(sign) in ("Cc", "Cs") or sign in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    )


def columns() -> int:
    """The width of the terminal, or what COLUMNS says; 80 without either."""
    return shutil.get_terminal_size().columns


def paragraphs(text: str) -> str:
    """A text with an empty line between paragraphs, wrapped by words to the width of the terminal."""
    wide = min(columns(), 100)
    return "\n\n".join(
        textwrap.fill(" ".join(one.split()), wide, break_long_words=False, break_on_hyphens=False)
        for one in text.split("\n\n")
    )


def entry(head: str, text: str) -> str:
    """A text behind its head, its further lines below its first."""
    return textwrap.fill(text, columns(), initial_indent=head, subsequent_indent=" " * len(head))


def command(text: str) -> str:
    """A command to copy, indented; where it is longer than the terminal is wide it goes on after a backslash."""
    lines: list[str] = []
    for word in re.findall(r"""(?:'[^']*'|"[^"]*"|[^\s'"])+""", text):
        if lines and len(lines[-1]) + len(word) + 1 <= columns() - 2:
            lines[-1] += f" {word}"
        else:
            lines.append(f"      {word}" if lines else f"  {word}")
    return " \\\n".join(lines)


def flush() -> None:
    """Write what is left, now, where an error can still be told."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def silence(stream: str) -> None:
    """Send what is still to be written to a broken stream nowhere, so that the end of the process says nothing."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, getattr(sys, stream).fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):  # no file behind it
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
