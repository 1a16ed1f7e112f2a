"""The names of weights in the checkpoints of every family, as tables, and one naming scheme for all of them.

Ours: `embedding.tokens`, `embedding.positions`, `blocks.3.norm_mixer.scale`, `blocks.3.mixer.w_q`, ...,
`readout.weight` (`AXES` lists all with their axes; matrices multiply rows from the right). A checkpoint's tensor is a
row of a table: its name, the axes in the file, and which of ours it holds, side by side along an axis or interleaved
("part"). Scales of norms that a file keeps as w - 1 are ours as w, in float32 at least.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from meta_icl.errors import BadInput
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


@dataclass(frozen=True)
class Row:
    """A tensor of a checkpoint; "{i}" stands for the layer and "{b}" for what stands before the body's names."""

    stored: str
    parts: tuple[str, ...]  # our names without "blocks.{i}."
    axes: tuple[str, ...]  # in the file, one per part; "(heads k)" is one axis; an axis "part" interleaves the parts
    join: int = 0  # the axis along which parts follow one another
    plus: float = 0.0  # ours minus the file's
    when: str = ""  # the part of a `Shape` without which there is no such tensor

    @property
    def in_blocks(self) -> bool:
        """Whether every layer has such a tensor."""
        return "{i}" in self.stored


class Names(NamedTuple):
    """The table of a family, what may stand before the body's names in a file, and buffers that are no weights."""

    rows: tuple[Row, ...]
    prefixes: tuple[str, ...]
    buffers: str = r"rotary_emb\.inv_freq$"


def _row(stored: str, part: str, axes: str, **more) -> Row:
    return Row(stored, (part,), (axes,), **more)


def _norm(stored: str, part: str, *, bias: bool = False, **more) -> tuple[Row, ...]:
    scale = _row(f"{stored}.weight", f"{part}.scale", "d", **more)
    return (scale, _row(f"{stored}.bias", f"{part}.bias", "d")) if bias else (scale,)


def _attention(
    *, fused: bool = False, biases: bool = True, norms: tuple[str, str] | None = None, plus: float = 0.0
) -> tuple[Row, ...]:
    """Projections of the Llama style: matrices "out in", separate, or q, k and v one below the other."""
    layer = "{b}layers.{i}.self_attn"
    axes = {"q": "(heads k)", "k": "(groups k)", "v": "(groups k)"}
    if fused:
        parts = tuple(f"mixer.w_{m}" for m in axes)
        rows = [Row(f"{layer}.qkv_proj.weight", parts, tuple(f"{a} d" for a in axes.values()))]
    else:
        rows = [_row(f"{layer}.{m}_proj.weight", f"mixer.w_{m}", f"{a} d") for m, a in axes.items()]
    if biases:
        rows += [_row(f"{layer}.{m}_proj.bias", f"mixer.b_{m}", a, when="qkv_bias") for m, a in axes.items()]
        rows += [_row(f"{layer}.o_proj.bias", "mixer.b_o", "d", when="o_bias")]
    rows += [_row(f"{layer}.o_proj.weight", "mixer.w_o", "d (heads k)")]
    for m, a in zip("qk", norms or (), strict=False):
        rows.append(_row(f"{layer}.{m}_norm.weight", f"mixer.{m}_norm.scale", a, plus=plus, when="qk_norm"))
    return tuple(rows)


def _gated(*, fused: bool = False, biases: bool = False) -> tuple[Row, ...]:
    layer = "{b}layers.{i}.mlp"
    down = _row(f"{layer}.down_proj.weight", "feedforward.w_out", "d f")
    if fused:
        gate_up = ("feedforward.w_gate", "feedforward.w_up")
        return (Row(f"{layer}.gate_up_proj.weight", gate_up, ("f d", "f d")), down)
    rows = [down, *(_row(f"{layer}.{m}_proj.weight", f"feedforward.w_{m}", "f d") for m in ("gate", "up"))]
    if biases:
        ours = {"gate": "f", "up": "f", "down": "d"}
        rows += [
            _row(f"{layer}.{m}_proj.bias", f"feedforward.b_{'out' if m == 'down' else m}", a, when="feedforward_bias")
            for m, a in ours.items()
        ]
    return tuple(rows)


def _ends(final: str, readout: str, embedding: str, *, plus: float = 0.0, bias: bool = False) -> tuple[Row, ...]:
    return (
        _row(embedding, "embedding.tokens", "v d"),
        *_norm(final, "final_norm", bias=bias, plus=plus),
        _row(readout, "readout.weight", "v d", when="untied"),
    )


BODY = "{b}layers.{i}."
ENDS = _ends("{b}norm", "lm_head.weight", "{b}embed_tokens.weight")
PRE = (
    *_norm(f"{BODY}input_layernorm", "norm_mixer"),
    *_norm(f"{BODY}post_attention_layernorm", "norm_feedforward"),
)
LLAMA = Names((*ENDS, *PRE, *_attention(), *_gated(biases=True)), ("model.", ""))
PER_HEAD, PER_WIDTH = ("k", "k"), ("(heads k)", "(groups k)")


