"""Linear regression in context: y = w.x with a new w in every prompt."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.conversions import number, optional_numbers, require_count, require_entries
from meta_icl.errors import require
from meta_icl.prompt import BatchTask, Prompt
from meta_icl.tasks.laws import Law, Normal, Uniform

CLOSED_FORM_LAWS = "a law of independent entries with mean zero (Uniform, Laplace, Normal without covariance)"


class LinearRegression(BatchTask):
    """Prompts of `n_context` pairs and a query with y = w^T x, w of shape "d n_out" drawn once per prompt.

    Inputs are `x_scale` times rows of `x_law` (context and query alike). The n_out columns of w are `w_scale` times
    independent vectors of `w_law`, or, with a `pool` of m tasks "m d n_out", `w_scale` times one of them, all equally
    likely. Labels: normal noise of standard deviation `noise` is ADDED to the context labels (to the query's target
    only with `noisy_query`); then `n_replaced` context labels, chosen at random without repetition, are REPLACED by
    N(0, 1) draws (the distractors of von Oswald et al., 2022).
    """

    d: int = eqx.field(static=True)
    n_context: int = eqx.field(static=True)
    n_out: int = eqx.field(static=True, default=1)
    x_law: Law = eqx.field(default_factory=Uniform)
    w_law: Law = eqx.field(default_factory=Normal)
    x_scale: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)
    w_scale: Float[Array, "*sweep"] = eqx.field(default=1.0, converter=number)
    noise: Float[Array, "*sweep"] = eqx.field(default=0.0, converter=number)
    noisy_query: bool = eqx.field(static=True, default=False)
    n_replaced: int = eqx.field(static=True, default=0)
    pool: Float[Array, "*sweep m d o"] | None = eqx.field(default=None, converter=optional_numbers)

    def __check_init__(self):
        for field in ("d", "n_context", "n_out"):
            value = getattr(self, field)
            require(isinstance(value, int) and value >= 1, field, value, "a positive integer")
        fits = isinstance(self.n_replaced, int) and 0 <= self.n_replaced <= self.n_context
        require(fits, "n_replaced", self.n_replaced, f"an integer from 0 to n_context = {self.n_context}")
        for field in ("x_law", "w_law"):
            law = getattr(self, field)
            require(isinstance(law, Law), field, law, "a law of meta_icl.tasks, such as Uniform(half_range=1.0)")
        require_entries(lambda value: value >= 0, "noise", self.noise, "zero or positive")
        for field in ("x_scale", "w_scale"):
            require_entries(np.isfinite, field, getattr(self, field), "finite")
        if self.pool is not None:
            shape = self.pool.shape
            fits = len(shape) >= 3 and shape[-3] >= 1 and shape[-2:] == (self.d, self.n_out)
            require(fits, "pool", shape, f"of shape (m, {self.d}, {self.n_out})")

    def with_pool(self, m: int, *, key: Key[Array, ""]) -> "LinearRegression":
        """This task restricted to a finite pool of `m` weight matrices, drawn from `w_law` once and for all."""
        require_count("m", m, each=self.d * self.n_out)
        return eqx.tree_at(lambda t: t.pool, self, self._weights(m, key=key), is_leaf=lambda leaf: leaf is None)

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        """Draw `n` independent prompts at once, x "n n_context+1 d"."""
        return self.sample_with_weights(n, key=key)[0]

    def sample_with_weights(self, n: int, *, key: Key[Array, ""]) -> tuple[Prompt, Float[Array, "b d o"]]:
        """Draw `n` prompts together with the weights that made their noise-free labels, for oracles.

        The inputs, weights, noise and replaced labels have keys of their own: the same key gives the same inputs and
        weights whatever the noise.
        """
        x_key, w_key, noise_key, replaced_key = jax.random.split(key, 4)
        x = self.x_scale * self.x_law.rows(self.n_context + 1, self.d, n, key=x_key)
        if self.pool is None:
            w = self.w_scale * self._weights(n, key=w_key)
        else:
            w = self.w_scale * self.pool[draws.randint(w_key, (n,), 0, self.pool.shape[0])]
        y = jnp.einsum("bnd,bdo->bno", x, w)
        if isinstance(self.noise, Tracer) or np.any(np.asarray(self.noise) > 0):  # a known zero costs no draw
            rows = self.n_context + 1 if self.noisy_query else self.n_context
            y = y.at[:, :rows].add(self.noise * draws.normal(noise_key, (n, rows, self.n_out), y.dtype))
        if self.n_replaced:
            order_key, label_key = jax.random.split(replaced_key)
            order = jnp.argsort(draws.uniform(order_key, (n, self.n_context)), axis=1)
            chosen = order[:, : self.n_replaced]
            labels = draws.normal(label_key, (n, self.n_replaced, self.n_out), y.dtype)
            y = y.at[jnp.arange(n)[:, None], chosen].set(labels)
        return Prompt(x, y), w

    def _weights(self, n: int, *, key: Key[Array, ""]) -> Float[Array, "n d o"]:
        """Unscaled weights of n tasks; each of the n_out columns is one vector of the law."""
        return jnp.swapaxes(self.w_law.rows(self.n_out, self.d, n, key=key), 1, 2)

    # What the closed-form losses of `meta_icl.algorithms` read.

    @property
    def x_variance(self) -> Float[Array, "*sweep"]:
        """Variance of an entry of the inputs, sigma^2."""
        require(self.x_law.independent_zero_mean, "x_law", type(self.x_law).__name__, CLOSED_FORM_LAWS)
        return self.x_scale**2 * self.x_law.variance  # pyrefly: ignore[missing-attribute]

    @property
    def x_kurtosis(self) -> float:
        """Kurtosis of an entry of the inputs, E x^4 / sigma^4."""
        require(self.x_law.independent_zero_mean, "x_law", type(self.x_law).__name__, CLOSED_FORM_LAWS)
        return self.x_law.kurtosis  # pyrefly: ignore[missing-attribute]

    @property
    def w_variance(self) -> Float[Array, "*sweep"]:
        """Variance of an entry of w."""
        require(self.w_law.independent_zero_mean, "w_law", type(self.w_law).__name__, CLOSED_FORM_LAWS)
        require(self.pool is None, "pool", "a finite pool", "left out for a closed form, which averages over w_law")
        return self.w_scale**2 * self.w_law.variance  # pyrefly: ignore[missing-attribute]
