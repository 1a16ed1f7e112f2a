"""Mixtures: linear functions that live on one of several blocks of coordinates, and mixtures of whole families."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.tasks.functions import FunctionClass


class BasisFunction(NamedTuple):
    """Weights, and the number of the basis that they belong to."""

    w: Float[Array, "*n d"]
    basis: Int[Array, "*n"]


class SparseBases(FunctionClass):
    """f(x) = w.x where w ~ N(0, I) on one of several fixed sets of coordinates, "bases d" (Han et al., 2024).

    The basis is uniform and new in every prompt; it is what a learner has to infer besides w. Rows of `bases` are 0 or
    1; they may overlap.
    """

    d: int = eqx.field(static=True)
    bases: Float[Array, "bases d"] = eqx.field(converter=lambda value: jnp.asarray(value, jnp.result_type(float)))

    def __check_init__(self):
        require(self.bases.ndim == 2 and self.bases.shape[1] == self.d, "bases", self.bases.shape, f"(n, {self.d})")

    @property
    def n_bases(self) -> int:
        """Number of bases."""
        return self.bases.shape[0]

    def draw(self, n: int, *, key: Key[Array, ""], d_active: Int[Array, ""] | int | None = None) -> BasisFunction:
        del d_active
        w_key, basis_key = jax.random.split(key)
        return self.of_basis(draws.randint(basis_key, (n,), 0, self.n_bases), key=w_key)

    def of_basis(self, basis: Int[Array, " n"], *, key: Key[Array, ""]) -> BasisFunction:
        """Functions of given bases."""
        w = draws.normal(key, (basis.shape[0], self.d), self.bases.dtype)
        return BasisFunction(w * self.bases[basis], basis)

    def evaluate(self, parameters: BasisFunction, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        return x @ parameters.w

    @property
    def variance(self) -> float:
        return float(np.asarray(self.bases).sum(1).mean())


def disjoint_bases(d: int, n_bases: int) -> SparseBases:
    """`n_bases` blocks of d / n_bases neighbouring coordinates each: orthogonal, and together everything."""
    require(n_bases >= 1 and d % n_bases == 0, "n_bases", n_bases, f"a divisor of d = {d}")
    return SparseBases(d, np.kron(np.eye(n_bases), np.ones(d // n_bases)))


def overlapping_bases(d: int, size: int, *, per_half: int = 4) -> SparseBases:
    """Two groups of `per_half` bases: group g takes `size` coordinates of half g, shifted by one with wrap-around.

    Bases of one group overlap, those of different groups do not. The paper does not give its overlaps; this is ours.
    """
    half = d // 2
    require(d % 2 == 0 and 1 <= size <= half, "size", size, f"from 1 to d / 2 = {half}")
    require(1 <= per_half <= half, "per_half", per_half, f"from 1 to d / 2 = {half}")
    supports = [[g * half + (j + i) % half for i in range(size)] for g in range(2) for j in range(per_half)]
    return from_supports(d, supports)


def from_supports(d: int, supports: Sequence[Sequence[int]]) -> SparseBases:
    """Bases from their sets of coordinates."""
    bases = np.zeros((len(supports), d))
    for row, support in enumerate(supports):
        inside = len(support) > 0 and all(0 <= index < d for index in support)
        require(inside, "supports", [list(s) for s in supports], f"non-empty sets of coordinates 0 to {d - 1}")
        bases[row, list(support)] = 1
    return SparseBases(d, bases)


class MixedFunction(NamedTuple):
    """One function of every family, and which of them it is."""

    members: tuple[PyTree, ...]
    family: Int[Array, "*n"]


class FamilyMixture(FunctionClass):
    """A function of one of several families, all equally likely; `family` in its parameters is the number."""

    families: tuple[FunctionClass, ...]

    def __check_init__(self):
        widths = sorted({family.d for family in self.families})
        require(len(widths) == 1, "families", widths, "one or more, all of one input width d")

    @property
    def d(self) -> int:  # pyrefly: ignore[bad-override]
        """Width of the inputs."""
        return self.families[0].d

    def draw(self, n: int, *, key: Key[Array, ""], d_active: Int[Array, ""] | int | None = None) -> MixedFunction:
        key, family_key = jax.random.split(key)
        keys = jax.random.split(key, len(self.families))
        members = [family.draw(n, key=k, d_active=d_active) for family, k in zip(self.families, keys, strict=True)]
        return MixedFunction(tuple(members), draws.randint(family_key, (n,), 0, len(self.families)))

    def evaluate(self, parameters: MixedFunction, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        pairs = zip(self.families, parameters.members, strict=True)
        return jnp.stack([family.evaluate(member, x) for family, member in pairs])[parameters.family]

    @property
    def variance(self) -> float:
        return float(np.mean([family.variance for family in self.families]))
