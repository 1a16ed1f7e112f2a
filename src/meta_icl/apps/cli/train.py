"""`meta-icl train TASK MODEL`: any model on any task, over seeds and sweeps."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from meta_icl.apps.cli import catalogue, report, spec, tables
from meta_icl.apps.cli.catalogue import model_of, objective_of, optimiser_of, task_of
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.which import checked_name, find_run
from meta_icl.errors import BadInput, choose, require
from meta_icl.runs import Run, default_root
from meta_icl.sweeps import compute_like_a_worker, default_workers, run_parts, use_compilation_cache

EXAMPLES = (
    "linear_regression von_oswald --task d=5 n_context=10 --model d_model=6 --steps 1000 --seeds 2 --name first",
    "linear_regression von_oswald --task d=5 n_context=10 x_law=uniform:half_range=1.0 --model d_model=6 n_layers=2 "
    "--sweep task.noise=0,0.1 optimiser.learning_rate=1e-3,1e-2",
    "sine_regression lstm --model d_in=2 d_hidden=32 --learning-rate 1e-3 --optimiser clip_norm=1.0",
    "linear_regression von_oswald --task d=5 n_context=10 --model d_model=15 --layout separate:d_position=10",
    "function_regression garg --task function=sparse_linear:d=5 n_context=10 --model d_model=64 n_layers=3 "
    "n_heads=2 n_positions=22 d_in=5 init_std=0.125 --layout interleaved --objective every_position_mse --batch 32",
    "linear_regression memories --task d=5 n_context=20 --model d_model=32 d_in=5 mixers=deltanet:n_heads=1 n_layers=1 "
    "--layout interleaved --objective every_position_mse --batch 64",
    "random_points kirsch --task d=4 n_context=19 n_labels=5 --model d_model=32 n_layers=2 n_heads=2 n_positions=20 "
    "d_in=9 d_out=5 --layout shifted:n_labels=5 --objective every_position_cross_entropy --batch 32 --steps 1000",
    "mqar gpt2 --task vocabulary=32 length=16 n_pairs=2 --model n_tokens=32 d_model=32 n_layers=2 "
    "n_heads=2 n_positions=16 --batch 32 --steps 1000",
    "linear_regression von_oswald --task d=5 n_context=10 --model d_model=6 --sweep model.n_layers=1,2 --name depths",
    "./mine.py:MyTask ./mine.py:MyModel --task noise=0.1",
    "--resume last",
)


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
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; exit status 3 if a seed at some point of the sweep has diverged."""
    options = parse(Options, arguments, command="train", examples=EXAMPLES)
    require(options.workers is None or options.workers >= 0, "--workers", options.workers, "zero or more")
    use_compilation_cache()
    compute_like_a_worker()
    if options.resume is not None:
        given = [
            name for name in ("task_name", "model_name", "task", "model", "sweep", "name") if getattr(options, name)
        ]
        require(not given, "--resume", options.resume, "given without a task, a model, a sweep or a name")
        found = find_run(options.resume, options.root)
        folder, config, name = found.folder, checked(found.config, found), None
        check(config)  # code of the user's own that has changed is told here
    else:
        config = describe(options)
        folder, name = options.root, f"train-{config['task']['name']}-{config['model']['name']}"
        name = checked_name(options.name) or name
    with Run.open(folder, config, name=name) as run:
        begun = run.parts()  # keep their arrangement, also where there is now another number of cores
        together = not any("seed=" in part for part in begun) if begun else default_workers() == 0
        parts = parts_of(config, together=together)
        results = run_parts(run, train_part, parts, workers=options.workers, steps=config["steps"])
        if not run.done:
            run.finish()
        report.write(run.folder / "report.html", report.told_by(run))
        diverged = run.diverged
    rows = summaries(parts, results)
    if options.json:
        print_json({"run": run.folder, "points": rows, "diverged": diverged})
    else:
        columns = ("point of the sweep", "seeds", "initial loss", "final loss", "lowest", "highest seed")
        tables.show(tables.plain_table(columns, [(row["point"] or "-", *list(row.values())[1:]) for row in rows]))
        say(f"run      {run.folder}\nreport   {run.folder / 'report.html'}\ncompare  meta-icl compare {run.folder}")
        for part, step in diverged.items():
            say(f"diverged {part}: NaN or infinite when seen at step {step}")
    return 3 if diverged else 0


