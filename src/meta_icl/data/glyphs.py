"""Characters drawn from the fonts that ship with matplotlib: over 1,600 classes without any download.

A stand-in for Omniglot, 1,623 characters drawn 20 times each. Every character that has at least `MIN_FACES` faces
among DejaVu and STIX (sans, serif, mono; upright, slanted, bold) is drawn in them in turn. An outline is centred,
scaled to fit, then turned, sheared, stretched and moved a little, all at random but fixed: drawing k of a character
depends on the character and k only. Characters that look like an earlier one (Latin A and Greek Alpha) are left out.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from meta_icl.data.cache import cache_folder, keep_arrays, kept_arrays
from meta_icl.data.images import ImageSet
from meta_icl.errors import require

FACES = (
    "DejaVuSans", "DejaVuSerif", "STIXGeneral", "DejaVuSansMono", "DejaVuSans-Oblique", "DejaVuSerif-Bold",
    "STIXGeneralItalic", "DejaVuSans-Bold", "DejaVuSerif-Italic", "STIXGeneralBol", "DejaVuSansMono-Oblique",
    "DejaVuSans-BoldOblique", "DejaVuSerif-BoldItalic", "DejaVuSansMono-Bold", "STIXGeneralBolIta",
    "DejaVuSansMono-BoldOblique",
)  # fmt: skip
MIN_FACES = 6
FILL = 0.72  # the longer side of an outline, as a share of the image, before it is distorted
TURN, SHEAR, STRETCH, MOVE = np.deg2rad(10), 0.15, 0.12, 0.05  # bounds of uniform distortions
ALIKE = 0.12  # |a - b|^2 / (|a| |b|) of two plain drawings, below which the later one is left out
VERSION = 1  # of the drawings; part of the name of the cached file


def font_glyphs(*, side: int = 28, per_class: int = 20, n_test: int = 5, folder: Path | None = None) -> ImageSet:
    """All characters, `per_class` drawings of side x side pixels each; the last `n_test` drawings are the test part.

    Drawn once (half a minute) and kept in `folder` (default: the cache folder). Whole numbers 0 .. 255, white on black.
    """
    require(side >= 4, "side", side, "at least 4")
    require(0 < n_test < per_class, "n_test", n_test, f"from 1 to per_class - 1 = {per_class - 1}")
    import matplotlib

    name = f"glyphs-v{VERSION}-{side}px-{per_class}-matplotlib{matplotlib.__version__}.npz"
    path = (folder or cache_folder()) / name
    kept = kept_arrays(path)
    if kept is None:
        chosen = characters()
        kept = {"images": draw_glyphs(chosen, side=side, per_class=per_class), "codes": np.array([*map(ord, chosen)])}
        keep_arrays(path, kept)
    n = len(kept["codes"])
    images = kept["images"].reshape(-1, side, side)
    is_train = np.tile(np.arange(per_class) < per_class - n_test, n)
    names = tuple(chr(code) for code in kept["codes"])
    return ImageSet("glyphs", images, np.repeat(np.arange(n), per_class), is_train, names)


def draw_glyphs(
    characters: Sequence[str], *, side: int = 28, per_class: int = 20, jitter: float = 1.0
) -> UInt8[np.ndarray, "classes drawings side side"]:
    """Drawings of the given characters, antialiased; `jitter` scales the distortions, 0 leaves plain ones."""
    pen = _Pen(side)
    out = np.zeros((len(characters), per_class, side, side), np.uint8)
    for i, character in enumerate(characters):
        faces = [face for face in FACES if ord(character) in _codes(face)]
        require(len(faces) > 0, "character", character, "in one of the fonts")
        for k in range(per_class):
            distortion = jitter * np.random.default_rng((ord(character), k)).uniform(-1, 1, 6)
            out[i, k] = pen.draw(faces[k % len(faces)], ord(character), distortion)
    return out


@lru_cache(maxsize=1)
def characters() -> tuple[str, ...]:
    """The characters drawn, letters first: those in enough faces, of one kind of stroke each, that look different."""
    counts: dict[int, int] = {}
    for face in FACES:
        for code in _codes(face):
            counts[code] = counts.get(code, 0) + 1
    kinds = {code: unicodedata.category(chr(code)) for code, n in counts.items() if n >= MIN_FACES and code < 0x10000}
    usable = [
        code
        for code, kind in kinds.items()
        # No accented letters, spaces, marks; no Braille, whose dots lose their places when an outline is scaled to fit.
        if kind[0] in "LNSP" and not unicodedata.decomposition(chr(code)) and not 0x2800 <= code < 0x2900
    ]
    usable.sort(key=lambda code: ("LNPS".index(kinds[code][0]), code))
    plain = draw_glyphs([chr(code) for code in usable], side=20, per_class=1, jitter=0)
    vectors = plain.reshape(len(usable), -1).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    alike = vectors @ vectors.T > 1 - ALIKE / 2
    kept: list[int] = []
    for i, vector in enumerate(vectors):
        if vector.any() and not alike[i, kept].any():
            kept.append(i)
    return tuple(chr(usable[i]) for i in kept)


class _Pen:
    """Draws outlines into images of one size; what it needs of matplotlib is imported here, when something is drawn."""

    def __init__(self, side: int):
        from matplotlib.backends.backend_agg import RendererAgg

        self.side = side
        self.canvas = RendererAgg(side, side, 72)
        self.context = self.canvas.new_gc()
        self.context.set_linewidth(0)

    def draw(self, face: str, code: int, distortion: np.ndarray) -> np.ndarray:
        """The coverage of every pixel, 0 .. 255; `distortion` is turn, shear, two stretches, two moves in -1 .. 1."""
        from matplotlib.transforms import Affine2D

        path, centre, extent = _outline(face, code)
        if extent == 0:
            return np.zeros((self.side, self.side), np.uint8)
        turn, shear, wide, high, right, up = distortion
        cos, sin = np.cos(TURN * turn), np.sin(TURN * turn)
        stretched = FILL * self.side / extent * np.diag([1 + STRETCH * wide, 1 + STRETCH * high])
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, SHEAR * shear], [0, 1]]) @ stretched
        place = np.eye(3)
        place[:2, :2] = linear
        place[:2, 2] = self.side * (0.5 + MOVE * np.array([right, up])) - linear @ centre
        self.canvas.clear()
        self.canvas.draw_path(self.context, path, Affine2D(place), (0.0, 0.0, 0.0, 1.0))
        return np.asarray(self.canvas.buffer_rgba())[:, :, 3].copy()


@lru_cache(maxsize=len(FACES))
def _font(face: str) -> Any:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"))
    font.set_size(64, 72)
    return font


@lru_cache(maxsize=len(FACES))
def _codes(face: str) -> frozenset[int]:
    return frozenset(_font(face).get_charmap())


@lru_cache(maxsize=64)
def _outline(face: str, code: int) -> tuple[Any, np.ndarray, float]:
    """The outline of a character in a face, its centre, and the longer side of the box around it."""
    from matplotlib.ft2font import LoadFlags
    from matplotlib.path import Path as Outline

    font = _font(face)
    font.load_char(code, flags=LoadFlags.NO_HINTING)
    vertices, kinds = font.get_path()
    if len(vertices) == 0:
        return None, np.zeros(2), 0.0
    points = vertices[np.asarray(kinds) != Outline.CLOSEPOLY]  # control points, between which the curves stay
    low, high = points.min(0), points.max(0)
    return Outline(vertices, kinds), (low + high) / 2, float((high - low).max())
