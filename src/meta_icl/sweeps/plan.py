"""Plans of sweeps: from a TOML file to points in order, and to groups of points that one compiled training serves.

    [sweep.grid]                                   every combination
    task.noise = [0, 0.1]
    [sweep.zip]                                    columns of one length, read side by side
    model.n_layers = [1, 2]
    model.n_heads = [1, 4]
    [sweep.random]                                 drawn together, `draws` times; whole bounds draw whole numbers
    draws = 8
    seed = 0
    optimiser.learning_rate = { log = [1e-4, 1e-1] }
    task.x_law.half_range = { uniform = [0.5, 2.0] }

The points are all combinations of the three. A name without a field, `model = [{ name = "garg", ... }, ...]`, stands
for the whole table. What a name means is not known here.
"""

import itertools
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.errors import BadInput, choose, require
from meta_icl.runs.files import canonical
from meta_icl.words import in_words

Point = dict[str, Any]  # {dotted name: value}
MOST_POINTS = 10_000
DIGITS = 4  # of a number that is drawn, so that what a table tells is the number itself
LONGEST_NAME = 100  # of a point, as part of the name of a folder


@dataclass(frozen=True)
class Plan:
    """What a file asks for: what all points have in common, and the points in order."""

    settings: dict[str, Any]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Group:
    """Points that differ in nothing but `numbers`, which one compiled training takes; places count from 0."""

    fixed: Point
    numbers: tuple[dict[str, float], ...]
    places: tuple[int, ...]


def read_plan(path: Path) -> Plan:
    """The plan in a TOML file; `BadInput` that names what is wrong in it."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the sweep {path}: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path} is no TOML: {error}") from None
    sweep = content.pop("sweep", {})
    require(isinstance(sweep, dict), "[sweep]", sweep, "a table")
    return Plan(content, points_of(sweep))


def points_of(sweep: Mapping[str, Any]) -> tuple[Point, ...]:
    """The points of a [sweep] table, the last name changing fastest; one empty point of an empty table.

    Raises `BadInput` for empty, repeated or unequally long columns, bad ranges, names given twice, points told alike.
    """
    for part in sweep:
        choose("part of [sweep]", part, ("grid", "zip", "random"))
    grid = _columns("grid", sweep.get("grid", {}))
    for name, values in grid.items():
        told = [canonical(value) for value in values]
        require(len(set(told)) == len(told), f"sweep.grid {name}", values, "different values")
    axes: list[list[Point]] = [[{name: value} for value in values] for name, values in grid.items()]
    zips = sweep.get("zip", [])
    for table in zips if isinstance(zips, list) else [zips]:
        axes.append(_zipped(_columns("zip", table)))
    if "random" in sweep:
        axes.append(_drawn(sweep["random"]))
    names = [name for axis in axes for name in axis[0]]
    for name in names:
        clash = [other for other in names if other == name or other.startswith(f"{name}.")]
        if len(clash) > 1:
            raise BadInput(f"sweep: {name} is given twice{'' if clash[-1] == name else f', also as {clash[-1]}'}")
    n_points = math.prod(map(len, axes))
    require(n_points <= MOST_POINTS, "points of the sweep", n_points, "10,000 at most")
    points = [dict(pair for one in ones for pair in one.items()) for ones in itertools.product(*axes)]
    alike = [label(point) for point in points]
    if len(set(alike)) < len(alike):
        same = next(told for told in alike if alike.count(told) > 1)
        raise BadInput(f"sweep: several points are told as {same!r}; values must differ")
    return tuple(points)


def grouped(points: Sequence[Point], numbers_of: Callable[[Point], set[str]]) -> list[Group]:
    """The groups of points, in the order of their first ones.

    `numbers_of(point)` are the names whose values a compiled training takes at that point; the rest is compiled in.
    """
    groups: dict[str, list[tuple[int, Point, dict[str, float]]]] = {}
    for place, point in enumerate(points):
        names = numbers_of(point)
        fixed = {name: value for name, value in point.items() if name not in names}
        numbers = {name: float(value) for name, value in point.items() if name in names}
        groups.setdefault(canonical([fixed, sorted(numbers)]), []).append((place, fixed, numbers))
    return [
        Group(ones[0][1], tuple(numbers for _, _, numbers in ones), tuple(place for place, _, _ in ones))
        for ones in groups.values()
    ]


def as_text(value: Any) -> str:
    """A value of TOML as the command line writes it: true, 0.1, a,b and uniform:half_range=1.0 of a table."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        fields = ",".join(f"{field}={as_text(inner)}" for field, inner in value.items() if field != "name")
        return f"{value.get('name', '')}{':' if fields else ''}{fields}"
    if isinstance(value, list):
        if any(isinstance(item, str | Mapping) for item in value):
            return ",".join(map(as_text, value))
        return f"[{','.join(map(as_text, value))}]"
    return repr(value) if isinstance(value, float) else str(value)


