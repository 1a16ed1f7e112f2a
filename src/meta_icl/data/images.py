"""The noun of this room: a set of labelled images with a training and a test part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from meta_icl.errors import choose, require

PARTS = ("train", "test", "all")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """n labelled images, grey "n h w" or coloured "n h w c"; `is_train` marks the training part, the rest is for tests.

    Labels are the whole numbers 0 .. n_classes - 1; `class_names` says what they mean. Images are whole numbers from 0
    to 255 as read, or float32. Arrays are read-only.
    """

    name: str
    images: Shaped[np.ndarray, "n h w *channels"]
    labels: Int[np.ndarray, " n"]
    is_train: Bool[np.ndarray, " n"]
    class_names: tuple[str, ...]

    def __post_init__(self):
        n = len(self.images)
        require(self.images.ndim in (3, 4), f"images of {self.name}", self.images.shape, "of shape (n, h, w) or with c")
        for field in ("labels", "is_train"):
            require(len(getattr(self, field)) == n, f"{field} of {self.name}", len(getattr(self, field)), f"{n} long")
        known = n == 0 or (int(self.labels.min()) >= 0 and int(self.labels.max()) < self.n_classes)
        require(known, f"labels of {self.name}", "others", f"from 0 to {self.n_classes - 1}")
        for field in ("images", "labels", "is_train"):
            array = getattr(self, field).view()
            array.setflags(write=False)
            object.__setattr__(self, field, array)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_classes(self) -> int:
        """How many classes there are names for."""
        return len(self.class_names)

    @property
    def d(self) -> int:
        """Numbers per image."""
        return int(np.prod(self.images.shape[1:]))

    def rows(self, part: str = "all") -> Int[np.ndarray, " k"]:
        """The indices of the images of a part: "train", "test" or "all"."""
        choose("part of a data set", part, PARTS)
        return np.arange(len(self)) if part == "all" else np.flatnonzero(self.is_train == (part == "train"))

    def take(self, rows: Int[np.ndarray, " k"]) -> "ImageSet":
        """The images at the given indices."""
        return replace(self, images=self.images[rows], labels=self.labels[rows], is_train=self.is_train[rows])

    def part(self, part: str) -> "ImageSet":
        """The images of a part."""
        return self.take(self.rows(part))

    def of_classes(self, classes: Sequence[int]) -> "ImageSet":
        """The images of some classes, which are numbered in the given order; sorted by class, in their old order each.

        Raises `BadInput` for a class that is not there or is given twice.
        """
        for c in classes:
            require(0 <= c < self.n_classes, f"class of {self.name}", c, f"from 0 to {self.n_classes - 1}")
        require(len(set(classes)) == len(classes), f"classes of {self.name}", list(classes), "given once each")
        rows = [np.flatnonzero(self.labels == c) for c in classes]
        chosen = self.take(np.concatenate([*rows, np.zeros(0, int)]))
        labels = np.repeat(np.arange(len(classes)), [len(r) for r in rows])
        return replace(chosen, labels=labels, class_names=tuple(self.class_names[c] for c in classes))

    def by_class(self) -> Shaped[np.ndarray, "classes examples h w *channels"]:
        """The images stacked by class. Raises `BadInput` unless all classes have the same number of images."""
        counts = np.bincount(self.labels, minlength=self.n_classes)
        equal = bool((counts == counts[0]).all())
        require(equal, f"images per class of {self.name}", (int(counts.min()), int(counts.max())), "the same for all")
        order = np.argsort(self.labels, kind="stable")
        return self.images[order].reshape(self.n_classes, int(counts[0]), *self.images.shape[1:])

    def resized(self, side: int, channels: int = 1) -> "ImageSet":
        """All images at side x side pixels by area averaging, float32 on their old scale.

        `channels` is 1 (colours are averaged) or 3 (grey is copied).
        """
        require(side >= 1, "side", side, "a positive integer")
        require(channels in (1, 3), "channels", channels, "1 or 3")
        images = np.asarray(self.images, np.float32)
        if images.ndim == 4 and channels == 1:
            images = images.mean(-1)
        h, w = images.shape[1:3]
        if (h, w) != (side, side):
            rows, columns = (area_weights(old, side).astype(np.float32) for old in (h, w))
            images = np.einsum("ih,nhw...,jw->nij...", rows, images, columns, optimize=True)
        if images.ndim == 3 and channels == 3:
            images = np.repeat(images[..., None], 3, axis=-1)
        return replace(self, images=np.ascontiguousarray(images, np.float32))

    def normalised(self) -> "ImageSet":
        """All images shifted and scaled by one number each, so that the training part has mean 0 and deviation 1."""
        train = np.asarray(self.images[self.is_train], np.float64)
        require(
            bool(train.size > 0 and train.std() > 0), f"training part of {self.name}", "constant", "of different pixels"
        )
        return replace(self, images=((self.images - train.mean()) / train.std()).astype(np.float32))

    def vectors(self, part: str = "all") -> Float[np.ndarray, "k d"]:
        """The images of a part as rows of float32 numbers; `labels[rows(part)]` are their labels."""
        return np.asarray(self.images[self.rows(part)], np.float32).reshape(-1, self.d)


def feature_set(
    name: str,
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    is_train: Bool[np.ndarray, " n"],
    class_names: tuple[str, ...],
) -> ImageSet:
    """Frozen features in the place of images, such as those of a trained network: images of one row of d pixels."""
    return ImageSet(name, np.asarray(features, np.float32)[:, None, :], labels, is_train, class_names)


def area_weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """The share of every old pixel in every new one along an axis: overlap of intervals, rows sum to one."""
    edges = np.arange(new + 1) * old / new
    low, high = np.maximum.outer(edges[:-1], np.arange(old)), np.minimum.outer(edges[1:], np.arange(1, old + 1))
    return np.maximum(high - low, 0) * new / old


def stratified_split(labels: Int[np.ndarray, " n"], test_share: float, seed: int = 0) -> Bool[np.ndarray, " n"]:
    """Which rows train: the same share of every class, rounded, is kept for tests; the choice is fixed by the seed."""
    require(0 < test_share < 1, "test_share", test_share, "between 0 and 1")
    is_train = np.ones(len(labels), bool)
    rng = np.random.default_rng(seed)
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        is_train[rng.permutation(rows)[: max(1, round(test_share * len(rows)))]] = False
    return is_train
