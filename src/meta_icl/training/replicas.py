"""Replicas: the seeds of a training at every point of its sweep, each with its own keys."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

from meta_icl.conversions import LARGEST
from meta_icl.errors import BadInput, choose, require
from meta_icl.prompt import Task
from meta_icl.training.optimisers import Given, Optimiser

T = TypeVar("T")


class Replica(NamedTuple):
    """One seed at one point of a sweep: everything in which the members of a training differ."""

    task: Task
    optimiser: Optimiser | Given
    init_key: Key[Array, "*replicas"]
    data_key: Key[Array, "*replicas"]
    eval_key: Key[Array, "*replicas"]


def make_replicas(
    task: Task | Callable[..., Task],
    optimiser: Optimiser | Given,
    key: Key[Array, ""],
    seeds: Any,
    sweep: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]],
) -> tuple[list[Replica], list[dict[str, float]]]:
    """All combinations of seeds and swept values, with a label each, such as {"seed": 3, "task.noise": 0.1}.

    `sweep` is a grid, {name: values}, or a list of points, [{name: value}].

    Swept names are "task.FIELD" or "optimiser.FIELD", the field a dotted path.
    """
    seeds = seed_numbers(seeds)
    replicas, labels = [], []
    for point in points_of(sweep):
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


def points_of(sweep: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The points of a grid, the last name changing fastest, or those of a list."""
    if not isinstance(sweep, Mapping):
        return [dict(point) for point in sweep]
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def seed_numbers(seeds: Any) -> list[int]:
    """The seeds 0 .. seeds - 1, or those given: different integers from 0 to 2^31 - 1, at least one."""
    if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool):
        require(1 <= int(seeds) <= LARGEST, "seeds", seeds, "a positive integer, or a list of seeds")
        return list(range(seeds))
    listed = isinstance(seeds, Sequence | np.ndarray | range) and not isinstance(seeds, str)
    require(listed, "seeds", seeds, "a positive integer, or a list of seeds")
    chosen = np.asarray(seeds).tolist()
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= LARGEST for seed in chosen)
    fair = whole and 0 < len(chosen) == len(set(chosen))
    require(fair, "seeds", chosen, f"one or more different integers from 0 to {LARGEST}")
    return chosen


def with_field(tree: T, path: str, value: float) -> T:
    """The tree with the number at a dotted path replaced; it must be an array leaf, such as `x_law.half_range`.

    Modules with the new number are checked as when they were made.
    """
    names = path.split(".")
    owner: Any = tree
    for name in names[:-1]:
        owner = getattr(owner, choose("field", name, vars(owner)))
    old = getattr(owner, choose("field", names[-1], vars(owner)))
    if not eqx.is_array(old):
        raise BadInput(f"{path} of {type(tree).__name__} is a fixed size or option and cannot be swept in one training")
    whole = not jnp.issubdtype(old.dtype, jnp.integer) or float(value).is_integer()
    require(whole, path, value, "an integer, as the number in its place is")
    changed = eqx.tree_at(lambda t: _get(t, names), tree, jnp.full(old.shape, value, old.dtype))
    for depth in range(len(names)):
        _check_again(_get(changed, names[:depth]))
    return changed


def stack(trees: Sequence[T]) -> T:
    """Array leaves of several trees stacked on a leading axis; everything else is taken from the first."""
    arrays = [eqx.filter(tree, eqx.is_array) for tree in trees]
    static = eqx.filter(trees[0], eqx.is_array, inverse=True)
    treedef = jax.tree.structure(arrays[0])
    leaves = zip(*(jax.tree.leaves(tree) for tree in arrays), strict=True)
    return eqx.combine(jax.tree.unflatten(treedef, [_stacked(column) for column in leaves]), static)


def _stacked(column: Sequence[Any]) -> Array:
    """Arrays on a new leading axis; by NumPy where nothing is traced, since jax compiles a program per shape."""
    first = column[0]
    if any(isinstance(leaf, Tracer) for leaf in column) or getattr(first, "weak_type", False):
        return jnp.stack(column)
    if jnp.issubdtype(first.dtype, jax.dtypes.prng_key):
        words = np.stack([np.asarray(jax.random.key_data(key)) for key in column])
        return jax.random.wrap_key_data(jnp.asarray(words), impl=jax.random.key_impl(first))
    return jnp.asarray(np.stack([np.asarray(leaf) for leaf in column]))


def _check_again(module: Any) -> None:
    """Repeat the checks that a module made when it was made."""
    for kind in type(module).__mro__:
        if "__check_init__" in vars(kind):
            vars(kind)["__check_init__"](module)


def _get(tree: Any, names: Sequence[str]) -> Any:
    for name in names:
        tree = getattr(tree, name)
    return tree
