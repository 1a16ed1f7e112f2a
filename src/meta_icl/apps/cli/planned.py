"""What the points of a sweep's plan are: trainings as `meta-icl train` makes them, or reproductions of papers."""

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meta_icl.apps.cli import listing, own, reproduce, spec, train, training_config
from meta_icl.apps.cli.catalogue import model_of, optimiser_of, task_of
from meta_icl.errors import BadInput, choose, require
from meta_icl.runs import Run
from meta_icl.runs.claims import VERDICTS
from meta_icl.runs.files import canonical
from meta_icl.sweeps.plan import Group, Plan, Point, as_text, grouped, label, names_of

TABLES = ("task", "model", "optimiser")
TRAINING = {"steps": int, "batch": int, "seeds": int, "record": int, "stop_when_diverged": bool, "objective": str}
COPIES = 6  # of the parameters that a training holds: with gradients, moments of Adam, results, a checkpoint
# Parameters x prompts of a part: some seconds, so that its start, of half a second, is a small share. Smaller points
# are trained several to a part, by a rule that knows nothing of the machine: every machine finds the same parts.
PART_SIZE = 2e8
PARTS_WORTH = 4  # parts of that size a process must have for its start, of some three seconds, to be a small share
PROCESS_BYTES = 6e8  # of a worker that has imported jax, with its compiled program and batches


@dataclass(frozen=True)
class Work:
    """A sweep that has been checked: its configuration, the function of its parts, and their arguments."""

    config: dict[str, Any]
    function: Callable[..., Any]
    groups: tuple[Group, ...]
    parts: Callable[[bool], dict[str, dict[str, Any]]]  # `together`: a part per group, as on an accelerator
    steps: int | None = None  # of every part, where they are the same
    bytes_per_process: float = PROCESS_BYTES
    processes: int | None = None  # more than these would start for too little work; None where nothing is known of it


def work_of(plan: Plan) -> Work:
    """The work of a plan, with every point made once; raises `BadInput` for whatever does not fit."""
    settings = {name: value for name, value in plan.settings.items() if name not in ("name", "cluster")}
    return reproductions(settings, plan.points) if "paper" in settings else trainings(settings, plan.points)


def trainings(settings: Mapping[str, Any], points: Sequence[Point]) -> Work:
    """The work of training at every point: groups share all but numbers that are array leaves."""
    known: dict[str, set[str]] = {}

    def numbers_of(point: Point) -> set[str]:
        maybe = {name for name, value in point.items() if _may_be_number(name, value)}
        alike = canonical([{name: value for name, value in point.items() if name not in maybe}, sorted(maybe)])
        if alike not in known:
            known[alike] = _told(point, lambda: _leaves(settings, point, maybe))
        return known[alike]

    groups, names = grouped(points, numbers_of), names_of(points)
    made = [_told(points[group.places[0]], lambda group=group: _training(settings, points, group)) for group in groups]
    described = [
        {"training": training, "sizes": {name: as_text(value) for name, value in group.fixed.items()}}
        for training, group in zip(made, groups, strict=True)
    ]
    seeds, sizes = list(range(settings.get("seeds", 1))), [parameters_of(training) for training in made]
    prompts = [training["steps"] * training["batch"] * len(seeds) for training in made]
    points_each = [
        alike(len(group.places), max(1, int(PART_SIZE / max(1, n * drawn))))
        for group, n, drawn in zip(groups, sizes, prompts, strict=True)
    ]

    def parts(together: bool) -> dict[str, dict[str, Any]]:
        found: list[tuple[int, str, dict[str, Any]]] = []
        for one, group, most in zip(described, groups, points_each, strict=True):
            each = len(group.places) if together else most
            for start in range(0, len(group.places), each):
                first, numbers = group.places[start], list(group.numbers[start : start + each])
                if each > 1:
                    name = f"{names[first]},points={len(numbers)}"
                    found.append((first, name, {**one, "seeds": seeds, "sweep": numbers}))
                    continue
                swept = {name: [value] for name, value in numbers[0].items()}
                for seed in seeds:
                    found.append((first, f"{names[first]},seed={seed}", {**one, "seeds": [seed], "sweep": swept}))
        return {name: arguments for _, name, arguments in sorted(found, key=lambda one: one[0])}

    swept = [{**one, "points": list(group.numbers)} for one, group in zip(described, groups, strict=True)]
    config = {"command": "sweep", "seeds": len(seeds), "groups": swept}
    steps = {training["steps"] for training in made}
    return Work(
        config,
        train.train_part,
        tuple(groups),
        parts,
        steps.pop() if len(steps) == 1 else None,
        PROCESS_BYTES + COPIES * 4 * max(n * each for n, each in zip(sizes, points_each, strict=True)) * len(seeds),
        worthwhile(sum(n * drawn * len(g.places) for n, drawn, g in zip(sizes, prompts, groups, strict=True))),
    )


