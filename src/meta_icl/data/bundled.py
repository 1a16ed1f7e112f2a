"""Sets that come with scikit-learn, or are drawn: handwritten digits, three tables, and Gaussian blobs."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from meta_icl.data.images import ImageSet, stratified_split
from meta_icl.errors import choose, require

TABLES = ("wine", "breast_cancer", "iris")


def digits(*, test_share: float = 1 / 3) -> ImageSet:
    """1,797 handwritten digits of 8 x 8 pixels, 0 .. 1 (UCI; scikit-learn), a third of every class kept for tests."""
    from sklearn.datasets import load_digits  # half a second to import

    read: Any = load_digits(return_X_y=True)
    x, y = read
    images, labels = (x / 16).astype(np.float32).reshape(-1, 8, 8), np.asarray(y, np.int32)
    return ImageSet("digits", images, labels, stratified_split(labels, test_share), tuple("0123456789"))


def table(name: str, *, side: int = 8, test_share: float = 1 / 3) -> ImageSet:
    """A table of scikit-learn ("wine", "breast_cancer", "iris") as images of side x side pixels.

    Every feature has mean 0 and deviation 1 over the training part; the remaining pixels are zero.
    """
    from sklearn import datasets

    choose("table", name, TABLES)
    loaded = getattr(datasets, f"load_{name}")()
    labels = np.asarray(loaded.target, np.int32)
    is_train = stratified_split(labels, test_share)
    d = loaded.data.shape[1]
    require(side * side >= d, "side", side, f"at least {int(np.ceil(d**0.5))}, for {d} features")
    train = loaded.data[is_train]
    features = (loaded.data - train.mean(0)) / train.std(0)
    images = np.pad(features, ((0, 0), (0, side * side - d))).astype(np.float32).reshape(-1, side, side)
    return ImageSet(name, images, labels, is_train, tuple(str(c) for c in loaded.target_names))


def blobs(
    *,
    n_classes: int = 10,
    per_class: int = 60,
    side: int = 8,
    noise: float = 1.0,
    test_share: float = 1 / 3,
    seed: int = 0,
) -> ImageSet:
    """Gaussian blobs: class means ~ N(0, I) in side^2 dimensions, points ~ N(mean, noise^2 I), fixed by the seed."""
    for field, value in (("n_classes", n_classes), ("per_class", per_class), ("side", side)):
        require(value >= 1, field, value, "a positive integer")
    require(noise >= 0, "noise", noise, "zero or positive")
    rng = np.random.default_rng(seed)
    means: Float[np.ndarray, "c d"] = rng.normal(size=(n_classes, side * side))
    labels: Int[np.ndarray, " n"] = np.repeat(np.arange(n_classes, dtype=np.int32), per_class)
    points = means[labels] + noise * rng.normal(size=(len(labels), side * side))
    images = points.astype(np.float32).reshape(-1, side, side)
    return ImageSet(
        "blobs", images, labels, stratified_split(labels, test_share, seed), tuple(map(str, range(n_classes)))
    )