def describe(options: Options) -> dict[str, Any]:
    """The configuration of the run: everything that decides its result."""
    for field in ("task_name", "model_name"):
        if not getattr(options, field):
            raise BadInput("train needs a task and a model, such as: linear_regression von_oswald (see --help)")
    for field in ("seeds", "batch"):
        require(getattr(options, field) >= 1, f"--{field}", getattr(options, field), "a positive integer")
    require(options.steps >= 0, "--steps", options.steps, "zero or more")
    require(options.record is None or options.record >= 1, "--record", options.record, "a positive integer")
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
    try:
        jax.eval_shape(lambda key: model(key=key)(task.sample(key=key)), key)
        jax.eval_shape(lambda key: objective(model(key=key), task, config["batch"], key), key)
    except BadInput:
        raise
    except (TypeError, ValueError, IndexError, AttributeError) as error:
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
    """One part per size, seed and point of the sweep, or, as on an accelerator, one per size with all of them."""
    seeds, sweep = list(range(config["seeds"])), config["sweep"]
    parts = {}
    for texts, one in sizes_of(config):
        kept = {name: value for name, value in one.items() if name not in ("command", "seeds", "sweep", "sizes")}
        common = {"training": kept} | ({"sizes": texts} if texts else {})
        size = [f"{name}={re.sub(r'[^A-Za-z0-9_.=+-]+', '_', text)}" for name, text in texts.items()]
        if together:
            parts[",".join(size) or "all"] = {**common, "seeds": seeds, "sweep": sweep}
            continue
        for values in itertools.product(*sweep.values()):
            point = dict(zip(sweep, values, strict=True))
            label = [*size, *(f"{name}={value:g}" for name, value in point.items())]
            for seed in seeds:
                swept_here = {n: [v] for n, v in point.items()}
                parts[",".join([*label, f"seed={seed}"])] = {**common, "seeds": [seed], "sweep": swept_here}
    return parts


def train_part(
    part: Run, *, training: dict, seeds: list, sweep: dict, sizes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Train the given seeds and points; the history, and the trained predictors by tree path."""
    import jax

    from meta_icl.training import to_arrays, train

    del sizes  # a label; the training has them
    task = task_of(training)
    trained = train(
        task,
        model_of(training),
        steps=training["steps"],
        key=jax.random.key(0),
        seeds=seeds,
        batch=training["batch"],
        optimiser=optimiser_of(training),
        objective=objective_of(training, drawn(task)),
        sweep=sweep,
        record=training["record"],
        stop_when_diverged=training.get("stop_when_diverged", False),
        store=part,
    )
    history = {f"history/{name}": values for name, values in trained.history.items()}
    return history | to_arrays(trained.stacked, "predictor")


def losses_by_point(parts: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{point of the sweep in words: losses "records seeds"}, from the second record on: the first has none."""
    found: dict[str, list[Any]] = {}
    for name, arguments in parts.items():
        points = itertools.product(*arguments["sweep"].values(), arguments["seeds"])  # as `make_replicas` orders them
        losses = np.asarray(results[name]["history/loss"])
        for point, curve in zip(points, losses[min(1, len(losses) - 1) :].T, strict=True):
            here = dict(zip(arguments["sweep"], point, strict=False))  # without the seed
            found.setdefault(point_label(arguments.get("sizes", {}) | here), []).append(curve)
    return {label: np.stack(curves, -1) for label, curves in found.items()}


def summaries(parts: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every point of the sweep the number of seeds, the means of their first losses and of their last, and the
    lowest and the highest of the last (NaN if one is)."""
    return [
        {
            "point": label,
            "seeds": losses.shape[1],
            "initial_loss": float(losses[0].mean()),
            "final_loss": float(losses[-1].mean()),
            "lowest": float(np.min(losses[-1])),
            "highest": float(np.max(losses[-1])),
        }
        for label, losses in losses_by_point(parts, results).items()
    ]


def point_label(point: Mapping[str, float | str]) -> str:
    """A point of a sweep in words, without its seed; empty without a sweep."""
    told = {name: value if isinstance(value, str) else f"{value:g}" for name, value in point.items()}
    return ", ".join(f"{name} = {value}" for name, value in told.items() if name != "seed")


def checked(config: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The configuration of a run of this command."""
    if config.get("command") != "train":
        raise BadInput(f"run {run.folder} was not made by `meta-icl train`")
    return dict(config)
