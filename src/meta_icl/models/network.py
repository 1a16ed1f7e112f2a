"""The one network of the house: embed -> blocks -> final norm -> read-out, whatever the paper.

An `Architecture` describes it; called with a key it draws a `Network`, a map from tokens "t ..." to outputs "t d_out".
Its full form names every intermediate (`Trace`), applies interventions, hides rows and changes weights (`Patch`); its
step form takes in one token after the other. The blocks of a description are used in turn, and the weights of equal
ones are stacked, so that deep networks are scanned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from meta_icl.errors import require
from meta_icl.models.block import Block, BlockLayer
from meta_icl.models.depth import at, through_depth
from meta_icl.models.embeddings import Vectors
from meta_icl.models.interventions import Intervention
from meta_icl.models.mixers.attention import AttentionLayer
from meta_icl.models.mixers.mixer import initial_state, state_size
from meta_icl.models.norms import Norm, NormLayer
from meta_icl.models.patch import Patch
from meta_icl.models.positions import LearnedPositions
from meta_icl.models.readouts import Tied
from meta_icl.models.trace import Tap, Trace, check_sites, merged


@dataclass(frozen=True)
class Architecture:
    """Describes a network of `n_layers` blocks on a stream of `d_model` channels; called with a key it draws it.

    `block` is one description for all layers, or several that are used in turn. `looped` applies the first round of
    blocks again and again. `embedding` describes how tokens become the stream (default: they are it), `positions` what
    is added to it, `final_norm` and `readout` how it is read (default: as it is). `d_in` is the width of the rows that
    the first block reads where it is not `d_model` and nothing embeds them.
    """

    d_model: int
    n_layers: int = 1
    block: Block | Sequence[Block] = Block()
    embedding: Any = Vectors()
    positions: Any = None
    final_norm: Norm | None = None
    readout: Any = None
    looped: bool = False
    d_in: int | None = None

    def __post_init__(self):
        require(self.d_model >= 1, "d_model", self.d_model, "a positive integer")
        require(self.n_layers >= 0, "n_layers", self.n_layers, "zero or more")
        if not isinstance(self.block, Block):
            object.__setattr__(self, "block", tuple(self.block))  # what is a list can be no key of a program
        require(len(self.blocks) >= 1, "block", self.block, "at least one")
        tied = not isinstance(self.readout, Tied) or hasattr(self.embedding, "n_tokens")
        require(tied, "readout", self.readout, "another one, because only a table of tokens can also read out")
        bare = self.d_in is None or (isinstance(self.embedding, Vectors) and self.embedding == Vectors())
        require(bare, "d_in", self.d_in, "given without an embedding")
        again = not self.looped or self.d_in in (None, self.d_model)
        require(again, "d_in", self.d_in, f"d_model = {self.d_model} where layers are looped")

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The descriptions that are used in turn."""
        return (self.block,) if isinstance(self.block, Block) else tuple(self.block)

    @property
    def round(self) -> tuple[tuple[Block, int | None], ...]:
        """The blocks of a round with the width of their rows: one block longer where the first layer reads others."""
        each = self.blocks
        if self.n_layers and self.d_in not in (None, self.d_model):
            whole = tuple(each[i % len(each)] for i in range(self.n_layers))
            return ((whole[0], self.d_in), *((block, None) for block in whole[1:]))
        return tuple((block, None) for block in each[: max(self.n_layers, 1)])

    def state_size(self, n_tokens: int) -> int:
        """Numbers carried past `n_tokens` to the next token, in all layers."""
        network = eqx.filter_eval_shape(self, key=jax.random.key(0))
        layers = [network.position_of(i) for i in range(self.n_layers)]
        sizes = [
            0 if network.blocks[j].mixer is None else state_size(_first_shape(network.blocks[j].mixer), n_tokens)
            for j, _ in layers
        ]
        return sum(sizes)

    def __call__(self, *, key: Key[Array, ""]) -> "Network":
        embed_key, position_key, block_key, out_key = jax.random.split(key, 4)
        d, round_ = self.d_model, self.round
        n_drawn = min(self.n_layers, len(round_)) if self.looped else self.n_layers

        def stacked(j: int) -> BlockLayer:
            block, d_in = round_[j]
            count = len(range(j, n_drawn, len(round_)))
            keys = jax.random.split(jax.random.fold_in(block_key, j), count)
            if count == 1:
                return jax.tree.map(_stacked_alone, block(d, key=keys[0], d_in=d_in))
            return eqx.filter_vmap(lambda key: block(d, key=key, d_in=d_in))(keys)

        return Network(
            self.embedding(d, key=embed_key),
            None if self.positions is None else self.positions(d, key=position_key),
            tuple(stacked(j) for j in range(min(len(round_), n_drawn))),
            None if self.final_norm is None else self.final_norm(d),
            None if self.readout is None else self.readout(d, key=out_key),
            self,
        )