def _gemma(prefixes: tuple[str, ...], norms: tuple[str, str] | None) -> Names:
    """Norms before and after each branch, all scales as w - 1."""
    around = {
        "input": "norm_mixer",
        "post_attention": "post_norm_mixer",
        "pre_feedforward": "norm_feedforward",
        "post_feedforward": "post_norm_feedforward",
    }
    rows = [row for theirs, ours in around.items() for row in _norm(f"{BODY}{theirs}_layernorm", ours, plus=1.0)]
    ends = _ends("{b}norm", "lm_head.weight", "{b}embed_tokens.weight", plus=1.0)
    return Names((*ends, *rows, *_attention(norms=norms, plus=1.0), *_gated()), prefixes)


def _gpt2() -> Names:
    """Matrices are "in out"; q, k and v stand beside one another."""
    qkv = {f"mixer.{{}}_{m}": axis for m, axis in zip("qkv", ("(heads k)", "(groups k)", "(groups k)"), strict=True)}
    layer = "{b}h.{i}."
    return Names(
        (
            *_ends("{b}ln_f", "lm_head.weight", "{b}wte.weight", bias=True),
            _row("{b}wpe.weight", "embedding.positions", "p d"),
            *_norm(f"{layer}ln_1", "norm_mixer", bias=True),
            *_norm(f"{layer}ln_2", "norm_feedforward", bias=True),
            Row(f"{layer}attn.c_attn.weight", tuple(m.format("w") for m in qkv),
                tuple(f"d {axis}" for axis in qkv.values()), join=1),
            Row(f"{layer}attn.c_attn.bias", tuple(m.format("b") for m in qkv), tuple(qkv.values())),
            _row(f"{layer}attn.c_proj.weight", "mixer.w_o", "(heads k) d"),
            _row(f"{layer}attn.c_proj.bias", "mixer.b_o", "d"),
            _row(f"{layer}mlp.c_fc.weight", "feedforward.w_in", "d f"),
            _row(f"{layer}mlp.c_fc.bias", "feedforward.b_in", "f"),
            _row(f"{layer}mlp.c_proj.weight", "feedforward.w_out", "f d"),
            _row(f"{layer}mlp.c_proj.bias", "feedforward.b_out", "d"),
        ),
        ("transformer.", "", "_backbone."),
        r"\.attn\.(bias|masked_bias)$",
    )  # fmt: skip


def _neox() -> Names:
    """q, k and v of each head one below the other, heads in turn."""
    ours = tuple(f"mixer.{{}}_{m}" for m in "qkv")
    return Names(
        (
            *_ends("{b}final_layer_norm", "embed_out.weight", "{b}embed_in.weight", bias=True),
            *_norm(f"{BODY}input_layernorm", "norm_mixer", bias=True),
            *_norm(f"{BODY}post_attention_layernorm", "norm_feedforward", bias=True),
            Row(f"{BODY}attention.query_key_value.weight", tuple(m.format("w") for m in ours),
                ("(heads part k) d",) * 3),
            Row(f"{BODY}attention.query_key_value.bias", tuple(m.format("b") for m in ours),
                ("(heads part k)",) * 3, when="qkv_bias"),
            _row(f"{BODY}attention.dense.weight", "mixer.w_o", "d (heads k)"),
            _row(f"{BODY}attention.dense.bias", "mixer.b_o", "d", when="o_bias"),
            _row(f"{BODY}mlp.dense_h_to_4h.weight", "feedforward.w_in", "f d"),
            _row(f"{BODY}mlp.dense_h_to_4h.bias", "feedforward.b_in", "f"),
            _row(f"{BODY}mlp.dense_4h_to_h.weight", "feedforward.w_out", "d f"),
            _row(f"{BODY}mlp.dense_4h_to_h.bias", "feedforward.b_out", "d"),
        ),
        ("gpt_neox.", ""),
        r"(\.attention\.(bias|masked_bias)|rotary_emb\.inv_freq)$",
    )  # fmt: skip


NAMES = {
    "gpt2": _gpt2(),
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "smollm3": LLAMA,
    "qwen3": Names((*ENDS, *PRE, *_attention(norms=PER_HEAD), *_gated()), ("model.", "")),
    "gemma2": _gemma(("model.", ""), None),
    "gemma3_text": _gemma(
        ("model.", "language_model.model.", "model.language_model.", "language_model.", ""), PER_HEAD
    ),
    "gpt_neox": _neox(),
    "olmo2": Names(
        (
            *ENDS,
            *_norm(f"{BODY}post_attention_layernorm", "post_norm_mixer"),
            *_norm(f"{BODY}post_feedforward_layernorm", "post_norm_feedforward"),
            *_attention(norms=PER_WIDTH),
            *_gated(),
        ),
        ("model.", ""),
    ),
    "phi3": Names((*ENDS, *PRE, *_attention(fused=True, biases=False), *_gated(fused=True)), ("model.", "")),
}


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
