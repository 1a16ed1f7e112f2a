"""What can be played with: trained runs, language models, and two small networks that are trained when asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from meta_icl.apps.cli import compare
from meta_icl.apps.cli.checkpoints import is_language_model, name_of
from meta_icl.apps.cli.train import checked
from meta_icl.apps.cli.which import find_run
from meta_icl.apps.dashboard.folder import RunsFolder
from meta_icl.errors import BadInput
from meta_icl.runs import Run


@dataclass(frozen=True)
class Trained:
    """A frozen predictor and the task of its prompts."""

    predictor: Any
    task: Any


@dataclass(frozen=True)
class Language:
    """A language model by the name or path of its checkpoint."""

    checkpoint: str


Opened = Trained | Language


def offered(folder: RunsFolder, named: tuple[str, ...] = ()) -> dict[str, Callable[[], Opened]]:
    """{what a person chooses: what opens it}: what the command line named, runs, built-in networks, language models.

    Of the runs in the folder those are offered that `meta-icl train` finished and that hold no code of the user's own:
    to open one of these runs a file from outside the folder, so it has to be named on the command line.
    """
    found: dict[str, Callable[[], Opened]] = {}
    for name in named:
        if is_language_model(name):
            found[f"language model {name_of(name)}"] = lambda name=name: Language(name)
        else:
            run = find_run(name, folder.root)
            checked(run.config, run)
            found |= _members(run)
    for info in folder.infos():
        if info.state == "done":
            try:
                run = folder.run(info.name)
                if run.config.get("command") == "train" and not own_code(run.config):
                    found |= {label: open_it for label, open_it in _members(run).items() if label not in found}
            except (BadInput, KeyError, TypeError):  # damaged, or of another version: `meta-icl runs` tells
                continue
    found |= {name: lambda name=name: built_in(name) for name in BUILT_IN}
    for name in _fetched():
        found.setdefault(f"language model {name}", lambda name=name: Language(name))
    return found


def own_code(config: Any) -> bool:
    """Whether a configuration names code of the user's own."""
    if isinstance(config, Mapping):
        return "own" in config or any(map(own_code, config.values()))
    return isinstance(config, list) and any(map(own_code, config))


def _members(run: Run) -> dict[str, Callable[[], Opened]]:
    """Every point and seed of a run; its networks are read when one of them is opened."""
    seeds = range(run.config["seeds"])
    points = _points(run.config)
    found: dict[str, Callable[[], Opened]] = {}
    for point in points:
        for seed in seeds:
            label = ", ".join(part for part in (f"run {run.name}", point, f"seed {seed}" * (len(seeds) > 1)) if part)
            found[label] = lambda point=point, seed=seed: _member(run, point, seed)
    return found


def _points(config: Mapping[str, Any]) -> list[str]:
    from meta_icl.apps.cli.train import point_label, sizes_of
    from meta_icl.training.replicas import points_of

    points = points_of(config["sweep"]) if config["sweep"] else [{}]
    return [point_label(sizes | point) for sizes, _ in sizes_of(config) for point in points]


def _member(run: Run, point: str, seed: int) -> Trained:
    members = compare.members_of(run)
    if point not in members:
        raise BadInput(f"run {run.folder} holds no networks at {point or 'its only point'}")
    task, ensemble = members[point]
    return Trained(ensemble[seed], task)


def _fetched() -> list[str]:
    from meta_icl.lm.packages import PACKAGES, place

    return [name for name in PACKAGES if place(name).is_file()]


def _softmax() -> tuple[Any, int, float]:
    from meta_icl.models import Learner, von_oswald

    sizes: dict[str, Any] = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_head": 8, "d_in": 2, "d_out": 2}
    return Learner(von_oswald(**sizes, attention="softmax", init_scale=1.0)), 500, 5e-3


def _linear() -> tuple[Any, int, float]:
    from meta_icl.models import LinearAttention

    return LinearAttention(d_model=2), 300, 5e-2


BUILT_IN = {
    "built in: two layers of two softmax heads": _softmax,
    "built in: one layer of linear attention": _linear,
}


@cache
def built_in(name: str) -> Trained:
    """A small network on noisy lines through the origin, trained now: a few seconds on one core."""
    from meta_icl.tasks import LinearRegression, Uniform
    from meta_icl.training import Optimiser, train

    model, steps, rate = BUILT_IN[name]()
    task = LinearRegression(d=1, n_context=12, x_law=Uniform(half_range=1.0), noise=0.1)
    trained = train(task, model, steps=steps, batch=128, key=0, optimiser=Optimiser(learning_rate=rate))
    return Trained(trained[0], task)
