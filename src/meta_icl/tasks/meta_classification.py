"""In-context meta-learning by classification: several maps from classes to labels, one of them in use per prompt.

Minegishi et al. (ICML 2025). A world has K class means and T maps from classes to labels; it is drawn once per seed and
kept in array leaves. A prompt shows N items of distinct classes with their labels under one map, then a query.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from meta_icl import draws
from meta_icl.conversions import number
from meta_icl.errors import choose, require
from meta_icl.prompt import BatchTask, PlacedPrompt

ASSIGNMENTS = ("shift", "random", "bijection")


class MetaSample(NamedTuple):
    """A batch of prompts with the map "b" and the classes "b n" behind them, the query's last."""

    prompts: PlacedPrompt
    tasks: Int[Array, " b"]
    classes: Int[Array, "b n"]


class MetaClassification(BatchTask):
    """Items x = (mu_c + eps eta) / sqrt(1 + eps^2), eta ~ N(0, I/d), labelled by one map out of several.

    The map tau has probability ~ (tau + 1)^-beta, the N / repeats distinct classes of the context follow the ranks'
    law (k + 1)^-alpha without replacement, every one standing `repeats` times, in random order. The query's class is
    one of the context's with probability `p_bursty` (p_B of the paper), else drawn from all K classes by the same law;
    with `distinct_query` it is then one that the context does not have. `offset` is uniform in 0 .. n_positions - t,
    for prompts of t = 2N + 1 tokens. All draws but the noise come from one vector of uniforms per prompt.
    """

    means: Float[Array, "k d"]
    labels: Int[Array, "tasks k"]
    eps: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    alpha: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    beta: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    p_bursty: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    n_context: int = eqx.field(static=True, default=4)
    repeats: int = eqx.field(static=True, default=1)
    n_positions: int = eqx.field(static=True, default=65)
    distinct_query: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        n, b, t = self.n_context, self.repeats, 2 * self.n_context + 1
        require(n >= 1, "n_context", n, "a positive integer")
        require(b >= 1 and n % b == 0, "repeats", b, f"a divisor of n_context = {n}")
        classes = self.means.shape[-2]
        require(n // b < classes, "n_context", n, f"below repeats times the number of classes = {b * classes}")
        require(self.n_positions >= t, "n_positions", self.n_positions, f"at least 2 n_context + 1 = {t}")

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> PlacedPrompt:
        return self.sample_with_classes(n, key=key).prompts

    def sample_with_classes(self, n: int, *, key: Key[Array, ""]) -> MetaSample:
        """Draw `n` prompts at once, with the map and the classes behind each."""
        k, d = self.means.shape
        context, distinct = self.n_context, self.n_context // self.repeats
        class_key, noise_key = jax.random.split(key)
        u = draws.uniform(class_key, (n, k + context + 5), minval=1e-37)
        tasks = _categorical(u[:, k + context], rank_law(self.labels.shape[0], self.beta))
        law = rank_law(k, self.alpha)
        # The largest of log(u) / p, in order, are draws without replacement of probabilities p.
        order = lax.top_k(jnp.log(u[:, :k]) / law[None], distinct + 1)[1]
        shown = jnp.repeat(order[:, :distinct], self.repeats, axis=1)
        # Shuffled, because copies stand side by side, and frequent classes first.
        shown = jnp.take_along_axis(shown, jnp.argsort(u[:, k : k + context], axis=1), axis=1)
        outside = order[:, distinct] if self.distinct_query else _categorical(u[:, k + context + 1], law)
        position = jnp.floor(u[:, k + context + 2] * context).astype(int)
        inside = jnp.take_along_axis(shown, position[:, None], axis=1)[:, 0]
        query = jnp.where(u[:, k + context + 3] < self.p_bursty, inside, outside)
        classes = jnp.concatenate([shown, query[:, None]], axis=1)
        noise = draws.normal(noise_key, (n, context + 1, d), self.means.dtype) / jnp.sqrt(float(d))
        x = (self.means[classes] + self.eps * noise) / jnp.sqrt(1 + jnp.square(self.eps))
        y = self.labels[tasks[:, None], classes]
        places = self.n_positions - 2 * context
        offset = jnp.minimum(jnp.floor(u[:, k + context + 4] * places).astype(int), places - 1)
        return MetaSample(PlacedPrompt(x, y, offset), tasks, classes)


def meta_classification(
    n_tasks: int = 3,
    n_classes: int = 64,
    n_labels: int = 32,
    d: int = 63,
    *,
    key: Key[Array, ""],
    assign: str = "shift",
    **fields: Any,
) -> MetaClassification:
    """Draw a world, with means of entries N(0, 1/d); `fields` are those of `MetaClassification`.

    `assign`: "shift" (the public code: a uniform base label per class, map tau adds tau modulo L), "random" (the
    paper's wording: every label of every map uniform), or "bijection" (K = L: the base labels are a permutation, so
    that no two classes share a label and no two maps a pair).
    """
    choose("assignment", assign, ASSIGNMENTS)
    require(n_tasks >= 1, "n_tasks", n_tasks, "a positive integer")
    require(1 <= n_labels <= n_classes, "n_labels", n_labels, f"from 1 to n_classes = {n_classes}")
    mean_key, label_key = jax.random.split(key)
    means = draws.normal(mean_key, (n_classes, d)) / jnp.sqrt(float(d))
    if assign == "random":
        labels = draws.randint(label_key, (n_tasks, n_classes), 0, n_labels)
    else:
        base = draws.randint(label_key, (n_classes,), 0, n_labels)
        if assign == "bijection":
            require(n_labels == n_classes, "n_labels", n_labels, f"n_classes = {n_classes} for a bijection")
            base = jnp.argsort(draws.uniform(label_key, (n_classes,)))
        labels = (base[None] + jnp.arange(n_tasks)[:, None]) % n_labels
    return MetaClassification(means, labels, **fields)


def rank_law(n: int, exponent: Float[Array, ""]) -> Float[Array, " n"]:
    """Probabilities ~ rank^-exponent of the ranks 1 .. n."""
    weights = jnp.exp(-exponent * jnp.log(jnp.arange(1.0, n + 1)))
    return weights / weights.sum()


def _categorical(u: Float[Array, " b"], law: Float[Array, " n"]) -> Int[Array, " b"]:
    """An index per uniform number, by inversion."""
    return jnp.minimum(jnp.sum(jnp.cumsum(law)[None] <= u[:, None], axis=1), law.shape[0] - 1)
