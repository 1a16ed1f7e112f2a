"""The published networks a second time: numpy, float64, one token and one head at a time, from the papers' equations.

Each takes the drawn network for its weights and numbers, and knows nothing of how it computes.
"""

import numpy as np
from scipy import special


def array(leaf):
    return None if leaf is None else np.asarray(leaf, np.float64)


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def sigmoid(u):
    return 1 / (1 + np.exp(-u))


def gelu(v):
    """The tanh form."""
    return 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))


def layer_norm(row, norm):
    return (row - row.mean()) / np.sqrt(row.var() + 1e-5) * array(norm.scale) + array(norm.bias)


def dense(row, mlp, activation=gelu):
    return activation(row @ array(mlp.w_in) + array(mlp.b_in)) @ array(mlp.w_out) + array(mlp.b_out)


def von_oswald(network, tokens, *, causal=False, query_is_key=False, kinds=("linear",), dampening=1.0, y_only=False,
               clip=None):  # fmt: skip
    """Attention whose keys leave out the query; `kinds` are the layers' in turn."""
    residual = np.array(tokens, np.float64)
    if network.embedding.map is not None:
        residual = residual @ array(network.embedding.map.weight)
    if network.embedding.mlp is not None:
        residual = np.stack([row + dense(row, network.embedding.mlp) for row in residual])
    for index in range(network.n_layers):
        block, kind = network.block(index), kinds[index % len(kinds)]
        w_q, w_k, w_v, w_o = (array(getattr(block.mixer, name)) for name in ("w_q", "w_k", "w_v", "w_o"))
        h, new, root = residual, residual.copy(), np.sqrt(w_q.shape[-1])
        if block.norm_mixer is not None:
            h = np.stack([layer_norm(row, block.norm_mixer) for row in residual])
        for t in range(len(h)):
            keys = range(t + 1) if causal else range(len(h) if query_is_key else len(h) - 1)
            for head in range(len(w_q)):
                scores = np.array([(h[t] @ w_q[head]) @ (h[s] @ w_k[head]) for s in keys])
                if kind == "linear":
                    weights = scores
                elif kind == "softmax":
                    weights = softmax(scores / root)
                else:  # both branches of the mixture see the same scaled scores
                    share = sigmoid(10 * array(block.mixer.mix))
                    weights = share * softmax(scores / root) + (1 - share) * scores / root
                write = dampening * (weights @ np.stack([h[s] @ w_v[head] for s in keys]) @ w_o[head])
                if y_only:
                    new[t, -1] += write[-1]
                else:
                    new[t] += write
        if block.feed_forward is not None:
            norm = block.norm_feed_forward
            inner = new if norm is None else [layer_norm(row, norm) for row in new]
            new = np.stack([row + dampening * dense(n, block.feed_forward) for row, n in zip(new, inner, strict=True)])
        residual = new if clip is None else np.clip(new, -clip, clip)
    return residual if network.readout is None else residual @ array(network.readout.map.weight)


def rotated(x):
    """Neighbouring channels as complex numbers, turned."""
    pairs, k = x[:, ::2] + 1j * x[:, 1::2], x.shape[1]
    turned = pairs * np.exp(1j * np.arange(len(x))[:, None] / 10000 ** (np.arange(0, k, 2) / k))
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def attention_stack(network, h, *, norm="none", scaled=False, rotary=False):
    """Causal attention of induction circuits, and its patterns; W_O, smearing and MLP where there are weights."""
    patterns = np.zeros((network.n_layers, network.block(0).mixer.w_q.shape[0], len(h), len(h)))
    for layer in range(network.n_layers):
        block = network.block(layer)
        mixer, mlp = block.mixer, block.feed_forward
        x = np.stack([layer_norm(row, block.norm_mixer) for row in h]) if norm == "pre" else h
        out = np.zeros_like(h)
        for head in range(len(mixer.w_q)):
            q, k, v = (x @ array(w[head]) for w in (mixer.w_q, mixer.w_k, mixer.w_v))
            if rotary:
                q, k = rotated(q), rotated(k)
            if mixer.smear is not None:
                s = sigmoid(array(mixer.smear[head]))
                k = np.stack([k[0]] + [s * k[j] + (1 - s) * k[j - 1] for j in range(1, len(k))])
            d_head = k.shape[1]
            for i in range(len(h)):
                p = softmax(np.array([q[i] @ k[j] for j in range(i + 1)]) / (np.sqrt(d_head) if scaled else 1))
                patterns[layer, head, i, : i + 1] = p
                z = p @ v[: i + 1]
                if mixer.w_o is None:
                    out[i, head * d_head : (head + 1) * d_head] += z
                else:
                    out[i] += z @ array(mixer.w_o[head])
        h = h + out
        if norm == "post":
            h = np.stack([layer_norm(row, block.norm_mixer) for row in h])
        if mlp is not None:
            h = h + np.stack([dense(row, mlp, lambda u: np.maximum(u, 0)) for row in h])
    return (h if network.final_norm is None else np.stack([layer_norm(row, network.final_norm) for row in h])), patterns


