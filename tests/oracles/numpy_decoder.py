"""A pretrained decoder in float64 loops over heads, from a `Shape` and arrays under our names."""

import math

import numpy as np


def norm(x, scale, bias, kind, eps):
    if kind == "layer":
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    else:
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x * scale + (0 if bias is None else bias)


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gelu_exact": np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def rotated(x, rotary):
    """Rows "t k": entries i and i + half of the turned part are the coordinates of one plane."""
    if rotary is None:
        return x
    frequencies, x = rotary.frequencies(x.shape[1]), x.copy()
    n = len(frequencies)
    for position in range(len(x)):
        for i in range(n):
            angle = position * frequencies[i]
            a, b = x[position, i], x[position, i + n]
            x[position, i] = a * np.cos(angle) - b * np.sin(angle)
            x[position, i + n] = a * np.sin(angle) + b * np.cos(angle)
    return x


def capped(x, cap):
    return x if cap is None else cap * np.tanh(x / cap)


def logits(shape, arrays, tokens):
    """Logits "t v"."""
    arrays = {name: np.asarray(a, np.float64) for name, a in arrays.items()}

    def normed(x, name):
        return norm(x, arrays[f"{name}.scale"], arrays.get(f"{name}.bias"), shape.norm, shape.norm_eps)

    h = arrays["embedding.tokens"][tokens] * shape.embedding_scale
    if shape.learned_positions:
        h = h + arrays["embedding.positions"][: len(tokens)]
    before, after = shape.placement in ("pre", "sandwich"), shape.placement in ("sandwich", "branch")
    for i in range(shape.n_layers):
        p = f"blocks.{i}."
        y = mixed(shape, arrays, normed(h, p + "norm_mixer") if before else h, i)
        y = normed(y, p + "post_norm_mixer") if after else y
        middle = h + y
        x = h if shape.parallel else middle
        y = fed_forward(shape, arrays, normed(x, p + "norm_feedforward") if before else x, p + "feedforward.")
        h = middle + (normed(y, p + "post_norm_feedforward") if after else y)
    readout = arrays["embedding.tokens"].T if shape.tied else arrays["readout.weight"]
    return capped(normed(h, "final_norm") @ readout, shape.logit_softcap)


def mixed(shape, arrays, x, layer):
    def get(name):
        return arrays.get(f"blocks.{layer}.mixer.{name}")

    q, k, v = ([x @ w for w in get(f"w_{m}")] for m in "qkv")
    for rows, m in ((q, "q"), (k, "k"), (v, "v")):
        if get(f"b_{m}") is not None:
            rows[:] = [row + b for row, b in zip(rows, get(f"b_{m}"), strict=True)]
    for rows, m in ((q, "q"), (k, "k")):
        scale = get(f"{m}_norm.scale")
        if shape.qk_norm == "head":
            rows[:] = [norm(row, scale, None, "rms", shape.norm_eps) for row in rows]
        elif shape.qk_norm == "width":
            wide = norm(np.concatenate(rows, 1), scale.ravel(), None, "rms", shape.norm_eps)
            rows[:] = np.split(wide, len(rows), 1)
    out = 0 if get("b_o") is None else get("b_o")
    reach = shape.windows[layer] or len(x)
    ago = np.arange(len(x))[:, None] - np.arange(len(x))
    for head in range(shape.n_heads):
        group = head // (shape.n_heads // shape.n_groups)
        turned = [rotated(rows, shape.rotary[layer]) for rows in (q[head], k[group])]
        scores = capped(turned[0] @ turned[1].T * shape.score_scale, shape.score_softcap)
        scores = np.where((ago >= 0) & (ago < reach), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out = out + weights / weights.sum(-1, keepdims=True) @ v[group] @ get("w_o")[head]
    return out


def fed_forward(shape, arrays, x, p):
    def times(x, name):
        return x @ arrays[f"{p}w_{name}"] + arrays.get(f"{p}b_{name}", 0)

    act = ACTIVATIONS[shape.activation]
    return times(act(times(x, "gate")) * times(x, "up") if shape.gated else act(times(x, "in")), "out")
