"""GPT-2 on linear regression, one prediction per pair (Garg et al.): 20 dimensions, 41 pairs, x and w normal."""

from functools import partial

from harness import Run, Workload
from ways import jax_loop, ours, torch_loop

D, PAIRS = 20, 41
TOKENS = 2 * PAIRS - 1


def project(layers: int, width: int, heads: int, batch: int) -> Run:
    from meta_icl.models import Interleaved, Learner, garg
    from meta_icl.tasks import LinearRegression, Normal
    from meta_icl.training import every_position_mse

    task = LinearRegression(D, PAIRS - 1, x_law=Normal())
    learner = Learner(garg(D, width, layers, heads, n_positions=101), Interleaved())
    return ours(task, learner, batch=batch, optimiser=1e-4, objective=every_position_mse)


def plain_jax(layers: int, width: int, heads: int, batch: int) -> Run:
    """One prompt's forward pass as it is written down, vmapped."""
    import jax
    import jax.numpy as jnp
    import optax

    def normed(x, scale, bias):
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale + bias

    def block(h, p):
        q, k, v = jnp.split(normed(h, *p["norm1"]) @ p["qkv"] + p["b"], 3, -1)
        q, k, v = (a.reshape(-1, heads, width // heads) for a in (q, k, v))
        scores = jnp.einsum("qhk,shk->hqs", q, k) / (width // heads) ** 0.5
        pattern = jax.nn.softmax(jnp.where(jnp.tri(len(h), dtype=bool), scores, -jnp.inf))
        h = h + jnp.einsum("hqs,shk->qhk", pattern, v).reshape(h.shape) @ p["out"] + p["b_out"]
        return h + jax.nn.gelu(normed(h, *p["norm2"]) @ p["up"] + p["b_up"]) @ p["down"] + p["b_down"]

    def predict(p, x, y):
        tokens = jnp.stack([x, jnp.zeros_like(x).at[:, 0].set(y)], 1).reshape(-1, D)[:-1]
        h = tokens @ p["read"] + p["b_read"] + p["places"][:TOKENS]
        for layer in p["layers"]:
            h = block(h, layer)
        return ((normed(h, *p["norm"]) @ p["write"])[:, 0] + p["b_write"])[::2]

    def loss_of(p, key):
        x_key, w_key = jax.random.split(key)
        x = jax.random.normal(x_key, (batch, PAIRS, D))
        y = jnp.einsum("bnd,bd->bn", x, jax.random.normal(w_key, (batch, D)))
        return jnp.mean((jax.vmap(predict, (None, 0, 0))(p, x, y) - y) ** 2)

    keys = iter(jax.random.split(jax.random.key(0), 3 + 4 * layers))

    def drawn(*shape):
        return 0.02 * jax.random.normal(next(keys), shape)

    def zeros(n=width):
        return jnp.zeros(n)

    norm = (jnp.ones(width), zeros())
    each = {"norm1": norm, "norm2": norm, "b": zeros(3 * width), "b_out": zeros(), "b_down": zeros()}
    each |= {"b_up": zeros(4 * width)}
    maps = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    params = {
        "read": drawn(D, width),
        "b_read": zeros(),
        "places": drawn(101, width),
        "layers": [each | {name: drawn(*shape) for name, shape in maps.items()} for _ in range(layers)],
        "norm": norm,
        "write": drawn(width, 1),
        "b_write": 0.0,
    }
    return jax_loop(params, loss_of, optax.adam(1e-4))


def plain_torch(layers: int, width: int, heads: int, batch: int, compiled: bool = False) -> Run:
    """With PyTorch's own fused attention and norms."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

        def forward(self, h):
            q, k, v = self.qkv(self.norm1(h)).view(*h.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
            z = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.out(z.transpose(1, 2).reshape(h.shape))
            return h + self.mlp(self.norm2(h))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.write, self.norm = nn.Linear(D, width), nn.Linear(width, 1), nn.LayerNorm(width)
            self.places = nn.Embedding(101, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02), nn.init.zeros_(module.bias)
            nn.init.normal_(self.places.weight, std=0.02)

        def forward(self, x, y):
            tokens = torch.stack([x, nn.functional.pad(y[..., None], (0, D - 1))], 2).flatten(1, 2)[:, :-1]
            h = self.read(tokens) + self.places.weight[:TOKENS]
            return self.write(self.norm(self.blocks(h)))[:, ::2, 0]

    def loss_of(model):
        x = torch.randn(batch, PAIRS, D)
        y = torch.einsum("bnd,bd->bn", x, torch.randn(batch, D))
        return (model(x, y) - y).square().mean()

    model = Decoder()
    return torch_loop(model, loss_of, torch.optim.Adam(model.parameters(), 1e-4), compiled=compiled)


def _ways(*sizes: int) -> dict:
    return {
        "meta_icl": partial(project, *sizes),
        "jax loop": partial(plain_jax, *sizes),
        "torch": partial(plain_torch, *sizes),
        "torch compiled": partial(plain_torch, *sizes, compiled=True),
    }


def _flops(layers: int, width: int, batch: int) -> float:
    """Of the matrix products of a step: 2 per weight and token forward, twice that backward."""
    per_token = 2 * layers * (12 * width**2 + 2 * TOKENS * width) + 2 * D * width
    return 3 * per_token * batch * TOKENS


WORKLOADS = {
    "decoder-3": Workload(
        "decoder 3 x 64, 2 heads, 64 prompts of 41 pairs, Adam",
        _ways(3, 64, 2, 64),
        steps=3,
        match=5,
        flops=_flops(3, 64, 64),
    ),
    "decoder-12": Workload(
        "decoder 12 x 256, 8 heads, 8 prompts of 41 pairs, Adam",
        _ways(12, 256, 8, 8),
        steps=1,
        match=10,
        tolerance=0.2,
        flops=_flops(12, 256, 8),
    ),
}
