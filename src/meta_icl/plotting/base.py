"""What all charts share: arrays of any library as float64, the claims that a chart decides, how a notebook shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from meta_icl.errors import BadInput


@runtime_checkable
class HasArray(Protocol):
    """What numpy can turn into an array: arrays of any library."""

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


Numbers: TypeAlias = np.ndarray | HasArray | Sequence[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """What every chart has: the claims that it decides, and what a notebook shows for it at the end of a cell."""

    decides: Sequence[str] = ()  # ids of claims, with or without the paper's name in front

    def _repr_svg_(self) -> str:
        from meta_icl.plotting.draw_matplotlib import svg  # drawing is loaded when something is drawn

        return svg(self)  # type: ignore[arg-type]


def numbers(value: Numbers, what: str, ndim: int) -> np.ndarray:
    """A float64 array of `ndim` axes, read-only, so that a frozen chart stays what it was."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = None
    if array is None or array.ndim != ndim:
        raise BadInput(f"{what} must be numbers along {ndim} {'axis' if ndim == 1 else 'axes'}, got {value!r}")
    array.setflags(write=False)
    return array


def finite_range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
