"""An empty folder for commands, and a paper that takes no time."""

import os
import sys

import pytest

from meta_icl.apps.cli import listing

TINY = '''"""A tiny paper (Nobody, 2020).

It claims little.
"""

from dataclasses import dataclass

import numpy as np

from meta_icl.plotting import Lines, Series
from meta_icl.runs import Check, Claim, Converged, at_least, at_most

TIMES = {"small": "1 s", "other": "2 s"}


@dataclass(frozen=True)
class Config:
    seeds: int = 3
    steps: int = 10
    sizes: tuple[int, ...] = (1, 2)


PRESETS = {"small": Config(), "other": Config(steps=20)}
IDS = ("T-1", "T-2", "T-3", "T-4")
CALLS = []


def run(config, run):
    CALLS.append(config)
    run.log({"step": config.steps, "loss": 0.5})
    run.save_arrays("loss", {"loss": np.arange(config.seeds) / 10})


def figures(run):
    return {"loss": Lines("Loss", "seed", "loss", (Series("loss", [0, 1], [1.0, 2.0]),))}


def claims(run):
    loss = run.load_arrays("loss")["loss"]
    return [
        Claim("tiny2020/T-1", "The loss is small", "Fig. 1", (Check("loss", at_most(0.5), loss),)),
        Claim("tiny2020/T-2", "The loss is large", "Fig. 2", (Check("loss", at_least(0.5), loss),)),
        Claim("tiny2020/T-3", "Nobody knows", "Fig. 3", undecided="too small"),
        Claim("tiny2020/T-4", "It would hold", "Fig. 4", (Check("loss", at_most(0.5), loss),),
              converged=Converged("loss / best", at_most(1), 9 + loss), revised="Fig. 4 of the second edition"),
    ]
'''


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Every command runs in an empty folder, with its own runs and no terminal of unknown width."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("META_ICL_RUNS", raising=False)
    monkeypatch.delenv("META_ICL_WORKERS", raising=False)
    for name in ("DIR", "MIN_COMPILE_TIME_SECS", "MIN_ENTRY_SIZE_BYTES"):  # commands set them; put them back afterwards
        variable = f"JAX_COMPILATION_CACHE_{name}" if name == "DIR" else f"JAX_PERSISTENT_CACHE_{name}"
        monkeypatch.setenv(variable, os.environ.get(variable, "" if name == "DIR" else "0"))
    return tmp_path


@pytest.fixture
def tiny_paper(monkeypatch, tmp_path_factory):
    """A paper in a folder of its own, found like those of the package."""
    import meta_icl.papers

    folder = tmp_path_factory.mktemp("papers")
    (folder / "tiny2020_little.py").write_text(TINY)
    (folder / "_shared.py").write_text("raise ImportError\n")
    real = listing.papers()
    monkeypatch.setattr(listing, "papers", lambda: [*real, listing._read("tiny2020_little", TINY)])
    monkeypatch.setattr(meta_icl.papers, "__path__", [*meta_icl.papers.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "meta_icl.papers.tiny2020_little", raising=False)
    return folder
