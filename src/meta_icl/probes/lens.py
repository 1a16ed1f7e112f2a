"""Lens: the answer as it stands after every layer, beside what reference learners answer.

What is shown. The residual stream after each layer is read as if it were the last: the loss of these answers on the
prompts, beside least squares and gradient descent of as many steps where targets are real numbers.

What it says. A loss that falls layer by layer is what an iterative algorithm would give, but a network may also keep
its answer in directions that the read-out does not see until the end.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import GradientDescent, Ridge, sample_best_rate
from meta_icl.errors import require
from meta_icl.plotting import Chart, Lines, Series
from meta_icl.probes._shared import Measured, over_prompts
from meta_icl.probes._subject import Subject, loss_of_answer, require_site

RIDGE = 1e-6


def check(subject: Subject) -> None:
    """Raise `BadInput` unless the network has a residual stream that can be read after any layer."""
    require_site(subject, "resid_post", "one whose blocks name their residual stream")
    reads = hasattr(subject.network, "read")
    require(reads, "network", type(subject.network).__name__, "one with read(h), the output from the stream")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`loss` "prompts layers" after every layer, and losses of references "prompts" or "prompts layers"."""
    losses = _after_layers(subject.model, subject.prompts, subject.tokens())
    found = {"loss": np.asarray(losses)}
    if not subject.is_language and jnp.issubdtype(subject.prompts.y.dtype, jnp.inexact):
        rate = sample_best_rate(subject.prompts)
        steps = range(1, losses.shape[1] + 1)
        descents = [_losses(GradientDescent(rate=rate, steps=k), subject.prompts) for k in steps]
        found |= {
            "least squares": _losses(Ridge(RIDGE), subject.prompts),
            "gradient descent": np.stack(descents, axis=1),
        }
    return found


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per layer, with standard errors over prompts; references beside."""
    mean, error = over_prompts(measured["loss"])
    others = {name: measured[name] for name in measured if name != "loss"}

    def reference(values: np.ndarray, layer: int) -> float:
        return float(values.mean() if values.ndim == 1 else values[:, layer].mean())

    return [
        {"after layer": i + 1, "loss": float(mean[i]), "+-": float(error[i])}
        | {name: reference(values, i) for name, values in others.items()}
        for i in range(len(mean))
    ]


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """Loss by layer of every subject, and of the references."""
    series = []
    layers = np.arange(1, next(iter(found.values()))["loss"].shape[1] + 1)
    for label, measured in found.items():
        mean, error = over_prompts(measured["loss"])
        low, high = (None, None) if np.isnan(error).any() else (mean - 2 * error, mean + 2 * error)
        series.append(Series(label, layers, mean, low, high))
    for name, values in next(iter(found.values())).items():
        if name != "loss":
            line = values.mean(0) if values.ndim == 2 else np.full(len(layers), values.mean())
            series.append(Series(name, layers, line, style="dashed"))
    caption = "Loss of the stream read after each layer; bands are two standard errors over prompts."
    return {"loss": Lines("The answer after every layer", "layer", "loss", series, caption=caption)}


def _losses(predictor: Any, prompts: Any) -> np.ndarray:
    return np.asarray(jax.vmap(lambda prompt: loss_of_answer(predictor(prompt.hidden()), prompt))(prompts))


@eqx.filter_jit
def _after_layers(model: Any, prompts: Any, tokens: Any) -> Any:
    network, layout = model.network, model.layout

    def one(item: tuple[Any, Any]) -> Any:
        prompt, own = item
        stream = network(own)[1]["resid_post"]
        return jax.vmap(lambda h: loss_of_answer(layout.read(network.read(h), prompt), prompt))(stream)

    return jax.lax.map(one, (prompts, tokens), batch_size=8)
