"""How closely a predictor follows a reference on one fixed set of prompts: all the published measures at once."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.evaluation import distances
from meta_icl.prompt import Ensemble, Prompt, answer_batch, in_blocks


def alignment(predictor: Any, reference: Any, prompts: Prompt) -> dict[str, Float[Array, ""]]:
    """Means over prompts: `prediction_difference`, `model_difference` (von Oswald et al., 2022), `prediction_error`,
    `gradient_error` (Rossi et al., 2024) and `cosine` of the sensitivities."""
    return _distances(_answers(predictor, prompts), _answers(reference, prompts))


class LossOn(eqx.Module):
    """The probe of `loss_on`; a module, so that its prompts are arguments of the compiled program, not constants."""

    prompts: Prompt

    def __call__(self, predictor: Any, key: Any = None) -> Float[Array, ""]:
        del key
        return mean_loss(predictor, self.prompts)


class AlignmentWith(eqx.Module):
    """The probe of `alignment_with`."""

    prompts: Prompt
    expected: tuple[Array, Array]  # the reference's answers and sensitivities

    def __call__(self, predictor: Any, key: Any = None) -> dict[str, Float[Array, ""]]:
        del key
        return _distances(_answers(predictor, self.prompts), self.expected)


def alignment_with(reference: Any, prompts: Prompt) -> AlignmentWith:
    """`alignment` with a fixed reference as a training probe; the reference is evaluated once."""
    return AlignmentWith(prompts, _answers(reference, prompts))


def loss_on(prompts: Prompt) -> LossOn:
    """The half-MSE on fixed prompts as a training probe."""
    return LossOn(prompts)


def mean_loss(predictor: Any, prompts: Prompt) -> Float[Array, ""]:
    """The half-MSE (of labels the cross-entropy) of a predictor's answers to the queries of a batch of prompts."""
    if isinstance(predictor, Ensemble):
        return jnp.mean(jnp.stack([mean_loss(predictor[i], prompts) for i in range(len(predictor))]))
    return jnp.mean(in_blocks(lambda block: _losses(predictor, block), prompts))


@eqx.filter_jit
def _losses(predictor: Any, prompts: Prompt) -> Float[Array, " b"]:
    return distances.query_losses(answer_batch(predictor, prompts), prompts)


def _answers(predictor: Any, prompts: Prompt) -> tuple[Array, Array]:
    return in_blocks(lambda block: distances.answers_and_sensitivities(predictor, block), prompts)


@eqx.filter_jit
def _distances(a: tuple[Array, Array], b: tuple[Array, Array]) -> dict[str, Float[Array, ""]]:
    (f_a, g_a), (f_b, g_b) = a, b
    return {
        "prediction_difference": jnp.mean(distances.prediction_difference(f_a, f_b)),
        "model_difference": jnp.mean(distances.model_difference(g_a, g_b)),
        "prediction_error": jnp.mean(distances.prediction_error(f_a, f_b)),
        "gradient_error": jnp.mean(distances.gradient_error(g_a, g_b)),
        "cosine": jnp.mean(distances.sensitivity_cosine(g_a, g_b)),
    }
