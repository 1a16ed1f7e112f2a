"""Changes of a block's weights, kept as factors: what `analysis.implicit` computes and a block can be run with.

Row convention: a weight matrix W "d_in d_out" acts as x W, so its change is a sum of outer products of an input row
and an output row (the transpose of the papers' W x).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.errors import choose

RESIDUAL = ("w_out", "experts_out", "b_out", "post_norm_scale")  # behind the MLP's hidden layer


class LowRank(eqx.Module):
    """A change of a weight matrix "d_in d_out" as factors: sum over r of inputs[r]^T outputs[r].

    Leading axes stack matrices (layers, experts, prompts).
    """

    inputs: Float[Array, "*stack r d_in"]
    outputs: Float[Array, "*stack r d_out"]

    def __call__(self, x: Float[Array, "... d_in"]) -> Float[Array, "... d_out"]:
        """x times the change, without forming it; the leading axes of x are those of the stack, or missing."""
        return jnp.einsum("...d,...rd,...rf->...f", x, self.inputs, self.outputs)

    def __add__(self, other: "LowRank") -> "LowRank":
        return LowRank(
            jnp.concatenate([self.inputs, other.inputs], axis=-2),
            jnp.concatenate([self.outputs, other.outputs], axis=-2),
        )

    def __neg__(self) -> "LowRank":
        return LowRank(self.inputs, -self.outputs)

    def __sub__(self, other: "LowRank") -> "LowRank":
        return self + -other

    def dense(self) -> Float[Array, "*stack d_in d_out"]:
        """The change as a full matrix."""
        return jnp.einsum("...rd,...rf->...df", self.inputs, self.outputs)

    def singular_values(self) -> Float[Array, "*stack k"]:
        """The k = min(r, d_in, d_out) singular values that can differ from zero, falling."""
        if self.inputs.shape[-2] == 1:
            return self.norm()[..., None]
        return jnp.linalg.svd(self._core(), compute_uv=False)

    def rank(self, tolerance: float | None = None) -> Float[Array, "*stack"]:
        """The number of singular values above `tolerance` times the largest (default: max(size) x machine epsilon)."""
        values = self.singular_values()
        if tolerance is None:
            tolerance = max(self.inputs.shape[-1], self.outputs.shape[-1]) * float(jnp.finfo(values.dtype).eps)
        return jnp.sum((values > tolerance * values[..., :1]) & (values > 0), axis=-1).astype(values.dtype)

    def norm(self) -> Float[Array, "*stack"]:
        """The Frobenius norm."""
        if self.inputs.shape[-2] == 1:
            lengths = jnp.linalg.norm(self.inputs, axis=-1) * jnp.linalg.norm(self.outputs, axis=-1)
            return lengths[..., 0]
        return jnp.linalg.norm(self._core(), axis=(-2, -1))

    def inner(self, other: "LowRank") -> Float[Array, "*stack"]:
        """The Frobenius inner product with another change of the same matrix."""
        inputs = jnp.einsum("...rd,...sd->...rs", self.inputs, other.inputs)
        outputs = jnp.einsum("...rf,...sf->...rs", self.outputs, other.outputs)
        return jnp.sum(inputs * outputs, axis=(-2, -1))

    def _core(self) -> Float[Array, "*stack p q"]:
        """A small matrix with the same singular values. Unlike Gram matrices it does not square the rounding errors."""
        left = jnp.linalg.qr(jnp.swapaxes(self.inputs, -1, -2), mode="r")
        right = jnp.linalg.qr(jnp.swapaxes(self.outputs, -1, -2), mode="r")
        return jnp.einsum("...pr,...qr->...pq", left, right)


class Patch(eqx.Module):
    """Changes of some parameters of a block by name: matrices as factors, biases and norm scales as vectors.

    For several blocks every leaf has a leading layer axis. Names: "w_in", "w_gate", "w_up", "w_out", "router" and
    "b_out", "norm_scale" (the norm before the MLP), "post_norm_scale" (the norm after it).
    """

    weights: dict[str, LowRank]
    vectors: dict[str, Float[Array, "*stack d"]]

    @property
    def residual(self) -> tuple[str, ...]:
        """The names of its changes that stand in for what bypasses the MLP: of the last matrix, bias or norm."""
        return tuple(name for name in (*self.weights, *self.vectors) if name in RESIDUAL)

    def without(self, *names: str) -> "Patch":
        """The patch with some of its changes left out."""
        return Patch(*({n: c for n, c in each.items() if n not in names} for each in self._changes(names)))

    def zeroed(self, *names: str) -> "Patch":
        """The same with those changes set to zero: another value of the same structure."""
        zero = jax.tree.map(jnp.zeros_like, self)
        chosen = (
            {n: other[n] if n in names else c for n, c in each.items()}
            for each, other in zip(self._changes(names), (zero.weights, zero.vectors), strict=True)
        )
        return Patch(*chosen)

    def _changes(self, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
        for name in names:
            choose("part of the patch", name, {**self.weights, **self.vectors})
        return self.weights, self.vectors

    def __neg__(self) -> "Patch":
        return Patch({n: -c for n, c in self.weights.items()}, {n: -c for n, c in self.vectors.items()})

    def __sub__(self, other: "Patch") -> "Patch":
        return Patch(
            {name: change - other.weights[name] for name, change in self.weights.items()},
            {name: change - other.vectors[name] for name, change in self.vectors.items()},
        )

    def norm(self) -> Float[Array, "*stack"]:
        """The Frobenius norm of the changes of all weight matrices together (experts included, vectors not)."""
        squares = [_over_experts(name, jnp.square(change.norm())) for name, change in self.weights.items()]
        return jnp.sqrt(sum(squares[1:], squares[0]))

    def inner(self, other: "Patch") -> Float[Array, "*stack"]:
        """The Frobenius inner product over all weight matrices together."""
        products = [_over_experts(n, change.inner(other.weights[n])) for n, change in self.weights.items()]
        return sum(products[1:], products[0])


def weight_norm(weights: dict[str, Float[Array, "*stack d f"]]) -> Float[Array, "..."]:
    """The Frobenius norm of several weight matrices together, over experts too."""
    squares = [_over_experts(name, jnp.sum(jnp.square(w), axis=(-2, -1))) for name, w in weights.items()]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def product(x: Float[Array, "... d_in"], w: Float[Array, "... d_in d_out"], patch: Patch | None, name: str) -> Array:
    """x W, and what the patch adds to it if it changes the matrix of that name; experts have a leading axis."""
    if w.ndim == 3 and x.ndim == 1:  # every expert reads the same token
        x = jnp.broadcast_to(x, (w.shape[0], x.shape[0]))
    y = x @ w if w.ndim == 2 else jnp.einsum("ed,edf->ef", x, w)
    return y + patch.weights[name](x) if patch is not None and name in patch.weights else y


def shifted(vector: Array, patch: Patch | None, name: str) -> Array:
    """A bias or norm scale with what the patch adds to it."""
    return vector + patch.vectors[name] if patch is not None and name in patch.vectors else vector


def vector_change(patch: Patch | None, name: str) -> Array | float:
    """What the patch adds to the bias or norm scale of that name."""
    return patch.vectors[name] if patch is not None and name in patch.vectors else 0.0


def _over_experts(name: str, values: Array) -> Array:
    return values.sum(-1) if name.startswith("experts_") else values
