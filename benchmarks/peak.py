"""What the machine can do, for shares of it: matrix products of 1,024 rows; and what seeds cost beside each other."""

from functools import partial

from harness import Run, Workload

SIZE = 1024


def numpy() -> Run:
    import numpy as np

    a = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)

    def run(steps: int) -> float:
        for _ in range(steps):
            a @ a
        return 0.0

    return run


def jax() -> Run:
    import jax

    a = jax.random.normal(jax.random.key(0), (SIZE, SIZE))
    product = jax.jit(lambda a: a @ a)

    def run(steps: int) -> float:
        for _ in range(steps):
            product(a).block_until_ready()
        return 0.0

    return run


def torch() -> Run:
    import torch

    torch.set_num_threads(1)
    a = torch.randn(SIZE, SIZE)

    def run(steps: int) -> float:
        for _ in range(steps):
            a @ a
        return 0.0

    return run


def seeds(n: int, arrangement: str) -> Run:
    from ways import ours

    from meta_icl import LinearRegression
    from meta_icl.models import von_oswald

    return ours(LinearRegression(10, 10), von_oswald(11), batch=256, seeds=n, arrangement=arrangement)


SEEDS = {f"{n} seeds, {way}": (n, way) for way in ("sequence", "vmap") for n in (1, 4, 16)}
WORKLOADS = {
    "gemm": Workload(
        "product of two matrices of 1,024 rows, float32",
        {"jax": jax, "numpy": numpy, "torch": torch},
        unit="product",
        flops=2 * SIZE**3,
    ),
    "seeds": Workload(
        "one linear layer, batch 256, per seed",
        {name: partial(seeds, *way) for name, way in SEEDS.items()},
        unit="seed",
        per={name: n for name, (n, _) in SEEDS.items()},
        apart=tuple(SEEDS),
    ),
}
