"""Published image sets, downloaded once into the cache folder and checked against their MD5 sums.

Without a connection, put the files named in the error into that folder by hand. Every set keeps its published training
and test part. Nothing is unpickled: CIFAR-10 is read from its binary version.
"""

import gzip
import hashlib
import io
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from meta_icl.data.cache import cache_folder, write_bytes
from meta_icl.data.images import ImageSet
from meta_icl.errors import BadInput, choose

Labelled = tuple[Shaped[np.ndarray, "..."], Int[np.ndarray, " _"]]  # images "n h w" or "n h w c", labels "n"
DIGITS = tuple("0123456789")
SECONDS = 60  # without a byte, after which a download is given up


@dataclass(frozen=True)
class Source:
    """Where a set comes from: files with their MD5 sums, and how they are read into (train, test)."""

    address: str
    files: dict[str, str]
    read: Callable[[list[bytes]], tuple[Labelled, Labelled]]
    class_names: tuple[str, ...]


def idx(data: bytes) -> np.ndarray:
    """The array in a gzipped IDX file: two zeros, type 8 (whole numbers 0 .. 255), rank, big-endian sizes, values."""
    raw = gzip.decompress(data)
    if raw[:3] != b"\0\0\x08":
        raise BadInput(f"an IDX file of bytes must begin with 00 00 08, got {raw[:3].hex(' ')}")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape.astype(int))


def read_idx(files: list[bytes]) -> tuple[Labelled, Labelled]:
    """Training images and labels, test images and labels (LeCun et al., 1998)."""
    x, y, x_test, y_test = (idx(data) for data in files)
    return (x, y.astype(np.int32)), (x_test, y_test.astype(np.int32))


def read_cifar(files: list[bytes]) -> tuple[Labelled, Labelled]:
    """The binary version: records of one label and 32 x 32 pixels of red, then green, then blue (Krizhevsky, 2009)."""
    records: dict[str, np.ndarray] = {}
    with tarfile.open(fileobj=io.BytesIO(files[0])) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".bin") else None
            if content is not None:
                records[Path(member.name).stem] = np.frombuffer(content.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)

    def labelled(names: list[str]) -> Labelled:
        rows = np.concatenate([records[name] for name in names])
        return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int32)

    return labelled(sorted(name for name in records if name.startswith("data_batch"))), labelled(["test_batch"])


def read_svhn(files: list[bytes]) -> tuple[Labelled, Labelled]:
    """Matlab files with X "h w c n" and y, in which the digit 0 is called 10 (Netzer et al., 2011)."""
    from scipy.io import loadmat

    def labelled(data: bytes) -> Labelled:
        content = loadmat(io.BytesIO(data), variable_names=["X", "y"])
        return np.moveaxis(content["X"], -1, 0), (content["y"].ravel() % 10).astype(np.int32)

    return labelled(files[0]), labelled(files[1])


def read_omniglot(files: list[bytes]) -> tuple[Labelled, Labelled]:
    """Folders ALPHABET/CHARACTER of 20 drawings of 105 x 105 pixels each, ink 255 here (Lake et al., 2015).

    The background characters are the training part, the evaluation characters the test part.
    """
    from PIL import Image  # comes with matplotlib

    parts, first = [], 0
    for data in files:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            folders = [name.rpartition("/")[0] for name in names]
            number = {folder: first + i for i, folder in enumerate(sorted(set(folders)))}
            inks = [255 * (1 - np.asarray(Image.open(archive.open(name)).convert("1"), np.uint8)) for name in names]
        parts.append((np.stack(inks), np.array([number[folder] for folder in folders], np.int32)))
        first += len(number)
    return parts[0], parts[1]


def _mnist(address: str, sums: tuple[str, str, str, str], class_names: tuple[str, ...] = DIGITS) -> Source:
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return Source(address, dict(zip(names, sums, strict=True)), read_idx, class_names)


SOURCES = {
    "mnist": _mnist(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
         "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    "fashion_mnist": _mnist(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
         "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
        ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "kmnist": _mnist(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344",
         "5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134"),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        read_cifar,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "svhn": Source(
        "http://ufldl.stanford.edu/housenumbers/",
        {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373", "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"},
        read_svhn,
        DIGITS,
    ),
    "omniglot": Source(
        "https://github.com/brendenlake/omniglot/raw/master/python/",
        {"images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
         "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811"},
        read_omniglot,
        (),
    ),
}  # fmt: skip


def download(name: str, *, folder: Path | None = None) -> ImageSet:
    """A published set, from `folder`/NAME (default: the cache folder) or, the first time, from its address.

    Raises `BadInput` for an unknown name, a file with another checksum, and where there is no connection.
    """
    source = SOURCES[choose("data set", name, SOURCES)]
    place = (folder or cache_folder()) / name
    files = [_file(name, place / file, source.address + file, md5) for file, md5 in source.files.items()]
    (x, y), (x_test, y_test) = source.read(files)
    labels = np.concatenate([y, y_test])
    is_train = np.arange(len(labels)) < len(y)
    names = source.class_names or tuple(map(str, range(int(labels.max()) + 1)))
    return ImageSet(name, np.concatenate([x, x_test]), labels, is_train, names)


def _file(name: str, path: Path, address: str, md5: str) -> bytes:
    if path.exists():
        data = path.read_bytes()
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise BadInput(f"{path} is not the published file (its MD5 is not {md5}); remove it to download it again")
        return data
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as reply:  # noqa: S310 (one of SOURCES)
            data = reply.read()
    except OSError as error:
        raise BadInput(f"{name} needs {path}, and {address} cannot be reached ({error}); put the file there") from None
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise BadInput(f"{address} is not the published file of {name} (its MD5 is not {md5}); nothing was kept")
    write_bytes(path, data)
    return data
