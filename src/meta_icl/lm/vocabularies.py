"""Vocabularies in the metadata of `.gguf` files as tokenizers of the library `tokenizers`."""

from collections.abc import Mapping
from typing import Any

from meta_icl.errors import BadInput, choose, require

CONTROL, USER_DEFINED = 3, 4  # kinds of tokens of the format
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How texts are cut before pairs are merged (`tokenizer.ggml.pre`): digits in GPT-2's words as they come, by threes, or
# one by one.
CUTS = {
    "gpt-2": "gpt-2",
    "gpt2": "gpt-2",
    "olmo": "gpt-2",
    "smollm": "smollm",
    "llama-bpe": "llama-bpe",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "qwen2": "qwen2",
    "deepseek-r1-qwen": "qwen2",
}
PATTERNS = {
    "llama-bpe": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}",
    "qwen2": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}",
}


def vocabulary(metadata: Mapping[str, Any], name: str) -> Any:
    """The tokenizer that a file's metadata describes: byte-level pairs ("gpt2") or pieces with scores ("llama").

    Raises `BadInput` for another kind, an unknown way of cutting texts, or lists that do not fit one another.
    """
    from tokenizers import AddedToken, processors

    kind = choose(f"tokenizer.ggml.model of {name}", str(metadata.get("tokenizer.ggml.model")), ("gpt2", "llama"))
    tokens = _listed(metadata, "tokenizer.ggml.tokens", name)
    numbers = {token: i for i, token in enumerate(tokens)}
    require(len(numbers) == len(tokens), f"tokens of {name}", len(numbers), f"{len(tokens)} different ones")
    found = (_pairs if kind == "gpt2" else _pieces)(metadata, numbers, name)
    kinds: list[int] = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    require(len(kinds) == len(tokens), f"tokenizer.ggml.token_type of {name}", len(kinds), f"of length {len(tokens)}")
    found.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    first: int = metadata.get("tokenizer.ggml.bos_token_id", -1)
    usual = kind == "llama" or CUTS.get(str(metadata.get("tokenizer.ggml.pre"))) == "llama-bpe"
    if metadata.get("tokenizer.ggml.add_bos_token", usual):
        require(isinstance(first, int) and 0 <= first < len(tokens), f"tokenizer.ggml.bos_token_id of {name}", first,
                "the number of a token")  # fmt: skip
        opening = tokens[first]
        found.post_processor = processors.TemplateProcessing(
            single=[opening, "$A"], pair=[opening, "$A", "$B"], special_tokens=[(opening, first)]
        )
    return found


def _listed(metadata: Mapping[str, Any], key: str, name: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not value:
        raise BadInput(f"{name} has no list {key}: its texts cannot be cut into tokens here")
    return value


def _pairs(metadata: Mapping[str, Any], numbers: dict[str, int], name: str) -> Any:
    """Byte-level byte-pair encoding, as GPT-2's and its successors."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    stated = metadata.get("tokenizer.ggml.pre")
    if stated is None and metadata.get("general.architecture") == "gpt2":
        stated = "gpt-2"
    cut = CUTS[choose(f"tokenizer.ggml.pre of {name}", str(stated), CUTS)]
    pairs: list[Any] = [tuple(merge.split(" ")) for merge in _listed(metadata, "tokenizer.ggml.merges", name)]
    wrong = next((pair for pair in pairs if len(pair) != 2 or not all(part in numbers for part in pair)), None)
    require(wrong is None, f"pair of tokenizer.ggml.merges of {name}", wrong, "two tokens of the vocabulary")
    found = Tokenizer(models.BPE(numbers, pairs, ignore_merges=cut == "llama-bpe"))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in ("gpt-2", "smollm"))
    if cut == "smollm":
        words = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    elif cut in PATTERNS:
        words = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERNS[cut]), "isolated"), words])
    if cut == "qwen2":
        found.normalizer = normalizers.NFC()
    found.pre_tokenizer, found.decoder = words, decoders.ByteLevel()
    return found


def _pieces(metadata: Mapping[str, Any], numbers: dict[str, int], name: str) -> Any:
    """SentencePiece's byte-pair encoding: of all neighbours, those whose joint piece has the highest score are merged.

    Pieces have scores in place of merges, so the merges are all ways to cut a piece in two, best pieces first.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores, unknown = metadata.get("tokenizer.ggml.scores"), metadata.get("tokenizer.ggml.unknown_token_id", 0)
    if not isinstance(scores, list) or len(scores) != len(numbers):
        raise BadInput(f"{name} has pieces without scores: its texts cannot be cut into tokens here")
    pieces = list(numbers)
    require(isinstance(unknown, int) and unknown < len(pieces), "tokenizer.ggml.unknown_token_id", unknown, "a token")
    order = sorted(range(len(pieces)), key=lambda i: -scores[i])
    merges = [
        (piece[:cut], piece[cut:])
        for piece in map(pieces.__getitem__, order)
        for cut in range(1, len(piece))
        if piece[:cut] in numbers and piece[cut:] in numbers
    ]
    has_bytes = "<0x00>" in numbers
    model = models.BPE(numbers, merges, unk_token=pieces[unknown], fuse_unk=True, byte_fallback=has_bytes)
    found = Tokenizer(model)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = normalizers.Replace(" ", "▁")
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    found.decoder = decoders.Sequence(parts + ([decoders.Strip(" ", 1, 0)] if prefix else []))
    return found
