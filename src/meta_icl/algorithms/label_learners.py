"""Reference learners on prompts of integer labels, with an answer at every position: logits "n labels".

Row k is predicted from the rows before k and x_k. Learners of real targets are asked with one-hot labels (`OneHot`);
the best logit is the answer, the smallest label among equals.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from meta_icl import draws
from meta_icl.algorithms._checks import labels_of
from meta_icl.conversions import number, require_entries
from meta_icl.errors import require
from meta_icl.prompt import Predictor, Prompt

FAR = -1e30  # the logit of a label without examples


class OneHot(eqx.Module):
    """A predictor of real targets shown one-hot labels; its predictions are the logits.

    `OneHot(NearestNeighbours(k), n)` votes, `OneHot(EveryPosition(Ridge(a)), n)` is the ridge classifier.
    """

    predictor: Predictor
    n_labels: int = eqx.field(static=True)

    def __call__(self, prompt: Prompt) -> Float[Array, "..."]:
        return self.predictor(
            Prompt(prompt.x, jax.nn.one_hot(labels_of(prompt, self.n_labels), self.n_labels, dtype=prompt.x.dtype))
        )


class NearestCentroid(eqx.Module):
    """Minus the squared distance to the mean of the rows before of every label."""

    n_labels: int = eqx.field(static=True)

    def __call__(self, prompt: Prompt) -> Float[Array, "n labels"]:
        one_hot = jax.nn.one_hot(labels_of(prompt, self.n_labels), self.n_labels, dtype=prompt.x.dtype)
        counts = _before(one_hot)
        sums = _before(one_hot[:, :, None] * prompt.x[:, None, :])
        means = sums / jnp.maximum(counts, 1)[:, :, None]
        squares = jnp.sum(jnp.square(prompt.x[:, None, :] - means), axis=-1)
        return jnp.where(counts > 0, -squares, FAR)


class LogisticRegression(eqx.Module):
    """Multinomial logistic regression without intercept on the rows before: mean cross-entropy + penalty/2 |W|^2.

    Minimised by `steps` steps of Nesterov's method from zero, of rate 1 / L for the bound L = max_i |x_i|^2 / 2 +
    penalty on the curvature. Without examples all logits are zero.
    """

    n_labels: int = eqx.field(static=True)
    penalty: Float[Array, "*sweep"] = eqx.field(default=0.01, converter=number)
    steps: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        require(self.steps >= 1, "steps", self.steps, "a positive integer")
        require_entries(lambda value: value > 0, "penalty", self.penalty, "positive")

    def __call__(self, prompt: Prompt) -> Float[Array, "n labels"]:
        labels, rows = labels_of(prompt, self.n_labels), jnp.arange(prompt.n_context + 1)
        squares = jnp.sum(jnp.square(prompt.x), axis=-1)

        def answer(k: Int[Array, ""]) -> Float[Array, " labels"]:
            rate = 1 / (jnp.max(jnp.where(rows < k, squares, 0)) / 2 + self.penalty)

            def step(i: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
                w, before = carry
                ahead = w + i / (i + 3) * (w - before)
                loss = jax.grad(lambda u: _seen_loss(prompt.x @ u, labels, rows < k))
                return ahead - rate * (loss(ahead) + self.penalty * ahead), w

            start = jnp.zeros((prompt.x.shape[1], self.n_labels), prompt.x.dtype)
            return prompt.x[k] @ lax.fori_loop(0, self.steps, step, (start, start))[0]

        return jax.vmap(answer)(rows)


class OnlineNetwork(eqx.Module):
    """A network with one hidden ReLU layer that learns along the prompt: predict row k, then descend on rows 0 .. k.

    After every row it takes `steps` steps of gradient descent of rate exp(log_rate) on the mean cross-entropy of all
    rows seen. As drawn it is the baseline "SGD"; its start weights and log rate are leaves, so that `train` with
    `every_position_cross_entropy` makes it MAML (Finn et al., 2017): a learned start from which descent goes well.
    """

    w: Float[Array, "d width"]
    b: Float[Array, " width"]
    v: Float[Array, "width labels"]
    c: Float[Array, " labels"]
    log_rate: Float[Array, ""]
    steps: int = eqx.field(static=True, default=1)

    def __call__(self, prompt: Prompt) -> Float[Array, "n labels"]:
        rows, rate = jnp.arange(prompt.n_context + 1), jnp.exp(self.log_rate)
        labels = labels_of(prompt, self.c.shape[0])

        def loss(weights: tuple[Array, ...], k: Int[Array, ""]) -> Float[Array, ""]:
            return _seen_loss(_hidden_layer(weights, prompt.x), labels, rows <= k)

        def row(weights: tuple[Array, ...], k: Int[Array, ""]) -> tuple[tuple[Array, ...], Array]:
            answer = _hidden_layer(weights, prompt.x[k][None])[0]
            for _ in range(self.steps):
                gradient = jax.grad(loss)(weights, k)
                weights = jax.tree.map(lambda old, slope: old - rate * slope, weights, gradient)
            return weights, answer

        return lax.scan(row, (self.w, self.b, self.v, self.c), rows)[1]


def online_network(
    d: int, n_labels: int, *, width: int = 64, rate: float = 0.1, steps: int = 1
) -> Callable[..., OnlineNetwork]:
    """Describes an `OnlineNetwork`: called with a key it draws weights normal of variance 2 / fan_in, 1 / fan_in."""
    for field, value in (("d", d), ("n_labels", n_labels), ("width", width), ("steps", steps)):
        require(value >= 1, field, value, "a positive integer")
    require(rate > 0, "rate", rate, "positive")

    def draw(*, key: Key[Array, ""]) -> OnlineNetwork:
        w_key, v_key = jax.random.split(key)
        w = (2 / d) ** 0.5 * draws.normal(w_key, (d, width))
        v = width**-0.5 * draws.normal(v_key, (width, n_labels))
        return OnlineNetwork(w, jnp.zeros(width), v, jnp.zeros(n_labels), jnp.log(jnp.asarray(rate)), steps)

    return draw


def _hidden_layer(weights: tuple[Array, ...], x: Float[Array, "n d"]) -> Float[Array, "n labels"]:
    w, b, v, c = weights
    return jax.nn.relu(x @ w + b[None]) @ v + c[None]


def _seen_loss(logits: Float[Array, "n labels"], labels: Int[Array, " n"], seen: Array) -> Float[Array, ""]:
    """The mean cross-entropy of the rows marked `seen`; zero without any."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    return -jnp.sum(jnp.where(seen, chosen, 0)) / jnp.maximum(jnp.sum(seen), 1)


def _before(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The sum over the rows before every row."""
    return jnp.cumsum(values, axis=0) - values
