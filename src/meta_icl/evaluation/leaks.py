"""Does a predictor read what it may not know: the query's target, or rows after the one it answers?

What must not be read is replaced by other values, and answers that move tell. So a function of numpy is checked like
any other, and a rounded or one-hot copy of a target, whose derivative is zero, is found.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.prompt import Prompt, answers_of

TOLERANCE = 1e-4  # of the largest answer; what a program rounds differently is far below
CUTS = 8  # rows at which causality is checked, spread evenly over longer prompts
OTHER_TARGETS = 4


class Leaks(NamedTuple):
    """Whether the query's target is read, and the first row found whose answer depends on later rows (or its target).

    `row` is None for predictors that answer the query alone, and for those that are causal.
    """

    target: bool
    row: int | None


def leaks(predictor: Any, prompt: Prompt) -> Leaks:
    """Look for both leaks with one batch of changed prompts.

    A predictor that draws random numbers of its own answers the same prompt differently and cannot be judged: it
    counts as honest.
    """
    n, rng = prompt.x.shape[0], np.random.default_rng(0)
    x, y = np.asarray(prompt.x), np.asarray(prompt.y)
    cuts = sorted({int(k) for k in np.linspace(0, n - 2, min(CUTS, n - 1))}) if n > 1 else []
    versions = [(x, y)] * 2
    for target in _targets(y, rng):
        versions.append((x, np.concatenate([y[:-1], target[None]])))
    for k in cuts:
        other_x, other_y = x.copy(), y.copy()
        other_x[k + 1 :] = rng.normal(size=x[k + 1 :].shape) * (np.abs(x).max() or 1)
        other_y[k:] = _replaced(y[k:], y, rng)
        versions.append((other_x, other_y))
    changed_x, changed_y = (jnp.asarray(np.stack(part)) for part in zip(*versions, strict=True))
    repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(versions), *leaf.shape)), prompt)
    batch = eqx.tree_at(lambda p: (p.x, p.y), repeated, (changed_x, changed_y))
    answers = np.asarray(answers_of(predictor, batch, hidden=False), np.float64)
    every_row = answers.ndim == 3
    base, again = answers[:2]
    allowed = TOLERANCE * (np.abs(base[np.isfinite(base)]).max(initial=0) or 1)
    if _moved(base, again, 0):
        return Leaks(False, None)
    queries = answers[:, -1] if every_row else answers
    target = any(_moved(queries[0], other, allowed) for other in queries[2 : 2 + OTHER_TARGETS])
    if not every_row:
        return Leaks(target, None)
    later = zip(cuts, answers[2 + OTHER_TARGETS :], strict=True)
    moved = [i for k, other in later for i in range(k + 1) if _moved(base[i], other[i], allowed)]
    return Leaks(target, min(moved, default=None))


def reads_hidden_target(predictor: Any, prompt: Prompt) -> bool:
    """Whether the query's answer depends on what stands at the place of its target: true means that it leaks.

    Where batches are answered, that place is hidden, so that such a predictor answers as if the target were zero.
    """
    return leaks(predictor, prompt).target


def reads_later_rows(predictor: Any, prompt: Prompt) -> bool:
    """Whether an answer to row k depends on later rows or on the target of row k, for predictors of every position."""
    return leaks(predictor, prompt).row is not None


def _targets(y: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Other values for the query's target: labels of the prompt, 0 and 1, or numbers small and large."""
    if np.issubdtype(y.dtype, np.integer):
        labels = [label for label in np.unique(np.append(y, [0, 1])) if label != y[-1]]
        return [np.asarray(labels[i % len(labels)], y.dtype) for i in range(OTHER_TARGETS)]
    size = np.abs(y).max() or 1
    factors = (0, 1, -1, 30)
    return [np.asarray(f * size * (1 + rng.random(y.shape[1:])), y.dtype) for f in factors]


def _replaced(part: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other targets for some rows: other labels among those of the prompt, 0 and 1, or random numbers of its size."""
    if np.issubdtype(y.dtype, np.integer):
        labels = np.unique(np.append(y, [0, 1]))
        place = np.searchsorted(labels, part)
        return labels[(place + rng.integers(1, len(labels), part.shape)) % len(labels)].astype(y.dtype)
    return (rng.normal(size=part.shape) * (np.abs(y).max() or 1)).astype(y.dtype)


def _moved(a: np.ndarray, b: np.ndarray, allowed: float) -> bool:
    return not np.allclose(a, b, rtol=0, atol=allowed, equal_nan=True)