def worthwhile(size: float) -> int:
    """How many processes a sweep of this size, parameters x prompts, is worth: one at least."""
    return max(1, int(size / max(1, PARTS_WORTH * PART_SIZE)))


def alike(n: int, most: int) -> int:
    """How many of n points go to a part, if parts have `most` at most and are about equally large."""
    return -(-n // -(-n // most))


def parameters_of(training: Mapping[str, Any]) -> int:
    """The number of parameters of a training's model."""
    import equinox as eqx
    import jax

    model = eqx.filter_eval_shape(lambda key: model_of(training)(key=key), jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model) if hasattr(leaf, "shape"))


def reproductions(settings: Mapping[str, Any], points: Sequence[Point]) -> Work:
    """The work of reproducing a paper at every point: `paper.preset`, `paper.name`, and fields of the preset."""
    for name in settings:
        choose("setting of a sweep of papers", name, ("paper", "seeds"))
    names, parts, described = names_of(points), {}, []
    for place, point in enumerate(points):
        for name in point:
            require(name.startswith("paper."), "swept name", name, "paper.name, paper.preset or a field of the preset")
        arguments = _told(point, lambda point=point: _reproduction(settings, point))
        described.append(arguments)
        parts[names[place]] = arguments | {"point": label(point)}
    groups = tuple(Group(point, ({},), (place,)) for place, point in enumerate(points))
    return Work({"command": "sweep", "papers": described}, reproduce_part, groups, lambda together: parts)


def reproduce_part(
    part: Run, *, paper: str, preset: str, changes: list, own_code: dict | None, point: str
) -> dict[str, np.ndarray]:
    """Reproduce a paper inside a part of a sweep, in this process; the claims stay in the part."""
    del point  # a label
    module = own.again(own_code) if own_code else listing.load_paper(paper)[1]
    before = os.environ.get("META_ICL_WORKERS")
    os.environ["META_ICL_WORKERS"] = "0"  # the sweep has a process per core already
    try:
        module.run(spec.replaced(module.PRESETS[preset], changes), part)
    finally:
        if before is None:
            del os.environ["META_ICL_WORKERS"]
        else:
            os.environ["META_ICL_WORKERS"] = before
    claims = list(module.claims(part))
    part.save_claims(claims)
    return {verdict: np.array(sum(claim.verdict == verdict for claim in claims)) for verdict in VERDICTS}


def _reproduction(settings: Mapping[str, Any], point: Point) -> dict[str, Any]:
    asked = dict(table("paper", settings["paper"])) | {name.partition(".")[2]: v for name, v in point.items()}
    name, preset = (str(asked.pop(key, default)) for key, default in (("name", ""), ("preset", "small")))
    require(bool(name), "[paper] name", name, "the name of a paper")
    seeds = [f"seeds={as_text(settings['seeds'])}"] if "seeds" in settings else []
    changes = [*seeds, *(f"{field}={as_text(value)}" for field, value in asked.items())]
    found, paper, record = listing.load_paper(name)
    reproduce.configured(paper, reproduce.Options(paper=name, preset=preset, set=tuple(changes)))
    return {"paper": found, "preset": preset, "changes": changes, "own_code": record}


