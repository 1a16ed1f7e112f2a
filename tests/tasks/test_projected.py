"""Projected images: the law of a task, one task per prompt, held-out images, and tasks never seen."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.data import ImageSet, blobs
from meta_icl.errors import BadInput
from meta_icl.tasks import UNLIMITED, RandomPoints, projected_images

D = 9


def numbered(n_classes=4, per_class=6):
    """Images that are all different, with unequal classes."""
    full = blobs(n_classes=n_classes, per_class=per_class, side=3, test_share=0.5)
    return full.take(np.flatnonzero(np.arange(len(full)) % 7 != 3))


def task_of(images=None, part="train", **fields):
    options = {"n_context": 7, "n_labels": 3, "key": jax.random.key(5)} | fields
    return projected_images(numbered() if images is None else images, part, **options)


@eqx.filter_jit
def tasks(task, indices):
    """Many tasks at once."""
    return jax.vmap(task.projection)(indices)


@eqx.filter_jit
def prompts_of(task, n, key=0):
    return task.sample_batch(n, key=jax.random.key(key))


def one(prompts, i=0):
    return jax.tree.map(lambda leaf: np.asarray(leaf[i]), prompts)


def owner(task, prompt, indices):
    """The tasks of `indices` under which every row of a prompt is an image of a class with the stated label."""
    counts, x = np.asarray(task.counts), np.asarray(task.x, np.float64)
    classes = np.repeat(np.arange(len(counts)), counts)
    found, projections = [], tasks(task, jnp.arange(5))
    for index in indices:
        projection = jax.tree.map(lambda leaf: leaf[index], projections)  # noqa: B023
        projected = x @ np.asarray(projection.matrix, np.float64).T
        distances = ((np.asarray(prompt.x)[:, None] - projected[None]) ** 2).sum(-1)
        rows = distances.argmin(1)
        same = (distances.min(1) < 1e-8).all()
        if same and (np.asarray(projection.label_of)[classes[rows]] == np.asarray(prompt.y)).all():
            found.append(index)
    return found


def test_matrices_are_dense_with_variance_one_over_d():
    task = task_of()
    a = np.asarray(tasks(task, jnp.arange(2_000)).matrix).reshape(2_000, -1)
    n = a.size
    assert abs(a.mean()) < 4 * (1 / D / n) ** 0.5
    assert abs(a.var() * D - 1) < 4 * (2 / n) ** 0.5
    per_entry = a.var(0) * D  # every entry, on and off the diagonal
    assert np.abs(per_entry - 1).max() < 5 * (2 / 2_000) ** 0.5
    assert abs((a**4).mean() / a.var() ** 2 - 3) < 0.1  # normal
    correlation = np.corrcoef(a.T) - np.eye(D * D)
    assert np.abs(correlation).max() < 5 / 2_000**0.5


def test_a_prompt_is_one_task_of_the_pool():
    task = task_of(n_tasks=3)
    prompts = prompts_of(task, 40)
    owners = [owner(task, one(prompts, i), range(3)) for i in range(40)]
    assert all(len(found) == 1 for found in owners)
    assert {found[0] for found in owners} == {0, 1, 2}


def test_tasks_do_not_depend_on_the_pool_and_are_never_stored():
    small, large = task_of(n_tasks=2), task_of(n_tasks=2**25)
    np.testing.assert_array_equal(tasks(small, jnp.arange(5)).matrix, tasks(large, jnp.arange(5)).matrix)
    assert sum(leaf.size for leaf in jax.tree.leaves(large)) < 300
    assert np.isfinite(prompts_of(large, 40).x).all()


def test_unseen_tasks_have_other_numbers():
    task = task_of(n_tasks=UNLIMITED, bias=0.5)
    unseen = task.unseen()
    assert int(unseen.first_task) >= int(task.first_task) + int(task.n_tasks)
    assert float(unseen.bias) == 0
    last = np.uint32(int(unseen.first_task)) + np.uint32(int(unseen.n_tasks) - 1)
    assert int(last) == 2 * UNLIMITED - 1  # no number wraps around
    prompts = prompts_of(task_of(n_tasks=1).unseen(), 40)
    assert all(owner(task, one(prompts, i), range(5)) == [] for i in range(10))


def test_held_out_images_are_held_out():
    images = numbered()
    train = task_of(images)
    test = train.unseen().with_images(images, "test")
    in_train = {row.tobytes() for row in np.asarray(train.x)}
    assert not in_train & {row.tobytes() for row in np.asarray(test.x)}
    assert len(train.x) + len(test.x) == len(images)
    for task, part in ((train, "train"), (test, "test")):
        np.testing.assert_array_equal(np.sort(np.asarray(task.x), 0), np.sort(images.vectors(part), 0))
        np.testing.assert_array_equal(task.counts, np.bincount(images.labels[images.rows(part)]))


def test_images_are_independent_and_equally_likely_among_the_classes_used():
    """Counts of every image over many prompts of one task; chi-square with a wide bound."""
    task = task_of(n_tasks=1, n_context=499)
    first = jax.tree.map(lambda leaf: np.asarray(leaf[0]), tasks(task, jnp.arange(5)))
    label_of = first.label_of
    classes = np.repeat(np.arange(4), np.asarray(task.counts))
    prompts = prompts_of(task, 40, 3)
    projected = np.asarray(task.x) @ first.matrix.T
    rows = ((np.asarray(prompts.x).reshape(-1, 1, D) - projected) ** 2).sum(-1).argmin(1)
    counts = np.bincount(rows, minlength=len(classes))
    used = label_of[classes] >= 0
    assert (counts[~used] == 0).all()
    expected = counts.sum() / used.sum()
    chi_square = ((counts[used] - expected) ** 2 / expected).sum()
    assert chi_square < used.sum() + 4 * (2 * used.sum()) ** 0.5


@pytest.mark.parametrize(("n_classes", "n_labels"), [(4, 3), (2, 4), (3, 3)])
def test_labels_are_a_random_assignment(n_classes, n_labels):
    for label_of in np.asarray(tasks(task_of(numbered(n_classes), n_labels=n_labels), jnp.arange(20)).label_of):
        used = label_of[label_of >= 0]
        assert len(used) == min(n_classes, n_labels)
        assert len(set(used)) == len(used)
        assert used.max() < n_labels


def test_every_assignment_is_equally_likely():
    task = task_of(numbered(3), n_labels=3)
    assigned = np.asarray(tasks(task, jnp.arange(3_000)).label_of)
    counts = np.unique(assigned, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.abs(counts - 500).max() < 4.5 * (500 * 5 / 6) ** 0.5


def test_a_share_of_the_tasks_is_biased():
    task = task_of(bias=0.75)
    projections = tasks(task, jnp.arange(2_000))
    fixed = (np.asarray(projections.label_of) == [0, 1, 2, -1]).all(1)
    chance = 1 / 24  # of an unbiased assignment of 3 of 4 classes to 3 labels
    expected = 0.75 + 0.25 * chance
    assert abs(fixed.mean() - expected) < 4 * (expected * (1 - expected) / 2_000) ** 0.5
    unbiased = tasks(task_of(), jnp.arange(2_000)).matrix
    np.testing.assert_array_equal(projections.matrix, unbiased)  # the projection is random all the same


def test_the_random_set_repeats_its_points():
    task = RandomPoints(d=4, n_context=24, n_labels=3, n_points=7)
    prompts = prompts_of(task, 300)
    x, y = np.asarray(prompts.x), np.asarray(prompts.y)
    for prompt_x, prompt_y in zip(x[:20], y[:20], strict=True):
        first = {}
        for k, (row, label) in enumerate(zip(prompt_x, prompt_y, strict=True)):
            assert (row.tobytes() in first) == (k >= 7)
            assert first.setdefault(row.tobytes(), label) == label
    points = x[:, :7].reshape(-1)
    assert abs(points.mean()) < 0.05
    assert abs(points.std() - 1) < 0.02
    assert np.abs(points).max() <= 3**0.5 + 1e-6
    assert np.abs(np.bincount(y[:, :7].ravel()) / 2_100 - 1 / 3).max() < 0.05


def test_bad_input_is_named():
    for field, value in (("n_tasks", 0), ("n_tasks", UNLIMITED + 1), ("bias", 1.5), ("n_labels", 0), ("n_context", -1)):
        with pytest.raises(BadInput, match=field):
            task_of(**{field: value})
    with pytest.raises(BadInput, match="size of blobs"):
        task_of().with_images(blobs(side=4), "test")
    two = numbered(2)
    with pytest.raises(BadInput, match="all there"):
        task_of(ImageSet("one", two.images, np.zeros_like(two.labels), two.is_train, ("a", "b")))
