"""Keys, values, gates and memories that the rules of memories are tested with, and both sides of Titans' rule."""

import jax
import jax.numpy as jnp
import naive_memories as naive
import numpy as np

from meta_icl.models.mixers import affine_scan
from meta_icl.models.mixers.delta import (
    delta_chunks,
    generalised_delta_chunks,
)
from meta_icl.models.mixers.linear import linear_chunks
from meta_icl.models.mixers.mesa import mesa_chunks
from meta_icl.models.mixers.titans_rule import (
    AS_WRITTEN,
    Gates,
    Momentum,
    titans_products,
    titans_scans,
)
from meta_icl.models.mixers.ttt import ttt_chunks

T, D, B = 64, 8, 16
RNG = np.random.default_rng(0)
EXACT = {"rtol": 0, "atol": 1e-12}


# Compiled once per shape: run eagerly, every operation would be a program of its own.
products = jax.jit(titans_products, static_argnames=("size", "rule"))
scans = jax.jit(titans_scans, static_argnames=("size", "rule", "form"))
linear_form = jax.jit(linear_chunks, static_argnames="size")
delta_form = jax.jit(delta_chunks, static_argnames="size")
rwkv_form = jax.jit(generalised_delta_chunks, static_argnames="size")
mesa_form = jax.jit(mesa_chunks, static_argnames=("size", "cg_steps"))
ttt_form = jax.jit(ttt_chunks, static_argnames="size")
affine = jax.jit(affine_scan, static_argnames="form")


def unit_rows(*shape):
    x = RNG.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


Q, K, V = RNG.normal(size=(T, D)), unit_rows(T, D), RNG.normal(size=(T, D))
ALPHA, ETA, THETA = RNG.uniform(0.01, 0.2, T), RNG.uniform(0.1, 0.9, T), RNG.uniform(0.05, 0.4, T)
SLOW = 0.1 * THETA  # a deep memory diverges at the steps of a linear one
BETA, G = RNG.uniform(0, 1, T), RNG.uniform(0.5, 1, T)
M0 = [0.3 * RNG.normal(size=(D, D))]
DEEP = [0.3 * RNG.normal(size=(16, D)), 0.3 * RNG.normal(size=(D, 16))]


def gates(alpha=ALPHA, eta=ETA, theta=THETA):
    return Gates(*(jnp.asarray(a, float) * jnp.ones(T) for a in (alpha, eta, theta)))


def momentum(weights):
    given = tuple(jnp.asarray(w) for w in weights)
    return Momentum(given, tuple(jnp.zeros_like(w) for w in given))


def titans(weights, size, gates_, rule=AS_WRITTEN, k=K, v=V, function=products, **options):
    init = tuple(jnp.asarray(w) for w in weights)
    return function(
        momentum(weights), jnp.asarray(Q), jnp.asarray(k), jnp.asarray(v), gates_, size, rule, init, **options
    )


def loop(weights, size, alpha=ALPHA, eta=ETA, theta=THETA, k=K, v=V, **options):
    deep = len(weights) == 2
    given = {"gradient": naive.mlp_gradient if deep else naive.linear_gradient}
    given["read"] = naive.mlp_read if deep else naive.linear_read
    full = (np.broadcast_to(a, T) for a in (alpha, eta, theta))
    return naive.titans(Q, k, v, *full, weights, size, **given, **options)
