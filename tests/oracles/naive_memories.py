"""The memory rules token by token in numpy, written from their equations: S is "d_value d_key", read S q."""

import numpy as np


def linear(q, k, v, g):
    s, out = np.zeros((v.shape[1], k.shape[1])), []
    for t in range(len(q)):
        s = s * np.reshape(g[t], (1, -1)) + np.outer(v[t], k[t])
        out.append(s @ q[t])
    return np.array(out), s


def gated_delta(q, k, v, beta, g):
    s, eye, out = np.zeros((v.shape[1], k.shape[1])), np.eye(k.shape[1]), []
    for t in range(len(q)):
        s = g[t] * s @ (eye - beta[t] * np.outer(k[t], k[t])) + beta[t] * np.outer(v[t], k[t])
        out.append(s @ q[t])
    return np.array(out), s


def rwkv7(q, kappa, a, k, v, w):
    s, out = np.zeros((v.shape[1], k.shape[1])), []
    for t in range(len(q)):
        s = s @ (np.diag(w[t]) - np.outer(kappa[t], a[t] * kappa[t])) + np.outer(v[t], k[t])
        out.append(s @ q[t])
    return np.array(out), s


def mesa(q, k, v, beta, g, ridge):
    out = []
    for t in range(len(q)):
        zeta = np.array([beta[i] * np.prod(g[i + 1 : t + 1]) for i in range(t + 1)])
        keys, values = k[: t + 1], v[: t + 1]
        out.append((values.T * zeta) @ keys @ np.linalg.solve((keys.T * zeta) @ keys + np.diag(ridge), q[t]))
    return np.array(out)


def titans(q, k, v, alpha, eta, theta, weights, chunk, *, gradient, read, before=False, scale=1.0, target=None):
    """Any memory network by `gradient(weights, k, v)` of |M(k) - v|^2 and `read(weights, q)`; weights are a list."""
    m, s = [w.copy() for w in weights], [np.zeros_like(w) for w in weights]
    target = [np.zeros_like(w) for w in weights] if target is None else target
    out = []
    for t in range(len(q)):
        if t % chunk == 0:
            start = [w.copy() for w in m]
        if before:
            out.append(read(m, q[t]))
        u = gradient(start, k[t], v[t])
        s = [eta[t] * a - theta[t] * scale * b for a, b in zip(s, u, strict=True)]
        m = [(1 - alpha[t]) * a + b + alpha[t] * c for a, b, c in zip(m, s, target, strict=True)]
        if not before:
            out.append(read(m, q[t]))
    return np.array(out), m, s


def linear_gradient(weights, k, v):
    return [2 * np.outer(weights[0] @ k - v, k)]


def linear_read(weights, q):
    return weights[0] @ q


def silu(x):
    return x / (1 + np.exp(-x))


def mlp_read(weights, q):
    return weights[1] @ silu(weights[0] @ q)


def mlp_gradient(weights, k, v):
    z = weights[0] @ k
    e = 2 * (weights[1] @ silu(z) - v)
    sigma = 1 / (1 + np.exp(-z))
    inner = (weights[1].T @ e) * (sigma * (1 + z * (1 - sigma)))
    return [np.outer(inner, k), np.outer(e, silu(z))]


def mamba1(u, dt, a, b, c, skip):
    h, out = np.zeros((u.shape[1], b.shape[1])), []
    for t in range(len(u)):
        h = np.exp(dt[t][:, None] * a) * h + np.outer(dt[t] * u[t], b[t])
        out.append(h @ c[t] + skip * u[t])
    return np.array(out)
