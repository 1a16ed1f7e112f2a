"""The probe of task vectors on a network written by hand, whose answer is the mean target of the context."""

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.models import Concatenated, InContextLearner, Trace
from meta_icl.models.trace import Tap
from meta_icl.probes import learner_subject, task_vectors
from meta_icl.prompt import Prompt


class MeanOfTargets:
    """Three layers on rows (x, y): the second one writes the mean target of the context into the last row's target."""

    n_layers = 3

    def __call__(self, rows, interventions=()):
        found = []
        for layer in range(3):
            tap = Tap(interventions, layer)
            if layer == 1:
                rows = rows.at[-1, -1].add(rows[:-1, -1].mean())
            rows = tap("resid_post", rows)
            found.append(rows)
        return rows, Trace({"resid_post": jnp.stack(found)})


def test_the_task_is_held_from_the_second_layer_on():
    rng = np.random.default_rng(0)
    x, levels = rng.normal(size=(4, 6, 2)), np.array([1.0, 2.0, 4.0, 8.0])
    prompts = Prompt(x, np.broadcast_to(levels[:, None, None], (4, 6, 1)))
    subject = learner_subject(InContextLearner(Concatenated(), jax.tree_util.Partial(MeanOfTargets())), prompts)
    found = task_vectors.measure(subject)
    changed = np.square(levels - np.roll(levels, -1))  # each gets the context of the next
    np.testing.assert_allclose(found["changed"], changed, rtol=1e-5)
    np.testing.assert_allclose(found["own"], np.stack([changed, 0 * levels, 0 * levels], 1), atol=1e-5)
    np.testing.assert_allclose(found["vector"], found["own"], atol=1e-5)
    third = np.square(levels - np.roll(levels, -2))
    np.testing.assert_allclose(found["control"], np.stack([changed, third, third], 1), rtol=1e-5)
    rows = task_vectors.rows(found)
    np.testing.assert_allclose([row["its own state"] for row in rows], [0, 1, 1], atol=1e-5)
    control = 1 - third.mean() / changed.mean()
    np.testing.assert_allclose(rows[2]["of a third context"], max(control, -1), rtol=1e-4)


def test_a_single_prompt_gets_its_answers_in_another_order():
    y = np.array([1.0, 2.0, 6.0, 0.0])[None, :, None]
    prompts = Prompt(np.zeros((1, 4, 2)), y)
    subject = learner_subject(InContextLearner(Concatenated(), jax.tree_util.Partial(MeanOfTargets())), prompts)
    found = task_vectors.measure(subject)
    assert set(found) == {"changed", "own"} and found["changed"] == 0  # a mean has no order
