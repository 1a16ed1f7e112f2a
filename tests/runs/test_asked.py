"""A run that was asked for some claims: what is told of it, and what it says of parts that were left out."""

import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.runs import Claim, LeftOut, Run, asked, drawn, those_there

SOME = {"claims": ["R-2"], "experiments": ["long-*"]}


def opened(folder, config):
    run = Run.open(folder, config)
    with run.part("long-1", {}) as part:
        part.save_arrays("result", {"loss": np.ones(2)})
        part.finish()
    return run


def claim(id):
    return Claim(f"example2026/{id}", "statement", "Fig. 1", undecided="planted")


MAKERS = {"R-1": lambda run: claim("R-1"), "R-2 R-3": lambda run: [claim("R-2"), claim("R-3")]}
FIGURES = {
    "long": lambda run: run.part_arrays("long-1")["loss"].sum(),
    "both": lambda run: run.part_arrays("long-1")["loss"] + run.part_arrays("short-1")["loss"],
    "other": lambda run: 3.0,
    "free": lambda run: 4.0,
}
DECIDES = {"long": "R-2", "both": "R-2 R-3", "other": "R-1"}


def test_only_what_is_asked_for_is_made(tmp_path):
    with opened(tmp_path / "some", SOME) as run:
        assert [each.id for each in asked(run, MAKERS)] == ["example2026/R-2", "example2026/R-3"]
        assert drawn(run, FIGURES, DECIDES) == {"long": 2.0}
        assert set(those_there(run, FIGURES)) == {"long", "other", "free"}
        with pytest.raises(LeftOut, match="short-1 was left out"):
            run.part_arrays("short-1")


def test_a_run_of_everything_hides_nothing(tmp_path):
    with opened(tmp_path / "all", {}) as run:
        assert [each.id for each in asked(run, MAKERS)] == [f"example2026/R-{i}" for i in (1, 2, 3)]
        assert set(drawn(run, {name: FIGURES[name] for name in ("long", "free")}, DECIDES)) == {"long", "free"}
        for make in (lambda: drawn(run, FIGURES, DECIDES), lambda: those_there(run, FIGURES)):
            with pytest.raises(BadInput, match="short-1"):
                make()
