"""Linear attention on linear regression, d = N = 10, x uniform on [-1, 1]: one layer, more layers, and no samples."""

from functools import partial

from harness import Run, Workload
from ways import jax_loop, ours, torch_loop

D = N = 10
STD = 0.002**0.5 / (D + 1) ** 0.5  # of the weights that the project draws


def project(batch: int, layers: int) -> Run:
    from meta_icl import LinearRegression
    from meta_icl.models import von_oswald

    return ours(LinearRegression(D, N), von_oswald(D + 1, layers, init_scale=0.002 * layers), batch=batch)


def plain_jax(batch: int, layers: int) -> Run:
    """One prompt's forward pass as it is written down, vmapped; four projections of all tokens per layer."""
    import jax
    import jax.numpy as jnp
    import optax

    def predict(params, x, y):
        h = jnp.concatenate([x, y.at[-1].set(0.0)[:, None]], axis=-1)
        for q, k, v, p in params:
            keys, values = h[:-1] @ k, h[:-1] @ v
            h = h + (h @ q @ keys.T) @ values @ p
        return -h[-1, -1]

    def loss_of(params, key):
        x_key, w_key = jax.random.split(key)
        x = jax.random.uniform(x_key, (batch, N + 1, D), minval=-1, maxval=1)
        y = jnp.einsum("bnd,bd->bn", x, jax.random.normal(w_key, (batch, D)))
        return 0.5 * jnp.mean((jax.vmap(predict, (None, 0, 0))(params, x, y) - y[:, -1]) ** 2)

    keys = jax.random.split(jax.random.key(0), (layers, 4))
    params = [[STD * jax.random.normal(k, (D + 1, D + 1)) for k in layer] for layer in keys]
    return jax_loop(params, loss_of, optax.adam(1e-3))


def plain_torch(batch: int, layers: int, compiled: bool = False) -> Run:
    import torch

    class Layers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = torch.nn.Parameter(STD * torch.randn(layers, 4, D + 1, D + 1))

        def forward(self, h):
            for q, k, v, p in self.maps:
                keys, values = h[:, :-1] @ k, h[:, :-1] @ v
                h = h + (h @ q @ keys.mT) @ values @ p
            return -h[:, -1, -1]

    def loss_of(model):
        x = 2 * torch.rand(batch, N + 1, D) - 1
        y = torch.einsum("bnd,bd->bn", x, torch.randn(batch, D))
        h = torch.cat([x, y[..., None]], -1)
        h[:, -1, -1] = 0
        return 0.5 * (model(h) - y[:, -1]).square().mean()

    model = Layers()
    return torch_loop(model, loss_of, torch.optim.Adam(model.parameters(), 1e-3), compiled=compiled)


def exact() -> Run:
    """The same expectation without samples: descent on the closed form of the population loss."""
    import jax.numpy as jnp

    from meta_icl.algorithms import map_loss
    from meta_icl.models import MergedLinearAttention
    from meta_icl.tasks import LinearRegression
    from meta_icl.training import population_objective

    loss = map_loss(jnp.eye(D) / 3, N)
    return ours(
        LinearRegression(D, N), MergedLinearAttention(D, 1, 1e-3), batch=1, objective=population_objective(loss)
    )


def _in(batch: int, layers: int) -> dict:
    return {
        "meta_icl": partial(project, batch, layers),
        "jax loop": partial(plain_jax, batch, layers),
        "torch": partial(plain_torch, batch, layers),
        "torch compiled": partial(plain_torch, batch, layers, compiled=True),
    }


WORKLOADS = {
    "linear": Workload("one linear layer, d = N = 10, batch 2048, Adam", _in(2048, 1), match=20),
    "linear-2": Workload("two linear layers, d = N = 10, batch 256, Adam", _in(256, 2), match=50),
    "linear-5": Workload("five linear layers, d = N = 10, batch 256, Adam", _in(256, 5), match=50),
    "population": Workload(
        "one linear layer on its exact population loss, against batches of 2048",
        {"meta_icl": exact, "jax loop": partial(plain_jax, 2048, 1), "torch": partial(plain_torch, 2048, 1)},
        apart=("jax loop", "torch"),
    ),
}
