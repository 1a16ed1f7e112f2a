"""The prompt as a weight update: the exact low-rank patch that replaces tokens of a prompt (Dherin et al., 2025).

For a block whose MLP reads a = norm(source) and writes to the residual stream, let subscript 1 mean "with all tokens"
and 0 "without the subset Y". In row convention the patch of every matrix W that reads a is

    dW = a_0^T (a_1 - a_0) W / |a_0|^2,      so that      a_0 (W + dW) = a_1 W,

the change of least Frobenius norm that does so. What bypasses the MLP, carry_1 - carry_0, is added by the last bias or,
where there is none, by the rank-one patch of the last matrix, or, if a norm stands behind that, by the norm's scale
(Goldwaser et al., 2025). That scale is divided by an entry of the normalised answer, which may be tiny: a `floor` lifts
such entries first, by a rank-one change of the last matrix. The identity holds for any weights: it says nothing about
whether the network has learned.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from meta_icl.analysis.implicit.layers import (
    Row,
    Rows,
    Subset,
    checked,
    halves,
    in_order,
    length,
    require_half,
    require_patchable,
    subset_mask,
)
from meta_icl.errors import BadInput, choose, require
from meta_icl.models.block import BlockLayer, Reading
from meta_icl.models.network import Network
from meta_icl.models.patch import LowRank, Patch

THROUGH = ("weights", "norm_scale")


def implicit_update(
    network: Network,
    context: Rows,
    query: Row,
    subset: Subset | None = None,
    *,
    through: str = "weights",
    floor: float = 0.0,
) -> Patch:
    """The patch with which the network answers the query without a subset of the context as it answers with all of it.

    Works on every network whose last layer has an MLP: vectors "n d_in" and a query "d_in", or, for a network that
    reads numbers of a table, integers "n" and one more. `subset` holds the positions of the context tokens to do
    without, or is a mask "n" (default: all of them). Every leaf of the patch has a leading layer axis: each block has
    its own, zero where a block has no such parameter. An empty subset gives the zero patch. `through` says what is
    changed before the MLP: the "weights" that read the query, or the "norm_scale" alone (ill-conditioned). With a norm
    behind the MLP, entries of the normalised answer below `floor` are lifted to it: with 0 as published, exact but
    ill-conditioned; 0.1 keeps the change of that norm's scale small, which float32 needs.

    Raises `BadInput` where no patch exists, because the MLP reads a zero vector without the subset (inside `jit` or
    `vmap` the same is raised as a runtime error), or because the last layer has no MLP or writes one channel alone.
    """
    tokens = checked(network, context, query)
    removed = _removed(context, subset)
    return update_between(network, tokens, jnp.ones_like(removed), ~removed, through=through, floor=floor)


def answer(
    network: Network,
    context: Rows,
    query: Row,
    subset: Subset | None = (),
    patch: Patch | None = None,
) -> Float[Array, " d_out"]:
    """The network's output at the query without the context tokens in `subset`, its weights changed by `patch`."""
    return _answer(network, checked(network, context, query), ~_removed(context, subset), patch)


def replacement_error(
    network: Network,
    context: Rows,
    query: Row,
    subset: Subset | None,
    patch: Patch | None,
) -> Float[Array, ""]:
    """How far the patched answer without a subset is from the answer with all tokens: |difference| / |answer|."""
    wanted = answer(network, context, query)
    return jnp.linalg.norm(answer(network, context, query, subset, patch) - wanted) / jnp.linalg.norm(wanted)


def update_between(
    network: Network,
    tokens: Rows,
    with_tokens: Bool[Array, " t"],
    without: Bool[Array, " t"],
    *,
    position: int | Int[Array, ""] = -1,
    through: str = "weights",
    floor: float = 0.0,
) -> Patch:
    """The patch that makes the answer at `position`, seeing only `without`, equal to that of seeing `with_tokens`.

    The general form of `implicit_update`: both masks say which rows exist, and both contain `position`. In a stack the
    second pass runs through the blocks already patched below, so the whole network agrees at `position`.
    """
    choose("through", through, THROUGH)
    require_patchable(network)
    if through == "norm_scale":
        normed = all(block.norm_before is not None for block in halves(network))
        require(normed, "through", through, "'weights' for blocks without a norm before their MLP")
    require(0 <= floor < 1, "floor", floor, "at least 0 and below 1")
    patch, fine = _update(network, tokens, with_tokens, without, jnp.asarray(position), through, floor)
    return reachable(patch, fine, through)


