"""Errors and distances of predictors as a function of the number of examples in the context.

Position k is the query after k examples. A predictor that answers every position is asked once; one that answers the
query alone is asked with the prompt cut after row k.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.errors import require
from meta_icl.evaluation.distances import with_inputs
from meta_icl.prompt import ON_HOST, Ensemble, Prompt, answer_batch, answer_positions, as_array, in_blocks, take_rows


def up_to(prompts: Prompt, k: int) -> Prompt:
    """The first k rows of every prompt as context, and row k as the query."""
    return take_rows(prompts, slice(k + 1))


def with_query(prompts: Prompt, k: int, x: Float[Array, "b dx"]) -> Prompt:
    """The prompts with the input of row k replaced; read a predictor at position k, whose own target it never sees."""
    return with_inputs(prompts, prompts.x.at[:, k].set(x))


def answers_by_position(
    predictor: Any, prompts: Prompt, positions: Sequence[int] | None = None
) -> Float[Array, "b p dy"]:
    """The answers at the given positions (default: all), whichever kind of predictor it is."""
    n = prompts.x.shape[1]
    chosen = list(range(n)) if positions is None else list(positions)
    require(len(chosen) > 0 and all(0 <= k < n for k in chosen), "positions", chosen, f"from 0 to {n - 1}")
    if answers_every_position(predictor, prompts):
        whole = in_blocks(lambda block: _all_positions(predictor, block), prompts)
        return whole[:, jnp.asarray(chosen)]
    return jnp.stack([_query(predictor, up_to(prompts, k)) for k in chosen], axis=1)


def answers_every_position(predictor: Any, prompts: Prompt) -> bool:
    """Whether a predictor answers every row, judged by the shape of its answer; one that cannot be traced does not."""
    require(not isinstance(predictor, Ensemble), "predictor", "an ensemble", "one of its members")
    one = jax.tree.map(lambda leaf: leaf[0], prompts)
    try:
        return eqx.filter_eval_shape(as_array, predictor, one).ndim == 2
    except ON_HOST:
        return False


def errors_by_position(
    predictor: Any,
    prompts: Prompt,
    targets: Float[Array, "b n dy"] | None = None,
    *,
    positions: Sequence[int] | None = None,
) -> Float[Array, "b p"]:
    """Squared errors, summed over outputs, of every prompt at the given positions.

    `targets` default to the prompts' own; pass noise-free ones to measure the function and not the noise. Divide by the
    variance of f (the zero predictor's error) for the normalised error of Garg et al. (2022).
    """
    wanted = prompts.y if targets is None else targets
    chosen = jnp.arange(prompts.x.shape[1]) if positions is None else jnp.asarray(list(positions))
    answers = answers_by_position(predictor, prompts, positions)
    return jnp.sum(jnp.square(answers - wanted[:, chosen]), axis=-1)


def correct_by_position(
    predictor: Any, prompts: Prompt, *, positions: Sequence[int] | None = None
) -> Float[Array, "b p"]:
    """Whether the largest logit is that of the label (1 or 0), for every prompt at the given positions.

    A logit that is not a number is a wrong answer, whichever index it stands at.
    """
    chosen = jnp.arange(prompts.x.shape[1]) if positions is None else jnp.asarray(list(positions))
    logits = answers_by_position(predictor, prompts, positions)
    right = (jnp.argmax(logits, axis=-1) == prompts.y[:, chosen]) & jnp.all(~jnp.isnan(logits), axis=-1)
    return right.astype(logits.dtype)


def distance_by_position(a: Any, b: Any, prompts: Prompt) -> Float[Array, " n"]:
    """Mean over prompts of |f_a - f_b|^2 at every position; over d it is the Delta of Raventos et al. (2023)."""
    difference = answers_by_position(a, prompts) - answers_by_position(b, prompts)
    return jnp.mean(jnp.sum(jnp.square(difference), axis=-1), axis=0)


class Band(NamedTuple):
    """A mean over prompts with the ends of its bootstrap interval, each of shape "p"."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap(
    per_prompt: Float[Array, "b p"] | np.ndarray, *, resamples: int = 1000, level: float = 0.9, seed: int = 0
) -> Band:
    """The mean over prompts with its percentile interval; whole prompts are resampled, so positions stay together.

    Garg et al. (2022): 1000 resamples, 5th and 95th percentile.
    """
    require(0 < level < 1, "level", level, "between 0 and 1")
    require(resamples >= 1, "resamples", resamples, "a positive integer")
    values = np.asarray(per_prompt, np.float64)
    b = values.shape[0]
    # How often every prompt is drawn: one multinomial per resample, so a resampled mean is a matrix product.
    counts = np.random.default_rng(seed).multinomial(b, np.full(b, 1 / b), size=resamples)
    low, high = np.quantile(counts @ values / b, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(values.mean(0), low, high)


@eqx.filter_jit
def _all_positions(predictor: Any, prompts: Prompt) -> Float[Array, "b n dy"]:
    return answer_positions(predictor, prompts)


@eqx.filter_jit
def _query_compiled(predictor: Any, prompts: Prompt) -> Float[Array, "b dy"]:
    return answer_batch(predictor, prompts)


def _query(predictor: Any, prompts: Prompt) -> Float[Array, "b dy"]:
    try:
        return in_blocks(lambda block: _query_compiled(predictor, block), prompts)
    except ON_HOST:
        return answer_batch(predictor, prompts)
