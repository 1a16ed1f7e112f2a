"""Any causal language model of the library transformers as a network: the same trace, the same interventions.

For architectures that are not read as networks of the house. Nothing is downloaded: a model object, or a local folder.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from meta_icl.adapters.torch import as_numpy, evaluating, require_torch
from meta_icl.errors import BadInput, first_line, require
from meta_icl.models import Intervention, Trace
from meta_icl.models.trace import check_sites

OUT_MAPS = ("o_proj", "c_proj", "out_proj", "dense", "wo", "proj")  # what maps the heads' answers into the stream
READ_ONLY = ("pattern",)


class _Table(NamedTuple):
    table: Float[np.ndarray, "v d"]


class TransformersNetwork(eqx.Module):
    """A causal model of transformers as `network(tokens, interventions) -> (logits "t v", trace)`.

    Sites are those that its blocks show: `resid_pre`, `pattern`, `z`, `mixer_out`, `mlp_out`, `resid_post`; all but
    `pattern` can be changed. Attention is computed eagerly, since other kernels show no pattern. Behind `TokenLayout()`
    it is a `Subject` of the probes; gradients are not passed. Raises `BadInput` for what is no causal model with a list
    of blocks that hold attention.
    """

    model: Any = eqx.field(static=True)
    blocks: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, model: Any):
        torch = require_torch()
        causal = isinstance(model, torch.nn.Module) and hasattr(model, "get_input_embeddings")
        require(causal, "model", type(model).__name__, "a causal language model of transformers")
        lists = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.ModuleList)]
        lists = [(n, part) for n, part in lists if len(part) and all(_attention(block) is not None for block in part)]
        require(bool(lists), "model", type(model).__name__, "one with a list of blocks that hold attention")
        name, part = max(lists, key=lambda one: len(one[1]))
        model.set_attn_implementation("eager")
        self.model, self.blocks = model, tuple(f"{name}.{i}" for i in range(len(part)))

    @classmethod
    def load(cls, folder: str | Path) -> "TransformersNetwork":
        """The model of a local folder in float32; `BadInput` for what the library cannot load, or code of its own."""
        require_torch()
        auto: Any = import_module("transformers").AutoModelForCausalLM
        require(Path(folder).is_dir(), "checkpoint", str(folder), "a folder in Hugging Face's format")
        try:
            model = auto.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, attn_implementation="eager", dtype="float32"
            )
        except Exception as error:  # of whatever kind the library has for damaged or unknown models
            raise BadInput(f"transformers cannot load {folder} ({first_line(error)})") from None
        return cls(model)

    @property
    def n_layers(self) -> int:
        """Blocks."""
        return len(self.blocks)

    @property
    def embedding(self) -> _Table:
        """The table of tokens."""
        return _Table(as_numpy(self.model.get_input_embeddings().weight))

    def __call__(
        self, tokens: Int[Array, " t"], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t v"], Trace]:
        blank = self._run(np.zeros(tokens.shape, int), ())
        shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), blank)
        check_sites(interventions, Trace(jax.tree.map(jnp.asarray, blank[1])), self.n_layers)
        for change in interventions:
            allowed = f"one of {[site for site in blank[1] if site not in READ_ONLY]}"
            require(change.site not in READ_ONLY, "intervention site", change.site, f"{allowed}: it can only be read")
        output, found = jax.pure_callback(self._run, shapes, tokens, tuple(interventions), vmap_method="sequential")
        return output, Trace(found)

    def _run(self, tokens: Any, interventions: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The logits and the sites, stacked over layers, of one prompt."""
        torch = require_torch()
        modules, seen, handles = dict(self.model.named_modules()), {}, []

        def changed(site: str, layer: int, tensor: Any, heads: int = 0) -> Any:
            """A tensor "1 t d" after the interventions on its site, of which a copy is kept; `heads` cuts d."""
            value = as_numpy(tensor)[0]
            value = value.reshape(len(value), heads, -1).swapaxes(0, 1) if heads else value
            for change in interventions:
                if change.site == site:
                    value = np.array(change.at_layer(layer, jnp.asarray(value)))
            seen.setdefault(site, {})[layer] = value
            back = value.swapaxes(0, 1).reshape(value.shape[1], -1) if heads else value
            return torch.tensor(back, dtype=tensor.dtype, device=tensor.device)[None]

        for layer, name in enumerate(self.blocks):
            block = modules[name]
            attention, mlp = _attention(block), _mlp(block)
            out = next((m for n, m in attention.named_children() if n in OUT_MAPS), None)
            handles.append(block.register_forward_pre_hook(_before(changed, "resid_pre", layer), with_kwargs=True))
            if out is not None:
                heads = self.model.config.num_attention_heads
                handles.append(out.register_forward_pre_hook(_before(changed, "z", layer, heads), with_kwargs=True))
            handles.append(attention.register_forward_hook(_after(changed, "mixer_out", layer, seen)))
            if mlp is not None:
                handles.append(mlp.register_forward_hook(_after(changed, "mlp_out", layer)))
            handles.append(block.register_forward_hook(_after(changed, "resid_post", layer)))
        try:
            with evaluating(self.model), torch.no_grad():
                ids = torch.tensor(np.array(tokens)[None], device=self.model.get_input_embeddings().weight.device)
                logits = as_numpy(self.model(ids, use_cache=False, output_attentions=True).logits)[0]
        finally:
            for handle in handles:
                handle.remove()
        whole = {site: np.stack([by[i] for i in range(self.n_layers)]) for site, by in seen.items()
                 if len(by) == self.n_layers}  # fmt: skip
        return logits, whole


def _before(changed: Callable[..., Any], site: str, layer: int, heads: int = 0) -> Callable[..., Any]:
    """A hook that changes the first input of a module, given by place or as `hidden_states`."""

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (changed(site, layer, args[0], heads), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed(site, layer, kwargs["hidden_states"], heads)}

    return hook


def _after(
    changed: Callable[..., Any], site: str, layer: int, patterns: dict[str, dict[int, np.ndarray]] | None = None
) -> Callable[..., Any]:
    """A hook that changes the first output of a module; the pattern that attention returns beside it is kept."""

    def hook(_: Any, __: Any, out: Any) -> Any:
        if not isinstance(out, tuple):
            return changed(site, layer, out)
        pattern = next((part for part in out[1:] if getattr(part, "ndim", 0) == 4), None)
        if patterns is not None and pattern is not None:
            patterns.setdefault("pattern", {})[layer] = as_numpy(pattern)[0]
        return (changed(site, layer, out[0]), *out[1:])

    return hook


def _attention(block: Any) -> Any:
    """The attention of a block, by the name of its class."""
    found = [part for _, part in block.named_children() if "attention" in type(part).__name__.lower()]
    return found[0] if found else None


def _mlp(block: Any) -> Any:
    """The feed-forward half of a block, by its name, where it is one module."""
    names = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
    return next((part for name, part in block.named_children() if name in names), None)
