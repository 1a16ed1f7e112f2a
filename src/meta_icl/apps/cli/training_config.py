"""What a training is asked for: the options of `meta-icl train`, and the configuration that they describe."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from meta_icl.apps.cli import catalogue, spec
from meta_icl.apps.cli.catalogue import model_of, objective_of, optimiser_of, task_of
from meta_icl.errors import BadInput, choose, fitting, require
from meta_icl.runs import default_root
from meta_icl.words import in_words


@dataclass(frozen=True)
class Options:
    """Train a model on a task from several seeds, for every value of a sweep; the trained networks stay in the run.

    TASK is a class of `meta_icl.tasks`, MODEL a network of `meta_icl.models`; or your own as ./file.py:Name or
    package.module:Name; their fields are given as field=value. Arrays may be files (pool=FILE.npy), images a file .npz
    with images and labels, a folder with a folder of .png per class, or digits. The same command again, or --resume,
    continues an interrupted run.
    """

    task_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")] = ""
    """The task, such as linear_regression."""
    model_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")] = ""
    """The model, such as von_oswald."""
    task: tuple[str, ...] = ()
    """Fields of the task, as field=value; x_law=uniform:half_range=1.0 for a field that is an object."""
    model: tuple[str, ...] = ()
    """Fields of the model, as field=value."""
    layout: str | None = None
    """How prompts become tokens, such as separate:d_position=10 (default: concatenated; for labels, those alone)."""
    objective: str | None = None
    """What is minimised. Of real targets half_mse (default), every_position_mse, every_position_logistic (labels +-1),
    context_averaged_mse (exact averages over weights and query); of labels cross_entropy (default),
    every_position_cross_entropy; of tokens next_token_cross_entropy, or labelled_cross_entropy where the task asks for
    labels."""
    steps: int = 5000
    """Training steps."""
    batch: int = 512
    """Prompts per step."""
    learning_rate: float = 1e-3
    """Learning rate of the optimiser."""
    optimiser: tuple[str, ...] = ()
    """Other fields of the optimiser, as field=value: name=adamw, b2=0.98, clip_norm=1.0, ..."""
    seeds: int = 1
    """Number of seeds."""
    sweep: tuple[str, ...] = ()
    """What to vary, as task.noise=0,0.1 or optimiser.learning_rate=1e-3,1e-2 (numbers, trained by one program) or
    model.n_layers=1,2 (sizes and options, each trained by a program of its own)."""
    name: str | None = None
    """A name for the run (default: train-TASK-MODEL); a few letters that tell its settings follow."""
    record: int | None = None
    """Steps between records (default: a 50th of the steps)."""
    resume: str | None = None
    """Continue this run (its folder, name or the beginning of it, or last) instead of describing one."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    workers: int | None = None
    """Worker processes (default: one per core; 0: train in this process)."""
    stop_when_diverged: bool = False
    """Take no more steps with a seed and point whose loss or parameters are NaN or infinite; the others go on."""
    track: tuple[str, ...] = ()
    """Also send what is logged to tensorboard, wandb (offline unless WANDB_MODE says otherwise), mlflow (extra
    `trackers`), or a class of your own as ./file.py:Name; a tracker never fails a run."""
    json: bool = False
    """Print JSON for machines."""


def describe(options: Options) -> dict[str, Any]:
    """The configuration of the run: everything that decides its result."""
    for field in ("task_name", "model_name"):
        if not getattr(options, field):
            raise BadInput("train needs a task and a model, such as: linear_regression von_oswald (see --help)")
    for field in ("seeds", "batch", "steps"):
        require(getattr(options, field) >= 1, f"--{field}", getattr(options, field), "a positive integer")
    require(options.record is None or options.record >= 1, "--record", options.record, "a positive integer")
    known = {"task": catalogue.tasks_alone(), "model": catalogue.model_classes()}
    for kind, name in zip(known, (options.task_name, options.model_name), strict=True):
        if not catalogue.own.place(name):  # misspelt names are told before fields that are missing
            spec.find(kind, name, known[kind])
    task = described_task(options.task_name, options.task)
    model = described_model(options.model_name, options.model)
    optimiser = described_optimiser([f"learning_rate={options.learning_rate}", *options.optimiser])
    config = {"command": "train", "task": task, "optimiser": optimiser}
    kind = catalogue.kind_of(drawn(task_of(config)))
    config |= {
        "kind": kind,
        "model": model,
        "layout": catalogue.layout_described(options.layout, model, kind),
        "objective": options.objective or catalogue.OBJECTIVES[kind][0],
        "steps": options.steps,
        "batch": options.batch,
        "record": options.record,
        "seeds": options.seeds,
    }
    config["sweep"], config["sizes"] = swept(options, config)
    if options.stop_when_diverged:  # only then, so that a run that was made without it keeps its name
        config["stop_when_diverged"] = True
    check(config)
    return config


def described_task(name: str, texts: Sequence[str]) -> spec.Description:
    """The description of a task, from its name and the texts of its fields."""
    return spec.described(catalogue.task_kind(), name, texts, catalogue.tasks_alone(), catalogue.task_classes())


