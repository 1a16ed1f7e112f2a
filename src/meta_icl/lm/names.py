"""One naming scheme for the weights of all families, and arrays by it from and to checkpoints (`lm.name_tables`).

Ours: `embedding.tokens`, `embedding.positions`, `blocks.3.norm_mixer.scale`, `blocks.3.mixer.w_q`, ...,
`readout.weight` (`AXES` lists all with their axes; matrices multiply rows from the right). A checkpoint's tensor is a
row of a table: its name, the axes in the file, and which of ours it holds, side by side along an axis or interleaved
("part"). Scales of norms that a file keeps as w - 1 are ours as w, in float32 at least.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from meta_icl.errors import BadInput
from meta_icl.lm.name_tables import NAMES, Row
from meta_icl.lm.shapes import Shape

AXES = {
    "embedding.tokens": "v d",
    "embedding.positions": "p d",
    "mixer.w_q": "heads d k",
    "mixer.w_k": "groups d k",
    "mixer.w_v": "groups d k",
    "mixer.w_o": "heads k d",
    "mixer.b_q": "heads k",
    "mixer.b_k": "groups k",
    "mixer.b_v": "groups k",
    "mixer.b_o": "d",
    "mixer.q_norm.scale": "k",  # over each head; "heads k" where a norm goes over all heads together
    "mixer.k_norm.scale": "k",
    "feedforward.w_in": "d f",
    "feedforward.b_in": "f",
    "feedforward.w_gate": "d f",
    "feedforward.w_up": "d f",
    "feedforward.w_out": "f d",
    "feedforward.b_gate": "f",
    "feedforward.b_up": "f",
    "feedforward.b_out": "d",
    "readout.weight": "d v",
}  # any other name is a scale or a bias of a norm, with the axis d


def expected(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all tensors that a checkpoint of this architecture holds."""
    found = {}
    for row in NAMES[shape.family].rows:
        if shape.has(row.when):
            for i in range(shape.n_layers if row.in_blocks else 1):
                found[_stored(row, shape, i)] = _stored_shape(row, shape)
    return found


def from_checkpoint(tensors: Mapping[str, np.ndarray], shape: Shape) -> Iterator[tuple[str, np.ndarray]]:
    """Our names and arrays, one after another, from a checkpoint's; each of its tensors is read once.

    Raises `BadInput` for a tensor that is missing or has another shape.
    """
    for row in NAMES[shape.family].rows:
        if not shape.has(row.when):
            continue
        for i in range(shape.n_layers if row.in_blocks else 1):
            name, wanted = _stored(row, shape, i), _stored_shape(row, shape)
            if name not in tensors:
                raise BadInput(f"the checkpoint has no tensor {name!r}")
            array = np.asarray(tensors[name])
            if array.shape != wanted:
                raise BadInput(f"{name} must be of shape {wanted}, got {array.shape}")
            for ours, part in zip(row.parts, _split(array, row, shape), strict=True):
                yield _ours(row, ours, i), part + part.dtype.type(row.plus) if row.plus else part


def to_checkpoint(arrays: Mapping[str, np.ndarray], shape: Shape) -> Iterator[tuple[str, np.ndarray]]:
    """A checkpoint's names and arrays, one after another, from ours: the inverse of `from_checkpoint`.

    Raises `BadInput` for an array that is missing or has another shape.
    """
    for row in NAMES[shape.family].rows:
        if not shape.has(row.when):
            continue
        for i in range(shape.n_layers if row.in_blocks else 1):
            parts = []
            for ours, axes in zip(row.parts, row.axes, strict=True):
                name = _ours(row, ours, i)
                wanted = tuple(shape.sizes[a] for a in _axes(ours, axes).split())
                if name not in arrays:
                    raise BadInput(f"the network has no array {name!r}")
                array = np.asarray(arrays[name])
                if array.shape != wanted:
                    raise BadInput(f"{name} must be of shape {wanted}, got {array.shape}")
                parts.append(array - array.dtype.type(row.plus) if row.plus else array)
            yield _stored(row, shape, i), _joined(parts, row, shape)