def label(point: Point) -> str:
    """A point in words."""
    told = {name: in_words(value) if _is_number(value) else as_text(value) for name, value in point.items()}
    return ", ".join(f"{name} = {value}" for name, value in told.items())


def names_of(points: Sequence[Point]) -> list[str]:
    """Names for folders: the place of each point, which keeps them apart and in order, and what it is."""
    width = len(str(max(len(points) - 1, 0)))
    told = [label(point).replace(", ", ",").replace(" = ", "=") for point in points]
    words = [re.sub(r"[^A-Za-z0-9_.=+,-]+", "_", text) for text in told]
    return [f"{place:0{width}},{word}"[:LONGEST_NAME].rstrip(",") for place, word in enumerate(words)]


def _columns(part: str, table: Any) -> dict[str, list[Any]]:
    columns = _flat(f"sweep.{part}", table, lambda value: not isinstance(value, Mapping))
    for name, values in columns.items():
        require(isinstance(values, list) and len(values) > 0, f"sweep.{part} {name}", values, "a list of values")
        for value in values:
            if isinstance(value, float):
                require(math.isfinite(value), f"sweep.{part} {name}", value, "finite")
    return columns


def _zipped(columns: Mapping[str, list[Any]]) -> list[Point]:
    lengths = {name: len(values) for name, values in columns.items()}
    require(len(columns) > 0, "sweep.zip", {}, "a table of lists")
    require(len(set(lengths.values())) == 1, "sweep.zip", lengths, "lists of one length")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _drawn(table: Any) -> list[Point]:
    """The points of [sweep.random]; whole numbers that are drawn again are left out."""
    require(isinstance(table, dict), "[sweep.random]", table, "a table")
    draws, seed = table.get("draws"), table.get("seed", 0)
    require(_is_whole(draws) and 1 <= draws <= MOST_POINTS, "sweep.random draws", draws, "an integer from 1 to 10,000")
    require(_is_whole(seed) and seed >= 0, "sweep.random seed", seed, "an integer, zero or more")
    rest = {name: value for name, value in table.items() if name not in ("draws", "seed")}
    ranges = _flat(
        "sweep.random", rest, lambda value: not isinstance(value, Mapping) or {"log", "uniform"} & set(value)
    )
    require(len(ranges) > 0, "sweep.random", table, "a table with ranges, as { log = [1e-4, 1e-1] }")
    random = np.random.default_rng(seed)
    draw = {name: _range(name, stated) for name, stated in ranges.items()}
    points = [{name: one(random) for name, one in draw.items()} for _ in range(draws)]
    return list({canonical(point): point for point in points}.values())


def _range(name: str, stated: Any) -> Callable[[np.random.Generator], float]:
    """What draws from { uniform = [low, high] } or { log = [low, high] }, bounds included."""
    one = isinstance(stated, Mapping) and len(stated) == 1
    bounds: Any = next(iter(stated.values())) if one else None
    pair = isinstance(bounds, list) and len(bounds) == 2 and all(map(_is_number, bounds))
    known = pair and bounds[0] < bounds[1] and {*stated} <= {"uniform", "log"}
    require(known, f"sweep.random {name}", stated, "{ uniform = [low, high] } or { log = [low, high] }")
    (low, high), logarithmic = bounds, "log" in stated
    require(math.isfinite(low) and math.isfinite(high), f"sweep.random {name}", stated, "of finite bounds")
    require(not logarithmic or low > 0, f"sweep.random {name}", stated, "of positive bounds on a log scale")
    whole = _is_whole(low) and _is_whole(high)
    margin = 0.5 if whole else 0.0  # so that the bounds are as likely as the numbers between them
    ends = low - margin, high + margin

    def draw(random: np.random.Generator) -> float:
        value = math.exp(random.uniform(math.log(ends[0]), math.log(ends[1]))) if logarithmic else random.uniform(*ends)
        return min(max(round(value) if whole else float(f"{value:.{DIGITS}g}"), low), high)

    return draw


def _flat(where: str, table: Any, is_leaf: Callable[[Any], Any], prefix: str = "") -> dict[str, Any]:
    """{dotted name: leaf} of nested tables, which TOML makes of dotted keys."""
    require(isinstance(table, Mapping), f"[{where}]", table, "a table")
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        inner = {name: value} if is_leaf(value) else _flat(where, value, is_leaf, f"{name}.")
        if twice := sorted(flat.keys() & inner.keys()):
            raise BadInput(f"{where}: {twice[0]} is given twice")
        flat |= inner
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
