"""A second implementation of contextual blocks for the tests: numpy, float64, one token and one head at a time.

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
    c, turned = mixer.config, mixer.config.rotary
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
        if turned is not None:
            q, ks = turn(q, i, turned.base), [turn(k, j, turned.base) for k, j in zip(ks, keys, strict=True)]
        scores = np.array([q @ k for k in ks])
        if c.kind == "softmax":
            scores = np.exp(scores / np.sqrt(len(q)) - (scores / np.sqrt(len(q))).max())
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
    cell = mixer.cells[0]
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
    normed = np.stack([normalise(block.norm_mixer, row) for row in rows])
    mix = recur if hasattr(block.mixer, "cells") else remember if hasattr(block.mixer, "w") else attend
    mixed = mix(block.mixer, normed, i)
    mixed = normalise(block.post_norm_mixer, mixed)
    x = rows[i]
    return {
        "none": (0 * x, mixed),
        "around": (x + mixed, mixed),
        "residual": (x + mixed, x + mixed),
        "parallel": (x + mixed, x),
    }[block.config.skip]


def run(block, rows):
    out = []
    for i in range(len(rows)):
        carry, source = readings(block, rows, i)
        answer = mlp(block.feed_forward, normalise(block.norm_feed_forward, source))
        out.append(carry + normalise(block.post_norm_feed_forward, answer))
    return np.stack(out)