def position_updates(block: BlockLayer, tokens: Float[Array, "t d_model"]) -> Patch:
    """For every position i, the patch with which the last token ALONE gives the block's answer at i in the prompt.

    Leaves have a leading axis of positions, "t". This is the form of Innocenti & Achour (2025); the last position is
    the implicit update of one block.
    """
    require_half(block)
    patch, fine = _position_updates(block, tokens)
    return reachable(patch, fine, "weights")


def patch_between(
    block: BlockLayer, with_tokens: Reading, without: Reading, through: str = "weights", floor: float = 0.0
) -> tuple[Patch, Bool[Array, " 3"]]:
    """The patch of one block between two readings of one token.

    With it: whether the readings are finite, whether its input side exists, and whether its output side does.
    `with_tokens` is what the MLP half gets in the run to be reproduced, `without` in the run to be patched.
    """
    weights: dict[str, LowRank] = {}
    vectors: dict[str, Array] = {}
    half, norm = block.feed_forward, block.norm_behind
    n_1, n_0 = block.mlp_in(with_tokens.source), block.mlp_in(without.source)
    if through == "weights":
        weights |= {name: rank_one(n_0, n_1 - n_0, w) for name, w in half.reading_weights(n_1).items()}
        n = n_0
    else:
        assert block.norm_before is not None
        vectors["norm_scale"] = quotient(n_1 - n_0, block.norm_before.normalised(without.source))
        n = n_1
    finite = all_finite((with_tokens, without, n_1, n_0))
    input_side = ~finite | all_finite((weights, vectors))
    if carries(block):
        d_carry = (with_tokens.carry - without.carry) / gain(block)
        if norm is not None:
            reads = Patch(dict(weights), {})
            answered = lifted = norm.normalised(half(n, reads))
            if floor > 0:
                weights[half.out_name] = lift(block, n, reads, floor)
                lifted = norm.normalised(half(n, Patch(weights, {})))
            vectors["post_norm_scale"] = quotient((answered - lifted) * norm.scale + d_carry, lifted)
        elif half.b_out is not None:
            vectors["b_out"] = d_carry
        else:
            weights[half.out_name] = output_patch(half.hidden(n, Patch(weights, {})), d_carry)
    output_side = ~finite | ~input_side | all_finite((weights, vectors))
    return Patch(weights, vectors), jnp.stack([finite, input_side, output_side])


def carries(block: BlockLayer) -> bool:
    """Whether anything passes around a block's MLP."""
    return block.config.skip != "none" or block.mixer is None


def gain(block: BlockLayer) -> float:
    """By how much a block multiplies its MLP's answer before it is added to the stream."""
    return 1.0 if block.config.skip == "none" else block.config.dampening


def rank_one(a_0: Float[Array, " d"], d_a: Float[Array, " d"], w: Float[Array, "*experts d f"]) -> LowRank:
    """The least change of W with a_0 (W + dW) = (a_0 + d_a) W, as factors a_0 / |a_0|^2 and d_a W."""
    outputs = jnp.einsum("d,...df->...f", d_a, w)[..., None, :]
    inputs = jnp.broadcast_to(pseudo_inverse(a_0, jnp.any(outputs != 0)), (*w.shape[:-2], 1, a_0.shape[0]))
    return LowRank(inputs, outputs)


def output_patch(m: Float[Array, "*experts f"], wanted: Float[Array, " d"]) -> LowRank:
    """The least change of the last matrix (of all experts together) that adds `wanted` to its answer to m."""
    inputs = pseudo_inverse(m, jnp.any(wanted != 0))[..., None, :]
    outputs = jnp.broadcast_to(wanted, (*m.shape[:-1], 1, wanted.shape[0]))
    # The patch acts on the patched m itself, so an expert that is not used has a zero input row and no change.
    return LowRank(inputs, outputs)


