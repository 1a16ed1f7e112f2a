"""Replicas: the seeds of a training at every point of its sweep, each with its own keys."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from meta_icl.errors import BadInput, choose, require
from meta_icl.prompt import Task
from meta_icl.training.optimisers import Optimiser

T = TypeVar("T")


class Replica(NamedTuple):
    """One seed at one point of a sweep: everything in which the members of a training differ."""

    task: Task
    optimiser: Optimiser
    init_key: Key[Array, "*replicas"]
    data_key: Key[Array, "*replicas"]
    eval_key: Key[Array, "*replicas"]


def make_replicas(
    task: Task | Callable[..., Task],
    optimiser: Optimiser,
    key: Key[Array, ""],
    seeds: int | Sequence[int],
    sweep: Mapping[str, Sequence[float]],
) -> tuple[list[Replica], list[dict[str, float]]]:
    """All combinations of seeds and swept values, with a label each, such as {"seed": 3, "task.noise": 0.1}.

    Swept names are "task.FIELD" or "optimiser.FIELD", the field a dotted path.
    """
    if isinstance(seeds, int):
        require(seeds >= 1, "seeds", seeds, "a positive integer")
        seeds = range(seeds)
    replicas, labels = [], []
    for values in itertools.product(*sweep.values()):
        point = dict(zip(sweep, values, strict=True))
        for seed in seeds:
            seed_key = jax.random.fold_in(key, seed)
            init_key, data_key, eval_key, world_key = (jax.random.fold_in(seed_key, i) for i in range(4))
            parts: dict[str, Any] = {
                "task": task if isinstance(task, Task) else task(key=world_key),
                "optimiser": optimiser,
            }
            for name, value in point.items():
                owner, _, path = name.partition(".")
                choose("swept object", owner, parts)
                parts[owner] = with_field(parts[owner], path, value)
            replicas.append(Replica(parts["task"], parts["optimiser"], init_key, data_key, eval_key))
            labels.append({"seed": seed, **point})
    return replicas, labels


def with_field(tree: T, path: str, value: float) -> T:
    """The tree with the number at a dotted path replaced; it must be an array leaf, such as `x_law.half_range`."""
    names = path.split(".")
    owner: Any = tree
    for name in names[:-1]:
        owner = getattr(owner, choose("field", name, vars(owner)))
    old = getattr(owner, choose("field", names[-1], vars(owner)))
    if not eqx.is_array(old):
        raise BadInput(f"{path} of {type(tree).__name__} is a fixed size or option and cannot be swept in one training")
    return eqx.tree_at(lambda t: _get(t, names), tree, jnp.full(old.shape, value, old.dtype))


def stack(trees: Sequence[T]) -> T:
    """Array leaves of several trees stacked on a leading axis; everything else is taken from the first."""
    arrays = [eqx.filter(tree, eqx.is_array) for tree in trees]
    static = eqx.filter(trees[0], eqx.is_array, inverse=True)
    treedef = jax.tree.structure(arrays[0])
    leaves = zip(*(jax.tree.leaves(tree) for tree in arrays), strict=True)
    return eqx.combine(jax.tree.unflatten(treedef, [jnp.stack(column) for column in leaves]), static)


def unstack(tree: T) -> list[T]:
    """The inverse of `stack` for a tree of arrays."""
    n = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(n)]


def _get(tree: Any, names: Sequence[str]) -> Any:
    for name in names:
        tree = getattr(tree, name)
    return tree
