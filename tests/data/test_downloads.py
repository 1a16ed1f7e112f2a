"""Readers of published files on files made here, checksums, and what happens without a connection."""

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
import urllib.error
import zipfile

import numpy as np
import pytest

from meta_icl.data import downloads
from meta_icl.data.downloads import SOURCES, download, read_cifar, read_idx, read_omniglot, read_svhn
from meta_icl.errors import BadInput

RNG = np.random.default_rng(0)


def idx_file(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Small files in the place of the published ones, with their checksums."""
    x, y = RNG.integers(0, 256, (6, 5, 4)), np.array([3, 1, 4, 1, 5, 9])
    files = [idx_file(part) for part in (x[:4], y[:4], x[4:], y[4:])]
    source = SOURCES["mnist"]
    sums = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in zip(source.files, files, strict=True)}
    monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(source, files=sums))
    return x, y, dict(zip(source.files, files, strict=True))


def test_idx():
    x, y = RNG.integers(0, 256, (3, 2, 5)), np.arange(3)
    (images, labels), _ = read_idx([idx_file(part) for part in (x, y, x, y)])
    np.testing.assert_array_equal(images, x)
    np.testing.assert_array_equal(labels, y)
    with pytest.raises(BadInput, match="00 00 08"):
        read_idx([gzip.compress(b"\0\0\x0d\x01\0\0\0\0")] * 4)


def test_cifar():
    def records(images, labels):
        return b"".join(
            bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(images, labels, strict=True)
        )

    images, labels = RNG.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8), np.arange(6)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        members = {"data_batch_2.bin": slice(2, 4), "readme.html": None, "data_batch_1.bin": slice(0, 2)}
        for name, rows in {**members, "test_batch.bin": slice(4, 6)}.items():
            content = b"text" if rows is None else records(images[rows], labels[rows])
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (x, y), (x_test, y_test) = read_cifar([buffer.getvalue()])
    np.testing.assert_array_equal(x, images[:4])
    np.testing.assert_array_equal(y, labels[:4])
    np.testing.assert_array_equal(x_test, images[4:])
    np.testing.assert_array_equal(y_test, labels[4:])


def test_svhn():
    from scipy.io import savemat

    images, labels = RNG.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8), np.array([[1], [10], [9]], np.uint8)
    buffer = io.BytesIO()
    savemat(buffer, {"X": np.moveaxis(images, 0, -1), "y": labels})
    (x, y), _ = read_svhn([buffer.getvalue()] * 2)
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, [1, 0, 9])


def test_omniglot():
    from PIL import Image

    def archive(root, folders):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for i, folder in enumerate(folders):
                for k in range(2):
                    paper = np.full((6, 6), 255, np.uint8)
                    paper[i, k] = 0  # ink
                    png = io.BytesIO()
                    Image.fromarray(paper).convert("1").save(png, "PNG")
                    file.writestr(f"{root}/{folder}/{i:04}_{k}.png", png.getvalue())
        return buffer.getvalue()

    greek, latin = ["Greek/character01", "Greek/character02"], ["Latin/character01"]
    (x, y), (x_test, y_test) = read_omniglot([archive("images_background", greek), archive("images_evaluation", latin)])
    np.testing.assert_array_equal(y, [0, 0, 1, 1])
    np.testing.assert_array_equal(y_test, [2, 2])
    assert x.sum((1, 2)).tolist() == [255] * 4
    assert x[3, 1, 1] == 255
    assert x_test[1, 0, 1] == 255


class Reply(io.BytesIO):
    """What a server answers, with the length that it states; counts the bytes that were read."""

    def __init__(self, data, length=None):
        super().__init__(data)
        self.headers = {} if length is None else {"Content-Length": str(length)}
        self.taken = 0

    def read(self, size=-1):
        piece = super().read(size)
        self.taken += len(piece)
        return piece


def answer(monkeypatch, reply):
    """Has every request answered by `reply(address)`."""

    class Opener:
        def open(self, address, timeout):
            assert address.startswith("https://") and timeout > 0
            return reply(address)

    monkeypatch.setattr(downloads, "build_opener", lambda *handlers: Opener())


def test_a_set_is_downloaded_once(mnist, tmp_path, monkeypatch):
    x, y, files = mnist
    asked = []

    def reply(address):
        asked.append(address)
        data = files[address.rpartition("/")[2]]
        return Reply(data, len(data) if len(asked) % 2 else None)

    answer(monkeypatch, reply)
    for _ in range(2):
        found = download("mnist", folder=tmp_path)
        np.testing.assert_array_equal(found.images, x)
        np.testing.assert_array_equal(found.labels, y)
        np.testing.assert_array_equal(found.rows("test"), [4, 5])
    assert len(asked) == 4


def test_another_file_is_refused(mnist, tmp_path, monkeypatch):
    name, data = next(iter(mnist[2].items()))
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    replies = [Reply(wrong), Reply(data + b"x" * 10**6), Reply(data, 10**12), Reply(data[:-3])]
    messages = ("SHA-256", "more than the", "has 1000000000000 bytes", f"sent {len(data) - 3} of the")
    for reply, message in zip(replies, messages, strict=True):
        answer(monkeypatch, lambda address, reply=reply: reply)
        with pytest.raises(BadInput, match=rf"{message}.*nothing was kept"):
            download("mnist", folder=tmp_path)
    assert [reply.taken for reply in replies] == [len(data), len(data) + 1, 0, len(data) - 3]  # never without an end
    assert not (tmp_path / "mnist").exists()
    (tmp_path / "mnist").mkdir()
    for damaged in (wrong, b"short"):
        (tmp_path / "mnist" / name).write_bytes(damaged)
        with pytest.raises(BadInput, match="remove it"):
            download("mnist", folder=tmp_path)


def test_https_only(mnist):
    source = SOURCES["mnist"]
    with pytest.raises(BadInput, match="https"):
        dataclasses.replace(source, address=source.address.replace("https", "http"))
    with pytest.raises(BadInput, match="SHA-256"):
        dataclasses.replace(source, files={"a": (3, "0" * 32)})  # an MD5 sum
    follow = downloads._Secure().redirect_request
    request = downloads.Request("https://example.org/a")
    assert follow(request, io.BytesIO(), 302, "Found", {}, "https://example.org/b").full_url == "https://example.org/b"
    with pytest.raises(urllib.error.URLError, match="not https"):
        follow(request, io.BytesIO(), 302, "Found", {}, "http://example.org/b")


def test_without_a_connection_one_line_says_what_to_do(tmp_path, monkeypatch):
    def reply(address):
        raise urllib.error.URLError("no route to host")

    answer(monkeypatch, reply)
    with pytest.raises(
        BadInput, match=r"^svhn needs .*train_32x32.mat, and http.*no route to host.*put the file there$"
    ):
        download("svhn", folder=tmp_path)
    with pytest.raises(BadInput, match="fashion_mnist"):
        download("fashion", folder=tmp_path)