def lift(block: BlockLayer, n: Float[Array, " d"], reads: Patch, floor: float) -> LowRank:
    """The least change of the last matrix that lifts the small entries of its normalised answer to the floor."""
    out, norm = block.feed_forward(n, reads), block.norm_behind
    assert norm is not None
    centred = out - jnp.mean(out) if norm.kind == "layer" else out
    entries = norm.normalised(out)
    missing = jnp.where(jnp.abs(entries) < floor, jnp.where(entries < 0, -floor, floor) - entries, 0)
    size = jnp.sqrt(jnp.mean(jnp.square(centred)) + norm.eps)
    return output_patch(block.feed_forward.hidden(n, reads), missing * size)


def pseudo_inverse(a: Float[Array, "*shape"], needed: Bool[Array, ""]) -> Float[Array, "*shape"]:
    """a / |a|^2; for a = 0 zero if it is not `needed`, and infinite otherwise."""
    # Scaled first, so that the square neither overflows nor underflows.
    largest = jnp.max(jnp.abs(a))
    scaled = a / jnp.where(largest > 0, largest, 1)
    inverse = scaled / jnp.where(largest > 0, jnp.sum(jnp.square(scaled)) * largest, 1)
    return jnp.where((largest > 0) | ~needed, inverse, jnp.inf)


def quotient(a: Float[Array, " d"], b: Float[Array, " d"]) -> Float[Array, " d"]:
    """a / b entry by entry, with 0 / 0 = 0: nothing to change needs no change."""
    return jnp.where(a == 0, 0, a / jnp.where(a == 0, 1, b))


def all_finite(tree: object) -> Bool[Array, ""]:
    """Whether every number of every leaf is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _removed(context: Any, subset: Subset | None) -> Bool[Array, " t"]:
    """The subset among all rows; the query stays."""
    return jnp.append(subset_mask(subset, length(context)), False)


@eqx.filter_jit
def _answer(network: Network, tokens: Any, visible: Array, patch: Patch | None) -> Float[Array, " d_out"]:
    return network(tokens, visible=visible, patch=patch)[0][-1]


@eqx.filter_jit
def _update(
    network: Network, tokens: Any, with_tokens: Array, without: Array, position: Array, through: str, floor: float
) -> tuple[Patch, Bool[Array, "layers 3"]]:
    start = network.embedded(tokens)

    def body(
        index: Any, block: BlockLayer, streams: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Patch, Array]]:
        del index
        full, rest = (block.first_half(h, visible=v) for h, v in zip(streams, (with_tokens, without), strict=True))
        patch, fine = Patch({}, {}), jnp.ones(3, bool)
        if block.feed_forward is not None:
            patch, fine = patch_between(block, _at(full, position), _at(rest, position), through, floor)
        return (block.second_half(full), block.second_half(rest, patch=patch)), (patch, fine)

    _, parts = network.fold(body, (start, start))
    fine = jnp.concatenate([fine for _, (_, fine) in parts])
    return in_order([(layers, patch) for layers, (patch, _) in parts]), fine


@eqx.filter_jit
def _position_updates(block: BlockLayer, tokens: Array) -> tuple[Patch, Bool[Array, "t 3"]]:
    full = block.first_half(tokens)
    alone = _at(block.first_half(tokens, visible=jnp.arange(tokens.shape[0]) == tokens.shape[0] - 1), jnp.asarray(-1))
    return jax.vmap(lambda carry, source: patch_between(block, Reading(carry, source), alone))(*full)


def _at(reading: Reading, position: Array) -> Reading:
    return Reading(reading.carry[position], reading.source[position])


def reachable(patch: Patch, fine: Bool[Array, "... 3"], through: str) -> Patch:
    """The patch, if it exists."""
    zero, inputs = ("a zero vector", "weights") if through == "weights" else ("zeros", "scale of the norm before it")
    reasons = {  # a block behind one that has no patch is not finite, so that reason comes last
        1: f"no patch exists: without these tokens the MLP reads {zero}, on which no change of the {inputs} acts",
        2: "no patch exists: without these tokens the MLP's last parameters read zero, so no change of them acts",
        0: "no patch can be computed: the network's activations are not finite on this prompt",
    }
    for side, reason in reasons.items():
        held = jnp.all(fine[..., side])
        if isinstance(held, jax.core.Tracer):
            patch = eqx.error_if(patch, ~held, reason)
        elif not bool(held):
            raise BadInput(reason)
    return patch
