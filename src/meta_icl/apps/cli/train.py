"""`meta-icl train TASK MODEL`: any model on any task, over seeds and sweeps."""

import itertools
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from meta_icl.apps.cli import report, tables
from meta_icl.apps.cli.catalogue import model_of, objective_of, optimiser_of, task_of
from meta_icl.apps.cli.options import parse, print_json, say
from meta_icl.apps.cli.tracking import trackers_of
from meta_icl.apps.cli.training_config import Options, check, describe, drawn, point_label, sizes_of
from meta_icl.apps.cli.which import checked_name, find_run
from meta_icl.errors import BadInput, require
from meta_icl.runs import Run
from meta_icl.runs.trackers import tracked
from meta_icl.sweeps import compute_like_a_worker, default_workers, run_parts, use_compilation_cache
from meta_icl.words import in_words

LONGEST = 150  # of the name of a part, which is a folder

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
    "linear_regression von_oswald --task d=5 n_context=10 --model d_model=6 --seeds 2 --track tensorboard",
    "--resume last",
)


def main(arguments: Sequence[str]) -> int:
    """Run the command; exit status 3 if a seed at some point of the sweep has diverged."""
    options = parse(Options, arguments, command="train", examples=EXAMPLES)
    require(options.workers is None or options.workers >= 0, "--workers", options.workers, "zero or more")
    makers = trackers_of(options.track)
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
    with Run.open(folder, config, name=name) as run, tracked(run, makers):
        begun = run.parts()  # keep their arrangement, also where there is now another number of cores
        together = not any("seed=" in part for part in begun) if begun else default_workers() == 0
        parts = parts_of(config, together=together, begun=begun)
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


def parts_of(config: Mapping[str, Any], *, together: bool, begun: Container[str] = ()) -> dict[str, dict[str, Any]]:
    """One part per size, seed and point of the sweep, or, as on an accelerator, one per size with all of them.

    Parts of a run that has `begun` keep their names, in which numbers once had six digits.
    """
    seeds, sweep = list(range(config["seeds"])), config["sweep"]
    parts: dict[str, dict[str, Any]] = {}

    def named(label: Sequence[str], end: str = "") -> str:
        """A name that no part has yet, of a length that a folder may have."""
        whole = ",".join([*label, *([end] if end else [])])
        cut = f"{len(parts)},{end},{whole}" if end else f"{len(parts)},{whole}"
        return whole if len(whole) <= LONGEST else cut[:LONGEST].rstrip(",")

    for texts, one in sizes_of(config):
        kept = {name: value for name, value in one.items() if name not in ("command", "seeds", "sweep", "sizes")}
        common = {"training": kept} | ({"sizes": texts} if texts else {})
        size = [f"{name}={re.sub(r'[^A-Za-z0-9_.=+-]+', '_', text)}" for name, text in texts.items()]
        if together:
            parts[named(size) or "all"] = {**common, "seeds": seeds, "sweep": sweep}
            continue
        for values in itertools.product(*sweep.values()):
            point = dict(zip(sweep, values, strict=True))
            label = [*size, *(f"{name}={in_words(value)}" for name, value in point.items())]
            short = [*size, *(f"{name}={value:g}" for name, value in point.items())]
            for seed in seeds:
                name, before = named(label, f"seed={seed}"), ",".join([*short, f"seed={seed}"])
                name = before if before in begun and before not in parts else name
                parts[name] = {**common, "seeds": [seed], "sweep": {n: [v] for n, v in point.items()}}
    return parts


def train_part(
    part: Run, *, training: dict, seeds: list, sweep: dict | list, sizes: Mapping[str, str] | None = None
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
    from meta_icl.training.replicas import points_of

    found: dict[str, list[Any]] = {}
    for name, arguments in parts.items():
        points = [
            p for p in points_of(arguments["sweep"]) for _ in arguments["seeds"]
        ]  # as `make_replicas` orders them
        losses = np.asarray(results[name]["history/loss"])
        for point, curve in zip(points, losses[min(1, len(losses) - 1) :].T, strict=True):
            found.setdefault(point_label(arguments.get("sizes", {}) | point), []).append(curve)
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


def checked(config: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The configuration of a run of this command."""
    if config.get("command") != "train":
        raise BadInput(f"run {run.folder} was not made by `meta-icl train`")
    return dict(config)
