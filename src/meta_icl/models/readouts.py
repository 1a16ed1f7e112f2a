"""How the residual stream becomes an output: a linear map, the transposed embedding, or a classifier of some layers."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from meta_icl.errors import choose, require
from meta_icl.models.initialisation import HE, LECUN, TORCH, Init

CLASSIFIERS = ("torch", "lecun", "he", "reddy")


class LinearLayer(eqx.Module):
    """x W + b, with one bias per channel, one for all, or none."""

    weight: Float[Array, "d_in d_out"]
    bias: Float[Array, " biases"] | None

    def __call__(self, x: Float[Array, "n d_in"]) -> Float[Array, "n d_out"]:
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias[None]


def linear(d_in: int, d_out: int, *, bias: bool, init: Init, key: Key[Array, ""], bias_init: Any = None) -> LinearLayer:
    """A drawn linear map; biases are zero unless `bias_init` draws them."""
    weight_key, bias_key = jax.random.split(key)
    b = None
    if bias:
        b = jnp.zeros(d_out) if bias_init is None else bias_init((d_out,), d_in, key=bias_key)
    return LinearLayer(init((d_in, d_out), d_in, key=weight_key), b)


@dataclass(frozen=True)
class Linear:
    """Describes a linear read-out of `d_out` channels; with a `softcap` the outputs are c tanh(u / c) (Gemma 2).

    The bias, if there is one, starts at zero or, where `bias_init` is given, by that law.
    """

    d_out: int
    bias: bool = False
    init: Init = LECUN
    bias_init: Init | None = None
    softcap: float | None = None

    def __post_init__(self):
        require(self.d_out >= 1, "d_out", self.d_out, "a positive integer")
        require(self.softcap is None or self.softcap > 0, "softcap", self.softcap, "positive, or nothing")

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "LinearReadout":
        maps = linear(d_model, self.d_out, bias=self.bias, init=self.init, bias_init=self.bias_init, key=key)
        return LinearReadout(maps, self.softcap)


class LinearReadout(eqx.Module):
    """The weights of a `Linear`."""

    map: LinearLayer
    softcap: float | None = eqx.field(static=True, default=None)

    def __call__(
        self, h: Float[Array, "t d"], embedding: Any = None, channels: Int[Array, " n"] | None = None
    ) -> Float[Array, "t d_out"]:
        """The output, or some `channels` of it alone."""
        del embedding
        chosen = self.map
        if channels is not None:
            bias = None if chosen.bias is None else chosen.bias[channels]
            chosen = LinearLayer(chosen.weight[:, channels], bias)
        return capped(chosen(h), self.softcap)


@dataclass(frozen=True)
class Tied:
    """Describes the read-out by the transposed embedding of tokens."""

    softcap: float | None = None

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "TiedReadout":
        del d_model, key
        return TiedReadout(self.softcap)


class TiedReadout(eqx.Module):
    """h E^T with the network's own table of tokens E."""

    softcap: float | None = eqx.field(static=True, default=None)

    def __call__(
        self, h: Float[Array, "t d"], embedding: Any = None, channels: Int[Array, " n"] | None = None
    ) -> Float[Array, "t v"]:
        """The logits, or those of some tokens, the `channels`, alone."""
        table = embedding.table if channels is None else embedding.table[channels]
        return capped(h @ table.T, self.softcap)


@dataclass(frozen=True)
class Classifier:
    """Describes `n_hidden` ReLU layers of width `d_hidden` (default: of what they read) before a linear map to logits.

    Drawn as "torch" (uniform in +-1/sqrt(fan_in), biases too), "lecun" (normal of variance 1 / fan_in, biases zero),
    "he" (variance 2 / fan_in in the hidden layers) or "reddy" ("he" with ONE scalar bias per hidden layer and none in
    the last: the code of Reddy, 2023).
    """

    d_out: int
    n_hidden: int = 2
    d_hidden: int | None = None
    init: str = "torch"

    def __post_init__(self):
        require(self.d_out >= 1, "d_out", self.d_out, "a positive integer")
        require(self.n_hidden >= 0, "n_hidden", self.n_hidden, "zero or more")
        require(self.d_hidden is None or self.d_hidden >= 1, "d_hidden", self.d_hidden, "a positive integer or nothing")
        choose("init", self.init, CLASSIFIERS)

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "ClassifierReadout":
        sizes = [d_model, *[self.d_hidden or d_model] * self.n_hidden, self.d_out]
        keys = jax.random.split(key, self.n_hidden + 1)

        def layer(i: int) -> LinearLayer:
            last = i == self.n_hidden
            init = TORCH if self.init == "torch" else LECUN if last or self.init == "lecun" else HE
            bias_init = TORCH if self.init == "torch" else None
            drawn = linear(sizes[i], sizes[i + 1], bias=True, init=init, bias_init=bias_init, key=keys[i])
            if self.init != "reddy":
                return drawn
            return LinearLayer(drawn.weight, None if last else jnp.zeros(1))

        return ClassifierReadout(tuple(layer(i) for i in range(self.n_hidden + 1)))


class ClassifierReadout(eqx.Module):
    """The weights of a `Classifier`."""

    layers: tuple[LinearLayer, ...]

    def __call__(
        self, h: Float[Array, "t d"], embedding: Any = None, channels: Int[Array, " n"] | None = None
    ) -> Float[Array, "t d_out"]:
        """The logits, or those of some classes, the `channels`, alone."""
        del embedding
        for layer in self.layers[:-1]:
            h = jax.nn.relu(layer(h))
        logits = self.layers[-1](h)
        return logits if channels is None else logits[:, channels]


def capped(u: Float[Array, "t d"], cap: float | None) -> Float[Array, "t d"]:
    """c tanh(u / c), or u where there is no cap."""
    return u if cap is None else cap * jnp.tanh(u / cap)
