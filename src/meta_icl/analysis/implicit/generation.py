"""Greedy decoding with the prompt removed and its weight update in its place (Goldwaser et al., 2025)."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from meta_icl.analysis.implicit.updates import update_between
from meta_icl.errors import choose, require
from meta_icl.models.blocks_language import LanguageModel
from meta_icl.models.blocks_patch import Patch

PATCHES = ("none", "every step", "first step")


class Generated(NamedTuple):
    """Greedily chosen tokens, and the logits from which each was chosen."""

    tokens: Int[Array, " n_new"]
    logits: Float[Array, "n_new v"]


def generate(model: LanguageModel, prompt: Int[Array, " t"], n_new: int) -> Generated:
    """The most likely continuation of `n_new` tokens, token by token, with the whole prompt in view."""
    _check(prompt, n_new)
    return _generate(model, prompt, n_new, False, "none")


def generate_without_prompt(
    model: LanguageModel, prompt: Int[Array, " t"], n_new: int, *, patch: str = "every step"
) -> Generated:
    """The same with all tokens of the prompt but its last removed, and the weights patched instead.

    `patch` is recomputed at "every step", which reproduces `generate` exactly; kept from the "first step", which is
    wrong from the second token on, because the patch depends on the query; or "none".
    """
    _check(prompt, n_new)
    choose("patch", patch, PATCHES)
    return _generate(model, prompt, n_new, True, patch)


def agreeing_tokens(one: Generated, other: Generated) -> Int[Array, ""]:
    """How many tokens two continuations have in common before they part."""
    return jnp.sum(jnp.cumprod((one.tokens == other.tokens).astype(int)))


def _check(prompt: Array, n_new: int) -> None:
    require(prompt.shape[0] >= 2, "prompt", prompt.shape, "at least two tokens")
    require(n_new >= 1, "n_new", n_new, "a positive integer")


@eqx.filter_jit
def _generate(model: LanguageModel, prompt: Array, n_new: int, removed: bool, patching: str) -> Generated:
    t, row = prompt.shape[0], jnp.arange(prompt.shape[0] + n_new)
    start = jnp.concatenate([prompt, jnp.zeros(n_new, prompt.dtype)])

    def update(tokens: Array, position: Array) -> Patch:
        full, rest = row <= position, (row <= position) & (row >= t - 1)
        return update_between(model.network, model.embedded(tokens), full, rest, position=position)

    fixed = update(start, jnp.asarray(t - 1)) if patching == "first step" else None

    def step(tokens: Array, position: Array) -> tuple[Array, tuple[Array, Array]]:
        visible = (row <= position) & (row >= t - 1) if removed else row <= position
        patch = update(tokens, position) if patching == "every step" else fixed
        logits = model(tokens, visible=visible, patch=patch)[0][position]
        chosen = jnp.argmax(logits).astype(tokens.dtype)
        return tokens.at[position + 1].set(chosen), (chosen, logits)

    return Generated(*lax.scan(step, start, jnp.arange(t - 1, t - 1 + n_new))[1])
