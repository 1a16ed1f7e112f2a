"""The lean form of networks of attention alone that are read at their last token.

Products of weights are formed once per batch where that is cheaper (folded products); with linear attention to a
context much longer than it is wide, the sum G = sum_i c_i c_i^T is formed first, so that a layer costs t w^2 instead of
t^2 w (Gram sums); the last layer is computed for the query only (last row); and the stream stays in factors as long as
that pays (`streams`): rows of a table of labels are then read by products of the table alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from meta_icl.models.embeddings import ItemEmbedding, VectorEmbedding
from meta_icl.models.lean.streams import Factor, Stream, formed, joined, merged, rows_of, times, width
from meta_icl.models.mixers.attention import AttentionLayer
from meta_icl.models.network import Network
from meta_icl.models.trace import Tap

NARROW = 32  # channels of a stream for which products of weights are worth forming even for a single row per prompt


def folds(network: Network) -> bool:
    """Whether `attention_only` covers a network: plain attention on a residual stream, and nothing between."""
    return network.n_layers >= 1 and all(
        isinstance(block.mixer, AttentionLayer)
        and block.feed_forward is None
        and block.norm_mixer is None
        and block.config.skip == "residual"
        and _plain(block.mixer)
        for block in network.blocks
    )


def _plain(mixer: AttentionLayer) -> bool:
    c = mixer.config
    bare = mixer.b_q is None and mixer.b_o is None and c.rotary is None and c.qk_norm is None and not c.smeared
    return (
        bare and c.softcap is None and c.window is None and c.kind != "elu" and (c.n_groups or c.n_heads) == c.n_heads
    )


def attention_only(
    network: Network, tokens: Any, visible: Bool[Array, "l t t"] | None = None
) -> Float[Array, "b d_out"]:
    """The outputs of the last tokens of a batch; `visible` are the entries (layer, reader, read) that may be used."""
    stream = _start(network, tokens)
    for index in range(network.n_layers):
        block, last = network.block(index), index == network.n_layers - 1
        c, mixer = block.config, block.mixer
        stream = stream if last else merged(stream)
        if not _stays(stream, mixer, network.config.d_model, last):
            stream = (Factor(formed(stream), None),)
        context = stream if mixer.config.query_is_key else rows_of(stream, slice(-1))
        readers = rows_of(stream, -1) if last else stream
        n = context[0].rows.shape[1]
        seen = mixer.seen(n, None)
        if visible is not None:
            own = visible[index][:, :n]
            seen = own if seen is None else own & seen
        attend = _for_one_row if last else _for_all_rows
        added = attend(mixer, readers, context, seen, visible is not None)
        if c.writes == "last" or c.clip is not None:
            after = lambda h, mixed, block=block: block.second_half(block.carried(h, mixed, Tap()))  # noqa: E731
            h, mixed = formed(readers), formed(added)
            stream = (Factor(after(h, mixed) if last else jax.vmap(after)(h, mixed), None),)
        else:
            if c.dampening != 1:
                added = tuple(Factor(c.dampening * factor.rows, factor.map) for factor in added)
            stream = joined((*readers, *added))
    return network.read(formed(stream))


def _start(network: Network, tokens: Any) -> Stream:
    """The stream before the first layer, in factors where the embedding is one linear map."""
    embedding = network.embedding
    linear = isinstance(embedding, VectorEmbedding) and embedding.mlp is None and network.positions is None
    if linear and embedding.map is not None and embedding.map.bias is None:
        return (Factor(tokens, embedding.map.weight),)
    if isinstance(embedding, ItemEmbedding) and embedding.encoder is None and network.positions is None:
        own, table = tokens.vectors.shape[-1], embedding.table
        if own + table.shape[0] < network.config.d_model:
            return (Factor(jnp.concatenate([tokens.vectors, embedding.one_hot(tokens.labels)], -1), table, own),)
        return (Factor(embedding.filled(tokens.vectors) + embedding.label_rows(tokens.labels), None),)
    return (Factor(jax.vmap(network.embedded)(tokens), None),)


def _stays(stream: Stream, mixer: AttentionLayer, d_model: int, last: bool) -> bool:
    """Whether a layer reads the stream in its factors at less cost than it takes to form it."""
    if len(stream) == 1 and (stream[0].map is None or stream[0].width < d_model):
        return True
    mapped = sum(factor.width for factor in stream if factor.map is not None)
    return last and mixer.config.n_heads * width(stream) <= mapped * d_model // 2


def _for_all_rows(mixer: AttentionLayer, readers: Stream, context: Stream, seen: Array | None, empty: bool) -> Stream:
    """What all heads add to every row, in factors: of the context's own rows where heads are wide."""
    (reader,), (rows,) = readers, context
    t, w = rows.rows.shape[1], rows.width
    if w >= 2 * mixer.w_q.shape[-1]:
        return _split(mixer, reader, rows, seen, empty)
    added = []
    for a, maps in _products(mixer, rows):
        if mixer.config.kind == "linear" and seen is None and t > 2 * w:
            gram = a @ jnp.einsum("bsw,bsv->bwv", rows.rows, rows.rows)
            added.append(Factor(jnp.einsum("btw,bwv->btv", reader.rows, gram), maps))
            continue
        pattern = mixer.pattern(_inner(times(reader.rows, a), rows.rows), seen, empty)
        added.append(Factor(_mixed(pattern, rows.rows), maps))
    return tuple(added)


