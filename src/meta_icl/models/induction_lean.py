"""The lean form of two-layer induction classifiers: what the loss at the query reads, and nothing else.

Layer 2 is computed for the query alone: with u = K_2 Q_2^T r for the query's row r, the score of row j is u.v_j, and
the rows v_j are mixed before they meet V_2. With a single head, V_1 never meets all rows either: v_j = h_j + V_1^T m_j
with the mixed rows m = P_1 h, so that u.v_j = u.h_j + (V_1 u).m_j. One product of all rows with a matrix is left
(queries of layer 1), where the full form has eight; all others have one row per prompt. Attention may be restricted to
some of the causal entries (`visible`), which is how networks are trained that are held in one circuit.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

if TYPE_CHECKING:
    from meta_icl.models.attention_stack import AttentionStack
    from meta_icl.models.induction import InductionNetwork
    from meta_icl.models.label_layouts import LabelTokens


def has_lean_form(c: "AttentionStack") -> bool:
    """Whether `lean_form` covers this stack: two layers of attention alone, without rotation or smearing."""
    return c.n_layers == 2 and c.norm == "none" and c.d_mlp is None and not (c.rotary or c.smeared)


def lean_form(
    network: "InductionNetwork", tokens: "LabelTokens", visible: Bool[Array, "2 t t"] | None = None
) -> Float[Array, "b 1 labels"]:
    """The logits of the last token of every prompt, equal to the full form in value and gradient.

    `visible` are the entries (layer, reader, read) that attention may use, by default all up to the reader.
    """
    h = network.embedded(tokens)
    causal = jnp.tril(jnp.ones((h.shape[1], h.shape[1]), bool))[None]
    answer = _one_head if network.config.stack.n_heads == 1 else _several_heads
    return network.classify(answer(network, h, causal if visible is None else causal & visible))[:, None]


def _one_head(
    network: "InductionNetwork", h: Float[Array, "b t d"], visible: Bool[Array, "#2 t t"]
) -> Float[Array, "b d"]:
    stack, scale = network.stack, network.config.stack.scale
    b, t, d = h.shape
    w_q, w_k, w_v = (matrix[:, 0] for matrix in (stack.w_q, stack.w_k, stack.w_v))
    ov = w_v if stack.w_o is None else w_v @ stack.w_o[:, 0]
    queries = (h.reshape(b * t, d) @ (w_q[0] @ w_k[0].T * scale)).reshape(b, t, d)
    mixed = jnp.einsum("bqs,bsd->bqd", _pattern(jnp.einsum("bqd,bsd->bqs", queries, h), visible[:1]), h)
    last = h[:, -1] + mixed[:, -1] @ ov[0]
    reads = (last @ w_q[1]) @ w_k[1].T * scale
    scores = jnp.einsum("bd,bsd->bs", reads, h) + jnp.einsum("bd,bsd->bs", reads @ ov[0].T, mixed)
    pattern = _pattern(scores, visible[-1, -1:])
    direct, indirect = (jnp.einsum("bs,bsd->bd", pattern, rows) for rows in (h, mixed))
    return last + (direct + indirect @ ov[0]) @ ov[1]


def _several_heads(
    network: "InductionNetwork", h: Float[Array, "b t d"], visible: Bool[Array, "#2 t t"]
) -> Float[Array, "b d"]:
    stack, c = network.stack, network.config.stack
    b, t, d = h.shape
    flat = (jnp.swapaxes(matrix, 1, 2).reshape(2, d, d) for matrix in (stack.w_q, stack.w_k, stack.w_v))
    w_q, w_k, w_v = flat
    w_o = None if stack.w_o is None else stack.w_o.reshape(2, d, d)
    rows = h.reshape(b * t, d)
    q, k, v = ((rows @ matrix[0]).reshape(b, t, d) for matrix in (w_q, w_k, w_v))
    heads = []
    for i in range(c.n_heads):
        own = slice(i * c.d_head, (i + 1) * c.d_head)
        pattern = _pattern(jnp.einsum("bqk,bsk->bqs", q[..., own], k[..., own]) * c.scale, visible[:1])
        heads.append(jnp.einsum("bqs,bsk->bqk", pattern, v[..., own]))
    z = jnp.concatenate(heads, axis=-1)
    h = h + (z if w_o is None else (z.reshape(b * t, d) @ w_o[0]).reshape(b, t, d))
    last = h[:, -1]
    q = last @ w_q[1]
    heads = []
    for i in range(c.n_heads):
        own = slice(i * c.d_head, (i + 1) * c.d_head)
        reads = q[:, own] @ stack.w_k[1, i].T * c.scale
        pattern = _pattern(jnp.einsum("bd,bsd->bs", reads, h), visible[-1, -1:])
        heads.append(jnp.einsum("bs,bsd->bd", pattern, h) @ stack.w_v[1, i])
    z = jnp.concatenate(heads, axis=-1)
    return last + (z if w_o is None else z @ w_o[1])


def _pattern(scores: Float[Array, "b ..."], visible: Bool[Array, "1 ..."]) -> Float[Array, "b ..."]:
    return jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
