"""Configurations in Hugging Face's form (`config.json`) as a `Shape`: understood wholly, or refused by a line."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from meta_icl.errors import BadInput, choose, require
from meta_icl.lm.configuration_keys import Keys, positive, unread
from meta_icl.lm.shapes import Rotary, Shape

ACTIVATIONS = {
    "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu", "gelu": "gelu_exact",
    "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What holds for all models of a `model_type`; a text in place of a flag names the key that says it."""

    norm: str = "rms"
    eps: tuple[str, float] = ("rms_norm_eps", 1e-6)
    placement: str = "pre"
    gated: bool = True
    activation: tuple[tuple[str, ...], str | None] = (("hidden_act",), "silu")
    qkv_bias: bool | str = False
    o_bias: bool | str = False
    feedforward_bias: bool | str = False
    qk_norm: str = "none"
    tied: bool = False
    grouped: bool = True
    d_head: int | None = None
    rope_base: float | None = 10_000.0  # None: learned positions
    rotary_fraction: float | None = None  # None: heads turn as a whole
    windows: str = "none"
    window: int | None = 4096  # where the configuration states none
    gemma: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)  # own names of the common keys


GPT2_KEYS = {
    "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "hidden_size": "n_embd",
    "intermediate_size": "n_inner", "max_position_embeddings": "n_positions",
}  # fmt: skip
GEMMA = Family(
    placement="sandwich",
    activation=(("hidden_activation", "hidden_act"), "gelu_pytorch_tanh"),
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    tied=True,
    d_head=256,
    windows="alternate",
    gemma=True,
)
FAMILIES = {
    "gpt2": Family(
        norm="layer", eps=("layer_norm_epsilon", 1e-5), gated=False, activation=(("activation_function",), "gelu_new"),
        qkv_bias=True, o_bias=True, feedforward_bias=True, tied=True, grouped=False, rope_base=None, keys=GPT2_KEYS,
    ),
    "llama": Family(qkv_bias="attention_bias", o_bias="attention_bias", feedforward_bias="mlp_bias"),
    "mistral": Family(windows="all"),
    "qwen2": Family(qkv_bias=True, windows="late"),
    "qwen3": Family(
        qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="head", d_head=128, windows="late",
    ),
    "gemma2": GEMMA,
    "gemma3_text": replace(GEMMA, qk_norm="head", rope_base=1e6, windows="gemma3"),
    "gpt_neox": Family(
        norm="layer", eps=("layer_norm_eps", 1e-5), gated=False, activation=(("hidden_act",), "gelu"),
        qkv_bias="attention_bias", o_bias="attention_bias", feedforward_bias=True, grouped=False, rotary_fraction=0.25,
    ),
    "olmo2": Family(
        eps=("rms_norm_eps", 1e-5), placement="branch", qkv_bias="attention_bias", o_bias="attention_bias",
        qk_norm="width",
    ),
    "smollm3": Family(
        qkv_bias="attention_bias", o_bias="attention_bias", feedforward_bias="mlp_bias", tied=True, rope_base=2e6,
        windows="without rotary", window=None,
    ),
    "phi3": Family(eps=("rms_norm_eps", 1e-5), rotary_fraction=1.0, windows="all", window=None),
}  # fmt: skip
BIAS_DEFAULTS = {"gpt_neox": True}  # of attention_bias; false elsewhere
GEMMA3_LOCAL_BASE = 10_000.0


def shape_of(config: Mapping[str, Any]) -> tuple[Shape, list[str]]:
    """The architecture that a configuration describes, and a line for every key that was ignored and could surprise.

    Raises `BadInput` for an unknown `model_type`, a value of the wrong kind, quantised weights, scalings of rotary
    positions other than "linear" and "llama3", and any unknown key that may change what is computed.
    """
    notes: list[str] = []
    kind = config.get("model_type")
    if kind == "gemma3":  # with a vision tower: its text model by itself
        text: Any = config.get("text_config")
        require(isinstance(text, Mapping), "text_config in the model's configuration", text, "an object")
        notes.append("the vision tower is ignored: only the text model is read")
        config = {"tie_word_embeddings": config.get("tie_word_embeddings"), **text, "model_type": "gemma3_text"}
        kind = "gemma3_text"
    if config.get("quantization_config") is not None:
        method = config["quantization_config"]
        method = method.get("quant_method", "unnamed") if isinstance(method, Mapping) else method
        raise BadInput(f"quantization_config says that the weights are quantised ({method}): only plain ones are read")
    family = FAMILIES[choose("model_type", str(kind), FAMILIES)]
    keys = Keys(config, family.keys)
    shape = _shape(str(kind), family, keys)
    return shape, notes + unread(config, keys)


