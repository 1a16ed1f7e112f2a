"""The layout of Kirsch et al. (2022): every token is an input together with the label of the input before it."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.errors import require
from meta_icl.models.layouts.layout import Layout
from meta_icl.prompt import Prompt


class Shifted(Layout):
    """Token t is (x_t, one-hot of y_{t-1}), zeros in the place of a label at t = 0; tokens "n dx + n_labels".

    The query's label is in no token. Read-out: the output of every token, logits "n n_labels"; with a causal network
    row k has seen the pairs before k and x_k only.
    """

    reads_last_token: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = True
    n_labels: int = eqx.field(static=True)

    def __check_init__(self):
        require(self.n_labels >= 1, "n_labels", self.n_labels, "a positive integer")

    def encode(self, prompt: Prompt) -> Float[Array, "n d"]:
        before = jax.nn.one_hot(prompt.y[:-1], self.n_labels, dtype=prompt.x.dtype)
        return jnp.concatenate([prompt.x, jnp.pad(before, ((1, 0), (0, 0)))], axis=-1)

    def read(self, output: Float[Array, "n d"], prompt: Prompt) -> Float[Array, "n labels"]:
        del prompt
        return output[:, : self.n_labels]
