"""A network behind a layout is a predictor: `InContextLearner`, and the description that draws one.

This is the one place that chooses a lean form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Key

from meta_icl.errors import BadInput, require
from meta_icl.models.embeddings import Items
from meta_icl.models.interventions import Intervention, restricted
from meta_icl.models.layouts import Concatenated, Interleaved, LabelLayout, Layout, Shifted, TokenLayout, Window
from meta_icl.models.lean import lean_form, some_rows
from meta_icl.models.network import Architecture, Network
from meta_icl.models.trace import Trace
from meta_icl.prompt import Prompt, TokenPrompt


class InContextLearner(eqx.Module):
    """A predictor made of a layout and a network with the signature `network(tokens, interventions)`.

    Called outside a compiled function it compiles itself, once per shape of prompt: operation by operation it would
    take seconds.
    """

    layout: Layout
    network: Any  # a Network, or anything that is called as one

    @eqx.filter_jit
    def __call__(self, prompt: Prompt | TokenPrompt) -> Float[Array, "..."]:
        return self.trace(prompt)[0]

    @eqx.filter_jit
    def trace(
        self, prompt: Prompt | TokenPrompt, interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "..."], Trace]:
        """The prediction, with every intermediate of the forward pass, after the interventions."""
        output, trace = self.network(self.layout.encode(prompt), interventions)
        return self.layout.read(output, prompt), trace

    @eqx.filter_jit
    def batched(
        self, prompts: Prompt | TokenPrompt, visible: Bool[Array, "l t t"] | None = None
    ) -> Float[Array, "..."]:
        """The predictions for a batch of prompts (leading axis), by a lean form where not all tokens are read.

        `visible` are the entries (layer, reader, read) that attention may use, by default all that it sees.
        """
        layout, network = self.layout, self.network
        if isinstance(network, Network) and layout.reads_last_token:
            rows = lean_form(network)(network, jax.vmap(layout.encode)(prompts), visible)
            return jax.vmap(layout.read)(rows[:, None], prompts)
        if isinstance(network, Network) and layout.rows_read is not None and visible is None:
            rows = some_rows(network, jax.vmap(layout.encode)(prompts), layout.rows_read)
            return jax.vmap(layout.read_rows)(rows, prompts)
        cut = () if visible is None else (restricted(visible),)
        return jax.vmap(lambda prompt: self.trace(prompt, cut)[0])(prompts)


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


def layout_for(architecture: Architecture, prompt: Prompt | TokenPrompt) -> Layout:
    """How a network that stands for itself reads prompts like this one, by what it embeds and how wide that is.

    Tokens are read as they are; items with labels in turn, with places where the stream has room for them; labels with
    the next input for plain rows; pairs concatenated where attention looks both ways (or an LSTM reads them), and
    interleaved where it is causal. Raises `BadInput` with the widths where none of these fits.
    """
    if isinstance(prompt, TokenPrompt):
        require(hasattr(architecture.embedding, "n_tokens"), "embedding", architecture.embedding, "a table of tokens")
        return TokenLayout()
    dx, embedding = prompt.x.shape[-1], architecture.embedding
    width = getattr(embedding, "d_in", None) or architecture.d_in or architecture.d_model
    if prompt.y.ndim == 1:
        if isinstance(embedding, Items):
            if embedding.encoder is not None or dx == architecture.d_model:
                return LabelLayout()
            return Window(n_positions=architecture.d_model - dx)
        require(width > dx, "network", f"one that reads {width} channels", f"one for {dx} of an input and its labels")
        return Shifted(n_labels=width - dx)
    dy = prompt.y.shape[-1]
    causal = any(getattr(block.mixer, "causal", False) for block in architecture.blocks)
    fitting: dict[int, Layout] = {max(dx, dy): Interleaved(), dx + dy: Interleaved(own_slot=True)}
    if not causal:
        fitting = {dx + dy: Concatenated()}
    wanted = " or ".join(f"{w} channels ({type(layout).__name__})" for w, layout in fitting.items())
    if width not in fitting:
        raise BadInput(f"the network reads rows of {width} channels, the prompts need {wanted}; or give a Learner")
    return fitting[width]


def _drawn(description: Learner, key: Key[Array, ""]) -> InContextLearner:
    return InContextLearner(description.layout, description.network(key=key))


_compiled = eqx.filter_jit(_drawn)  # one program for all weights, compiled once per description
