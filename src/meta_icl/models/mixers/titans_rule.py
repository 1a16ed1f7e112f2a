"""The neural long-term memory of Titans (Behrouz, Zhong & Mirrokni, 2024): a network that learns while it reads.

The memory is a network M of one or more matrices. Each token is a step of gradient descent with momentum and decay,

    S_t = eta_t S_{t-1} - theta_t grad |M(k_t) - v_t|^2,   M_t = (1 - alpha_t) M_{t-1} + S_t,   read M_t(q_t),

with every gradient of a chunk taken at the memory with which the chunk started (chunk_size 1 is the online rule). Then
each layer of M_t is a weighted sum of outer products of the chunk, W_t = beta_t W + f_t S - sum_i G_ti e_i a_i^T, with
a_i the layer's input and e_i the gradient at its output for token i. Reading it takes products of chunk x chunk
matrices; no token needs a copy of the memory. For a single matrix this is the closed form of the linear memory.

The paper leaves much open. `Rule` names the alternatives: `read` ("after" or "before" the write), `loss_scale` (1 is
the sum of squares, 1/d_value their mean), `decay_to` ("zero", or "init": M = M_0 + D and D decays) and `residual`
(M(x) = x + layernorm(f(x))).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from meta_icl.models.mixers.affine_scan import affine_scan, in_chunks, safe_log, segment_products, shifted

Weights = tuple[Float[Array, "_ _"], ...]


class Gates(NamedTuple):
    """Forgetting alpha and momentum eta in [0, 1], step size theta >= 0, of one token or of several."""

    alpha: Float[Array, "*t"]
    eta: Float[Array, "*t"]
    theta: Float[Array, "*t"]


class Rule(NamedTuple):
    """What the paper leaves open about one memory; see the module."""

    read: str = "after"
    loss_scale: float = 1.0
    decay_to: str = "zero"
    residual: bool = False


AS_WRITTEN = Rule()


class Momentum(NamedTuple):
    """The memory and its past surprise."""

    weights: Weights
    surprise: Weights


def network(
    layers: Sequence[Callable[[Array], Array]], x: Float[Array, "*t k"], residual: bool
) -> Float[Array, "*t v"]:
    """The memory network: linear layers with SiLU between them; `residual` adds x to the layer norm of the result."""
    h = layers[0](x)
    for layer in layers[1:]:
        h = layer(jax.nn.silu(h))
    if not residual:
        return h
    centred = h - jnp.mean(h, axis=-1, keepdims=True)
    return x + centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-6)


def answer(weights: Weights, x: Float[Array, "*t k"], residual: bool = False) -> Float[Array, "*t v"]:
    """What a memory answers at x."""
    return network([lambda h, w=w: h @ w.T for w in weights], x, residual)


def surprise_loss(weights: Weights, k: Float[Array, " k"], v: Float[Array, " v"], rule: Rule) -> Float[Array, ""]:
    """The associative loss of one token, loss_scale |M(k) - v|^2."""
    return rule.loss_scale * jnp.sum(jnp.square(answer(weights, k, rule.residual) - v))


def layer_gradients(
    weights: Weights, k: Float[Array, "t k"], v: Float[Array, "t v"], rule: Rule
) -> tuple[list[Float[Array, "t _"]], list[Float[Array, "t _"]]]:
    """For every layer its inputs a_i and the gradients e_i at its outputs; token i's gradient is e_i a_i^T."""

    def loss(shifts: list[Array]) -> tuple[Array, list[Array]]:
        inputs: list[Array] = []

        def layer(h: Array, w: Array, shift: Array) -> Array:
            inputs.append(h)
            return h @ w.T + shift

        layers = [lambda h, w=w, s=s: layer(h, w, s) for w, s in zip(weights, shifts, strict=True)]
        return rule.loss_scale * jnp.sum(jnp.square(network(layers, k, rule.residual) - v)), inputs

    zeros = [jnp.zeros((k.shape[0], w.shape[0]), w.dtype) for w in weights]
    gradients, inputs = jax.grad(loss, has_aux=True)(zeros)
    return inputs, gradients


