"""Linear transformers of the sparse (A, B) structure: layers of preconditioned gradient descent (Ahn et al., 2023)."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.models.theory.linear_attention import check_sizes
from meta_icl.prompt import Prompt


@dataclass(frozen=True)
class SparseLinearTransformer:
    """Describes a linear transformer of L layers, P = [[B, 0], [0, 1]], Q = [[A, 0], [0, 0]] (Ahn et al., 2023).

    With `rewrites_inputs=False` all B are zero: the layers are steps of preconditioned gradient descent. Every entry of
    A and B is N(0, init_std^2).
    """

    d: int
    n_layers: int = 1
    rewrites_inputs: bool = True
    init_std: float = 1e-4

    def __post_init__(self):
        check_sizes(d=self.d, n_layers=self.n_layers)
        require(self.init_std >= 0, "init_std", self.init_std, "zero or positive")

    def __call__(self, *, key: Key[Array, ""]) -> "SparseLinearPredictor":
        a_key, b_key = jax.random.split(key)
        shape = (self.n_layers, self.d, self.d)
        b = self.init_std * draws.normal(b_key, shape) if self.rewrites_inputs else None
        return SparseLinearPredictor(self.init_std * draws.normal(a_key, shape), b)


class SparseLinearPredictor(eqx.Module):
    """The weights of a `SparseLinearTransformer`; B of the last layer has no effect on the answer.

    A layer is Z <- Z + (1/n) P Z M Z^T Q Z on the columns (x_j, y_j), the query (x_q, 0) excluded as a value source by
    M = diag(1, .., 1, 0). Prediction: minus the query's y. So x_j <- x_j + (1/n) B S A x_j and
    y_j <- y_j + (1/n) h^T A x_j with S = sum_i x_i x_i^T and h = sum_i y_i x_i over the context: nothing else has to be
    carried from layer to layer. Step sizes are negative in A: plain gradient descent of rate eta is A = -eta I.
    """

    a: Float[Array, "l d d"]
    b: Float[Array, "l d d"] | None

    def __call__(self, prompt: Prompt) -> Float[Array, " dy"]:
        x, y = prompt.context
        n, query, answer = x.shape[0], prompt.query.x, jnp.zeros_like(y[0])
        s, h = x.T @ x, x.T @ y
        for layer in range(self.a.shape[0]):
            step = self.a[layer] / n
            answer = answer + h.T @ step @ query
            h = h + s @ step.T @ h
            if self.b is not None:
                move = self.b[layer] @ s @ step
                query = query + move @ query
                h = h + move @ h
                s = s + move @ s + s @ move.T + move @ s @ move.T
        return -answer

    def effective_map(self) -> Float[Array, "d d"]:
        """U = -A of a single layer, whose answer is beta^T U x_q."""
        require(self.a.shape[0] == 1, "layers", self.a.shape[0], "one: deeper transformers are no linear map of beta")
        return -self.a[0]

    def residual_map(self, second_moment: Float[Array, "d d"]) -> Float[Array, "d d"]:
        """T with prediction w^T (I - T) x_q for noise-free labels: the error is w^T T x_q; `second_moment` is S / n."""
        return self.residual_maps(second_moment[..., None])[..., 0]

    def residual_maps(self, second_moments: Float[Array, "d d b"]) -> Float[Array, "d d b"]:
        """`residual_map` of many contexts, which stand innermost: less than half the time of a `vmap` over them."""
        d, layers = second_moments.shape[0], self.a.shape[0]
        eye = jnp.eye(d, dtype=second_moments.dtype)[..., None]
        t = c = jnp.broadcast_to(eye, second_moments.shape)  # y_i = w^T t x_i and x_j -> c x_j, in the prompt's own x
        for layer in range(layers):
            step, last = self.a[layer], layer == layers - 1
            if layer and self.b is not None:
                steps = _products(jnp.swapaxes(c, 0, 1), _from_left(step, c))
                moved = _products(second_moments, steps)
            else:
                moved = jnp.einsum("ikb,kj->ijb", second_moments, step)
            t = t + (_products(t, moved) if layer else moved)
            if self.b is not None and not last:  # B of the last layer has no effect
                c = c + _from_left(self.b[layer], _products(c, moved) if layer else moved)
        return t


def _products(left: Float[Array, "d d b"], right: Float[Array, "d d b"]) -> Float[Array, "d d b"]:
    """The matrix products of pairs."""
    return jnp.einsum("ikb,kjb->ijb", left, right)


def _from_left(one: Float[Array, "d d"], many: Float[Array, "d d b"]) -> Float[Array, "d d b"]:
    """The products of one matrix with many."""
    return jnp.einsum("ik,kjb->ijb", one, many)
