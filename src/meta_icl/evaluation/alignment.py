"""How closely a predictor follows a reference on one fixed set of prompts: all the published measures at once."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.evaluation import distances
from meta_icl.prompt import Prompt, answer_batch


def alignment(predictor: Any, reference: Any, prompts: Prompt) -> dict[str, Float[Array, ""]]:
    """Means over prompts: `prediction_difference`, `model_difference` (von Oswald et al., 2022), `prediction_error`,
    `gradient_error` (Rossi et al., 2024) and `cosine` of the sensitivities."""
    return alignment_with(reference, prompts)(predictor)


def alignment_with(reference: Any, prompts: Prompt) -> Callable[..., dict[str, Float[Array, ""]]]:
    """`alignment` with a fixed reference as a training probe; the reference is evaluated once."""
    answers = answer_batch(reference, prompts)
    gradients = distances.sensitivities(reference, prompts)

    def probe(predictor: Any, key: Any = None) -> dict[str, Float[Array, ""]]:
        del key
        f, g = answer_batch(predictor, prompts), distances.sensitivities(predictor, prompts)
        return {
            "prediction_difference": jnp.mean(distances.prediction_difference(f, answers)),
            "model_difference": jnp.mean(distances.model_difference(g, gradients)),
            "prediction_error": jnp.mean(distances.prediction_error(f, answers)),
            "gradient_error": jnp.mean(distances.gradient_error(g, gradients)),
            "cosine": jnp.mean(distances.sensitivity_cosine(g, gradients)),
        }

    return probe


def loss_on(prompts: Prompt) -> Callable[..., Float[Array, ""]]:
    """The half-MSE on fixed prompts as a training probe."""

    def probe(predictor: Any, key: Any = None) -> Float[Array, ""]:
        del key
        return jnp.mean(distances.query_losses(answer_batch(predictor, prompts), prompts))

    return probe
