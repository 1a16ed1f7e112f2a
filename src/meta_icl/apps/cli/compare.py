"""`meta-icl compare RUN`: trained networks against reference algorithms, on the same prompts."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from meta_icl.apps.cli import own, spec, tables
from meta_icl.apps.cli.catalogue import REALS, model_of, optimiser_of, task_of
from meta_icl.apps.cli.options import parse, print_json
from meta_icl.apps.cli.train import checked
from meta_icl.apps.cli.training_config import check_again, point_label
from meta_icl.apps.cli.which import find_run
from meta_icl.errors import BadInput, require
from meta_icl.runs import Run, default_root
from meta_icl.sweeps import compile_soon, use_compilation_cache

EXAMPLES = (
    "first",
    "first --with gd,ridge,bayes,least_squares --contexts 2,5,10",
    "first --with gd --shift x_scale=0.5,1,1.5,2",
    "last --with gd ./mine.py:my_fit",
    "first --with gd ridge:penalty=0.5 GradientDescent:rate=0.3,steps=2 --n-prompts 2000 --json",
)
PREDICTOR = own.Kind("reference", "a function of a prompt, or a class or object of one", callable)
RATE_PROMPTS = 4096  # fresh prompts on which the best rate of gradient descent is found


@dataclass(frozen=True)
class Options:
    """Losses of a trained run and of reference algorithms on the same prompts, and their distances to the first one.

    References: gd (one step at its best rate for the context length), ridge (the best penalty for the task's noise and
    weights), bayes (for normal weights or a pool), knn (the three nearest neighbours), least_squares, zero, any class
    of `meta_icl.algorithms` with its fields, as ridge:penalty=0.5, or your own function of a prompt, as
    ./file.py:my_fit.
    """

    run: tyro.conf.Positional[str]
    """The run (its folder, name or the beginning of it, or last), made by `meta-icl train`."""
    references: Annotated[tuple[str, ...], tyro.conf.arg(name="with")] = ("gd", "least_squares", "zero")
    """Reference algorithms, separated by spaces or commas; the first is what distances are to."""
    contexts: str = ""
    """Also the loss by context length, as 2,5,10."""
    shift: tuple[str, ...] = ()
    """Also the loss out of distribution, as x_scale=0.5,1,2: on prompts of the task with this number changed."""
    n_prompts: int = 2000
    """Prompts to compare on."""
    key: int = 1
    """Number of the random key of the prompts."""
    root: Path = dataclasses.field(default_factory=default_root)
    """Folder of the runs."""
    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="compare", examples=EXAMPLES)
    require(options.n_prompts >= 2, "--n-prompts", options.n_prompts, "at least 2")
    contexts = spec.converted(tuple[int, ...], options.contexts, "--contexts", {}) if options.contexts else []
    shifts = {
        field: spec.converted(tuple[float, ...], values, f"--shift {field}", {})
        for field, values in spec.assignments(options.shift).items()
    }
    run = find_run(options.run, options.root)
    config = checked(run.config, run)
    require(config["kind"] == REALS, "the run's task", config["task"]["name"], f"one of {REALS}, which references know")
    names = split_names(options.references)
    use_compilation_cache()
    compile_soon()
    import jax

    from meta_icl.evaluation import compare, loss_by_context, loss_by_task
    from meta_icl.prompt import truncated

    told = []
    for label, (task, trained) in members_of(run).items():
        tasks = {field: shifted_tasks(task, field, values) for field, values in shifts.items()}
        key = jax.random.fold_in(jax.random.key(options.key), 0)
        rate_prompts = task.sample_batch(RATE_PROMPTS, key=jax.random.fold_in(key, 1))

        def predictors(
            n_context: int, task: Any = task, trained: Any = trained, rate_prompts: Any = rate_prompts
        ) -> dict[str, Any]:
            cut = truncated(rate_prompts, n_context)
            return {"trained": trained, **{name: reference(name, task, cut) for name in names}}

        longest = rate_prompts.x.shape[1] - 1
        table = compare(predictors(longest), task, n_prompts=options.n_prompts, key=key, reference=names[0])
        rows = {name: {m: e._asdict() for m, e in row.items()} for name, row in table.rows.items()}
        curves = loss_by_context(predictors, task, contexts, n_prompts=options.n_prompts, key=key) if contexts else {}
        shifted = {
            field: loss_by_task(predictors(longest), others, n_prompts=options.n_prompts, key=key)
            for field, others in tasks.items()
        }
        told.append(
            {
                "point": label,
                "reference": names[0],
                "rows": rows,
                "contexts": contexts,
                "curves": as_json(curves),
                "shifts": {
                    field: {"values": list(shifts[field]), "curves": as_json(of)} for field, of in shifted.items()
                },
            }
        )
        if not options.json:
            show_comparison(label or run.name, table)
            if curves:
                show_curves("loss by context length", contexts, curves)
            for field, of in shifted.items():
                show_curves(f"loss at {field}", shifts[field], of)
    from meta_icl.apps.report import of_comparison, write_report

    path, provenance = run.folder / "compare.html", dict(run.provenance) | {"config": run.config}
    content = of_comparison(told, options.n_prompts)
    write_report(path, title=f"{run.name} beside {', '.join(names)}", provenance=provenance, **content)
    if options.json:
        print_json({"run": run.folder, "report": path, "comparisons": told})
    else:
        print(f"report  {path}")
    return 0


def shifted_tasks(task: Any, field: str, values: Sequence[float]) -> list[Any]:
    """The task with a number changed, for every value."""
    from meta_icl.training.replicas import with_field

    tasks = [with_field(task, field, value) for value in values]
    for one in tasks:
        check_again(one)
    return tasks


def as_json(curves: Mapping[str, Sequence[Any]]) -> dict[str, list[dict[str, Any]]]:
    """Estimates by name, for machines."""
    return {name: [estimate._asdict() for estimate in curve] for name, curve in curves.items()}


def show_curves(title: str, points: Sequence[float], curves: Mapping[str, Sequence[Any]]) -> None:
    """A row per predictor, a column per point."""
    cells = [(name, *map(str, curve)) for name, curve in curves.items()]
    tables.show(tables.plain_table([title, *(f"{point:g}" for point in points)], cells, whole=True))
    print()


def show_comparison(title: str, table: Any) -> None:
    """A row per predictor, a column per measure."""
    from meta_icl.evaluation.compare import MEASURES

    shown = [measure for measure in MEASURES if any(measure in row for row in table.rows.values())]
    columns = ["predictor", *(measure.replace("_", " ") for measure in shown)]
    cells = [(name, *(row[measure] for measure in shown)) for name, row in table.rows.items()]
    tables.show(tables.plain_table(columns, cells, title, whole=True))
    tables.show_text("\n".join([f"{table.interval}; differences are to {table.reference}", *table.notes, ""]))


def members_of(run: Run) -> dict[str, tuple[Any, Any]]:
    """{label of a point of the sweep: (its task, the ensemble of its trained predictors over seeds)}."""
    import jax

    from meta_icl.prompt import Ensemble
    from meta_icl.training import from_arrays
    from meta_icl.training.replicas import make_replicas, stack

    unfinished = [name for name, part in run.parts().items() if not part.done]
    if unfinished or not run.parts():
        raise BadInput(f"run {run.folder} is not finished; continue it with: meta-icl train --resume {run.folder}")
    groups: dict[str, tuple[Any, list[Any]]] = {}
    # By seed, not by name: as words, seed 10 stands before seed 2.
    for part in sorted(run.parts().values(), key=lambda part: part.config["arguments"]["seeds"]):
        arguments, arrays = part.config["arguments"], part.load_arrays("result")
        training, sizes = arguments["training"], arguments.get("sizes", {})
        made = make_replicas(
            task_of(training), optimiser_of(training), jax.random.key(0), arguments["seeds"], arguments["sweep"]
        )
        like = stack([model_of(training)(key=jax.random.key(0))] * len(made[1]))
        ensemble = Ensemble(from_arrays(like, arrays, "predictor"))
        for index, (replica, label) in enumerate(zip(*made, strict=True)):
            groups.setdefault(point_label(sizes | label), (replica.task, []))[1].append(ensemble[index])
    return {point: (task, Ensemble(stack(members))) for point, (task, members) in groups.items()}


def split_names(texts: Sequence[str]) -> list[str]:
    """The references in texts separated by commas, where `a:x=1,y=2` is one of them."""
    names: list[str] = []
    for text in texts:
        for piece in text.split(","):
            if "=" in piece and ":" not in piece and names:
                names[-1] += f",{piece}"
            elif piece:
                names.append(piece)
    if not names:
        raise BadInput("--with needs at least one reference, such as gd")
    return names


def reference(text: str, task: Any, prompts: Any) -> Any:
    """The reference algorithm of a name; what it needs to know it reads from the task, its best rate from `prompts`."""
    from meta_icl import algorithms

    if own.place(text) is not None:
        return own_predictor(text)
    name, _, fields = text.partition(":")
    tuned = {"gd": _best_step, "ridge": _best_ridge, "bayes": _bayes, "knn": _nearest, "zero": _zero}
    if name.lower() in tuned and not fields:
        return tuned[name.lower()](task, prompts)
    classes = spec.public(algorithms, lambda cls: "prompt" in getattr(cls.__call__, "__annotations__", {}))
    found = spec.find("reference", name, {**tuned, **classes})
    if found in tuned:  # with fields it is the class of the same name, as ridge is Ridge
        same = [known for known in classes if known.lower() == found]
        if not same:
            raise BadInput(f"{found} takes no fields, got {fields!r}; a class of meta_icl.algorithms does")
        (found,) = same
    return spec.built(spec.described("reference", found, spec.split_fields(fields), classes), classes)


def own_predictor(text: str) -> Any:
    """A predictor of the user's own: a function of a prompt, an object, or a class with its fields."""
    found = spec.built(spec.described(PREDICTOR, text, [], {}), {})
    require(callable(found), "reference", text, PREDICTOR.wanted)
    return found