def _shape(kind: str, family: Family, keys: Keys) -> Shape:
    n_layers, d_model, n_heads = (keys.size(f) for f in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    n_groups = keys.size("num_key_value_heads", n_heads) if family.grouped else n_heads
    require(n_heads % n_groups == 0, "num_key_value_heads", n_groups, f"a divisor of the {n_heads} attention heads")
    d_head = keys.get("head_dim") if family.grouped else None
    if d_head is None and family.d_head is None:
        require(d_model % n_heads == 0, "number of attention heads", n_heads, f"a divisor of the width {d_model}")
    d_head = keys.size("head_dim", family.d_head or d_model // n_heads) if family.grouped else d_model // n_heads
    names, default = family.activation
    stated = next((value for value in map(keys.get, names) if value is not None), default)
    flags = {
        name: value if isinstance(value, bool) else keys.flag(value, BIAS_DEFAULTS.get(kind, False))
        for name, value in (
            ("qkv_bias", family.qkv_bias), ("o_bias", family.o_bias), ("feedforward_bias", family.feedforward_bias),
        )
    }  # fmt: skip
    for option, wanted in (
        ("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False), ("add_cross_attention", False),
        ("use_bidirectional_attention", False),
    ):  # fmt: skip
        require(keys.flag(option, wanted) is wanted, option, not wanted, str(wanted).lower())
    rotary = _rotary(kind, family, keys, n_layers, d_head)
    scale = keys.number("query_pre_attn_scalar", 256.0) if family.gemma else d_head
    soft = (50.0, 30.0) if kind == "gemma2" else (None, None)  # what the library takes where nothing is stated
    return Shape(
        family=kind,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_groups=n_groups,
        d_head=d_head,
        d_ff=keys.size("intermediate_size", 4 * d_model if kind == "gpt2" else None),
        n_tokens=keys.size("vocab_size"),
        n_positions=keys.size("max_position_embeddings"),
        norm=family.norm,
        norm_eps=keys.number(*family.eps),
        placement=family.placement,
        parallel=keys.flag("use_parallel_residual", True) if kind == "gpt_neox" else False,
        gated=family.gated,
        activation=ACTIVATIONS[choose(names[0], str(stated), ACTIVATIONS)],
        **flags,
        qk_norm=family.qk_norm,
        tied=keys.flag("tie_word_embeddings", family.tied),
        embedding_scale=d_model**0.5 if family.gemma else 1.0,
        score_scale=scale**-0.5,
        score_softcap=keys.optional("attn_logit_softcapping", soft[0]) if family.gemma else None,
        logit_softcap=keys.optional("final_logit_softcapping", soft[1]) if family.gemma else None,
        learned_positions=family.rope_base is None,
        rotary=rotary,
        windows=_windows(family, keys, n_layers, rotary),
    )


def _rotary(kind: str, family: Family, keys: Keys, n_layers: int, d_head: int) -> tuple[Rotary | None, ...]:
    """The rotary positions of every layer, from the keys of either generation of the Hugging Face library."""
    if family.rope_base is None:
        return (None,) * n_layers
    newer, older = keys.get("rope_parameters"), keys.get("rope_scaling")
    for name, value in (("rope_parameters", newer), ("rope_scaling", older)):
        require(value is None or isinstance(value, Mapping), name, value, "an object or null")
    base = keys.number("rotary_emb_base" if kind == "gpt_neox" else "rope_theta", family.rope_base)
    base = keys.number("rope_theta", base)
    fraction = keys.number("rotary_pct", keys.number("partial_rotary_factor", family.rotary_fraction or 1.0))
    local_base = keys.number("rope_local_base_freq", GEMMA3_LOCAL_BASE) if kind == "gemma3_text" else base
    stated = dict(newer or older or {})
    if kind == "gemma3_text":
        local = stated.pop("sliding_attention", None) or {"rope_theta": local_base}
        whole = stated.pop("full_attention", None) or stated
        one, other = (_scaled(value, b, fraction) for value, b in ((local, local_base), (whole, base)))
        by_rule = _pattern(keys, n_layers)
        kinds = _layer_types(keys, n_layers) or by_rule
        layers: list[Rotary | None] = [one if sliding else other for sliding in kinds]
    else:
        layers = [_scaled(stated, base, fraction)] * n_layers
    if kind == "smollm3":
        interval = keys.size("no_rope_layer_interval", 4)
        turning = keys.get("no_rope_layers") or [int((i + 1) % interval != 0) for i in range(n_layers)]
        require(
            isinstance(turning, list) and len(turning) == n_layers and all(t in (0, 1) for t in turning),
            "no_rope_layers", turning, f"a list of {n_layers} zeros and ones",
        )  # fmt: skip
        layers = [rotary if turns else None for rotary, turns in zip(layers, turning, strict=True)]
    for rotary in layers:
        if rotary is not None:
            part = rotary.fraction
            require(family.rotary_fraction is not None or part == 1, "partial_rotary_factor", part, f"1 in a {kind}")
            require(0 < part <= 1 and int(d_head * part) % 2 == 0, "partial_rotary_factor", part,
                    f"in (0, 1] and an even number of the {d_head} entries of a head")  # fmt: skip
    return tuple(layers)


def _scaled(stated: Mapping[str, Any], base: float, fraction: float) -> Rotary:
    known = {"rope_theta", "partial_rotary_factor", "rope_type", "type", "factor", "low_freq_factor",
             "high_freq_factor", "original_max_position_embeddings"}  # fmt: skip
    kind = stated.get("rope_type", stated.get("type", "default"))
    choose("scaling of rotary positions", str(kind), ("default", "linear", "llama3"))
    for key in stated:
        choose("key of the rotary positions", key, known)
    words = ("rope_type", "type")
    numbers = {k: positive(value, k) for k, value in stated.items() if k not in words and value is not None}
    turned = Rotary(numbers.get("rope_theta", base), numbers.get("partial_rotary_factor", fraction))
    if kind == "default":
        return turned
    needed = ["factor"]
    if kind == "llama3":
        needed += ["low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
    for key in needed:
        require(key in numbers, f"{key} of the rotary positions", None, "a positive number")
    if kind == "linear":
        return replace(turned, scaling="linear", factor=numbers["factor"])
    factor, low, high, original = (numbers[key] for key in needed)
    require(high > low, "high_freq_factor", high, f"above low_freq_factor = {low}")
    return replace(turned, scaling="llama3", factor=factor, low_factor=low, high_factor=high, original=int(original))


def _windows(family: Family, keys: Keys, n: int, rotary: tuple[Rotary | None, ...]) -> tuple[int | None, ...]:
    if family.windows == "none":
        require(keys.get("sliding_window") is None, "sliding_window", keys.get("sliding_window"), "null")
        return (None,) * n
    late = 0 if keys.get("max_window_layers", 28) == 0 else keys.size("max_window_layers", 28)
    width = keys.get("sliding_window", family.window)
    used = keys.flag("use_sliding_window", family.windows not in ("late", "without rotary"))
    kinds = _layer_types(keys, n)
    if width is None or not used:
        return (None,) * n
    width = keys.size("sliding_window", 4096)
    by_rule = {
        "all": lambda: [True] * n,
        "late": lambda: [i >= late for i in range(n)],
        "alternate": lambda: [i % 2 == 0 for i in range(n)],
        "gemma3": lambda: _pattern(keys, n),
        "without rotary": lambda: [layer is None for layer in rotary],
    }
    return tuple(width if sliding else None for sliding in kinds or by_rule[family.windows]())


def _layer_types(keys: Keys, n: int) -> list[bool] | None:
    """Which layers have a window, where the configuration lists it."""
    kinds = keys.get("layer_types")
    if kinds is None:
        return None
    require(isinstance(kinds, list) and len(kinds) == n, "layer_types", kinds, f"a list of {n} kinds")
    return [choose("kind of layer", str(k), ("full_attention", "sliding_attention"))[0] == "s" for k in kinds]


def _pattern(keys: Keys, n: int) -> list[bool]:
    every = keys.size("sliding_window_pattern", keys.size("_sliding_window_pattern", 6))
    return [(i + 1) % every != 0 for i in range(n)]