class Coefficients(NamedTuple):
    """How the memory after each token of a chunk depends on its start and on the gradients of the chunk.

    W_t = kept_t W + carried_t S - sum_i mixed_ti u_i, plus (1 - kept_t) times what the decay tends to; S at the end is
    momentum_b S - sum_i last_i u_i.
    """

    kept: Float[Array, " b"]
    carried: Float[Array, " b"]
    mixed: Float[Array, "b b"]
    momentum: Float[Array, ""]
    last: Float[Array, " b"]


def coefficients(gates: Gates) -> Coefficients:
    """The two affine recurrences of a chunk, solved for all its tokens."""
    log_keep, log_eta = safe_log(1 - gates.alpha), safe_log(gates.eta)
    keep, momentum = segment_products(log_keep), segment_products(log_eta)
    kept, decayed = jnp.exp(jnp.cumsum(log_keep)), jnp.exp(jnp.cumsum(log_eta))
    mixed = (keep @ momentum) * gates.theta[None]
    return Coefficients(kept, keep @ decayed, mixed, decayed[-1], momentum[-1] * gates.theta)


def titans_products(
    state: Momentum,
    q: Float[Array, "t k"],
    k: Float[Array, "t k"],
    v: Float[Array, "t v"],
    gates: Gates,
    size: int,
    rule: Rule = AS_WRITTEN,
    init: Weights | None = None,
) -> tuple[Momentum, Float[Array, "t v"]]:
    """The memory over a sequence by matrix products. `init` is what decay tends to when `rule.decay_to` is "init"."""
    if len(state.weights) == 1 and not rule.residual:
        return linear_products(state, q, k, v, gates, size, rule, init)

    def prepare(chunk: tuple[Array, Array, Array, Gates]) -> tuple[Array, Array, Array, Coefficients, Coefficients]:
        q, k, v, gates = chunk
        whole = coefficients(gates)
        seen = whole
        if rule.read == "before":
            kept, carried, mixed = shifted(whole.kept, 1.0), shifted(whole.carried, 0.0), shifted(whole.mixed, 0.0)
            seen = whole._replace(kept=kept, carried=carried, mixed=mixed)
        return q, k, v, whole, seen

    def body(state: Momentum, prepared: tuple) -> tuple[Momentum, Array]:
        q, k, v, whole, seen = prepared
        inputs, gradients = layer_gradients(state.weights, k, v, rule)
        anchors = init if rule.decay_to == "init" and init is not None else [None] * len(inputs)
        each = list(zip(state.weights, state.surprise, inputs, gradients, anchors, strict=True))

        def layer(h: Array, w: Array, s: Array, a: Array, e: Array, anchor: Array | None) -> Array:
            z = seen.kept[:, None] * (h @ w.T) + seen.carried[:, None] * (h @ s.T) - ((h @ a.T) * seen.mixed) @ e
            return z if anchor is None else z + (1 - seen.kept)[:, None] * (h @ anchor.T)

        def after(w: Array, s: Array, a: Array, e: Array, anchor: Array | None) -> tuple[Array, Array]:
            moved = whole.kept[-1] * w + whole.carried[-1] * s - (e * whole.mixed[-1][:, None]).T @ a
            moved = moved if anchor is None else moved + (1 - whole.kept[-1]) * anchor
            return moved, whole.momentum * s - (e * whole.last[:, None]).T @ a

        read = network([lambda h, parts=parts: layer(h, *parts) for parts in each], q, rule.residual)
        weights, surprise = zip(*(after(*parts) for parts in each), strict=True)
        return Momentum(weights, surprise), read

    return in_chunks(body, state, (q, k, v, gates), size, prepare)