class NetworkState(NamedTuple):
    """What is carried from token to token: the states of the mixers by place in the round, and the tokens so far."""

    mixers: tuple[PyTree, ...]
    position: Int[Array, ""]


class Network(eqx.Module):
    """The weights of an `Architecture`: a map from tokens "t ..." to outputs "t d_out", with its trace.

    `blocks` has one entry per place in the round of blocks; their leaves have a leading axis of the layers that stand
    there (layer i: place i modulo the round's length).
    """

    embedding: Any
    positions: Any
    blocks: tuple[BlockLayer, ...]
    final_norm: NormLayer | None
    readout: Any
    config: Architecture = eqx.field(static=True)

    def __call__(
        self,
        tokens: Any,
        interventions: Sequence[Intervention] = (),
        *,
        visible: Bool[Array, " t"] | None = None,
        patch: Patch | None = None,
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        """The output of every token and the trace; only `visible` rows exist, and `patch` changes the weights.

        Every leaf of the patch has a leading layer axis. Rows that are not visible have arbitrary outputs. Raises
        `BadInput` for an intervention on a site that no network has.
        """
        h, trace = self.through(self.embedded(tokens), interventions, visible=visible, patch=patch)
        return self.read(h), trace

    def through(
        self,
        h: Float[Array, "t d_in"],
        interventions: Sequence[Intervention] = (),
        *,
        visible: Bool[Array, " t"] | None = None,
        patch: Patch | None = None,
    ) -> tuple[Float[Array, "t d"], Trace]:
        """The blocks alone: from the residual stream before the first to that after the last."""

        def body(index: Any, block: BlockLayer, h: Array) -> tuple[Array, dict[str, Array]]:
            tap = Tap(interventions, index)
            change = None if patch is None else jax.tree.map(lambda leaf: leaf[index], patch)
            return block(h, visible=visible, tap=tap, patch=change), tap.sites

        h, parts = self.fold(body, h)
        trace = merged(parts)
        check_sites(interventions, trace, self.n_layers)
        return h, trace

    @property
    def n_positions(self) -> int | None:
        """How many tokens it can read, where positions are learned."""
        return self.positions.table.shape[0] if isinstance(self.positions, LearnedPositions) else None

    def embedded(self, tokens: Any) -> Float[Array, "t d"]:
        """The residual stream before the first block: embedded tokens, plus positions where there are any."""
        h = self.embedding(tokens)
        return h if self.positions is None else h + self.positions(h.shape[0])

    def read(self, h: Float[Array, "t d"], channels: Int[Array, " n"] | None = None) -> Float[Array, "t d_out"]:
        """The output, or some `channels` of it, from the stream after the last block or, as a lens, any other."""
        h = h if self.final_norm is None else self.final_norm(h)
        if self.readout is None:
            return h if channels is None else h[:, channels]
        return self.readout(h, self.embedding, channels)

    @property
    def n_layers(self) -> int:
        """Blocks that a token passes."""
        return self.config.n_layers

    def position_of(self, index: int) -> tuple[int, int]:
        """The place of a layer in the round, and its row there."""
        period = len(self.blocks)
        require(0 <= index < self.n_layers, "layer", index, f"from 0 to {self.n_layers - 1}")
        return index % period, 0 if self.config.looped else index // period

    def block(self, index: int) -> BlockLayer:
        """The weights of one layer."""
        place, row = self.position_of(index)
        return at(self.blocks[place], row)

    def layers(self) -> list[BlockLayer]:
        """The weights of every layer."""
        return [self.block(i) for i in range(self.n_layers)]

    def fold(
        self,
        body: Callable[..., tuple[Any, Any]],
        carry: Any,
        *,
        each: tuple[Any, ...] | None = None,
        stop: int | None = None,
    ) -> tuple[Any, list[tuple[list[int], Any]]]:
        """Run `body(index, block, carry) -> (carry, out)` through all layers, or those before `stop`.

        Returns the last carry and, for every place in the round, the layers there and their outs stacked. `each` holds
        per place what `body` gets as a fourth argument, stacked over the layers there.
        """
        config = self.config
        return through_depth(body, carry, self.blocks, config.n_layers if stop is None else stop, config.looped, each)

    def initial_state(self, capacity: int | None = None) -> NetworkState:
        """What is carried before the first of at most `capacity` tokens.

        Raises `BadInput` where a mixer has no steps, or where there are fewer learned positions.
        """
        if capacity is not None and self.positions is not None:
            jax.eval_shape(lambda: self.positions(capacity))

        def stacked(place: int) -> PyTree:
            mixer, count = self.blocks[place].mixer, len(range(place, self.n_layers, len(self.blocks)))
            if mixer is None:
                return None
            if self.config.looped:
                one = initial_state(at(mixer, 0), capacity)
                return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), one)
            return eqx.filter_vmap(lambda m: initial_state(m, capacity), axis_size=count)(mixer)

        return NetworkState(tuple(stacked(place) for place in range(len(self.blocks))), jnp.zeros((), jnp.int32))

    def step(self, state: NetworkState, token: Any) -> tuple[NetworkState, Float[Array, " d_out"]]:
        """Take in one token (an integer or a vector "d_in"); returns the next state and the output at it."""
        one = getattr(self.embedding, "one", None)
        h = self.embedding(token[None]) if one is None else one(token)[None]
        if self.positions is not None:
            h = h + self.positions.at(state.position)[None]

        def body(index: Any, block: BlockLayer, h: Array, before: PyTree) -> tuple[Array, PyTree]:
            del index
            tap = Tap()
            if block.mixer is None:
                return block(h), before
            after, mixed = block.mixer.step(before, block._before(block.norm_mixer, h)[0])
            return block.second_half(block.carried(h, mixed[None], tap), tap=tap), after

        h, parts = self.fold(body, h, each=state.mixers)
        return NetworkState(tuple(stack for _, stack in parts), state.position + 1), self.read(h)[0]

    def decode(self, tokens: Any) -> Float[Array, "t d_out"]:
        """The outputs of the full pass, by steps."""
        start = self.initial_state(jax.tree.leaves(tokens)[0].shape[0])
        return lax.scan(lambda state, token: self.step(state, token), start, tokens)[1]  # noqa: PLW0108

    def qk(self) -> Float[Array, "l heads d d"]:
        """W_Q W_K^T of every distinct layer of attention, scaled: scores are h_q A h_k^T (row convention)."""
        return self._products(AttentionLayer.qk)

    def ov(self) -> Float[Array, "l heads d d"]:
        """W_V W_O of every distinct layer of attention: what is written when attended to (row convention, h_k B)."""
        return self._products(AttentionLayer.ov)

    def _products(self, of: Callable[[AttentionLayer], Array]) -> Array:
        places = [j for j, block in enumerate(self.blocks) if isinstance(block.mixer, AttentionLayer)]
        require(bool(places), "mixers", "none of attention", "attention in at least one layer")
        if len(self.blocks) == 1:
            return of(self.blocks[0].mixer)
        drawn = len(self.blocks) if self.config.looped else self.n_layers
        return jnp.stack([of(self.block(i).mixer) for i in range(drawn) if i % len(self.blocks) in places])

    def with_config(self, **changes: Any) -> "Network":
        """The same weights under a changed description, such as more loops; `BadInput` if it needs other weights."""
        config = replace(self.config, **changes)
        fresh = eqx.filter_eval_shape(config, key=jax.random.key(0))
        shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (self, fresh)]
        require(shapes[0] == shapes[1], "changed description", changes, "one that keeps the weights' shapes")
        return jax.tree.unflatten(jax.tree.structure(fresh), jax.tree.leaves(self))


def _stacked_alone(leaf: Any) -> Any:
    return leaf[None] if eqx.is_array(leaf) else leaf


def _first_shape(tree: Any) -> Any:
    """Zeros of the shapes of the first of what is stacked."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype) if hasattr(leaf, "shape") else leaf, tree)
