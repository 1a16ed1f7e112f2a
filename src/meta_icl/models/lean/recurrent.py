"""The lean form of stacks of LSTMs that are read at their last token: all prompts go through a step together.

What a scan differentiates by itself adds a product to the gradient of the recurrent weights at every token. Here the
backward pass carries the gradients of the gates alone, and one product over all tokens ends it; the gates' derivatives
are made of the gates (Graves, 2012, section 4.6). Values and gradients are those of the full form, to which derivatives
in forward mode are left.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from meta_icl.models.lean.some_rows import last_row
from meta_icl.models.lean.streams import times
from meta_icl.models.mixers.lstm import Cell, LstmLayer
from meta_icl.models.network import Network

Saved = tuple[Array, Array, Array, Array, Array]


def is_recurrent(network: Network) -> bool:
    """Whether `recurrent` covers a network: LSTMs on top of each other and nothing between."""
    return network.n_layers >= 1 and all(
        isinstance(block.mixer, LstmLayer)
        and block.feed_forward is None
        and block.norm_mixer is None
        and block.config.skip == "none"
        and block.config.clip is None
        for block in network.blocks
    )


def recurrent(network: Network, tokens: Any, visible: Bool[Array, "l t t"] | None = None) -> Float[Array, "b d_out"]:
    """The outputs of the last tokens of a batch."""
    if visible is not None:
        return last_row(network, tokens, visible)
    h = jnp.swapaxes(jax.vmap(network.embedded)(tokens), 0, 1)
    for block in network.layers():
        mixer: LstmLayer = block.mixer
        both = [_outputs(cell, h, reverse=direction == 1) for direction, cell in enumerate(mixer.cells)]
        h = jnp.concatenate(both, axis=-1)
        if mixer.w_o is not None:
            h = times(h, mixer.w_o)
    return network.read(h[-1])


def _outputs(cell: Cell, x: Float[Array, "t b d"], *, reverse: bool) -> Float[Array, "t b units"]:
    # tanh u = 2 sigmoid(2 u) - 1: with its part doubled, all gates are one logistic function of one block.
    doubled = jnp.repeat(jnp.asarray([1, 1, 2, 1], cell.bias.dtype), cell.w_h.shape[0])
    driven = times(x, cell.w_x * doubled[None]) + (cell.bias * doubled)[None, None]
    w_h = cell.w_h * doubled[None]
    return jnp.flip(_run(jnp.flip(driven, 0), w_h), 0) if reverse else _run(driven, w_h)


@jax.custom_vjp
def _run(driven: Float[Array, "t b gates"], w_h: Float[Array, "units gates"]) -> Float[Array, "t b units"]:
    """The outputs of a cell that is driven by the input's part of its gates, from zero on; g is 2 sigmoid - 1."""
    return _forward(driven, w_h)[0]


def _forward(
    driven: Float[Array, "t b gates"], w_h: Float[Array, "units gates"]
) -> tuple[Float[Array, "t b units"], Saved]:
    def step(carry: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        h, c = carry
        gates = jax.nn.sigmoid(row + h @ w_h)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        after = f * c + i * (2 * g - 1)
        bent = _tanh(after)
        return (o * bent, after), (o * bent, c, gates, bent)

    zero = jnp.zeros((driven.shape[1], w_h.shape[0]), driven.dtype)
    outputs, before, gates, bent = lax.scan(step, (zero, zero), driven)[1]
    return outputs, (outputs, before, gates, bent, w_h)


def _tanh(u: Float[Array, "b units"]) -> Float[Array, "b units"]:
    """tanh by the logistic function, which XLA computes in a third of the time; a rounding of float32 off."""
    return 2 * jax.nn.sigmoid(2 * u) - 1


def _backward(saved: Saved, given: Float[Array, "t b units"]) -> tuple[Array, Array]:
    outputs, before, gates, bent, w_h = saved
    back = w_h.T

    def step(carry: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        dh, dc = carry
        own, c, gates, bent = row
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        dh = dh + own
        dc = dc + dh * o * (1 - bent * bent)
        slopes = (i * (1 - i), f * (1 - f), g * (1 - g), o * (1 - o))
        heights = (dc * (2 * g - 1), dc * c, 2 * dc * i, dh * bent)
        parts = [slope * height for slope, height in zip(slopes, heights, strict=True)]
        driven = jnp.concatenate(parts, axis=-1)
        return (driven @ back, dc * f), driven

    zero = jnp.zeros_like(outputs[0])
    driven = lax.scan(step, (zero, zero), (given, before, gates, bent), reverse=True)[1]
    units = outputs.shape[-1]
    # The output of a token drives the next one. XLA multiplies faster by what is transposed before, which it would not
    # leave to itself.
    heard = lax.optimization_barrier(outputs[:-1].reshape(-1, units).T)
    return driven, heard @ driven[1:].reshape(-1, 4 * units)


_run.defvjp(_forward, _backward)
