"""Layers of memory, forward and backward: Titans of one matrix, and linear mixers against the length of the context."""

from functools import partial

from harness import Run, Workload

TITANS = {"tokens": 512, "width": 64, "batch": 4, "chunk": 32}
LENGTHS = (64, 256, 1024, 4096, 16384, 65536)


def layer(name: str, tokens: int, width: int, batch: int, **options: int) -> Run:
    """The gradient of the mean square of a layer's outputs, in its weights and its input."""
    import jax
    import jax.numpy as jnp

    from meta_icl.models import mixers

    mixer = getattr(mixers, name)(**options)(width, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (batch, tokens, width))
    call = jax.jit(jax.value_and_grad(lambda m, x: jnp.mean(jax.vmap(m)(x) ** 2), (0, 1), allow_int=True))

    def run(steps: int) -> float:
        for _ in range(steps):
            loss, gradient = call(mixer, x)
        jax.block_until_ready(gradient)
        return float(loss)

    return run


def titans_torch() -> Run:
    """The recurrence as it stands, token after token; gradients of a chunk at the memory with which it began."""
    import torch

    t, d, batch, chunk = (TITANS[name] for name in ("tokens", "width", "batch", "chunk"))
    heads = 2
    size = d // heads
    torch.set_num_threads(1)
    w_in = (torch.randn(d, 3 * d) / d**0.5).requires_grad_()
    w_gates = (0.5 * torch.randn(d, 3 * heads) / d**0.5).requires_grad_()
    w_out = (torch.randn(d, d) / d**0.5).requires_grad_()
    kernel = torch.zeros(4, 3 * d)
    kernel[-1] = 1
    kernel.requires_grad_()
    start = (0.5 * torch.randn(heads, size, size) / size**0.5).requires_grad_()
    bias = torch.tensor([-4.0, 1.0, 0.0])[:, None].expand(3, heads).clone().requires_grad_()
    x = torch.randn(batch, t, d, requires_grad=True)
    slowed = float(1 - torch.sigmoid(torch.tensor(1.0)))

    def outputs():
        rows = torch.nn.functional.pad(x @ w_in, (0, 0, 3, 0))
        rows = torch.nn.functional.silu(sum(kernel[j] * rows[:, j : j + t] for j in range(4)))
        q, k, v = (a.view(batch, t, heads, size).transpose(1, 2) for a in rows.split(d, -1))
        q, k = (torch.nn.functional.normalize(a, dim=-1) for a in (q, k))
        gates = torch.sigmoid((x @ w_gates).view(batch, t, heads, 3).permute(3, 0, 2, 1) + bias[:, None, :, None])
        alpha, eta, theta = gates[0], gates[1], slowed / chunk * gates[2]
        memory, past, reads = start.expand(batch, -1, -1, -1), torch.zeros(batch, heads, size, size), []
        for i in range(t):
            if i % chunk == 0:
                began = memory
            error = (began @ k[:, :, i, :, None])[..., 0] - v[:, :, i]
            gradient = 2 * error[..., :, None] * k[:, :, i, None, :]
            past = eta[:, :, i, None, None] * past - theta[:, :, i, None, None] * gradient
            memory = (1 - alpha[:, :, i, None, None]) * memory + past
            reads.append((memory @ q[:, :, i, :, None])[..., 0])
        read = torch.stack(reads, 2)
        read = read * torch.rsqrt(read.square().mean(-1, keepdim=True) + 1e-6)
        return read.transpose(1, 2).reshape(batch, t, d) @ w_out

    leaves = (w_in, w_gates, w_out, kernel, start, bias, x)

    def run(steps: int) -> float:
        for _ in range(steps):
            loss = outputs().square().mean()
            torch.autograd.grad(loss, leaves)
        return loss.item()

    return run


def _lengths(name: str, **options: int) -> Workload:
    ways = {f"{t:,} tokens": partial(layer, name, t, 64, 1, **options) for t in LENGTHS}
    return Workload(
        f"{name}, width 64, per 1,000 tokens forward and backward",
        ways,
        steps=1,
        unit="1,000 tokens",
        per={f"{t:,} tokens": t / 1000 for t in LENGTHS},
        apart=tuple(ways),
    )


WORKLOADS = {
    "titans": Workload(
        "linear Titans layer, 512 tokens of width 64, batch 4, chunks of 32",
        {
            "meta_icl": partial(layer, "Titans", TITANS["tokens"], TITANS["width"], TITANS["batch"], chunk_size=32),
            "torch": titans_torch,
        },
        steps=2,
        tolerance=0.2,
    ),
    "length-linear": _lengths("LinearAttention", chunk_size=64),
    "length-deltanet": _lengths("DeltaNet"),
    "length-mamba2": _lengths("Mamba2", chunk_size=64),
}
