"""The three ways most workloads are done in: a training of this project, a jitted step in a Python loop, PyTorch."""

from collections.abc import Callable
from typing import Any

Run = Callable[[int], float]


def ours(
    task: Any,
    model: Any,
    *,
    batch: int,
    optimiser: Any = 1e-3,
    objective: Any = None,
    seeds: int = 1,
    arrangement: str = "sequence",
) -> Run:
    """The compiled loop of `meta_icl.train`; a call goes on where the last one ended."""
    import jax

    from meta_icl.training import arguments
    from meta_icl.training.program import Program, untrained
    from meta_icl.training.replicas import make_replicas
    from meta_icl.training.runner import Runner

    key = jax.random.key(0)
    model = arguments.with_layout(model, task)
    draw = arguments.drawing(model)
    replicas, labels = make_replicas(task, arguments.given_optimiser(optimiser), key, seeds, {})
    program = Program(draw, untrained(draw, key), arguments.given_objective(objective, task), batch, None)
    runner = Runner(program, {}, replicas, labels, arrangement)
    states, done = runner.init(), 0

    def run(steps: int) -> float:
        nonlocal states, done
        states, loss, _ = runner.chunk(states, done, done + steps)
        done += steps
        return float(loss[0])

    return run


def jax_loop(params: Any, loss_of: Callable[[Any, Any], Any], optimiser: Any) -> Run:
    """A jitted step in a Python loop: `loss_of(params, key)` draws its batch; the mean loss is returned."""
    import jax
    import optax

    state, key = optimiser.init(params), jax.random.key(1)

    @jax.jit
    def step(params: Any, state: Any, key: Any) -> Any:
        key, now = jax.random.split(key)
        loss, gradient = jax.value_and_grad(loss_of)(params, now)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, key, loss

    def run(steps: int) -> float:
        nonlocal params, state, key
        total = 0.0
        for _ in range(steps):
            params, state, key, loss = step(params, state, key)
            total += float(loss)
        return total / steps

    return run


def torch_loop(model: Any, loss_of: Callable[[Any], Any], optimiser: Any, *, compiled: bool = False) -> Run:
    """A PyTorch training loop: `loss_of(model)` draws its batch; `compiled`: the model goes through torch.compile."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    called = torch.compile(model) if compiled else model

    def run(steps: int) -> float:
        total = 0.0
        for _ in range(steps):
            optimiser.zero_grad()
            loss = loss_of(called)
            loss.backward()
            optimiser.step()
            total += loss.item()
        return total / steps

    return run
