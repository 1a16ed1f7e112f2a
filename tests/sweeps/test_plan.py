"""Plans of sweeps: pure, so that hypothesis can ask for many."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.errors import BadInput
from meta_icl.runs.config import checked_name
from meta_icl.sweeps.plan import as_text, grouped, label, names_of, points_of, read_plan

NAMES = st.sampled_from(["task.noise", "task.d", "model.n_layers", "optimiser.learning_rate", "steps", "model.name"])
VALUES = st.lists(st.integers(-99, 99) | st.sampled_from(["a", "b:x=1", "c d"]), min_size=1, max_size=4, unique=True)
GRIDS = st.dictionaries(NAMES, VALUES, max_size=4)


def nested(columns: dict) -> dict:
    """Dotted names as TOML reads them."""
    tables: dict = {}
    for name, values in columns.items():
        owner, _, field = name.partition(".")
        if field:
            tables.setdefault(owner, {})[field] = values
        else:
            tables[owner] = values
    return tables


@given(GRIDS)
def test_a_grid_is_every_combination_once(grid):
    points = points_of({"grid": nested(grid)})
    assert len(points) == math.prod(map(len, grid.values()))
    wanted = {frozenset(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())}
    assert {frozenset(point.items()) for point in points} == wanted
    names = names_of(points)
    assert len(set(names)) == len(points) and names == sorted(names)
    assert all(checked_name(f"{name},seed=123") for name in names)


@given(st.integers(1, 5), st.lists(NAMES, min_size=1, max_size=4, unique=True), VALUES)
def test_a_zip_is_read_by_rows_and_crossed_with_the_grid(length, names, grid):
    columns = {name: [100 * i + j for j in range(length)] for i, name in enumerate(names)}
    points = points_of({"zip": nested(columns), "grid": {"batch": grid}})
    rows = [{name: columns[name][j] for name in names} for j in range(length)]
    assert [*points] == [{"batch": value, **row} for value in grid for row in rows]


@given(GRIDS)
def test_groups_share_all_but_numbers_and_lose_no_point(grid):
    numbers = {name for name in grid if name in ("task.noise", "optimiser.learning_rate")}
    for name in numbers:
        grid[name] = [value for value in grid[name] if isinstance(value, int)] or [1]
    points = points_of({"grid": nested(grid)})
    groups = grouped(points, lambda _: numbers)
    assert sorted(place for group in groups for place in group.places) == list(range(len(points)))
    assert len(groups) == math.prod(len(values) for name, values in grid.items() if name not in numbers)
    for group in groups:
        for place, values in zip(group.places, group.numbers, strict=True):
            assert {**group.fixed, **values} == points[place] and set(values) == numbers


def test_random_ranges():
    table = {
        "draws": 400,
        "seed": 3,
        "optimiser": {"learning_rate": {"log": [1e-4, 1e-1]}},
        "task": {"noise": {"uniform": [0.5, 2.0]}, "d": {"uniform": [1, 4]}, "n_context": {"log": [1, 64]}},
    }
    points = points_of({"random": table})
    assert points == points_of({"random": table}) != points_of({"random": table | {"seed": 4}})
    column = {name: np.array([point[name] for point in points]) for name in points[0]}
    logs = np.log10(column["optimiser.learning_rate"])
    # Means of 400 draws; the bounds are five standard errors: range / sqrt(12) / 20 each.
    assert abs(logs.mean() + 2.5) < 0.22 and logs.min() >= -4 and logs.max() <= -1
    assert abs(column["task.noise"].mean() - 1.25) < 0.11
    values, counts = np.unique(column["task.d"], return_counts=True)
    assert [*values] == [1, 2, 3, 4] and column["task.d"].dtype == int and counts.min() > 55
    assert set(column["task.n_context"]) <= set(range(1, 65)) and np.median(column["task.n_context"]) < 16
    # Whole numbers that are drawn again are no further points.
    assert len(points_of({"random": {"draws": 50, "task": {"d": {"uniform": [1, 3]}}}})) == 3


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"gird": {}}, "did you mean 'grid'"),
        ({"grid": {"task": {"d": []}}}, r"sweep.grid task.d must be a list of values, got \[\]"),
        ({"grid": {"task": {"d": 3}}}, "sweep.grid task.d must be a list"),
        ({"grid": {"task": {"d": [1, 1]}}}, "different values"),
        ({"grid": {"task": {"noise": [0.1, 0.1]}}}, "different values"),
        ({"grid": {"task": {"noise": [math.nan]}}}, "finite, got nan"),
        ({"grid": [1]}, r"\[sweep.grid\] must be a table"),
        ({"grid": {"d": [*range(101)], "e": [*range(100)]}}, "10,000 at most, got 10100"),
        ({"zip": {"a": [1, 2], "b": [1]}}, "lists of one length, got {'a': 2, 'b': 1}"),
        ({"grid": {"a": [1]}, "zip": {"a": [1]}}, "a is given twice"),
        ({"grid": {"model": ["garg"]}, "zip": {"model": {"d": [1]}}}, "model is given twice, also as model.d"),
        ({"random": {"draws": 0, "a": {"log": [1, 2]}}}, "draws must be an integer from 1"),
        ({"random": {"a": {"log": [1, 2]}}}, "draws must be .* got None"),
        ({"random": {"draws": 2, "seed": -1, "a": {"log": [1, 2]}}}, "seed must be"),
        ({"random": {"draws": 2}}, "a table with ranges"),
        ({"random": {"draws": 2, "a": {"log": [0.0, 1.0]}}}, "positive bounds"),
        ({"random": {"draws": 2, "a": {"uniform": [2, 1]}}}, "uniform = "),
        ({"random": {"draws": 2, "a": {"uniform": [0.0, math.inf]}}}, "finite bounds"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(sweep, message):
    with pytest.raises(BadInput, match=message) as raised:
        points_of(sweep)
    assert "\n" not in str(raised.value)


def test_a_file(tmp_path):
    file = tmp_path / "rates.toml"
    grid = 'task.noise = [0, 0.1]\nmodel = [{ name = "m", d = 2 }]\n'
    file.write_text(f'steps = 5\n[task]\nname = "a"\n[sweep.grid]\n{grid}')
    plan = read_plan(file)
    assert plan.settings == {"steps": 5, "task": {"name": "a"}}
    assert [label(point) for point in plan.points] == [
        "task.noise = 0, model = m:d=2",
        "task.noise = 0.1, model = m:d=2",
    ]
    assert names_of(plan.points) == ["0,task.noise=0,model=m_d=2", "1,task.noise=0.1,model=m_d=2"]
    file.write_text("a = ")
    with pytest.raises(BadInput, match=r"rates.toml is no TOML"):
        read_plan(file)
    with pytest.raises(BadInput, match=r"cannot read .*No such file"):
        read_plan(tmp_path / "none.toml")


def test_values_as_the_command_line_writes_them():
    assert as_text({"name": "uniform", "half_range": 1.0}) == "uniform:half_range=1.0"
    assert [as_text(value) for value in (True, 3, 1e-05, [1, 2], ["a", {"name": "b"}])] == [
        "true",
        "3",
        "1e-05",
        "[1,2]",
        "a,b",
    ]
