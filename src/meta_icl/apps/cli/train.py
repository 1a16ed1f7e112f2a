"""`meta-icl train TASK MODEL`: any model on any task, over seeds and sweeps."""

import dataclasses
import itertools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from meta_icl.apps.cli import report, spec, tables
from meta_icl.apps.cli.options import console, parse, print_json
from meta_icl.errors import BadInput, choose, require
from meta_icl.runs import Run, default_root, find_run
from meta_icl.sweeps import default_workers, run_parts, use_compilation_cache

EXAMPLES = (
    "linear_regression transformer --task d=5 n_context=10 --model d_model=6 --steps 5000 --seeds 2",
    "linear_regression transformer --task d=5 n_context=10 x_law=uniform:half_range=1.0 --model d_model=6 n_layers=2 "
    "--sweep task.noise=0,0.1 optimiser.learning_rate=1e-3,1e-2",
    "sine_regression lstm --model d_in=2 d_hidden=32 --learning-rate 1e-3 --optimiser clip_norm=1.0",
    "linear_regression transformer --task d=5 n_context=10 --model d_model=15 --layout separate:d_position=10",
    "function_regression decoder --task function=sparse_linear:d=5 n_context=10 --model d_model=64 n_layers=3 "
    "n_heads=2 n_positions=22 d_in=5 init_std=0.125 --layout interleaved --objective every_position_mse --batch 32",
    "linear_regression backbone --task d=5 n_context=20 --model d_model=32 d_in=5 mixers=deltanet:n_heads=1 n_layers=1 "
    "--layout interleaved --objective every_position_mse --batch 64",
    "--resume train-LinearRegression-Transformer",
)


@dataclass(frozen=True)
class Options:
    """Train a model on a task from several seeds, for every value of a sweep; the trained networks stay in the run.

    TASK and MODEL are classes of `meta_icl.tasks` and `meta_icl.models`; their fields are given as field=value. The
    same command again, or --resume, continues an interrupted run.
    """

    task_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")] = ""
    """The task, such as linear_regression."""
    model_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")] = ""
    """The model, such as transformer."""
    task: tuple[str, ...] = ()
    """Fields of the task, as field=value; x_law=uniform:half_range=1.0 for a field that is an object."""
    model: tuple[str, ...] = ()
    """Fields of the model, as field=value."""
    layout: str = "concatenated"
    """How prompts become tokens, such as separate:d_position=10 (for models that read tokens)."""
    objective: str = "half_mse"
    """What is minimised: half_mse, every_position_mse, every_position_logistic (labels +-1), or context_averaged_mse
    (exact averages over weights and query)."""
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
    """Fields of the task or the optimiser to vary, as task.noise=0,0.1."""
    record: int | None = None
    """Steps between records (default: a 50th of the steps)."""
    resume: str | None = None
    """Continue this run (its folder, name, or the beginning of it) instead of describing one."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    workers: int | None = None
    """Worker processes (default: one per core; 0: train in this process)."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="train", examples=EXAMPLES)
    require(options.workers is None or options.workers >= 0, "--workers", options.workers, "zero or more")
    use_compilation_cache()
    if options.resume is not None:
        given = [name for name in ("task_name", "model_name", "task", "model", "sweep") if getattr(options, name)]
        require(not given, "--resume", options.resume, "given without a task, a model or a sweep")
        found = find_run(options.resume, options.root)
        folder, config, name = found.folder, checked(found.config, found), None
    else:
        config = describe(options)
        folder, name = options.root, f"train-{config['task']['name']}-{config['model']['name']}"
    with Run.open(folder, config, name=name) as run:
        begun = run.parts()  # keep their arrangement, also where there is now another number of cores
        parts = parts_of(config, together="all" in begun if begun else default_workers() == 0)
        results = run_parts(run, train_part, parts, workers=options.workers)
        if not run.done:
            run.finish()
        report.write(run.folder / "report.html", report.told_by(run))
    rows = summaries(parts, results)
    if options.json:
        print_json({"run": run.folder, "points": rows})
    else:
        columns = ("point of the sweep", "seeds", "initial loss", "final loss", "lowest", "highest seed")
        cells = [(row["point"] or "-", *list(row.values())[1:]) for row in rows]
        console().print(tables.plain_table(columns, cells))
        print(f"run      {run.folder}\nreport   {run.folder / 'report.html'}\ncompare  meta-icl compare {run.folder}")
    return 0


