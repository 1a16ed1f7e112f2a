"""Circuits of a two-layer network held perfect while the rest is trained (Singh et al., 2024: "optogenetics").

A clamp is an intervention whose value may depend on the prompt and on the trained weights; gradients flow through what
is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from meta_icl.errors import choose, require
from meta_icl.models.interventions import Intervention, restricted
from meta_icl.models.learner import InContextLearner
from meta_icl.models.network import Network
from meta_icl.models.trace import Trace
from meta_icl.prompt import Prompt

CLAMPS = ("previous", "layer1", "match", "copy")


@dataclass(frozen=True)
class Clamped:
    """Describes a learner of label sequences with some of its circuits clamped; called with a key it draws it.

    `clamps`: "previous", every head of layer 1 attends to the previous token; "layer1", layer 1 is removed, and layer 2
    reads its keys one place late (what a perfect previous-token layer achieves); "match", layer 2 gives all its
    attention to the labels of items equal to the query; "copy", the logits of the context's labels are the scores of
    the first kept head of layer 2 for them, all others -1e9. `kept` are the heads of layer 2 that stay (default all);
    `visible` makes the entries "2 t t" (layer, reader, read) that attention may use at all (a circuit mask).
    """

    learner: Callable[..., InContextLearner]
    clamps: tuple[str, ...] = ()
    kept: tuple[int, ...] | None = None
    visible: Callable[[], Bool[Any, "2 t t"]] | None = None

    def __post_init__(self):
        for name in self.clamps:
            choose("clamp", name, CLAMPS)
        require(self.kept is None or len(self.kept) > 0, "kept", self.kept, "at least one head, or nothing for all")

    def __call__(self, *, key: Key[Array, ""]) -> "ClampedLearner":
        return ClampedLearner(self.learner(key=key), self)


class ClampedLearner(eqx.Module):
    """A predictor: the learner with its clamps in place."""

    learner: InContextLearner
    config: Clamped = eqx.field(static=True)

    def __call__(self, prompt: Prompt) -> Float[Array, " labels"]:
        return self.trace(prompt)[0]

    @eqx.filter_jit
    def batched(self, prompts: Prompt) -> Float[Array, "b labels"]:
        """The predictions for a batch of prompts (leading axis), by the lean form if only `visible` is clamped."""
        c = self.config
        if c.visible is None or c.clamps or c.kept is not None:
            return jax.vmap(self)(prompts)
        return self.learner.batched(prompts, jnp.asarray(c.visible()))

    def trace(
        self, prompt: Prompt, interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, " labels"], Trace]:
        """The prediction with every intermediate, after the clamps and further interventions."""
        answer, trace = self.learner.trace(prompt, (*self.interventions(prompt), *interventions))
        if "copy" in self.config.clamps:
            head = 0 if self.config.kept is None else self.config.kept[0]
            scores = trace["scores"][1, head, -1, 1::2]
            answer = jnp.full_like(answer, -1e9).at[prompt.y[:-1]].set(scores)
        return answer, trace

    def interventions(self, prompt: Prompt) -> list[Intervention]:
        """The clamps for one prompt."""
        c, network = self.config, self.learner.network
        t, heads = 2 * prompt.n_context + 1, network.block(1).mixer.config.n_heads
        layer = jnp.arange(2)[:, None, None, None]
        found = [] if c.visible is None else [restricted(c.visible())]
        if "previous" in c.clamps:
            shift = jnp.eye(t, k=-1).at[0, 0].set(1)
            found.append(Intervention("pattern", layer == 0, shift[None, None]))
        if "layer1" in c.clamps:
            found += without_layer_one(network, self.learner.layout.encode(prompt))
        if "match" in c.clamps:
            row = jnp.zeros(t).at[1::2].set(same_items(prompt) / jnp.maximum(same_items(prompt).sum(), 1))
            last = jnp.arange(t)[None, None, :, None] == t - 1
            found.append(Intervention("pattern", (layer == 1) & last, row[None, None, None]))
        if c.kept is not None:
            gone = ~jnp.isin(jnp.arange(heads), jnp.asarray(c.kept))[None, :, None, None]
            found.append(Intervention("z", (layer == 1) & gone))
        return found


def without_layer_one(network: Network, tokens: Any) -> list[Intervention]:
    """Layer 1 writes nothing; layer 2 reads the keys of the token before, queries and values in place."""
    rows, norm = network.embedded(tokens), network.block(1).norm_mixer
    if norm is not None:
        rows = norm(rows)
    late = jnp.concatenate([rows[:1], rows[:-1]])
    second = jnp.asarray([False, True])[:, None, None]
    return [Intervention("mixer_out", ~second), Intervention("k_input", second, late[None])]


def same_items(prompt: Prompt) -> Float[Array, " n"]:
    """1 for the context's items nearest to the query (all of them, if several are equally near), else 0."""
    distances: Array = jnp.sum(jnp.square(prompt.x[:-1] - prompt.x[-1:]), axis=1)
    nearest: Bool[Array, " n"] = distances <= distances.min() + 1e-6
    return nearest.astype(prompt.x.dtype)
