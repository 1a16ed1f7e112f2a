"""Attention restricted to one circuit, and prompts with their labels shuffled (Minegishi et al., 2025)."""

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from meta_icl import draws
from meta_icl.errors import choose, require
from meta_icl.models.interventions import Intervention, restricted
from meta_icl.prompt import Prompt

CIRCUITS = ("ncc", "scc", "fcc")
SHUFFLES = ("permutation", "derangement", "iid")
REMOVALS = ("no own", "only own", "L2 no labels", "L1 query no labels")


def circuit_mask(circuit: str, n_context: int) -> Bool[np.ndarray, "2 t t"]:
    """The entries (layer, reader, read) of two layers that a circuit may use; every token may read itself.

    NCC: nothing else. SCC: in layer 1 the query reads the labels. FCC: in layer 1 labels read the item before them and
    nothing but it, in layer 2 the query reads the labels and nothing but them.
    """
    choose("circuit", circuit, CIRCUITS)
    t = 2 * n_context + 1
    allowed = np.stack([np.eye(t, dtype=bool)] * 2)
    labels = np.arange(1, t, 2)
    if circuit == "scc":
        allowed[0, -1, labels] = True
    elif circuit == "fcc":
        allowed[0, labels] = False
        allowed[0, labels, labels - 1] = True
        allowed[1, -1] = False
        allowed[1, -1, labels] = True
    return allowed


def without(removal: str, n_context: int, n_layers: int = 2) -> Bool[np.ndarray, "l t t"]:
    """The entries (layer, reader, read) that causal attention keeps when one kind of reading is removed.

    In layer 1 labels may not read their own item ("no own") or may read no other item ("only own"); the query may not
    read labels in layer 2 ("L2 no labels") or in layer 1 ("L1 query no labels"). What the accuracy of a trained network
    loses without it says what its answers hang on.
    """
    choose("removal", removal, REMOVALS)
    require(n_layers >= 2, "n_layers", n_layers, "2 or more")
    t = 2 * n_context + 1
    kept = np.stack([np.tril(np.ones((t, t), bool))] * n_layers)
    labels = np.arange(1, t, 2)
    if removal == "no own":
        kept[0, labels, labels - 1] = False
    elif removal == "only own":
        kept[0, 1::2, ::2] = False
        kept[0, labels, labels - 1] = True
    else:
        kept[1 if removal == "L2 no labels" else 0, -1, labels] = False
    return kept


def pruned(circuit: str, n_context: int) -> tuple[Intervention, ...]:
    """The interventions that hold a two-layer network in a circuit: scores of forbidden entries are minus infinity."""
    return (restricted(circuit_mask(circuit, n_context)),)


def shuffled_labels(prompts: Prompt, kind: str, *, n_labels: int, key: Key[Array, ""]) -> Prompt:
    """A batch of prompts with other labels in the context; the query and its target stay.

    "permutation" permutes each context's labels uniformly (the paper), "derangement" only without fixed places,
    "iid" draws every label uniformly (the public code).
    """
    choose("shuffle", kind, SHUFFLES)
    b, n = prompts.y.shape[0], prompts.y.shape[1] - 1
    if kind == "iid":
        context = draws.randint(key, (b, n), 0, n_labels)
    else:
        orders = _orders(n, deranged=kind == "derangement")
        order = jnp.asarray(orders)[draws.randint(key, (b,), 0, len(orders))]
        context = jnp.take_along_axis(prompts.y[:, :n], order, axis=1)
    return eqx.tree_at(lambda whole: whole.y, prompts, jnp.concatenate([context, prompts.y[:, n:]], axis=1))


def _orders(n: int, deranged: bool) -> Int[np.ndarray, "m n"]:
    """All permutations of n places, or those without a fixed place."""
    require(n <= 8, "n_context", n, "at most 8 for permutations of all labels")
    require(n >= 2 or not deranged, "n_context", n, "at least 2 for derangements")
    rows = np.array(list(itertools.permutations(range(n))))
    return rows[(rows != np.arange(n)).all(1)] if deranged else rows
