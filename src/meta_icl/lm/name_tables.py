"""Tables of the names of weights in the checkpoints of every family; `lm.names` reads and writes by them."""

from dataclasses import dataclass
from typing import NamedTuple


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
