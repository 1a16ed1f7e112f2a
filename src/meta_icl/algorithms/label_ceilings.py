"""The best accuracies of learners that see a part of a prompt, for in-context meta-learning by classification.

The maps from classes to labels are known, the one in use is not (Minegishi et al., 2025). NCC sees the query alone, SCC
also which labels stand in the context (but not beside which items), FCC everything. Items are recognised without error.
"""

from math import comb
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from meta_icl.algorithms._checks import Numbers
from meta_icl.errors import require


class Ceilings(NamedTuple):
    """Accuracies of the non-context, the semi-context and the full-context circuit at their best."""

    ncc: float
    scc: float
    fcc: float


def label_ceilings(
    labels: Int[np.ndarray, "tasks k"],
    n_context: int,
    *,
    task_law: Numbers | None = None,
    repeats: int = 1,
    p_bursty: float = 0.0,
    distinct_query: bool = False,
    n_samples: int = 20_000,
    seed: int = 0,
) -> Ceilings:
    """Bayes accuracies for the law of `MetaClassification` with equally frequent classes (alpha = 0).

    NCC is exact. SCC and FCC are means of the exact posterior's largest entry over sampled prompts (standard error at
    most 0.5 / sqrt(n_samples)). The probability of a multiset of labels is that of drawing classes without replacement:
    the product of C(classes with the label, classes drawn with it) over labels.
    """
    maps = np.asarray(labels)
    t, k = maps.shape
    n = n_context // repeats
    require(n_context % repeats == 0, "repeats", repeats, f"a divisor of n_context = {n_context}")
    require(n < k or not distinct_query, "n_context", n_context, f"below the number of classes {k}")
    prior = np.full(t, 1 / t) if task_law is None else np.asarray(task_law, np.float64)
    n_labels = int(maps.max()) + 1
    hits = np.zeros((k, n_labels))
    for task in range(t):
        hits[np.arange(k), maps[task]] += prior[task]
    ncc = float(hits.max(1).mean())

    rng = np.random.default_rng(seed)
    tasks = rng.choice(t, n_samples, p=prior)
    order = rng.permuted(np.broadcast_to(np.arange(k), (n_samples, k)), axis=1)
    shown, fresh = order[:, :n], order[:, n] if distinct_query else rng.integers(0, k, n_samples)
    query = np.where(
        rng.random(n_samples) < p_bursty, shown[np.arange(n_samples), rng.integers(0, n, n_samples)], fresh
    )
    pairs = maps[tasks[:, None], shown]
    counts = np.zeros((n_samples, n_labels), int)
    np.add.at(counts, (np.arange(n_samples)[:, None], pairs), 1)
    histogram = np.stack([np.bincount(row, minlength=n_labels) for row in maps])
    ways = np.array([[comb(size, drawn) for drawn in range(n + 1)] for size in range(k + 1)], np.float64)
    semi, full = np.zeros((n_samples, n_labels)), np.zeros((n_samples, n_labels))
    everyone = np.arange(n_samples)
    for task in range(t):
        answer = maps[task, query]
        multiset = ways[histogram[task][None], counts].prod(1) / comb(k, n)
        # Given the multiset, the query's class is in the context with probability drawn / existing of its label.
        inside = counts[everyone, answer] / histogram[task, answer]
        outside = (1 - inside) / (k - n) if distinct_query else 1 / k
        np.add.at(semi, (everyone, answer), prior[task] * multiset * (p_bursty * inside / n + (1 - p_bursty) * outside))
        fits = (maps[task, shown] == pairs).all(1)
        np.add.at(full, (everyone, answer), prior[task] * fits)
    return Ceilings(ncc, *(float((mass.max(1) / mass.sum(1)).mean()) for mass in (semi, full)))


def semi_context_theory(n_classes: int, n_context: int, n_tasks: int = 2) -> float:
    """The accuracy of the semi-context circuit in the setting of the paper's theory.

    K = L in bijection, no class twice in a prompt, maps without common pairs. Of the T candidates for the query's label
    those that stand in the context are excluded (each stands there with the label of another class): E[1 / (T - h)]
    with h of the hypergeometric law of n_context draws from K - 1 labels of which T - 1 are marked. For T = 2 it is
    1/2 + N / (2 (K - 1)).
    """
    require(1 <= n_context < n_classes, "n_context", n_context, f"from 1 to n_classes - 1 = {n_classes - 1}")
    require(1 <= n_tasks <= n_classes, "n_tasks", n_tasks, f"from 1 to n_classes = {n_classes}")
    others, marked = n_classes - 1, n_tasks - 1
    total = comb(others, n_context)
    return sum(
        comb(marked, h) * comb(others - marked, n_context - h) / total / (n_tasks - h)
        for h in range(min(marked, n_context) + 1)
    )


def every_item_ceiling(labels: Int[np.ndarray, "tasks k"], n_context: int, **options: Any) -> Float[np.ndarray, " n"]:
    """The full-context ceiling at every item, after 0 .. n_context examples (all labels as targets)."""
    ncc = label_ceilings(labels, 1, **options).ncc
    return np.array([ncc, *(label_ceilings(labels, k, **options).fcc for k in range(1, n_context + 1))])
