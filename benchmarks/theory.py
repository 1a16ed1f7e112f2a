"""Reductions of whole papers: full-batch descent on a set (Zhang et al.), softmax heads on prompts (He et al.)."""

from harness import Run, Workload
from ways import ours, torch_loop

ZHANG = {"d": 4, "n": 31, "prompts": 5_000, "heads": 8}
SPECTRUM = (0.4, 0.3, 0.2, 0.1)
HE = {"d": 5, "n": 40, "batch": 256, "heads": 2}


def zhang() -> Run:
    import jax
    import jax.numpy as jnp

    from meta_icl import tasks
    from meta_icl.algorithms import sample_map_loss
    from meta_icl.models import MergedLinearAttention
    from meta_icl.training import FiniteSet, Optimiser, finite_set_loss

    task = tasks.LinearRegression(ZHANG["d"], ZHANG["n"], x_law=tasks.Normal(covariance=jnp.diag(jnp.array(SPECTRUM))))
    fixed = FiniteSet(sample_map_loss(task.sample_batch(ZHANG["prompts"], key=jax.random.key(1))))
    model = MergedLinearAttention(ZHANG["d"], ZHANG["heads"], 1e-2)
    return ours(fixed, model, batch=1, optimiser=Optimiser("sgd", learning_rate=1e-3), objective=finite_set_loss)


def zhang_torch() -> Run:
    """Every step goes over the whole set."""
    import torch

    d, n, heads = ZHANG["d"], ZHANG["n"], ZHANG["heads"]
    x = torch.randn(ZHANG["prompts"], n + 1, d) * torch.tensor(SPECTRUM).sqrt()
    y = torch.einsum("bnd,bd->bn", x, torch.randn(ZHANG["prompts"], d))

    class Heads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.v = torch.nn.Parameter(1e-2 * torch.randn(heads))
            self.kq = torch.nn.Parameter(1e-2 * torch.randn(heads, d, d))

        def forward(self, x, y):
            scores = torch.einsum("bnd,hde,be->bhn", x[:, :-1], self.kq, x[:, -1])
            return torch.einsum("h,bhn,bn->b", self.v, scores, y[:, :-1]) / n

    model = Heads()
    loss_of = lambda model: (model(x, y) - y[:, -1]).square().mean()  # noqa: E731
    return torch_loop(model, loss_of, torch.optim.SGD(model.parameters(), 1e-3))


def he() -> Run:
    from meta_icl.models import SoftmaxRegression
    from meta_icl.tasks import LinearRegression, Normal

    task = LinearRegression(HE["d"], HE["n"], x_law=Normal(), w_law=Normal(std=HE["d"] ** -0.5), noise=0.1**0.5)
    return ours(task, SoftmaxRegression(HE["d"], HE["heads"]), batch=HE["batch"])


def he_torch() -> Run:
    """All tokens ask, as multi-head attention is written."""
    import torch
    from torch import nn

    d, n, heads, batch = HE["d"], HE["n"], HE["heads"], HE["batch"]
    width = d + 1

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(width, heads * width, bias=False) for _ in range(3))
            self.out = nn.Linear(heads * width, 1, bias=False)

        def forward(self, tokens):
            q, k, v = (f(tokens).view(batch, n + 1, heads, width).transpose(1, 2) for f in (self.q, self.k, self.v))
            scores = (q @ k.mT / width**0.5)[..., :-1]
            z = scores.softmax(-1) @ v[:, :, :-1]
            return self.out(z.transpose(1, 2).flatten(2))[:, -1, 0]

    def loss_of(model):
        x = torch.randn(batch, n + 1, d)
        y = torch.einsum("bnd,bd->bn", x, torch.randn(batch, d) * d**-0.5)
        y[:, :-1] += 0.1**0.5 * torch.randn(batch, n)
        tokens = torch.cat([x, y[..., None]], -1)
        tokens[:, -1, -1] = 0
        return 0.5 * (model(tokens) - y[:, -1]).square().mean()

    model = Attention()
    return torch_loop(model, loss_of, torch.optim.Adam(model.parameters(), 1e-3))


WORKLOADS = {
    "zhang": Workload(
        "Zhang et al.: descent on 5,000 prompts of 31 pairs, d = 4, 8 heads", {"meta_icl": zhang, "torch": zhang_torch}
    ),
    "he": Workload(
        "He et al.: two softmax heads, d = 5, 40 pairs, batch 256, Adam", {"meta_icl": he, "torch": he_torch}, match=50
    ),
}
