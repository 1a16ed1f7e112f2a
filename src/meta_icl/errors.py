"""The one error type that a person's bad input raises, and the helpers that phrase it.

Every message is a single line that names the field, the value given and what is allowed; the command line prints it
and exits with status 2, without a traceback.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class BadInput(ValueError):
    """Input that a person can correct: a wrong field, an unknown name, a negative size, an unusable run folder."""


def require(condition: bool, field: str, value: Any, allowed: str) -> None:
    """Raise `BadInput` naming `field`, its `value` and what is `allowed`, unless `condition` holds."""
    if not condition:
        raise BadInput(f"{field} must be {allowed}, got {value!r}")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 160 characters of it, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


@contextmanager
def fitting(what: str | Callable[[], str]) -> Iterator[None]:
    """Tell what arrays of another shape than expected raise as one `BadInput`, "WHAT: ..", behind which it stands.

    `what` may be a function, which is asked only then.
    """
    try:
        yield
    except BadInput:
        raise
    except (TypeError, ValueError, IndexError, AttributeError, AssertionError) as error:
        told = what if isinstance(what, str) else what()
        raise BadInput(f"{told}: {' '.join(str(error).split())}") from error


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is among the `known` names of a `kind`, else raise `BadInput` with the nearest one."""
    names = sorted(known)
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise BadInput(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")
