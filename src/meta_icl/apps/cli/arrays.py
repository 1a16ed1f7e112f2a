"""Arrays named on the command line: files of numbers, folders of images, and bundled sets of images.

`pool=FILE.npy` is the array of a file, `FILE.npz:NAME` one of several. `images=...` is a set of labelled images: a file
.npz with `images` "n h w", or "n h w c", and `labels` "n", a folder with a folder of .png per class, or the name of a
bundled set, such as digits. Where "classes drawings dx" are wanted, every class gives as many as the smallest has.
Descriptions are JSON with the SHA-256 of files, so that a run is never continued on other numbers.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.errors import BadInput, require

Described = dict[str, str]
OF_IMAGES = ("images", "exemplars")  # fields of this name take sets of images


def described(text: str, field: str) -> Described | None:
    """The description of an array in a file or of a set of images; `None` if the text is neither."""
    path, _, name = text.partition(":")
    if path.endswith((".npy", ".npz")):
        file = _existing(path, field)
        if path.endswith(".npz") and not name and field in OF_IMAGES and "labels" in _names(file, field):
            return set_described(text, field) | {"array": "by class"}
        told = {"array": "file", "file": str(file), "name": name, "sha256": _digest(file)}
        loaded(told)  # what cannot be read is told now
        return told
    if field in OF_IMAGES and not text.startswith("["):
        return set_described(text, field) | {"array": "by class"}
    return None


def set_described(text: str, field: str) -> Described:
    """The description of a set of labelled images."""
    from meta_icl import data

    if text in ("digits", *data.TABLES):
        return {"array": "set", "bundled": text}
    file = _existing(text, field)
    told = {"array": "set", "file": str(file), "sha256": _digest(file)}
    loaded(told)
    return told


def is_described(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a description of this module."""
    return "array" in value


def loaded(described: Mapping[str, str]) -> Any:
    """The array, or the set of images, of a description; `BadInput` if its file has changed since."""
    if "file" in described:
        file = _existing(described["file"], "file")
        same = _digest(file) == described["sha256"]
        require(same, "file", str(file), "as it was when the run was made (its SHA-256 has changed)")
    if described["array"] == "file":
        return _array(Path(described["file"]), described["name"])
    images = _set(described)
    return _by_class(images) if described["array"] == "by class" else images


def _existing(text: str, field: str) -> Path:
    path = Path(text).expanduser().resolve()
    if not path.exists():
        raise BadInput(
            f"{field}: there is no file {path} (a file .npy or .npz, a folder of images by class, or digits)"
        )
    return path


def _digest(file: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of all files of a folder."""
    whole = hashlib.sha256()
    for path in sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]:
        content = path.read_bytes()
        whole.update(f"{path.relative_to(file).as_posix()}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def _open(file: Path, field: str) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{field}: {file} cannot be read as arrays of numpy: {' '.join(str(error).split())}") from None


def _names(file: Path, field: str) -> list[str]:
    return list(_open(file, field).files)


def _array(file: Path, name: str) -> np.ndarray:
    content = _open(file, "file")
    if isinstance(content, np.ndarray):
        require(not name, "name", name, f"left out: {file} holds one array")
        return content
    names = content.files
    if not name and len(names) == 1:
        name = names[0]
    if name not in names:
        raise BadInput(f"{file} needs the name of one of its arrays, as {file.name}:NAME (it has {', '.join(names)})")
    return content[name]


def _set(described: Mapping[str, str]) -> Any:
    """The `ImageSet` of a description, with a third of every class kept for tests."""
    from meta_icl import data

    if "bundled" in described:
        return data.digits() if described["bundled"] == "digits" else data.table(described["bundled"])
    file = Path(described["file"])
    if file.is_dir():
        images, labels, names = _of_folder(file)
    else:
        content = _open(file, "images")
        both = not isinstance(content, np.ndarray) and {"images", "labels"} <= set(content.files)
        require(both, "images", str(file), "a file .npz with the arrays `images` and `labels`")
        images, labels = content["images"], content["labels"].astype(np.int32)
        require(
            images.ndim in (2, 3, 4) and labels.shape == images.shape[:1], "images", images.shape, "n h w, labels n"
        )
        images = images[:, None] if images.ndim == 2 else images  # rows of numbers are images of one row
        names = tuple(map(str, range(int(labels.max(initial=-1)) + 1)))
    images = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
    return data.ImageSet(file.stem, images, labels, data.stratified_split(labels, 1 / 3), names)


def _of_folder(folder: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The pictures of a folder with a folder per class: images, labels, names of the classes."""
    from matplotlib.image import imread

    classes = sorted(path for path in folder.iterdir() if path.is_dir() and any(path.glob("*.png")))
    require(len(classes) >= 2, "images", str(folder), "a folder with two or more folders of .png, one per class")
    pictures = [(label, imread(file)) for label, c in enumerate(classes) for file in sorted(c.glob("*.png"))]
    shapes = {picture.shape for _, picture in pictures}
    require(len(shapes) == 1, f"images of {folder}", sorted(shapes), "of one size and number of channels")
    labels = np.array([label for label, _ in pictures], np.int32)
    return np.stack([picture for _, picture in pictures]), labels, tuple(path.name for path in classes)


def _by_class(images: Any) -> np.ndarray:
    """The images as rows by class, "classes drawings dx", as many of every class as the smallest has."""
    counts = np.bincount(images.labels, minlength=images.n_classes)
    require(int(counts.min()) >= 1, f"images per class of {images.name}", counts.tolist(), "one or more")
    rows = [np.flatnonzero(images.labels == c)[: counts.min()] for c in range(images.n_classes)]
    flat = np.asarray(images.images, np.float32).reshape(len(images), -1)
    return np.stack([flat[r] for r in rows])
