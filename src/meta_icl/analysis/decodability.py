"""Is the task of a prompt written in the hidden states, and does the network read it there? (Han et al., 2024)

Everything works on arrays: hidden states of many prompts with the number of the task of each; only `patching_matrix`
and `head_importance` run a network, through its trace and interventions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from meta_icl.errors import require
from meta_icl.models.interventions import Intervention, ablate_head

# Given a prompt's tokens or the like and interventions, the squared error at the position of interest.
Loss = Callable[[Any, Sequence[Intervention]], Float[Array, ""]]


def task_decodability(
    states: Float[Array, "n d"], tasks: Int[Array, " n"], *, n_tasks: int, n_neighbours: int = 10
) -> Float[Array, " tasks"]:
    """The share of states of every task whose nearest neighbours vote for that task, the state itself left out.

    Euclidean distance, majority of `n_neighbours` votes, a tie goes to the lowest task number; chance is 1 / n_tasks
    for tasks of equal size. Task decodability (TD) is the mean over states, for tasks of equal size that over tasks.
    """
    n = states.shape[0]
    require(1 <= n_neighbours < n, "n_neighbours", n_neighbours, f"from 1 to {n - 1}")
    centred = states - states.mean(0, keepdims=True)  # distances keep more digits near the origin
    squares = jnp.sum(jnp.square(centred), axis=1)
    distances = squares[:, None] + squares[None] - 2 * centred @ centred.T
    distances = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, distances)
    nearest = lax.top_k(-distances, n_neighbours)[1]
    votes = jax.nn.one_hot(tasks[nearest], n_tasks).sum(1)
    right = (jnp.argmax(votes, axis=1) == tasks).astype(states.dtype)
    member = jax.nn.one_hot(tasks, n_tasks, dtype=states.dtype)
    return (right @ member) / jnp.maximum(member.sum(0), 1)


def decodability_by_layer(
    states: Float[Array, "layers n d"], tasks: Int[Array, " n"], *, n_tasks: int, n_neighbours: int = 10
) -> Float[Array, "layers tasks"]:
    """`task_decodability` of every layer's states, such as `trace["resid_post"][:, position]` of n prompts."""

    def one(layer: Array) -> Array:
        return task_decodability(layer, tasks, n_tasks=n_tasks, n_neighbours=n_neighbours)

    return lax.map(one, states)


def task_means(states: Float[Array, "n d"], tasks: Int[Array, " n"], *, n_tasks: int) -> Float[Array, "tasks d"]:
    """The mean state of every task."""
    member = jax.nn.one_hot(tasks, n_tasks, dtype=states.dtype)
    return (member.T @ states) / jnp.maximum(member.sum(0), 1)[:, None]


def patching_matrix(
    loss: Loss,
    inputs: Any,
    tasks: Int[Array, " n"],
    means: Float[Array, "tasks d"],
    *,
    layer: int,
    position: int,
    n_layers: int,
    n_positions: int,
    site: str = "resid_post",
) -> Float[Array, "source target"]:
    """The rise of the loss when prompts of a source task get the mean state of a target task in place of their own.

    `inputs` has a leading axis of n prompts; `loss(input, interventions)` is that of one. The state at (layer,
    position) of `site`, "layers n_positions d", is replaced, not added to.
    """
    n_tasks = means.shape[0]

    @eqx.filter_jit
    def losses(target: Float[Array, " d"] | None) -> Float[Array, " n"]:
        interventions: tuple[Intervention, ...] = ()
        if target is not None:
            mask = jnp.zeros((n_layers, n_positions, 1), bool).at[layer, position].set(True)
            interventions = (Intervention(site, mask, target[None, None]),)
        return jax.vmap(lambda one: loss(one, interventions))(inputs)

    member = jax.nn.one_hot(tasks, n_tasks)
    share = member / jnp.maximum(member.sum(0), 1)[None]
    whole = losses(None)
    rises = jnp.stack([losses(mean) - whole for mean in means])
    return (rises @ share).T


def head_importance(
    loss: Loss, inputs: Any, tasks: Int[Array, " n"], *, n_tasks: int, n_layers: int, n_heads: int
) -> Float[Array, "layers heads tasks"]:
    """The rise of the loss of every task when one head's output is set to zero."""
    member = jax.nn.one_hot(tasks, n_tasks)
    share = member / jnp.maximum(member.sum(0), 1)[None]

    @eqx.filter_jit
    def mean_losses(mask: Array) -> Float[Array, " tasks"]:
        pruned = (Intervention("z", mask),)
        return jax.vmap(lambda one: loss(one, pruned))(inputs) @ share

    heads = [
        [ablate_head("z", layer, head, n_layers=n_layers, n_heads=n_heads).mask for head in range(n_heads)]
        for layer in range(n_layers)
    ]
    whole = mean_losses(jnp.zeros_like(heads[0][0]))
    return jnp.stack([jnp.stack([mean_losses(mask) - whole for mask in row]) for row in heads])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; NaN if one of the two is constant."""
    from scipy import stats

    if np.ptp(a) == 0 or np.ptp(b) == 0:  # of which scipy would warn
        return float("nan")
    return float(stats.spearmanr(a, b)[0])
