"""An LSTM of 100 units on linear regression, 256 prompts of 11 tokens (x, y of the pair before)."""

from functools import partial

from harness import Run, Workload
from ways import jax_loop, ours, torch_loop

D, N, UNITS, BATCH = 10, 10, 100, 256


def project() -> Run:
    from meta_icl.models import Concatenated, Learner, lstm
    from meta_icl.tasks import LinearRegression

    learner = Learner(lstm(D + 1, UNITS), Concatenated(sign=1.0))
    return ours(LinearRegression(D, N), learner, batch=BATCH)


def plain_jax() -> Run:
    """A scan over tokens as it is written down, vmapped over prompts."""
    import jax
    import jax.numpy as jnp
    import optax

    def predict(p, x, y):
        def cell(carry, row):
            h, c = carry
            i, f, g, o = jnp.split(row @ p["w_x"] + h @ p["w_h"] + p["b"], 4)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), None

        tokens = jnp.concatenate([x, y.at[-1].set(0.0)[:, None]], -1)
        (h, _), _ = jax.lax.scan(cell, (jnp.zeros(UNITS), jnp.zeros(UNITS)), tokens)
        return h @ p["read"] + p["b_read"]

    def loss_of(p, key):
        x_key, w_key = jax.random.split(key)
        x = jax.random.uniform(x_key, (BATCH, N + 1, D), minval=-1, maxval=1)
        y = jnp.einsum("bnd,bd->bn", x, jax.random.normal(w_key, (BATCH, D)))
        return 0.5 * jnp.mean((jax.vmap(predict, (None, 0, 0))(p, x, y) - y[:, -1]) ** 2)

    shapes = {"w_x": (D + 1, 4 * UNITS), "w_h": (UNITS, 4 * UNITS), "b": (4 * UNITS,), "read": (UNITS,), "b_read": ()}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = {
        name: jax.random.uniform(k, shape, minval=-1, maxval=1) / UNITS**0.5
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return jax_loop(params, loss_of, optax.adam(1e-3))


def plain_torch(compiled: bool = False) -> Run:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.read = nn.LSTM(D + 1, UNITS, batch_first=True), nn.Linear(UNITS, 1)

        def forward(self, tokens):
            return self.read(self.lstm(tokens)[0][:, -1])[:, 0]

    def loss_of(model):
        x = 2 * torch.rand(BATCH, N + 1, D) - 1
        y = torch.einsum("bnd,bd->bn", x, torch.randn(BATCH, D))
        tokens = torch.cat([x, y[..., None]], -1)
        tokens[:, -1, -1] = 0
        return 0.5 * (model(tokens) - y[:, -1]).square().mean()

    model = Network()
    return torch_loop(model, loss_of, torch.optim.Adam(model.parameters(), 1e-3), compiled=compiled)


WORKLOADS = {
    "lstm": Workload(
        "LSTM of 100 units, 256 prompts of 11 tokens, Adam",
        {
            "meta_icl": project,
            "jax loop": plain_jax,
            "torch": plain_torch,
            "torch compiled": partial(plain_torch, compiled=True),
        },
        match=50,
        flops=3 * 2 * (UNITS + D + 1) * 4 * UNITS * BATCH * (N + 1),
    )
}
