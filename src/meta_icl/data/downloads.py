"""Published image sets, downloaded once into the cache folder and checked against their sizes and SHA-256 sums.

The sums are those that TensorFlow Datasets states of the published files (github.com/tensorflow/datasets,
url_checksums). Downloads go over https only and stop at the size that is known.

Without a connection, put the files named in the error where it says. Every set keeps its published training
and test part. Nothing is unpickled: CIFAR-10 is read from its binary version.
"""

import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np
from jaxtyping import Int, Shaped

from meta_icl.data.cache import cache_folder, write_bytes
from meta_icl.data.images import ImageSet
from meta_icl.errors import BadInput, choose, require

Labelled = tuple[Shaped[np.ndarray, "..."], Int[np.ndarray, " _"]]  # images "n h w" or "n h w c", labels "n"
DIGITS = tuple("0123456789")
SECONDS = 60  # without a byte, after which a download is given up
PIECE = 1 << 20  # bytes read at a time
SIZE_AND_SUM = "a size in bytes and a SHA-256 sum"


@dataclass(frozen=True)
class Source:
    """Where a set comes from: files with their bytes and SHA-256 sums, and how they are read into (train, test)."""

    address: str
    files: dict[str, tuple[int, str]]
    read: Callable[[list[bytes]], tuple[Labelled, Labelled]]
    class_names: tuple[str, ...]

    def __post_init__(self):
        require(self.address.startswith("https://"), "address", self.address, "one of https")
        for name, (size, sha256) in self.files.items():
            require(size > 0 and re.fullmatch("[0-9a-f]{64}", sha256) is not None, name, (size, sha256), SIZE_AND_SUM)


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


def _mnist(address: str, stated: Sequence[tuple[int, str]], class_names: tuple[str, ...] = DIGITS) -> Source:
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return Source(address, dict(zip(names, stated, strict=True)), read_idx, class_names)


SOURCES = {
    "mnist": _mnist(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
    ),
    "fashion_mnist": _mnist(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        (
            (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "kmnist": _mnist(
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        (
            (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
            (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
            (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
            (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
        ),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/",
        {
            "cifar-10-binary.tar.gz": (
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            )
        },
        read_cifar,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "svhn": Source(
        "https://ufldl.stanford.edu/housenumbers/",
        {
            "train_32x32.mat": (
                182_040_794,
                "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            ),
            "test_32x32.mat": (64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
        },
        read_svhn,
        DIGITS,
    ),
    "omniglot": Source(
        "https://github.com/brendenlake/omniglot/raw/master/python/",
        {
            "images_background.zip": (9_464_212, "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"),
            "images_evaluation.zip": (6_462_886, "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"),
        },
        read_omniglot,
        (),
    ),
}


def download(name: str, *, folder: Path | None = None) -> ImageSet:
    """A published set, from `folder`/NAME (default: the cache folder) or, the first time, from its address.

    Raises `BadInput` for an unknown name, a file of another size or checksum, and where there is no connection.
    """
    source = SOURCES[choose("data set", name, SOURCES)]
    place = (folder or cache_folder()) / name
    files = [_file(name, place / file, source.address + file, *stated) for file, stated in source.files.items()]
    (x, y), (x_test, y_test) = source.read(files)
    labels = np.concatenate([y, y_test])
    is_train = np.arange(len(labels)) < len(y)
    names = source.class_names or tuple(map(str, range(int(labels.max()) + 1)))
    return ImageSet(name, np.concatenate([x, x_test]), labels, is_train, names)


def _file(name: str, path: Path, address: str, size: int, sha256: str) -> bytes:
    if path.exists():
        if path.stat().st_size != size or hashlib.sha256(data := path.read_bytes()).hexdigest() != sha256:
            raise BadInput(f"{path} is not the published file ({size} bytes, SHA-256 {sha256}); remove it to get that")
        return data
    try:
        data = _fetched(address, size)
    except (OSError, HTTPException) as error:
        raise BadInput(f"{name} needs {path}, and {address} cannot be reached ({error}); put the file there") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(f"{address} is not the published file of {name} (its SHA-256 is not {sha256}); nothing was kept")
    write_bytes(path, data)
    return data


def _fetched(address: str, size: int) -> bytes:
    """What an address of https replies, if it is `size` bytes; no more than that is ever read."""
    with build_opener(_Secure).open(address, timeout=SECONDS) as reply:
        stated = reply.headers.get("Content-Length")
        if stated is not None and stated != str(size):
            raise BadInput(f"{address} has {stated} bytes, the published file has {size}; nothing was kept")
        data = bytearray()
        while len(data) <= size and (piece := reply.read(min(PIECE, size + 1 - len(data)))):
            data += piece
    if len(data) != size:
        more = "more than" if len(data) > size else f"{len(data)} of"
        raise BadInput(f"{address} sent {more} the {size} bytes of the published file; nothing was kept")
    return bytes(data)


class _Secure(HTTPRedirectHandler):
    """Follows redirections to https only."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if not newurl.startswith("https://"):
            raise URLError(f"it leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
