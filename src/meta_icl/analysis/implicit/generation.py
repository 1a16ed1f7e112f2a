"""Greedy decoding with the prompt removed and its weight update in its place (Goldwaser et al., 2025)."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from meta_icl.analysis.implicit.layers import checked
from meta_icl.analysis.implicit.updates import update_between
from meta_icl.errors import choose, require
from meta_icl.models.network import Network

PATCHES = ("none", "every step", "first step")


class Generated(NamedTuple):
    """Greedily chosen tokens, and the logits from which each was chosen."""

    tokens: Int[Array, " n_new"]
    logits: Float[Array, "n_new v"]


def generate(model: Network, prompt: Int[Array, " t"], n_new: int) -> Generated:
    """The most likely continuation of `n_new` tokens, token by token, with the whole prompt in view."""
    _check(model, prompt, n_new)
    return _generate(model, prompt, n_new)


def generate_without_prompt(
    model: Network, prompt: Int[Array, " t"], n_new: int, *, patch: str = "every step"
) -> Generated:
    """The same with all tokens of the prompt but its last removed, and the weights patched instead.

    `patch` is recomputed at "every step", which reproduces `generate` exactly; kept from the "first step", which is
    wrong from the second token on, because the patch depends on the query; or "none".
    """
    _check(model, prompt, n_new)
    choose("patch", patch, PATCHES)
    return _generate_patched(model, prompt, n_new, jnp.asarray(patch == "every step"), jnp.asarray(patch != "none"))


def agreeing_tokens(one: Generated, other: Generated) -> Int[Array, ""]:
    """How many tokens two continuations have in common before they part."""
    return jnp.sum(jnp.cumprod((one.tokens == other.tokens).astype(int)))


def _check(model: Network, prompt: Array, n_new: int) -> None:
    require(prompt.shape[0] >= 2, "prompt", prompt.shape, "at least two tokens")
    checked(model, prompt[:-1], prompt[-1])
    require(n_new >= 1, "n_new", n_new, "a positive integer")


@eqx.filter_jit
def _generate(model: Network, prompt: Array, n_new: int) -> Generated:
    row = jnp.arange(prompt.shape[0] + n_new)
    return _decode(prompt, n_new, lambda tokens, position: model(tokens, visible=row <= position)[0][position])


@eqx.filter_jit
def _generate_patched(model: Network, prompt: Array, n_new: int, renewed: Array, used: Array) -> Generated:
    last = prompt.shape[0] - 1
    row = jnp.arange(prompt.shape[0] + n_new)

    def logits(tokens: Array, position: Array) -> Array:
        # The patch of the first step is recomputed rather than kept: tokens up to `last` never change.
        at = jnp.where(renewed, position, last)
        full, rest = row <= at, (row <= at) & (row >= last)
        patch = update_between(model, tokens, full, rest, position=at)
        patch = jax.tree.map(lambda leaf: jnp.where(used, leaf, 0), patch)
        return model(tokens, visible=(row <= position) & (row >= last), patch=patch)[0][position]

    return _decode(prompt, n_new, logits)


def _decode(prompt: Array, n_new: int, logits: Callable[[Array, Array], Array]) -> Generated:
    start = jnp.concatenate([prompt, jnp.zeros(n_new, prompt.dtype)])

    def step(tokens: Array, position: Array) -> tuple[Array, tuple[Array, Array]]:
        scores = logits(tokens, position)
        chosen = jnp.argmax(scores).astype(tokens.dtype)
        return tokens.at[position + 1].set(chosen), (chosen, scores)

    last = prompt.shape[0] - 1
    return Generated(*lax.scan(step, start, jnp.arange(last, last + n_new))[1])
