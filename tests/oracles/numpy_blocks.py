"""A second implementation of blocks for the tests: numpy, float64, one token and one head at a time.

Tokens that are absent are really removed here, where the library masks them.
"""

from math import erf

import numpy as np


def sigmoid(u):
    return 1 / (1 + np.exp(-u))


ACTIVATIONS = {
    "gelu": lambda u: 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))),
    "gelu_exact": np.vectorize(lambda u: 0.5 * u * (1 + erf(u / np.sqrt(2)))),
    "silu": lambda u: u * sigmoid(u),
    "relu": lambda u: np.maximum(u, 0),
}


def array(leaf):
    return None if leaf is None else np.asarray(leaf, np.float64)


def normalise(norm, x):
    if norm is None:
        return x
    c = x - x.mean() if norm.kind == "layer" else x
    out = c / np.sqrt((c @ c) / len(c) + norm.eps) * array(norm.scale)
    return out if norm.bias is None else out + array(norm.bias)


def attend(mixer, rows, i):
    """Output of attention at row i."""
    c = mixer.config
    total = np.zeros(rows.shape[1])
    shared = mixer.w_q.shape[0] // mixer.w_k.shape[0]
    for head in range(mixer.w_q.shape[0]):
        w_q, w_o = array(mixer.w_q[head]), array(mixer.w_o[head])
        w_k, w_v = array(mixer.w_k[head // shared]), array(mixer.w_v[head // shared])
        bias = [
            0 if b is None else array(b[h])
            for b, h in ((mixer.b_q, head), (mixer.b_k, head // shared), (mixer.b_v, head // shared))
        ]
        keys = [j for j in range(len(rows)) if (j <= i or not c.causal) and (c.query_is_key or j < len(rows) - 1)]
        if not keys:
            continue
        q = w_q.T @ rows[i] + bias[0]
        ks = [w_k.T @ rows[j] + bias[1] for j in keys]
        if c.rotary is not None:
            base = c.rotary.base
            q, ks = turn(q, i, base), [turn(k, j, base) for k, j in zip(ks, keys, strict=True)]
        scale = c.scale or (1 if c.kind == "linear" else len(q) ** -0.5)
        scores = scale * np.array([q @ k for k in ks])
        if c.kind == "softmax":
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        for weight, j in zip(scores, keys, strict=True):
            total += weight * (w_o.T @ (w_v.T @ rows[j] + bias[2]))
    return total if mixer.b_o is None else total + array(mixer.b_o)


def turn(v, position, base):
    """Rotary positions as multiplication of complex numbers."""
    half = len(v) // 2
    z = (v[:half] + 1j * v[half:]) * np.exp(1j * position * base ** (-np.arange(half) / half))
    return np.concatenate([z.real, z.imag])


def recur(mixer, rows, i):
    (cell,) = mixer.cells
    n = cell.w_h.shape[0]
    h, c = np.zeros(n), np.zeros(n)
    for row in rows[: i + 1]:
        u = array(cell.w_x).T @ row + array(cell.w_h).T @ h + array(cell.bias)
        c = sigmoid(u[n : 2 * n]) * c + sigmoid(u[:n]) * np.tanh(u[2 * n : 3 * n])
        h = sigmoid(u[3 * n :]) * np.tanh(c)
    return array(mixer.w_o).T @ h


def remember(mixer, rows, i):
    """The delta rule at rate 1/2 on normalised keys, in the column convention: M maps keys to values."""
    w_q, w_k, w_v = array(mixer.w)
    memory = np.zeros((rows.shape[1],) * 2)
    for row in rows[: i + 1]:
        k, v = w_k.T @ row, w_v.T @ row
        k = k / np.sqrt(k @ k)
        memory = memory @ (np.eye(len(k)) - 0.5 * np.outer(k, k)) + 0.5 * np.outer(v, k)
    return memory @ (w_q.T @ rows[i])


def mlp(m, n):
    act = ACTIVATIONS[m.activation]
    if hasattr(m, "w_in"):
        hidden = act(array(m.w_in).T @ n + (0 if m.b_in is None else array(m.b_in)))
        return array(m.w_out).T @ hidden + (0 if m.b_out is None else array(m.b_out))
    if hasattr(m, "w_gate"):
        return array(m.w_out).T @ (act(array(m.w_gate).T @ n) * (array(m.w_up).T @ n))
    logits = array(m.router).T @ n
    best = np.argsort(-logits)[: m.top_k]
    shares = np.exp(logits[best]) / np.exp(logits[best]).sum()
    return sum(
        s * array(m.experts_out[e]).T @ (act(array(m.experts_gate[e]).T @ n) * (array(m.experts_up[e]).T @ n))
        for s, e in zip(shares, best, strict=True)
    )


def readings(block, rows, i):
    """(carry, source) of row i among the rows that exist."""
    x, c = rows[i], block.config
    if block.mixer is None:
        return x, x
    before, behind = stands(c, block.norm_mixer, block.post_norm_mixer)
    normed = np.stack([normalise(before, row) for row in rows])
    mix = recur if hasattr(block.mixer, "cells") else remember if hasattr(block.mixer, "w") else attend
    mixed = normalise(behind, mix(block.mixer, normed, i))
    total = normalise(block.norm_mixer if c.norm_at == "post" else None, x + c.dampening * mixed)
    if block.feed_forward is None:
        return (mixed, mixed) if c.skip == "none" else (total, total)
    return {
        "none": (0 * x, mixed),
        "around": (total, mixed),
        "residual": (total, total),
        "parallel": (total, x),
    }[c.skip]


def stands(config, norm, second):
    """The norms before a half and behind its branch."""
    return {"pre": (norm, None), "sandwich": (norm, second), "branch": (None, norm), "post": (None, None)}[
        config.norm_at
    ]


def read(block, source):
    """What the MLP's matrices read."""
    return normalise(stands(block.config, block.norm_feed_forward, None)[0], source)


def after(block, carry, out):
    """The stream behind an MLP that answers `out`."""
    c, behind = block.config, stands(block.config, block.norm_feed_forward, block.post_norm_feed_forward)[1]
    h = carry + (1 if c.skip == "none" else c.dampening) * normalise(behind, out)
    if c.norm_at == "post" and c.skip != "none":
        h = normalise(block.norm_feed_forward, h)
    return h


def run(block, rows):
    out = []
    for i in range(len(rows)):
        h, source = readings(block, rows, i)
        if block.feed_forward is not None:
            h = after(block, h, mlp(block.feed_forward, read(block, source)))
        out.append(h if block.config.clip is None else np.clip(h, -block.config.clip, block.config.clip))
    return np.stack(out)
