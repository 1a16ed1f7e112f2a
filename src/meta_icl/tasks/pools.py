"""Finite pools of prompts. Pools of functions are a property of the task: `FunctionRegression.with_pool`."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Key

from meta_icl.conversions import require_count
from meta_icl.prompt import Prompt, Task


class PromptPool(Task):
    """`m` prompts of a task, drawn once and for all; a batch takes independent ones, all equally likely.

    Prompt i is drawn from the pool's key with i folded in, so that prompts are independent of each other, nothing is
    stored, and a pool of millions costs nothing.
    """

    task: Task
    m: int = eqx.field(static=True)
    key: Key[Array, "*sweep"]

    def __check_init__(self):
        require_count("m", self.m)

    def member(self, index: Int[Array, ""] | int) -> Prompt:
        """Prompt number `index` of the pool."""
        return self.task.sample(key=jax.random.fold_in(self.key, index))

    def sample(self, *, key: Key[Array, ""]) -> Prompt:
        """Draw one of the pool's prompts."""
        return self.member(jax.random.randint(key, (), 0, self.m))

    def at_step(self, step: Int[Array, ""]) -> "PromptPool":
        """The pool of the task as it stands at a step."""
        return eqx.tree_at(lambda pool: pool.task, self, self.task.at_step(step))

    def position_weights(self, n: int) -> Float[Array, " n"]:
        """Those of the task."""
        return self.task.position_weights(n)
