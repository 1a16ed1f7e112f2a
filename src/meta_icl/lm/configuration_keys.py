"""Keys of a configuration (`config.json`): read with their types checked, and none left unread that may matter."""

import re
from collections.abc import Mapping
from typing import Any

from meta_icl.errors import BadInput, require

# Keys of every model that change nothing of what it computes, or only how it was or will be trained and sampled.
_HARMLESS = """
_name_or_path _attn_implementation _attn_implementation_autoset _commit_hash _experts_implementation architectures
attention_dropout attn_pdrop bos_token_id cache_implementation chunk_size_feed_forward classifier_dropout
cls_token_id decoder_start_token_id do_sample dtype embd_pdrop embd_dropout eos_token_id forced_bos_token_id
forced_eos_token_id hidden_dropout id2label initializer_range is_decoder is_encoder_decoder label2id max_length
max_new_tokens model_type n_ctx output_attentions output_hidden_states output_scores pad_token_id prefix
pretraining_tp problem_type reorder_and_upcast_attn resid_pdrop return_dict sep_token_id summary_activation
summary_first_dropout summary_proj_to_labels summary_type summary_use_proj task_specific_params temperature
tokenizer_class top_k top_p torch_dtype torchscript transformers_version transformers.js_config unsloth_fixed
unsloth_version unk_token_id use_cache use_return_dict bad_words_ids initial_context_length max_window_layers
no_rope_layer_interval boi_token_index eoi_token_index image_token_index mm_tokens_per_image
original_max_position_embeddings vision_config
"""
HARMLESS = frozenset(_HARMLESS.split())
# An unknown key whose name has one of these words may change the computation.
TELLING = re.compile(
    r"attn|attention|rope|rotary|position|norm|scal|mult|factor|cap|clip|window|expert|moe|bias|resid|mup|alibi|layer"
    r"|head|sink|quant|mlp|hidden|embed|activation|act_fn|softmax|logit|mask|adapter|lora|shared|state|router|gate|eps"
)
MOST_LAYERS, MOST = 10_000, 10**9  # beyond which a number is a mistake that would fill the memory


class Keys:
    """A configuration that remembers which keys were read."""

    def __init__(self, config: Mapping[str, Any], names: Mapping[str, str]):
        self.config, self.names, self.read = config, names, set[str]()

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key by its common name; the default where it is absent."""
        key = self.names.get(key, key)
        self.read.add(key)
        return self.config.get(key, default)

    def size(self, key: str, default: int | None = None) -> int:
        """A positive integer; null or absent gives the default, if there is one."""
        value = self.get(key)
        value = default if value is None else value
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        require(whole, self._name(key), value, "a positive integer")
        most = MOST_LAYERS if key == "num_hidden_layers" else MOST
        number = int(value)  # pyrefly: ignore[bad-argument-type]
        require(number <= most, self._name(key), number, f"at most {most}")
        return number

    def number(self, key: str, default: float) -> float:
        """A positive number; null or absent gives the default."""
        value = self.get(key)
        return positive(default if value is None else value, self._name(key))

    def optional(self, key: str, default: float | None = None) -> float | None:
        """A positive number or, where it is null, nothing; the default where it is absent."""
        value = self.get(key, default)
        return None if value is None else positive(value, self._name(key))

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key)
        value = default if value is None else value
        require(isinstance(value, bool), self._name(key), value, "true or false")
        return value

    def _name(self, key: str) -> str:
        return f"{self.names.get(key, key)} in the model's configuration"


def positive(value: Any, name: str) -> float:
    """A positive number; `BadInput` for anything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    require(good, name, value, "a positive number")
    return float(value)


def unread(config: Mapping[str, Any], keys: Keys) -> list[str]:
    """A line for every key that was not read and could surprise; `BadInput` for one that may change the computation."""
    ignored = []
    for key in sorted(set(config) - keys.read - HARMLESS):
        value = config[key]
        if value is None or value is False or value in ([], {}):
            continue
        if TELLING.search(key.lower()):
            raise BadInput(f"{key} = {value!r} in the model's configuration may change what it computes: not supported")
        ignored.append(f"{key} = {value!r} in the model's configuration is ignored")
    return ignored
