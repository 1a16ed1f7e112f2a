"""A network behind a layout is a predictor: `InContextLearner`, and the description that draws one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from meta_icl.models.layouts import Concatenated, Layout
from meta_icl.models.trace import Intervention, Trace
from meta_icl.models.transformer import Transformer
from meta_icl.prompt import Prompt

Network = Callable[..., tuple[Float[Array, "t d_out"], Trace]]


class InContextLearner(eqx.Module):
    """A predictor made of a layout and a network with the signature `network(tokens, interventions)`.

    Called outside a compiled function it compiles itself, once per shape of prompt: operation by operation it would
    take seconds.
    """

    layout: Layout
    network: Any  # a Network

    @eqx.filter_jit
    def __call__(self, prompt: Prompt) -> Float[Array, "..."]:
        return self.trace(prompt)[0]

    @eqx.filter_jit
    def trace(self, prompt: Prompt, interventions: Sequence[Intervention] = ()) -> tuple[Float[Array, "..."], Trace]:
        """The prediction, with every intermediate of the forward pass, after the interventions."""
        output, trace = self.network(self.layout.encode(prompt), interventions)
        return self.layout.read(output, prompt), trace

    @eqx.filter_jit
    def batched(self, prompts: Prompt) -> Float[Array, "..."]:
        """The predictions for a batch of prompts (leading axis), by the network's lean form where it has one."""
        lean = getattr(self.network, "lean", None)
        if lean is None or not self.layout.reads_last_token:
            return jax.vmap(self)(prompts)
        output = lean(jax.vmap(self.layout.encode)(prompts))
        return jax.vmap(self.layout.read)(output, prompts)


@dataclass(frozen=True)
class Learner:
    """Describes an `InContextLearner`: called with a key it draws the network's weights."""

    network: Callable[..., Any]
    layout: Layout = field(default_factory=Concatenated)

    def __call__(self, *, key: Key[Array, ""]) -> InContextLearner:
        try:
            hash(self)
        except TypeError:  # of a description with lists or arrays no program can be kept
            return _drawn(self, key)
        return _compiled(self, key)


def _drawn(description: Learner, key: Key[Array, ""]) -> InContextLearner:
    return InContextLearner(description.layout, description.network(key=key))


_compiled = eqx.filter_jit(_drawn)  # one program for all weights, compiled once per description


def LinearAttention(d_model: int, **fields: Any) -> Learner:
    """Linear self-attention on (x, y) tokens, `Learner(Transformer(d_model, **fields))` with d_model = dx + dy."""
    return Learner(Transformer(d_model, **fields))