def _best_step(task: Any, prompts: Any) -> Any:
    from meta_icl.algorithms import GradientDescent, sample_best_rate

    del task
    return GradientDescent(rate=sample_best_rate(prompts))


def _best_ridge(task: Any, prompts: Any) -> Any:
    from meta_icl.algorithms import Ridge

    del prompts
    _require_fields("ridge", task, "noise", "w_variance")
    return Ridge(penalty=task.noise**2 / task.w_variance)


def _bayes(task: Any, prompts: Any) -> Any:
    """The posterior mean for normal weights, or for a finite pool of them."""
    from meta_icl.algorithms import BayesFinitePool, BayesLinear
    from meta_icl.tasks import Normal

    del prompts
    _require_fields("bayes", task, "noise", "n_replaced", "pool", "w_law", "w_scale")
    require(task.n_replaced == 0, "n_replaced", task.n_replaced, "0 for bayes")
    if task.pool is not None:
        return BayesFinitePool(pool=task.w_scale * task.pool, noise_variance=task.noise**2)
    require(isinstance(task.w_law, Normal), "w_law", type(task.w_law).__name__, "Normal for bayes")
    covariance = task.w_scale**2 * task.w_law.covariance_matrix(task.d)
    return BayesLinear(noise_variance=task.noise**2, prior_covariance=covariance)


def _nearest(task: Any, prompts: Any) -> Any:
    from meta_icl.algorithms import NearestNeighbours

    del task, prompts
    return NearestNeighbours()


def _zero(task: Any, prompts: Any) -> Any:
    from meta_icl.algorithms import ZeroPredictor

    del task, prompts
    return ZeroPredictor()


def _require_fields(name: str, task: Any, *fields: str) -> None:
    missing = [field for field in fields if not hasattr(task, field)]
    if missing:
        raise BadInput(f"{name} needs a task with {', '.join(missing)}, which {type(task).__name__} has not")
