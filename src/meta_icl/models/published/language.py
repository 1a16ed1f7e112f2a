"""Language models: the families whose checkpoints are read, and the small ones in which induction heads form."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from meta_icl.errors import require
from meta_icl.models.block import Block
from meta_icl.models.embeddings import Tokens
from meta_icl.models.feedforward import Dense, Gated
from meta_icl.models.initialisation import GPT2, Init
from meta_icl.models.mixers.attention import Attention
from meta_icl.models.network import Architecture
from meta_icl.models.norms import Norm
from meta_icl.models.positions import Learned, Rotary
from meta_icl.models.published.classifiers import attention_block
from meta_icl.models.published.regression import gpt2_block
from meta_icl.models.readouts import Linear, Tied

__all__ = ["gemma2", "gemma3", "gpt2", "llama", "mistral", "neox", "olmo2", "olsson", "qwen2", "qwen3"]


def gpt2(
    n_tokens: int = 50_257,
    d_model: int = 768,
    n_layers: int = 12,
    n_heads: int = 12,
    n_positions: int = 1024,
    d_ff: int | None = None,
    activation: str = "gelu",
    eps: float = 1e-5,
    tied: bool = True,
    init_std: float = 0.02,
) -> Architecture:
    """Pre-norm blocks with biases, learned positions and a tied read-out (Radford et al., 2019)."""
    norm, block = Norm(eps=eps), gpt2_block(d_model, n_layers, n_heads, init_std, d_ff=d_ff)
    half = replace(block.feed_forward, activation=activation)
    return Architecture(
        d_model,
        n_layers,
        Block(block.mixer, half, norm),
        Tokens(n_tokens, Init(std=init_std)),
        Learned(n_positions, Init(std=init_std)),
        norm,
        _readout(n_tokens, tied),
    )


def llama(
    n_tokens: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    d_ff: int,
    n_groups: int | None = None,
    d_head: int | None = None,
    rotary: Rotary | None = Rotary(),
    eps: float = 1e-6,
    activation: str = "silu",
    tied: bool = False,
    without_rotary: Sequence[int] = (),
    windows: Sequence[int | None] | None = None,
    **attention: Any,
) -> Architecture:
    """RMS norms before rotary grouped attention and a gated MLP, no biases (Touvron et al., 2023).

    `without_rotary` are layers without positions (SmolLM3), `windows` one window per layer; `attention` holds further
    fields of `Attention`.
    """

    require(windows is None or len(windows) == n_layers, "windows", windows, f"one for each of {n_layers} layers")

    def block(index: int) -> Block:
        fields = attention if windows is None else {**attention, "window": windows[index]}
        return Block(
            Attention(
                n_heads,
                d_head,
                n_groups,
                rotary=None if index in without_rotary else rotary,
                init=GPT2,
                **fields,
            ),
            Gated(d_ff, activation, init=GPT2),
            Norm("rms", eps),
        )

    return _language(n_tokens, d_model, [block(i) for i in range(n_layers)], Norm("rms", eps), tied)


def mistral(*sizes: Any, window: int | None = 4096, **fields: Any) -> Architecture:
    """The network of `llama` whose attention sees the last `window` tokens (Jiang et al., 2023)."""
    return llama(*sizes, **fields, **({} if window is None else {"window": window}))


def qwen2(*sizes: Any, **fields: Any) -> Architecture:
    """The network of `llama` with biases of queries, keys and values (Yang et al., 2024)."""
    return llama(*sizes, **{"biases": True, **fields})


def qwen3(*sizes: Any, eps: float = 1e-6, **fields: Any) -> Architecture:
    """The network of `llama` with RMS norms on the queries and keys of every head (Yang et al., 2025)."""
    return llama(*sizes, eps=eps, qk_norm=Norm("rms", eps), **fields)


def gemma2(
    n_tokens: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    d_ff: int,
    n_groups: int | None = None,
    d_head: int = 256,
    window: int = 4096,
    query_scale: float | None = None,
    eps: float = 1e-6,
    softcap: float | None = 50.0,
    final_softcap: float | None = 30.0,
    rotary: Rotary = Rotary(),
) -> Architecture:
    """A sandwich of RMS norms, every other layer with a window, scores and logits capped (Gemma Team, 2024).

    Embeddings are scaled by sqrt(d_model); `query_scale` s gives scores q.k / sqrt(s), by default s = d_head.
    """

    kinds = [{"window": window}, {}]
    layers = [{"rotary": rotary, "softcap": softcap, **kinds[index % 2]} for index in range(n_layers)]
    return _gemma(n_tokens, d_model, n_heads, d_ff, n_groups, d_head, query_scale, eps, layers, final_softcap)


def gemma3(
    n_tokens: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    d_ff: int,
    n_groups: int | None = None,
    d_head: int = 256,
    window: int = 512,
    query_scale: float | None = None,
    eps: float = 1e-6,
    local_rotary: Rotary = Rotary(),
    global_rotary: Rotary = Rotary(1e6),
    global_every: int = 6,
) -> Architecture:
    """The sandwich of `gemma2` with norms on queries and keys in place of caps, five local layers to each global one.

    Local layers have a window and rotary positions of base 10,000, global ones of base 1,000,000 (Gemma Team, 2025).
    """

    local = {"window": window, "rotary": local_rotary, "qk_norm": Norm("rms", eps)}
    far = {"rotary": global_rotary, "qk_norm": Norm("rms", eps)}
    layers = [far if (index + 1) % global_every == 0 else local for index in range(n_layers)]
    return _gemma(n_tokens, d_model, n_heads, d_ff, n_groups, d_head, query_scale, eps, layers)


def neox(
    n_tokens: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    d_ff: int,
    rotary: Rotary = Rotary(fraction=0.25),
    eps: float = 1e-5,
    activation: str = "gelu_exact",
    parallel: bool = True,
    tied: bool = False,
) -> Architecture:
    """LayerNorms with biases, attention and MLP side by side, a quarter of the channels rotary (Black et al., 2022)."""
    attention = Attention(n_heads, rotary=rotary, biases=True, bias_out=True, init=GPT2)
    half = Dense(d_ff, activation, init=GPT2)
    block = Block(attention, half, Norm(eps=eps), skip="parallel" if parallel else "residual")
    return _language(n_tokens, d_model, [block] * n_layers, Norm(eps=eps), tied)


def olmo2(
    n_tokens: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    d_ff: int,
    n_groups: int | None = None,
    rotary: Rotary = Rotary(5e5),
    eps: float = 1e-6,
    tied: bool = False,
) -> Architecture:
    """RMS norms behind each branch, and on all queries and keys together (OLMo Team, 2024)."""
    norm = Norm("rms", eps)
    attention = Attention(n_heads, n_groups=n_groups, rotary=rotary, qk_norm=norm, qk_norm_whole=True, init=GPT2)
    block = Block(attention, Gated(d_ff, init=GPT2), norm, "branch")
    return _language(n_tokens, d_model, [block] * n_layers, norm, tied)


def olsson(
    n_tokens: int,
    n_positions: int,
    d_model: int = 128,
    n_layers: int = 2,
    n_heads: int = 1,
    embed_std: float = 0.1,
    rotary: bool = False,
    smeared: bool = False,
    d_mlp: int | None = None,
) -> Architecture:
    """Pre-norm attention alone with a read-out of its own: the smallest with induction heads (Olsson et al., 2022).

    Positions are learned unless `rotary`; `smeared` keys let one layer do what takes two.
    """
    block = attention_block(d_model, n_heads, True, True, "pre", d_mlp=d_mlp, rotary=rotary, smeared=smeared)
    return Architecture(
        d_model,
        n_layers,
        block,
        Tokens(n_tokens, Init(std=embed_std)),
        None if rotary else Learned(n_positions, Init(std=embed_std)),
        Norm(),
        Linear(n_tokens),
    )


def _gemma(
    n_tokens: int,
    d_model: int,
    n_heads: int,
    d_ff: int,
    n_groups: int | None,
    d_head: int,
    query_scale: float | None,
    eps: float,
    layers: Sequence[dict[str, Any]],
    final_softcap: float | None = None,
) -> Architecture:
    """Sandwiched blocks on embeddings times sqrt(d_model); `layers` holds the further fields of each attention."""
    norm, scale = Norm("rms", eps), 1 / math.sqrt(query_scale or d_head)
    blocks = [
        Block(
            Attention(n_heads, d_head, n_groups, scale=scale, init=GPT2, **fields),
            Gated(d_ff, "gelu", init=GPT2),
            norm,
            "sandwich",
        )
        for fields in layers
    ]
    return _language(n_tokens, d_model, blocks, norm, True, math.sqrt(d_model), final_softcap)


def _readout(n_tokens: int, tied: bool, softcap: float | None = None) -> Any:
    return Tied(softcap) if tied else Linear(n_tokens, init=GPT2, softcap=softcap)


def _language(
    n_tokens: int,
    d_model: int,
    blocks: Sequence[Block],
    final_norm: Norm,
    tied: bool,
    scale: float | None = None,
    softcap: float | None = None,
) -> Architecture:
    """Blocks between a table of tokens and logits; the shortest round that gives these blocks in turn."""
    n = len(blocks)
    period = next(p for p in range(1, n + 1) if all(blocks[i] == blocks[i % p] for i in range(n)))
    return Architecture(
        d_model,
        n,
        tuple(blocks[:period]),
        Tokens(n_tokens, GPT2, scale),
        final_norm=final_norm,
        readout=_readout(n_tokens, tied, softcap),
    )