def our_names(shape: Shape) -> Iterator[str]:
    """Our names of all arrays of an architecture."""
    for row in NAMES[shape.family].rows:
        if shape.has(row.when):
            for i in range(shape.n_layers if row.in_blocks else 1):
                yield from (_ours(row, name, i) for name in row.parts)


def _stored(row: Row, shape: Shape, layer: int) -> str:
    return row.stored.replace("{b}", NAMES[shape.family].prefixes[0]).replace("{i}", str(layer))


def _ours(row: Row, name: str, layer: int) -> str:
    return f"blocks.{layer}.{name}" if row.in_blocks else name


def _axes(ours: str, stored: str) -> str:
    """Our axes of a part: those of the file without brackets for norms of q and k, which may go over all heads."""
    return re.sub(r"[()]", "", stored) if ours.endswith(("q_norm.scale", "k_norm.scale")) else AXES.get(ours, "d")


def _groups(axes: str) -> list[list[str]]:
    """The axes of a file, those in brackets together."""
    return [group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", axes)]


def _stored_shape(row: Row, shape: Shape) -> tuple[int, ...]:
    sizes = shape.sizes | {"part": len(row.parts)}
    shapes = [[int(np.prod([sizes[a] for a in group])) for group in _groups(axes)] for axes in row.axes]
    if "part" not in row.axes[0] and len(row.parts) > 1:
        shapes[0][row.join] = sum(s[row.join] for s in shapes)
    return tuple(shapes[0])


def _split(array: np.ndarray, row: Row, shape: Shape) -> Iterator[np.ndarray]:
    """The parts of a checkpoint's tensor with our axes."""
    sizes, start = shape.sizes | {"part": len(row.parts)}, 0
    if row.plus and array.dtype.itemsize < 4:
        array = array.astype(np.float32)
    for i, (ours, axes) in enumerate(zip(row.parts, row.axes, strict=True)):
        flat, part = [a for group in _groups(axes) for a in group], array
        if "part" in flat:
            part = np.take(array.reshape([sizes[a] for a in flat]), i, axis=flat.index("part"))
            flat.remove("part")
        elif len(row.parts) > 1:
            length = int(np.prod([sizes[a] for a in _groups(axes)[row.join]]))
            part = np.take(array, np.arange(start, start + length), axis=row.join)
            start += length
        part = part.reshape([sizes[a] for a in flat])
        yield part.transpose([flat.index(a) for a in _renamed(ours, axes, flat)])


def _joined(parts: list[np.ndarray], row: Row, shape: Shape) -> np.ndarray:
    """A checkpoint's tensor from its parts with our axes."""
    stored = []
    for ours, axes, part in zip(row.parts, row.axes, parts, strict=True):
        flat = [a for group in _groups(axes) for a in group if a != "part"]
        mine = _renamed(ours, axes, flat)
        stored.append(part.transpose([mine.index(a) for a in flat]))
    axes = row.axes[0].replace("(", "").replace(")", "").split()
    if "part" in axes:
        whole = np.stack(stored, axes.index("part"))
        return np.ascontiguousarray(whole.reshape(_stored_shape(row, shape)))
    sizes = shape.sizes
    folded = [
        part.reshape([int(np.prod([sizes[a] for a in group])) for group in _groups(axes)])
        for part, axes in zip(stored, row.axes, strict=True)
    ]
    return np.ascontiguousarray(np.concatenate(folded, row.join) if len(folded) > 1 else folded[0])


def _renamed(ours: str, stored: str, flat: list[str]) -> list[str]:
    """Our axes in the words of the file: interleaved keys and values are counted in heads there."""
    return [a if a in flat else "heads" for a in _axes(ours, stored).split()]