def linear_products(
    state: Momentum,
    q: Float[Array, "t k"],
    k: Float[Array, "t k"],
    v: Float[Array, "t v"],
    gates: Gates,
    size: int,
    rule: Rule = AS_WRITTEN,
    init: Weights | None = None,
) -> tuple[Momentum, Float[Array, "t v"]]:
    """`titans_products` for a memory of one matrix, with all that does not need the memory done before the chunks."""

    def prepare(chunk: tuple[Array, Array, Array, Gates]) -> tuple[Array, ...]:
        q, k, v, gates = chunk
        c = coefficients(gates)
        kept, carried, mixed = c.kept, c.carried, c.mixed
        if rule.read == "before":
            kept, carried, mixed = shifted(kept, 1.0), shifted(carried, 0.0), shifted(mixed, 0.0)
        scale = 2 * rule.loss_scale
        scores = scale * (q @ k.T) * mixed
        reads = jnp.concatenate([kept[:, None] * q - scores @ k, carried[:, None] * q], axis=1)  # of W and of S
        given = scores @ v
        if anchor is not None:
            given = given + (1 - kept)[:, None] * (q @ anchor.T)
        writes = scale * jnp.concatenate([c.mixed[-1][:, None] * k, c.last[:, None] * k], axis=1)
        return k, v, reads, given, writes, c.kept[-1], c.carried[-1], c.momentum

    def body(state: tuple[Array, Array], prepared: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        w, s = state
        k, v, reads, given, writes, kept, carried, momentum = prepared
        moved = (v - k @ w.T).T @ writes
        to_w, to_s = jnp.split(moved, 2, axis=1)
        after = kept * w + carried * s + to_w
        after = after if anchor is None else after + (1 - kept) * anchor
        return (after, momentum * s + to_s), reads @ jnp.concatenate([w, s], axis=1).T + given

    anchor = init[0] if rule.decay_to == "init" and init is not None else None
    (w, s), read = in_chunks(body, (state.weights[0], state.surprise[0]), (q, k, v, gates), size, prepare)
    return Momentum((w,), (s,)), read


def titans_scans(
    state: Momentum,
    q: Float[Array, "t k"],
    k: Float[Array, "t k"],
    v: Float[Array, "t v"],
    gates: Gates,
    size: int,
    rule: Rule = AS_WRITTEN,
    init: Weights | None = None,
    form: str = "scan",
) -> tuple[Momentum, Float[Array, "t v"]]:
    """The same by a gradient per token and two affine scans over copies of the memory, one per token of a chunk."""

    def body(state: Momentum, chunk: tuple[Array, Array, Array, Gates]) -> tuple[Momentum, Array]:
        q, k, v, gates = chunk
        gradient = jax.vmap(jax.grad(surprise_loss), (None, 0, 0, None))(state.weights, k, v, rule)
        steps = tuple(-gates.theta[:, None, None] * g for g in gradient)
        surprise = affine_scan(gates.eta, steps, state.surprise, form)
        anchors = (
            init if rule.decay_to == "init" and init is not None else tuple(jnp.zeros_like(w) for w in state.weights)
        )
        pulled = tuple(s + gates.alpha[:, None, None] * m[None] for s, m in zip(surprise, anchors, strict=True))
        weights = affine_scan(1 - gates.alpha, pulled, state.weights, form)
        seen = weights
        if rule.read == "before":
            seen = tuple(
                jnp.concatenate([w[None], all_w[:-1]]) for w, all_w in zip(state.weights, weights, strict=True)
            )
        read = jax.vmap(lambda w, x: answer(w, x, rule.residual))(seen, q)
        return jax.tree.map(lambda leaf: leaf[-1], Momentum(weights, surprise)), read

    return in_chunks(body, state, (q, k, v, gates), size)


class OnlineState(NamedTuple):
    """`Momentum` between two tokens of a chunk, with the memory at which the chunk started."""

    now: Momentum
    start: Weights
    position: Int[Array, ""]


def titans_step(
    state: OnlineState,
    q: Float[Array, " k"],
    k: Float[Array, " k"],
    v: Float[Array, " v"],
    gates: Gates,
    size: int,
    rule: Rule = AS_WRITTEN,
    init: Weights | None = None,
) -> tuple[OnlineState, Float[Array, " v"]]:
    """One token: the equations of the module as they stand."""
    before = state.now.weights
    gradient = jax.grad(surprise_loss)(state.start, k, v, rule)
    surprise = jax.tree.map(lambda s, g: gates.eta * s - gates.theta * g, state.now.surprise, gradient)
    after = jax.tree.map(lambda w, s: (1 - gates.alpha) * w + s, before, surprise)
    if rule.decay_to == "init":
        after = jax.tree.map(lambda w, anchor: w + gates.alpha * anchor, after, init)
    position = (state.position + 1) % size
    start = jax.tree.map(lambda new, old: jnp.where(position == 0, new, old), after, state.start)
    read = answer(after if rule.read == "after" else before, q, rule.residual)
    return OnlineState(Momentum(after, surprise), start, position), read
