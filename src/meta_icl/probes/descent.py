"""Descent: whose step is it? The model beside gradient descent, GD++ and least squares on the same prompts.

What is shown. For contexts of several lengths: losses, the distance of predictions and the cosine of sensitivities (the
derivative of the answer by the query) between the model and each reference. Rates are the best for these prompts. The
layer-by-layer view is the probe `lens`.

What it says. Equal predictions on the trained law are weak evidence; equal sensitivities, and equality at lengths that
were not trained, are stronger (von Oswald et al., 2022). An untrained twin shows what sizes mean.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import GradientDescent, GradientDescentPlusPlus, Ridge, line_search, sample_best_rate
from meta_icl.analysis import gradient_descent_construction, interpolated
from meta_icl.errors import BadInput
from meta_icl.evaluation import alignment, mean_loss
from meta_icl.models import Attention, Concatenated, Network
from meta_icl.plotting import Chart, Lines, Series
from meta_icl.probes._shared import Measured
from meta_icl.probes._subject import Subject
from meta_icl.prompt import truncated

RIDGE = 1e-6  # hardly any: prompts do not say how noisy they are, and ridge of `compare` knows


def check(subject: Subject) -> None:
    """Raise `BadInput` unless the prompts ask for a real number from pairs."""
    if subject.is_language or jnp.issubdtype(subject.prompts.y.dtype, jnp.integer):
        raise BadInput("the prompts have no real targets, so there is no squared error to descend")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`contexts` "n", `loss` "n" of the model, and `NAME/loss`, `NAME/difference`, `NAME/cosine` of references."""
    full = subject.prompts.x.shape[1] - 1
    contexts = sorted({max(1, full // 2), full})
    found: dict[str, list[float]] = {"loss": []}
    for n in contexts:
        prompts = truncated(subject.prompts, n)
        found["loss"].append(float(mean_loss(subject.model, prompts)))
        for name, reference in (references(prompts) | halfway(subject.model, prompts)).items():
            close = alignment(subject.model, reference, prompts)
            found.setdefault(f"{name}/loss", []).append(float(mean_loss(reference, prompts)))
            found.setdefault(f"{name}/difference", []).append(float(close["prediction_difference"]))
            found.setdefault(f"{name}/cosine", []).append(float(close["cosine"]))
    return {"contexts": np.array(contexts)} | {name: np.array(values) for name, values in found.items()}


def references(prompts: Any) -> dict[str, Any]:
    """One step of gradient descent at its best rate for these prompts, GD++ of two, and least squares."""
    rate = sample_best_rate(prompts)
    variance = jnp.mean(jnp.square(prompts.x))
    gamma = 0.3 / (prompts.x.shape[1] * variance)  # contracts inputs of this size without turning them over
    return {
        "gradient descent": GradientDescent(rate=rate),
        "GD++, 2 steps": GradientDescentPlusPlus(rates=rate, gammas=gamma, steps=2),
        "least squares": Ridge(RIDGE),
    }


def halfway(model: Any, prompts: Any) -> dict[str, Any]:
    """The network halfway to the construction of gradient descent, by its products; none where it has no such form."""
    network, layout = getattr(model, "network", None), getattr(model, "layout", None)
    if not isinstance(network, Network) or not isinstance(layout, Concatenated):
        return {}
    mixers = [None if block.feed_forward else block.mixer for block in network.config.blocks]
    if not all(isinstance(mixer, Attention) and mixer.kind == "linear" for mixer in mixers):
        return {}
    steps, (n, d) = network.n_layers, prompts.x[0, :-1].shape
    rate = sample_best_rate(prompts)
    if steps > 1:
        rate, _ = line_search(prompts, rate * jnp.linspace(0.05, 1.5, 59), steps)
    rates = rate if network.config.looped or steps == 1 else jnp.full(steps, rate)
    built = gradient_descent_construction(rates, d=d, n_context=n, n_steps=steps, n_out=prompts.y.shape[-1])
    try:
        return {"weights halfway to gradient descent": interpolated(model, built)}
    except BadInput:  # several heads, or narrow ones
        return {}


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per context length and reference."""
    names = [name.removesuffix("/loss") for name in measured if name.endswith("/loss")]
    return [
        {
            "context": int(n),
            "loss": float(measured["loss"][i]),
            "reference": name,
            "its loss": float(measured[f"{name}/loss"][i]),
            "difference of predictions": float(measured[f"{name}/difference"][i]),
            "cosine of sensitivities": float(measured[f"{name}/cosine"][i]),
        }
        for i, n in enumerate(measured["contexts"])
        for name in names
    ]


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """Losses and cosines by context length."""
    first = next(iter(found.values()))
    names = [name.removesuffix("/loss") for name in first if name.endswith("/loss")]
    losses = [Series(label, m["contexts"], m["loss"]) for label, m in found.items()]
    losses += [Series(name, first["contexts"], first[f"{name}/loss"], style="dashed") for name in names]
    cosines = [
        Series(f"{label}: {name}", m["contexts"], m[f"{name}/cosine"]) for label, m in found.items() for name in names
    ]
    return {
        "losses": Lines("Loss by context length", "examples in the prompt", "half squared error", losses),
        "cosines": Lines("Cosine of sensitivities", "examples in the prompt", "cosine", cosines),
    }