def classifier(h, readout):
    """ReLU layers, then logits."""
    for layer in readout.layers[:-1]:
        h = np.maximum(h @ array(layer.weight) + array(layer.bias), 0)
    last = readout.layers[-1]
    return h @ array(last.weight) + (0 if last.bias is None else array(last.bias))


def gpt2_blocks(network, h, kind="softmax"):
    """The blocks of GPT-2 and its last norm, by the fused matrices of the released code: queries, keys, values."""
    for layer in range(network.n_layers):
        block = network.block(layer)
        mixer, n_heads = block.mixer, block.mixer.w_q.shape[0]

        def fused(name, mixer=mixer):
            parts = [array(getattr(mixer, f"{name}_{part}")) for part in "qkv"]  # "heads d k" or "heads k"
            return np.concatenate([np.concatenate(list(part), axis=-1) for part in parts], axis=-1)

        x = np.stack([layer_norm(row, block.norm_mixer) for row in h])
        q, k, v = np.split(x @ fused("w") + fused("b"), 3, axis=1)
        mixed, size = np.zeros_like(h), h.shape[1] // n_heads
        for t in range(len(h)):
            for head in range(n_heads):
                part = slice(head * size, (head + 1) * size)
                if kind == "softmax":
                    weights = special.softmax(k[: t + 1, part] @ q[t, part] / np.sqrt(size))
                else:
                    weights = phi(k[: t + 1, part]) @ phi(q[t, part])
                    weights = weights / weights.sum()
                mixed[t, part] = weights @ v[: t + 1, part]
        h = h + mixed @ np.concatenate(list(array(mixer.w_o))) + array(mixer.b_o)
        h = h + np.stack([dense(layer_norm(row, block.norm_feed_forward), block.feed_forward) for row in h])
    return h if network.final_norm is None else np.stack([layer_norm(row, network.final_norm) for row in h])


def phi(u):
    """elu + 1."""
    return np.where(u > 0, u + 1, np.exp(np.minimum(u, 0)))


def affine(x, layer):
    return x @ array(layer.weight) + (0 if layer.bias is None else array(layer.bias))


def lstm(network, tokens):
    """torch.nn.LSTM's equations (gates in the order i, f, g, o), layer by layer and in both directions."""
    h = np.asarray(tokens, np.float64)
    for index in range(network.n_layers):
        directions = []
        for direction, cell in enumerate(network.block(index).mixer.cells):
            w_x, w_h, bias = array(cell.w_x), array(cell.w_h), array(cell.bias)
            n = len(w_h)
            state, memory, out = np.zeros(n), np.zeros(n), np.zeros((len(h), n))
            for t in range(len(h))[:: -1 if direction else 1]:
                i, f, g, o = np.split(h[t] @ w_x + state @ w_h + bias, 4)
                memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
                state = sigmoid(o) * np.tanh(memory)
                out[t] = state
            directions.append(out)
        h = np.concatenate(directions, axis=1)
    return affine(h, network.readout.map)


def fast_weight_lstm(network, tokens):
    """One layer of matrix memories, written by outer products (Kirsch et al., 2022)."""
    mixer = network.block(0).mixer
    w_x, w_h, bias, scale = (array(a) for a in (mixer.w_x, mixer.w_h, mixer.bias, mixer.log_scale))
    n_heads, d = scale.shape[1], len(w_h)
    size, scale = d // n_heads, np.log1p(np.exp(scale))
    h, memory, out = np.zeros(d), np.zeros((n_heads, size, size)), []
    for x in tokens:
        a_i, b_i, a_g, b_g, a_f, b_f, q, o = (x @ w_x + h @ w_h + bias).reshape(8, n_heads, size)
        new = np.zeros(d)
        for head in range(n_heads):
            write, candidate, keep = (
                scale[gate, head] * np.outer(np.tanh(a[head]), np.tanh(b[head]))
                for gate, (a, b) in enumerate([(a_i, b_i), (a_g, b_g), (a_f, b_f)])
            )
            memory[head] = sigmoid(keep + 1) * memory[head] + sigmoid(write) * candidate
            new[head * size : (head + 1) * size] = sigmoid(o[head]) * np.tanh(memory[head] @ q[head])
        h = new
        out.append(h)
    return affine(np.stack(out), network.readout.map)
