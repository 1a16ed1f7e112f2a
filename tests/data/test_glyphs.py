"""Characters from fonts: many classes, deterministic, and kept in a file that is checked."""

import numpy as np
import pytest

from meta_icl.data import characters, draw_glyphs, font_glyphs
from meta_icl.data.cache import kept_arrays
from meta_icl.data.glyphs import FACES, MIN_FACES, _codes
from meta_icl.errors import BadInput


@pytest.fixture(scope="module")
def known():
    return characters()


def test_there_are_as_many_classes_as_in_omniglot(known):
    assert len(known) >= 1623
    assert len(set(known)) == len(known)
    assert known[:3] == ("A", "B", "C")
    for character in known[::100]:
        assert sum(ord(character) in _codes(face) for face in FACES) >= MIN_FACES


def test_look_alikes_are_left_out(known):
    """Cyrillic and Greek capitals with the outlines of Latin ones."""
    assert not {"А", "Α", "В", "Ε"} & set(known)


def test_a_drawing_depends_on_its_character_and_number_only():
    both = draw_glyphs(["Q", "ж"], side=12, per_class=5)
    alone = draw_glyphs(["ж"], side=12, per_class=3)
    np.testing.assert_array_equal(both[1, :3], alone[0])
    assert (both[0, 0] != both[0, 1]).any()


def test_plain_drawings_are_centred_and_fill_the_image():
    (drawn,) = draw_glyphs(["H"], side=40, per_class=1, jitter=0)[0]
    rows, columns = (np.flatnonzero(drawn.max(axis) > 100) for axis in (1, 0))
    assert abs(rows.mean() - 19.5) <= 0.5
    assert abs(columns.mean() - 19.5) <= 0.5
    assert abs(len(rows) - 0.72 * 40) <= 1
    upper = draw_glyphs(["L"], side=40, per_class=1, jitter=0)[0, 0]
    assert upper[24:].sum() > upper[:16].sum()  # row 0 is the top


def test_classes_can_be_told_apart_across_faces():
    """Nearest neighbour from six drawings to six others of 40 letters; chance is 1 / 40."""
    drawn = draw_glyphs(characters()[:40], side=14, per_class=12).reshape(40, 12, -1).astype(float)
    drawn -= drawn.mean(-1, keepdims=True)
    known, asked = drawn[:, :6].reshape(240, -1), drawn[:, 6:].reshape(240, -1)
    distances = ((asked[:, None] - known[None]) ** 2).sum(-1)
    right = np.argmin(distances, 1) // 6 == np.arange(240) // 6
    assert right.mean() > 0.4


def test_the_set_is_kept_and_a_damaged_file_is_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setattr("meta_icl.data.glyphs.characters", lambda: ("A", "ж", "→"))
    first = font_glyphs(side=10, per_class=4, n_test=1, folder=tmp_path)
    assert first.images.shape == (12, 10, 10)
    assert first.class_names == ("A", "ж", "→")
    np.testing.assert_array_equal(first.is_train, [True, True, True, False] * 3)
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr("meta_icl.data.glyphs.draw_glyphs", None)  # a second call reads the file
    np.testing.assert_array_equal(font_glyphs(side=10, per_class=4, n_test=1, folder=tmp_path).images, first.images)
    monkeypatch.undo()
    monkeypatch.setattr("meta_icl.data.glyphs.characters", lambda: ("A", "ж", "→"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert kept_arrays(path) is None
    np.testing.assert_array_equal(font_glyphs(side=10, per_class=4, n_test=1, folder=tmp_path).images, first.images)
    assert kept_arrays(path) is not None


def test_bad_sizes_are_refused(tmp_path):
    for wrong in ({"side": 3}, {"n_test": 0}, {"per_class": 5, "n_test": 5}):
        with pytest.raises(BadInput):
            font_glyphs(folder=tmp_path, **wrong)
