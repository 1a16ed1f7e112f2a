"""A mixture of prompts whose weights are new every time and prompts whose weights never change.

A network can answer the second kind from its own weights (in-weight learning) and the first only from the prompt
(in-context learning), so training on the mixture shows how the two compete (Zhang et al., 2025).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.conversions import number, numbers, require_entries
from meta_icl.errors import choose, require
from meta_icl.prompt import BatchTask, Prompt
from meta_icl.tasks.regression import LinearRegression

CONTEXTS = ("labels", "noise")


class FixedWeightMixture(BatchTask):
    """Prompts of `regression` with probability `share`, else prompts whose labels come from `fixed`, "d n_out".

    `context="labels"`: the context of a fixed-weight prompt shows its labels; "noise": its context labels are N(0, 1)
    draws and only the query's target follows `fixed`, so that nothing can be learned from the context.
    """

    regression: LinearRegression
    fixed: Float[Array, "d o"] = eqx.field(converter=numbers)
    share: Float[Array, "*sweep"] = eqx.field(default=0.5, converter=number)
    context: str = eqx.field(static=True, default="labels")

    def __check_init__(self):
        choose("context", self.context, CONTEXTS)
        require_entries(lambda value: (value >= 0) & (value <= 1), "share", self.share, "between 0 and 1")
        shape = (self.regression.d, self.regression.n_out)
        require(self.fixed.shape == shape, "fixed", self.fixed.shape, f"of shape {shape}")

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        """Draw `n` independent prompts at once; the inputs do not depend on `share`."""
        key, choice_key, label_key = jax.random.split(key, 3)
        prompts = self.regression.sample_batch(n, key=key)
        remembered = jnp.einsum("bnd,do->bno", prompts.x, self.fixed)
        if self.context == "noise":
            labels = draws.normal(label_key, remembered[:, :-1].shape, remembered.dtype)
            remembered = remembered.at[:, :-1].set(labels)
        fresh = draws.uniform(choice_key, (n, 1, 1)) < self.share
        return Prompt(prompts.x, jnp.where(fresh, prompts.y, remembered))