def _products(mixer: AttentionLayer, rows: Factor) -> list[tuple[Array, Array]]:
    """Of every head, for rows u of a factor: A, by which scores are u A u^T, and the map of what it mixes."""
    if rows.map is None:
        return list(zip(mixer.qk(), mixer.ov(), strict=True))
    a = [rows.through(q) @ rows.through(k).T * mixer.scale for q, k in zip(mixer.w_q, mixer.w_k, strict=True)]
    if mixer.w_o is None:
        return list(zip(a, map(rows.through, mixer.ov()), strict=True))
    return [(a, rows.through(v) @ o) for a, v, o in zip(a, mixer.w_v, mixer.w_o, strict=True)]


def _split(mixer: AttentionLayer, reader: Factor, rows: Factor, seen: Array | None, empty: bool) -> Stream:
    """Heads much narrower than the stream: one product for the queries of all of them, one for keys, one for values."""
    h, d, k = mixer.w_q.shape
    maps = (rows.through(jnp.swapaxes(w, 0, 1).reshape(d, h * k)) for w in (mixer.w_q, mixer.w_k, mixer.w_v))
    q, keys, v = (
        times(r, m).reshape(*r.shape[:2], h, k) for r, m in zip((reader.rows, rows.rows, rows.rows), maps, strict=True)
    )
    pattern = mixer.pattern(jnp.einsum("bqhk,bshk->bhqs", q, keys) * mixer.scale, seen, empty)
    z = jnp.einsum("bhqs,bshk->bqhk", pattern, v)
    return (_written(mixer, z.reshape(*z.shape[:2], h * k)),)


def _for_one_row(mixer: AttentionLayer, readers: Stream, context: Stream, seen: Array | None, empty: bool) -> Stream:
    """What the heads add to one row "b w": the context is read by vectors, and mixed before it meets any weight."""
    (h, d, k), row = mixer.w_q.shape, formed(readers)
    # A product of weights costs d^2 k once per batch and saves d (2 k - d) for every prompt.
    fold = 2 * k > d and d <= NARROW
    if fold:
        reads = row @ jnp.swapaxes(mixer.qk(), 0, 1).reshape(d, h * d)
    else:
        q = row @ jnp.swapaxes(mixer.w_q, 0, 1).reshape(d, h * k) * mixer.scale
        reads = jnp.einsum("bhk,hdk->bhd", q.reshape(-1, h, k), mixer.w_k)
    reads = reads.reshape(-1, h, d)
    parts = [jnp.einsum("bhw,bsw->bhs", factor.coordinates(reads), factor.rows) for factor in context]
    pattern = mixer.pattern(sum(parts[1:], parts[0]), None if seen is None else seen[-1:], empty)
    mixed = formed(tuple(f._replace(rows=jnp.einsum("bhs,bsw->bhw", pattern, f.rows)) for f in context))
    if fold:
        return (Factor(jnp.einsum("bhd,hde->be", mixed, mixer.ov()), None),)
    z = jnp.einsum("bhd,hdk->bhk", mixed, mixer.w_v)
    return (_written(mixer, z.reshape(-1, h * k)),)


def _written(mixer: AttentionLayer, z: Float[Array, "b *t hk"]) -> Factor:
    """What all heads read, with the map that takes it into the stream."""
    return Factor(z, None if mixer.w_o is None else mixer.w_o.reshape(-1, mixer.w_o.shape[-1]))


def _inner(readers: Float[Array, "b q k"], rows: Float[Array, "b s k"]) -> Float[Array, "b q s"]:
    """The inner products of two sets of rows of every prompt."""
    return jnp.einsum("bqk,bsk->bqs", readers, rows)


def _mixed(pattern: Float[Array, "b q s"], rows: Float[Array, "b s k"]) -> Float[Array, "b q k"]:
    """Sums of rows, weighed by a pattern."""
    return jnp.einsum("bqs,bsk->bqk", pattern, rows)