def describe(options: Options) -> dict[str, Any]:
    """The configuration of the run: everything that decides its result."""
    from meta_icl.prompt import Task

    for field in ("task_name", "model_name"):
        if not getattr(options, field):
            raise BadInput("train needs a task and a model, such as: linear_regression transformer (see --help)")
    for field in ("seeds", "batch"):
        require(getattr(options, field) >= 1, f"--{field}", getattr(options, field), "a positive integer")
    require(options.steps >= 0, "--steps", options.steps, "zero or more")
    require(options.record is None or options.record >= 1, "--record", options.record, "a positive integer")
    classes = task_classes()
    tasks = {name: cls for name, cls in classes.items() if issubclass(cls, Task)}
    task = spec.described("task", options.task_name, options.task, tasks, classes)
    models = model_classes()
    parts = part_classes(spec.find("model", options.model_name, models))
    model = spec.described("model", options.model_name, options.model, models, parts)
    optimiser = spec.described(
        "optimiser", "Optimiser", [f"learning_rate={options.learning_rate}", *options.optimiser], optimiser_classes()
    )
    layout_name, _, layout_fields = options.layout.partition(":")
    layout = spec.described("layout", layout_name, spec.split_fields(layout_fields), layout_classes())
    config = {
        "command": "train",
        "task": task,
        "model": model,
        "layout": layout if reads_tokens(model_classes()[model["name"]]) else None,
        "optimiser": optimiser,
        "objective": choose("objective", options.objective, objectives()),
        "steps": options.steps,
        "batch": options.batch,
        "record": options.record,
        "seeds": options.seeds,
        "sweep": swept(options.sweep),
    }
    check(config)
    return config


def swept(texts: Sequence[str]) -> dict[str, list[float]]:
    """{"task.noise": [0, 0.1]} of `task.noise=0,0.1` texts."""
    values = {
        name: spec.converted(tuple[float, ...], text, f"--sweep {name}", {})
        for name, text in spec.assignments(texts).items()
    }
    for name, points in values.items():
        require(len(set(points)) == len(points) > 0, f"--sweep {name}", points, "one or more numbers, all different")
    return values


def check(config: Mapping[str, Any]) -> None:
    """Make everything once, at every point of the sweep: what does not fit is told before anything is written."""
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
    try:
        jax.eval_shape(lambda key: model(key=key)(task.sample(key=key)), key)
        jax.eval_shape(lambda key: objective(model(key=key), task, config["batch"], key), key)
    except BadInput:
        raise
    except (TypeError, ValueError) as error:
        names = " and ".join(config[part]["name"] for part in ("model", "layout", "task") if config[part])
        raise BadInput(f"{names} do not fit together{width(model, task)}: {' '.join(str(error).split())}") from None


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
    return f" (a token has {tokens.shape[-1]} channels)"


def check_again(module: Any) -> None:
    """Repeat the checks that a module and its parts made when they were made, after a sweep has changed numbers."""
    for field in dataclasses.fields(module):
        if dataclasses.is_dataclass(part := getattr(module, field.name)):
            check_again(part)
    if hasattr(module, "__check_init__"):
        module.__check_init__()


def parts_of(config: Mapping[str, Any], *, together: bool) -> dict[str, dict[str, Any]]:
    """One part per seed and point of the sweep, or, as on an accelerator, all of them together as one batch."""
    training = {name: value for name, value in config.items() if name not in ("command", "seeds", "sweep")}
    seeds, sweep = list(range(config["seeds"])), config["sweep"]
    if together:
        return {"all": {"training": training, "seeds": seeds, "sweep": sweep}}
    parts = {}
    for values in itertools.product(*sweep.values()):
        point = dict(zip(sweep, values, strict=True))
        label = ",".join(f"{name}={value:g}" for name, value in point.items())
        for seed in seeds:
            name = f"{label},seed={seed}" if label else f"seed={seed}"
            parts[name] = {"training": training, "seeds": [seed], "sweep": {n: [v] for n, v in point.items()}}
    return parts


def train_part(part: Run, *, training: dict, seeds: list, sweep: dict) -> dict[str, Any]:
    """Train the given seeds and points; the history, and the trained predictors by tree path."""
    import jax

    from meta_icl.training import to_arrays, train

    trained = train(
        task_of(training),
        model_of(training),
        steps=training["steps"],
        key=jax.random.key(0),
        seeds=seeds,
        batch=training["batch"],
        optimiser=optimiser_of(training),
        objective=objective_of(training, task_of(training)),
        sweep=sweep,
        record=training["record"],
        store=part,
    )
    history = {f"history/{name}": values for name, values in trained.history.items()}
    return history | to_arrays(trained.stacked, "predictor")


