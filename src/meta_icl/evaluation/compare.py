"""Compare any predictors on the same prompts: losses, and distances to a reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from meta_icl.errors import BadInput, require
from meta_icl.evaluation import distances
from meta_icl.prompt import Ensemble, Prompt, Task, answer_batch, truncated

MEASURES = ("loss", "loss_ratio", "prediction_difference", "model_difference", "sensitivity_cosine")


class Estimate(NamedTuple):
    """A mean over prompts, its standard error, and the per-member means of an ensemble (one for a single predictor)."""

    mean: float
    error: float
    members: tuple[float, ...]

    def __str__(self) -> str:
        return "-" if np.isnan(self.mean) else f"{self.mean:.4g} ± {1.96 * self.error:.1g}"


@dataclass(frozen=True)
class Comparison:
    """`rows[predictor][measure]`, on the same prompts; distances are to the predictor named `reference`."""

    rows: dict[str, dict[str, Estimate]]
    reference: str
    n_prompts: int

    def __getitem__(self, name: str) -> dict[str, Estimate]:
        return self.rows[name]

    def __str__(self) -> str:
        headers = ["predictor", *(measure.replace("_", " ") for measure in MEASURES)]
        cells = [[name, *(str(row[measure]) for measure in MEASURES)] for name, row in self.rows.items()]
        widths = [max(len(line[i]) for line in [headers, *cells]) for i in range(len(headers))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in [headers, ["-" * width for width in widths], *cells]
        ]
        return "\n".join([*lines, f"{self.n_prompts} prompts, ± 95 %; differences are to {self.reference}"])


def compare(
    predictors: Mapping[str, Any],
    task: Task,
    *,
    key: Key[Array, ""],
    n_prompts: int = 10_000,
    reference: str | None = None,
) -> Comparison:
    """Evaluate all `predictors` on the same `n_prompts` prompts of `task`.

    Predictors are callables on a prompt: trained ensembles, algorithms, or a plain function of your own, which may use
    jax.numpy or numpy. Distances are to `reference` (default: the last name). Sensitivities of a function that jax
    cannot differentiate are left out ("-").
    """
    require(n_prompts >= 2, "n_prompts", n_prompts, "at least 2")
    if not predictors:
        raise BadInput("compare needs at least one predictor")
    reference = reference if reference is not None else list(predictors)[-1]
    if reference not in predictors:
        raise BadInput(f"unknown reference {reference!r} (known: {', '.join(predictors)})")
    prompts = task.sample_batch(n_prompts, key=key)
    measured = {name: _measure(predictor, prompts) for name, predictor in predictors.items()}
    base_answers, base_sensitivities = measured[reference]
    base_loss = distances.query_losses(base_answers[0], prompts)
    rows = {}
    for name, (answers, gradients) in measured.items():
        losses = [distances.query_losses(a, prompts) for a in answers]
        ratios = [float(jnp.mean(loss) / jnp.mean(base_loss)) for loss in losses]
        pairs = [(g, base_sensitivities[0]) for g in gradients] if gradients and base_sensitivities else []
        rows[name] = {
            "loss": estimate(losses),
            "loss_ratio": _ratio(losses, base_loss, ratios),
            "prediction_difference": estimate([distances.prediction_difference(a, base_answers[0]) for a in answers]),
            "model_difference": estimate([distances.model_difference(*pair) for pair in pairs]),
            "sensitivity_cosine": estimate([distances.sensitivity_cosine(*pair) for pair in pairs]),
        }
    return Comparison(rows, reference, n_prompts)


def loss_by_context(
    predictors: Mapping[str, Any] | Callable[[int], Mapping[str, Any]],
    task: Task,
    contexts: Sequence[int],
    *,
    key: Key[Array, ""],
    n_prompts: int = 10_000,
) -> dict[str, list[Estimate]]:
    """The loss of every predictor for prompts cut to each context length, the same prompts throughout.

    `predictors` may be a function of the context length, for algorithms whose best rate depends on it.
    """
    prompts = task.sample_batch(n_prompts, key=key)
    longest = prompts.x.shape[1] - 1
    require(all(1 <= c <= longest for c in contexts), "contexts", list(contexts), f"between 1 and {longest}")
    curves: dict[str, list[Estimate]] = {}
    for n_context in contexts:
        cut = truncated(prompts, n_context)
        chosen = predictors(n_context) if callable(predictors) else predictors
        for name, predictor in chosen.items():
            answers = _compiled(predictor, cut)
            curves.setdefault(name, []).append(estimate([distances.query_losses(a, cut) for a in answers]))
    return curves


def loss_by_task(
    predictors: Mapping[str, Any], tasks: Sequence[Task], *, key: Key[Array, ""], n_prompts: int = 10_000
) -> dict[str, list[Estimate]]:
    """The loss of every predictor, as it is, on prompts of each task: how it fares out of distribution.

    All tasks are sampled with the same key, so where they differ in a scale only, their prompts do too.
    """
    curves: dict[str, list[Estimate]] = {name: [] for name in predictors}
    for task in tasks:
        prompts = task.sample_batch(n_prompts, key=key)
        for name, predictor in predictors.items():
            answers = _compiled(predictor, prompts)
            curves[name].append(estimate([distances.query_losses(a, prompts) for a in answers]))
    return curves


def _compiled(predictor: Any, prompts: Prompt) -> Array:
    """`members_first` as one program where the predictor can be traced."""
    try:
        return eqx.filter_jit(members_first)(predictor, prompts)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return members_first(predictor, prompts)


def members_first(predictor: Any, prompts: Prompt) -> Array:
    """The answers "members b dy"; a single predictor is an ensemble of one."""
    answers = answer_batch(predictor, prompts)
    return answers if isinstance(predictor, Ensemble) else answers[None]


def estimate(per_prompt: Sequence[Array]) -> Estimate:
    """Mean over members and prompts; the standard error is over prompts, whose draws all members share."""
    if not len(per_prompt):
        return Estimate(float("nan"), float("nan"), ())
    values = np.stack([np.asarray(values, np.float64) for values in per_prompt])
    over_members = values.mean(0)
    error = over_members.std(ddof=1) / np.sqrt(over_members.size)
    return Estimate(float(values.mean()), float(error), tuple(values.mean(1).tolist()))


def _ratio(losses: Sequence[Array], base: Array, ratios: list[float]) -> Estimate:
    """Ratio of mean losses with its paired standard error (delta method)."""
    mean_loss = np.mean([np.asarray(loss, np.float64) for loss in losses], axis=0)
    reference = np.asarray(base, np.float64)
    ratio = mean_loss.mean() / reference.mean()
    residual = (mean_loss - ratio * reference) / reference.mean()
    return Estimate(float(ratio), float(residual.std(ddof=1) / np.sqrt(residual.size)), tuple(ratios))


def _measure(predictor: Any, prompts: Prompt) -> tuple[Array, list[Array] | None]:
    members = [predictor[i] for i in range(len(predictor))] if isinstance(predictor, Ensemble) else [predictor]
    try:
        answers, gradients = zip(*(_answers_and_sensitivities(member, prompts) for member in members), strict=True)
        return jnp.stack(answers), list(gradients)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return members_first(predictor, prompts), None


@eqx.filter_jit
def _answers_and_sensitivities(predictor: Any, prompts: Prompt) -> tuple[Array, Array]:
    return answer_batch(predictor, prompts), distances.sensitivities(predictor, prompts)