def _training(settings: Mapping[str, Any], points: Sequence[Point], group: Group) -> dict[str, Any]:
    """What `train_part` needs of a group, all of whose numbers have been tried."""
    config = training_config.describe(_options(settings, points[group.places[0]]))
    config = config | {"sweep": list(group.numbers)}
    training_config.check_one(config)
    return {name: value for name, value in config.items() if name not in ("command", "seeds", "sweep", "sizes")}


def _options(settings: Mapping[str, Any], point: Point) -> training_config.Options:
    """The options of `meta-icl train` at a point; numbers inside objects that are not in the file are left out."""
    asked: dict[str, Any] = copy.deepcopy(dict(settings))
    for name in sorted(point, key=lambda name: name.count(".")):  # whole tables first, then their fields
        owner, *path = name.split(".")
        choose("swept name", owner, (*TABLES, *TRAINING, "layout"))
        require(not path or owner in TABLES, "swept name", name, f"{owner} alone")
        require(name != "seeds", "swept name", name, "of something else: every point has all seeds")
        if not path:
            asked[owner] = point[name]
            continue
        asked[owner] = inner = table(owner, asked.get(owner, {}))
        for field in path[:-1]:
            if not isinstance(inner.get(field), dict | str):
                break
            inner[field] = deeper = table(name, inner[field])
            inner = deeper
        else:
            inner[path[-1]] = point[name]
    for name, value in asked.items():
        choose("setting of a sweep", name, (*TABLES, *TRAINING, "layout"))
        kind = TRAINING.get(name)
        fits = kind is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))
        require(fits, name, value, {int: "an integer", bool: "true or false", str: "a text"}.get(kind or str, ""))
    tables = {owner: table(owner, asked.pop(owner, {})) for owner in TABLES}
    names = [str(tables[owner].pop("name", "")) for owner in ("task", "model")]
    rate = tables["optimiser"].pop("learning_rate", 1e-3)
    require(isinstance(rate, int | float) and not isinstance(rate, bool), "learning_rate", rate, "a number")
    texts = {o: tuple(f"{field}={as_text(value)}" for field, value in fields.items()) for o, fields in tables.items()}
    layout = asked.pop("layout", None)
    given: dict[str, Any] = {"layout": None if layout is None else as_text(layout), "learning_rate": rate}
    given |= {**texts, **asked}
    return dataclasses.replace(training_config.Options(task_name=names[0], model_name=names[1]), **given)


def _may_be_number(name: str, value: Any) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and name.partition(".")[0] in ("task", "optimiser") and "." in name


def _leaves(settings: Mapping[str, Any], point: Point, maybe: set[str]) -> set[str]:
    """Of names of numbers those that are array leaves of the task or the optimiser, and so need no compilation."""
    import equinox as eqx

    if not maybe:
        return set()
    options = _options(settings, point)
    task = training_config.described_task(options.task_name, options.task)
    optimiser = training_config.described_optimiser([f"learning_rate={options.learning_rate}", *options.optimiser])
    config = {"task": task, "optimiser": optimiser}
    objects = {"task": training_config.drawn(task_of(config)), "optimiser": optimiser_of(config)}
    found = set()
    for name in maybe:
        owner, *path = name.split(".")
        leaf = objects[owner]
        for field in path:
            leaf = getattr(leaf, field, None)
        if eqx.is_array(leaf):
            found.add(name)
        elif len(path) > 1:
            raise BadInput(f"{name} is no number of {owner} {config[owner]['name']} that a sweep can change")
    return found


def table(name: str, value: Any) -> dict[str, Any]:
    """A table as it stands, or that of a text such as von_oswald:d_model=6."""
    if isinstance(value, str):
        called, _, fields = value.partition(":")
        return {"name": called, **spec.assignments(spec.split_fields(fields))}
    require(isinstance(value, dict), f"[{name}]", value, "a table, or a text as name:field=value")
    return dict(value)


def _told(point: Point, make: Callable[[], Any]) -> Any:
    """What `make` makes; its complaints name the point."""
    try:
        return make()
    except BadInput as error:
        raise BadInput(f"{error} (at {label(point)})" if point else str(error)) from None
