"""Curricula over the number of visible coordinates and of scored rows, as functions of a traced training step.

Shapes never change, so one compiled program serves the whole curriculum: hidden coordinates are zero, and rows that are
not reached yet have weight zero in the loss, which for a causal network equals training on shorter prompts.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from meta_icl.errors import require


class Ramp(eqx.Module):
    """start, then + increment every `every` steps, up to end."""

    start: int = eqx.field(static=True)
    end: int = eqx.field(static=True)
    increment: int = eqx.field(static=True, default=1)
    every: int = eqx.field(static=True, default=2000)

    def __check_init__(self):
        for field in ("start", "increment", "every"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        require(self.end >= self.start, "end", self.end, f"at least start = {self.start}")

    def __call__(self, step: Int[Array, "*sweep"]) -> Int[Array, "*sweep"]:
        """The value at a step."""
        # Divided before it is multiplied, so that a step far beyond the end cannot overflow.
        stairs = jnp.minimum(step // self.every, -(-(self.end - self.start) // self.increment))
        return jnp.minimum(self.start + self.increment * stairs, self.end)


class Curriculum(eqx.Module):
    """How many coordinates are visible and how many rows are scored at a step."""

    dimensions: Ramp
    points: Ramp

    def check(self, d: int, n: int) -> None:
        """Raise `BadInput` unless the curriculum ends at the task's own sizes."""
        require(self.dimensions.end == d, "end of the dimensions", self.dimensions.end, f"d = {d}")
        require(self.points.end == n, "end of the points", self.points.end, f"n_context + 1 = {n}")


def garg_curriculum(d: int, family: str = "linear", *, every: int = 2000) -> Curriculum:
    """The curriculum of Garg et al. (2022), which ends at d coordinates and 2d + 1 rows, or 5d + 1 (networks, trees).

    Published for d = 20: 5 coordinates, + 1 per stair; 11 rows, + 2 per stair ("linear"), or 26, + 5 ("deep").
    """
    require(d >= 5, "d", d, "at least 5")
    require(family in ("linear", "deep"), "family", family, "'linear' or 'deep'")
    per = 2 if family == "linear" else 5
    points = Ramp(per * 5 + 1, per * d + 1, per, every)
    return Curriculum(Ramp(5, d, 1, every), points)