def described_model(name: str, texts: Sequence[str]) -> spec.Description:
    """The description of a model, likewise."""
    models = catalogue.model_classes()
    inner = {} if catalogue.own.place(name) else catalogue.part_classes(spec.find("model", name, models))
    return spec.described(catalogue.MODEL, name, texts, models, inner)


def described_optimiser(texts: Sequence[str]) -> spec.Description:
    """The description of an optimiser."""
    return spec.described("optimiser", "Optimiser", texts, catalogue.optimiser_classes())


def drawn(task: Any) -> Any:
    """The task; where it is drawn per seed, the one of the first."""
    import jax

    from meta_icl.prompt import Task

    return task if isinstance(task, Task) else task(key=jax.random.key(0))


def swept(options: Options, config: Mapping[str, Any]) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """What is varied: numbers that one compiled training takes, {"task.noise": [0, 0.1]}, and sizes and options, each
    value of which is a training of its own, {"model.n_layers": [["1", 1], ["2", 2]]} with the texts as given."""
    import equinox as eqx

    objects = {"task": drawn(task_of(config)), "optimiser": optimiser_of(config)}
    describes = {
        "task": (described_task, options.task_name, options.task),
        "model": (described_model, options.model_name, options.model),
    }
    numbers: dict[str, list[float]] = {}
    sizes: dict[str, list[Any]] = {}
    for name, text in spec.assignments(options.sweep).items():
        owner, _, path = name.partition(".")
        choose("swept object", owner, ("task", "model", "optimiser"))
        leaf = objects.get(owner)
        for part in path.split("."):
            leaf = getattr(leaf, part, None)
        if owner == "optimiser" or "." in path or eqx.is_array(leaf):
            values = spec.converted(tuple[float, ...], text, f"--sweep {name}", {})
            numbers[name] = values
        else:
            describe_it, named, given = describes[owner]
            given = [one for one in given if one.partition("=")[0] != path]
            values = spec.items(text)
            sizes[name] = [[v, describe_it(named, [*given, f"{path}={v}"])["fields"][path]] for v in values]
        distinct = len({str(value) for value in values}) == len(values) > 0
        what = "numbers" if name in numbers else "values"
        require(distinct, f"--sweep {name}", values, f"one or more {what}, all different")
    return numbers, sizes


def at_size(config: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with sizes and options set, {"model.n_layers": 2}."""
    changed = dict(config)
    for name, value in point.items():
        owner, _, field = name.partition(".")
        changed[owner] = {**changed[owner], "fields": {**changed[owner]["fields"], field: value}}
    return changed


def sizes_of(config: Mapping[str, Any]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Every point of the sizes that are varied: its texts, and the configuration there."""
    sizes = config.get("sizes", {})
    points = [dict(zip(sizes, values, strict=True)) for values in itertools.product(*sizes.values())]
    return [
        ({n: text for n, (text, _) in p.items()}, at_size(config, {n: value for n, (_, value) in p.items()}))
        for p in points
    ]


def check(config: Mapping[str, Any]) -> None:
    """Make everything once, at every point of the sweep: what does not fit is told before anything is written."""
    for texts, one in sizes_of(config):
        try:
            check_one(one)
        except BadInput as error:
            raise BadInput(f"{error} (at {point_label(texts)})" if texts else str(error)) from None


def check_one(config: Mapping[str, Any]) -> None:
    """The same for one size."""
    import jax

    from meta_icl.training.replicas import make_replicas

    key, model = jax.random.key(0), model_of(config)
    replicas, _ = make_replicas(task_of(config), optimiser_of(config), key, 1, config["sweep"])
    for replica in replicas:
        check_again(replica.task)
        check_again(replica.optimiser)
        objective_of(config, replica.task)
    task = replicas[0].task
    objective = objective_of(config, task)
    names = " and ".join(config[part]["name"] for part in ("model", "layout", "task") if config[part])
    with fitting(lambda: f"{names} do not fit together{width(model, task)}"):
        jax.eval_shape(lambda key: model(key=key)(task.sample(key=key)), key)
        jax.eval_shape(lambda key: objective(model(key=key), task, config["batch"], key), key)


def width(model: Any, task: Any) -> str:
    """How wide the tokens are that a network must read, in words; nothing for a model that reads prompts."""
    import jax

    from meta_icl.models import Learner

    if not isinstance(model, Learner):
        return ""
    try:
        tokens = jax.eval_shape(lambda key: model.layout.encode(task.sample(key=key)), jax.random.key(0))
    except (AttributeError, TypeError, ValueError):  # it is the layout that does not fit the task
        return ""
    return f" (a token has {tokens.shape[-1]} channels)" if hasattr(tokens, "shape") else ""


def check_again(module: Any) -> None:
    """Repeat the checks that a module and its parts made when they were made, after a sweep has changed numbers."""
    for field in dataclasses.fields(module):
        if dataclasses.is_dataclass(part := getattr(module, field.name)):
            check_again(part)
    if hasattr(module, "__check_init__"):
        module.__check_init__()


def point_label(point: Mapping[str, float | str]) -> str:
    """A point of a sweep in words, without its seed; empty without a sweep."""
    told = {name: value if isinstance(value, str) else in_words(value) for name, value in point.items()}
    return ", ".join(f"{name} = {value}" for name, value in told.items() if name != "seed")
