"""Whether a head copies what it attends to, from its weights and from its output (Elhage 2021, Olsson 2022)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from meta_icl.analysis.weights import copying_score


def eigenvalue_copying(
    embed: Float[Array, "v d"],
    values: Float[Array, "*heads d k"],
    writes: Float[Array, "*heads k d"],
    unembed: Float[Array, "d v"],
) -> Float[np.ndarray, "*heads"]:
    """sum Re(lambda) / sum |lambda| of W_E W_V W_O W_U, by the k eigenvalues of W_O W_U W_E W_V; 1 is pure copying.

    Row convention. Fold the scales of norms into the matrices first; the columns of `unembed` are centred here, since
    a constant added to all logits means nothing.
    """
    unembed = unembed - unembed.mean(1, keepdims=True)
    return copying_score(jnp.einsum("...kd,de,...el->...kl", writes, unembed @ embed, values))


def heads_copying(network: Any, layers: Sequence[int] | np.ndarray) -> Float[np.ndarray, "layers heads"]:
    """`eigenvalue_copying` of every head of some layers of attention; scales of norms are folded in."""
    embed = np.asarray(network.embedding.table, np.float64)
    unembed = embed.T if not hasattr(network.readout, "map") else np.asarray(network.readout.map.weight, np.float64)
    if network.final_norm is not None:
        unembed = np.asarray(network.final_norm.scale, np.float64)[:, None] * unembed
    through = (unembed - unembed.mean(1, keepdims=True)) @ embed  # of all heads alike, and the largest product
    scores = []
    for i in layers:
        block = network.block(int(i))
        heads, d, k = block.mixer.w_q.shape
        v = np.repeat(np.asarray(block.mixer.w_v, np.float64), heads // block.mixer.w_v.shape[0], axis=0)
        norm = block.norm_mixer if block.config.norm_at in ("pre", "sandwich") else None
        scale = np.ones(v.shape[1]) if norm is None else np.asarray(norm.scale, np.float64)
        w_o = block.mixer.w_o
        writes = np.eye(d).reshape(heads, k, d) if w_o is None else np.asarray(w_o, np.float64)
        behind = {"sandwich": block.post_norm_mixer, "branch": block.norm_mixer}.get(block.config.norm_at)
        if behind is not None:
            writes = writes * np.asarray(behind.scale, np.float64)
        scores.append(copying_score(jnp.asarray(writes @ through @ (scale[None, :, None] * v))))
    return np.stack(scores)


def output_copying(
    logits: Float[Array, "t v"], pattern: Float[Array, "t t"], tokens: Int[Array, " t"]
) -> Float[Array, ""]:
    """How much of a head's rise of the logits goes to the tokens it attends to, mapped to [-1, 1].

    `logits` are the head's own output at every place through the read-out. Among the logits of the tokens of the
    sequence, the mean is subtracted and the rest rectified; the share that falls on a token, weighted by the attention
    it gets, is averaged over places; 1 is 2 share - 1 for a head that raises only what it attends to.
    """
    return copying_among(logits[:, tokens], pattern, tokens)


def copying_among(
    among: Float[Array, "t t"], pattern: Float[Array, "t t"], tokens: Int[Array, " t"]
) -> Float[Array, ""]:
    """`output_copying` from the logits of the sequence's own tokens, `among`, which are all that it reads."""
    raised = jax.nn.relu(among - among.mean(1, keepdims=True))
    same = (tokens[:, None] == tokens[None]).astype(pattern.dtype)
    share = raised / jnp.maximum(raised.sum(1, keepdims=True), 1e-12)
    return 2 * jnp.mean(jnp.sum((pattern @ same) * share, axis=1)) - 1