def losses_by_point(parts: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{point of the sweep in words: losses "records seeds"}, from the second record on: the first has none."""
    import numpy as np

    found: dict[str, list[Any]] = {}
    for name, arguments in parts.items():
        points = itertools.product(*arguments["sweep"].values(), arguments["seeds"])  # as `make_replicas` orders them
        losses = np.asarray(results[name]["history/loss"])
        for point, curve in zip(points, losses[min(1, len(losses) - 1) :].T, strict=True):
            label = point_label(dict(zip(arguments["sweep"], point, strict=False)))  # without the seed
            found.setdefault(label, []).append(curve)
    return {label: np.stack(curves, -1) for label, curves in found.items()}


def summaries(parts: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every point of the sweep the number of seeds, the means of their first losses and of their last, and the
    lowest and the highest of the last."""
    return [
        {
            "point": label,
            "seeds": losses.shape[1],
            "initial_loss": float(losses[0].mean()),
            "final_loss": float(losses[-1].mean()),
            "lowest": float(losses[-1].min()),
            "highest": float(losses[-1].max()),
        }
        for label, losses in losses_by_point(parts, results).items()
    ]


def point_label(point: Mapping[str, float]) -> str:
    """A point of a sweep in words, without its seed; empty without a sweep."""
    return ", ".join(f"{name} = {value:g}" for name, value in point.items() if name != "seed")


def checked(config: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The configuration of a run of this command."""
    if config.get("command") != "train":
        raise BadInput(f"run {run.folder} was not made by `meta-icl train`")
    return dict(config)


def task_of(config: Mapping[str, Any]) -> Any:
    """The task of a configuration."""
    return spec.built(config["task"], task_classes())


def optimiser_of(config: Mapping[str, Any]) -> Any:
    """The optimiser of a configuration."""
    return spec.built(config["optimiser"], optimiser_classes())


def model_of(config: Mapping[str, Any]) -> Any:
    """The model of a configuration: called with a key it draws a predictor."""
    model = spec.built(config["model"], model_classes() | part_classes(config["model"]["name"]))
    if config["layout"] is None:
        return model
    from meta_icl.models import Learner

    return Learner(model, spec.built(config["layout"], layout_classes()))


def task_classes() -> dict[str, type]:
    """All public tasks, and the laws and classes of functions that their fields may be."""
    from meta_icl import tasks
    from meta_icl.prompt import Task

    return spec.public(tasks, lambda cls: issubclass(cls, Task | tasks.Law | tasks.FunctionClass))


def model_classes() -> dict[str, type]:
    """The public descriptions of models for real targets: dataclasses that draw one when called with a key."""
    from meta_icl import models

    wrappers = (models.Learner, models.TokenLearner, models.Clamped)
    of_labels = (models.Induction, models.AttentionStack, models.TokenAttention)
    return spec.public(models, lambda cls: drawn_by(cls) is not None and cls not in (*wrappers, *of_labels))


def part_classes(model_name: str) -> dict[str, type]:
    """What a model can be made of: sequence mixers for a backbone, contextual layers for blocks."""
    from meta_icl.models import Backbone, blocks, mixers

    if model_name == Backbone.__name__:
        return {name: getattr(mixers, name) for name in mixers.DESCRIPTIONS}
    base = blocks.ContextualLayer
    return spec.public(blocks, lambda cls: issubclass(cls, base) and cls is not base)


def layout_classes() -> dict[str, type]:
    """All public layouts of prompts with real targets."""
    from meta_icl import models

    base = models.Layout
    return spec.public(models, lambda cls: issubclass(cls, base) and cls is not base and not cls.takes_labels)


def optimiser_classes() -> dict[str, type]:
    """The one class of optimisers."""
    from meta_icl.training import Optimiser

    return {"Optimiser": Optimiser}


def objective_of(config: Mapping[str, Any], task: Any) -> Any:
    """The objective of a configuration for its task; `BadInput` if it does not fit the task."""
    return objectives()[config["objective"]](task)


def objectives() -> dict[str, Any]:
    """Functions of a task that give an objective for it."""
    from meta_icl.training import context_averaged_mse, every_position_logistic, every_position_mse, half_mse

    drawn = {f.__name__: f for f in (half_mse, every_position_mse, every_position_logistic)}
    return {name: lambda task, f=f: f for name, f in drawn.items()} | {"context_averaged_mse": context_averaged_mse}


def drawn_by(cls: type) -> type | None:
    """What a description draws when called with a key; `None` if the class is no description."""
    if not dataclasses.is_dataclass(cls) or "__call__" not in vars(cls):
        return None
    hints = typing.get_type_hints(cls.__call__)
    return hints.get("return") if "key" in hints else None


def reads_tokens(description: type) -> bool:
    """Whether the model that a description draws maps tokens, and so needs a layout, or prompts."""
    drawn = drawn_by(description)
    return drawn is not None and "prompt" not in typing.get_type_hints(drawn.__call__)
