"""Sets of images: parts, classes, resizing by area, normalisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.data import ImageSet, area_weights, blobs, digits, feature_set, stratified_split, table
from meta_icl.errors import BadInput


def small(n=12, side=4, n_classes=3, channels=()):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, side, side, *channels)).astype(np.uint8)
    return ImageSet("small", images, np.arange(n) % n_classes, np.arange(n) % 4 != 3, tuple("abcdefgh"[:n_classes]))


def test_parts_are_disjoint_and_complete():
    images = small()
    train, test = images.rows("train"), images.rows("test")
    assert sorted([*train, *test]) == list(images.rows()) == list(range(12))
    assert images.part("train").is_train.all()
    assert not images.part("test").is_train.any()
    np.testing.assert_array_equal(images.vectors("test"), images.images[test].reshape(len(test), -1))


def test_classes_are_renumbered_in_the_given_order():
    images = small()
    chosen = images.of_classes([2, 0])
    assert chosen.class_names == ("c", "a")
    np.testing.assert_array_equal(chosen.labels, [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(chosen.images[:4], images.images[images.labels == 2])
    np.testing.assert_array_equal(images.by_class()[1], images.images[images.labels == 1])
    for wrong in ([3], [0, 0]):
        with pytest.raises(BadInput, match="class"):
            images.of_classes(wrong)
    with pytest.raises(BadInput, match="the same for all"):
        images.take(np.arange(4)).by_class()


@given(st.integers(1, 12), st.integers(1, 12))
def test_area_weights_are_overlaps(old, new):
    """Against a fine subdivision into old * new equal pieces, on which every overlap is a whole number of pieces."""
    fine = np.arange(old * new)
    expected = np.zeros((new, old))
    np.add.at(expected, (fine // old, fine // new), 1 / old)
    np.testing.assert_allclose(area_weights(old, new), expected, atol=1e-12)


def test_resizing_keeps_the_mean_and_averages_blocks():
    images = small(channels=(3,))
    halved = images.resized(2, 3).images
    blocks = images.images.reshape(12, 2, 2, 2, 2, 3).mean((2, 4))
    np.testing.assert_allclose(halved, blocks, rtol=1e-6)
    grey = images.resized(3, 1).images
    assert grey.shape == (12, 3, 3)
    np.testing.assert_allclose(grey.mean((1, 2)), images.images.mean((1, 2, 3)), rtol=1e-5)
    assert small().resized(5, 3).images.shape == (12, 5, 5, 3)


def test_one_mean_and_one_deviation_of_the_training_part():
    images = small()
    normal = images.normalised()
    train = normal.vectors("train").astype(np.float64)
    np.testing.assert_allclose([train.mean(), train.std()], [0, 1], atol=1e-6)
    scale = (normal.images[0, 0, 0] - normal.images[3, 1, 1]) / (
        float(images.images[0, 0, 0]) - float(images.images[3, 1, 1])
    )
    np.testing.assert_allclose(scale, 1 / images.vectors("train").std(), rtol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from([0.2, 1 / 3, 0.5]))
def test_a_split_keeps_a_share_of_every_class(counts, share):
    labels = np.repeat(np.arange(len(counts)), counts)
    is_train = stratified_split(labels, share)
    for c, count in enumerate(counts):
        assert np.sum(~is_train[labels == c]) == max(1, round(share * count))
    np.testing.assert_array_equal(is_train, stratified_split(labels, share))


def test_bundled_sets():
    d = digits()
    assert d.images.shape == (1797, 8, 8)
    assert d.images.max() == 1
    assert abs(d.is_train.mean() - 2 / 3) < 0.01
    for name, n, n_classes, n_features in (("wine", 178, 3, 13), ("breast_cancer", 569, 2, 30), ("iris", 150, 3, 4)):
        t = table(name)
        assert (len(t), t.n_classes, t.d) == (n, n_classes, 64)
        train = t.vectors("train")
        np.testing.assert_allclose(train[:, :n_features].std(0), 1, rtol=1e-5)
        assert not train[:, n_features:].any()
    b = blobs(n_classes=4, per_class=200, noise=0.5)
    within = np.concatenate([rows - rows.mean(0) for rows in b.by_class().reshape(4, 200, 64)])
    np.testing.assert_allclose(within.std(), 0.5, rtol=0.02)
    with pytest.raises(BadInput, match="wine"):
        table("win")
    with pytest.raises(BadInput, match="side"):
        table("breast_cancer", side=5)


def test_features_stand_in_for_images():
    images = small()
    features = images.vectors()
    as_set = feature_set("features", features, images.labels, images.is_train, images.class_names)
    assert as_set.d == features.shape[1]
    np.testing.assert_array_equal(as_set.vectors("test"), images.vectors("test"))


def test_images_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        small().images[0] = 0
