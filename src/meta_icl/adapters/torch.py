"""A module of PyTorch as a predictor or, with named submodules, as a network that probes can look into.

Numpy in, numpy out, without gradients, in evaluation mode.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.errors import BadInput, choose, require
from meta_icl.models import Intervention, Trace
from meta_icl.models.trace import check_sites
from meta_icl.prompt import Prompt, called

if TYPE_CHECKING:
    from collections.abc import Iterator


class TorchPredictor:
    """A `torch.nn.Module` that reads prompts as one batch and answers them, for `compare` and the evaluations.

    With a `layout` of `meta_icl.models` the module maps tokens "b t d" to outputs "b t d_out", which the layout reads;
    without one it is called as `module(x, y)` with x "b n dx" and y "b n dy" (the query's target hidden: zero) and
    answers "b dy", "b n dy" or, for one channel, "b". It stays on its device and its precision; it is asked in
    evaluation mode and left in the mode in which it was.
    """

    def __init__(self, module: Any, layout: Any = None):
        torch = require_torch()
        require(isinstance(module, torch.nn.Module), "module", type(module).__name__, "a torch.nn.Module")
        encodes = layout is None or (hasattr(layout, "encode") and hasattr(layout, "read"))
        require(encodes, "layout", called(layout), "a layout of meta_icl.models, such as Concatenated()")
        self.module, self.layout = module, layout
        self.__name__ = type(module).__name__

    def __call__(self, prompt: Prompt) -> Float[Array, "..."]:
        return self.batched(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], prompt))[0]

    def batched(self, prompts: Prompt) -> Float[Array, "b ..."]:
        """The answers to a batch of prompts, by one call of the module."""
        if self.layout is None:
            return jnp.asarray(self._asked(prompts.x, prompts.y))
        rows = jax.vmap(self.layout.encode)(prompts)
        outputs = jnp.asarray(self._asked(*(rows if isinstance(rows, tuple) else (rows,))))
        return jax.vmap(self.layout.read)(outputs, prompts)

    def _asked(self, *arrays: Array) -> np.ndarray:
        """What the module answers to arrays; an array of numpy in float32 or its own precision."""
        torch = require_torch()
        parameter = next(iter(self.module.parameters()), torch.zeros(()))
        with evaluating(self.module), torch.no_grad():
            answer = self.module(*(_tensor(np.asarray(array), parameter) for array in arrays))
        if not isinstance(answer, torch.Tensor):
            raise BadInput(f"{self.__name__} must return a tensor, got {type(answer).__name__}")
        return as_numpy(answer)


class TorchNetwork(eqx.Module):
    """A `torch.nn.Module` as a network: `network(tokens, interventions) -> (output, trace)`, so that probes can ask it.

    The module maps tokens "1 t d" to outputs "1 t d_out". `sites` names the submodules, one per layer, whose outputs
    are the sites of the trace, as {"resid_post": ("blocks.0", "blocks.1"), "pattern": (..)}; the leading axis of one
    prompt is taken off, and of a tuple the first tensor counts. Interventions on those sites change what the rest of
    the module reads. Behind a layout, `InContextLearner(layout, TorchNetwork(..))`, it is a `Subject` of the probes;
    gradients are not passed.
    """

    module: Any = eqx.field(static=True)
    sites: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)

    def __init__(self, module: Any, sites: Mapping[str, Sequence[str]]):
        torch = require_torch()
        require(isinstance(module, torch.nn.Module), "module", type(module).__name__, "a torch.nn.Module")
        known = dict(module.named_modules())
        for parts in sites.values():
            for part in parts:
                choose("submodule", part, known)
        self.module = module
        self.sites = tuple((site, tuple(parts)) for site, parts in sites.items())

    @property
    def n_layers(self) -> int:
        """Layers that the sites were named for."""
        return max((len(parts) for _, parts in self.sites), default=0)

    def __call__(
        self, tokens: Float[Array, "t d"], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d_out"], Trace]:
        blank = self._run(np.zeros(tokens.shape, tokens.dtype), ())
        shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), blank)
        check_sites(interventions, Trace(jax.tree.map(jnp.asarray, blank[1])), self.n_layers)
        output, found = jax.pure_callback(self._run, shapes, tokens, tuple(interventions), vmap_method="sequential")
        return output, Trace(found)

    def _run(self, tokens: Any, interventions: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The output and the sites, stacked over layers, of one prompt."""
        torch = require_torch()
        parameter = next(iter(self.module.parameters()), torch.zeros(()))
        modules, seen, handles = dict(self.module.named_modules()), {}, []
        for site, parts in self.sites:
            for layer, part in enumerate(parts):

                def hook(_: Any, __: Any, out: Any, site: str = site, layer: int = layer) -> Any:
                    first = out[0] if isinstance(out, tuple) else out
                    value = as_numpy(first)[0]
                    for change in interventions:
                        if change.site == site:
                            value = np.array(change.at_layer(layer, jnp.asarray(value)))
                    seen[site, layer] = value
                    changed = torch.tensor(value, dtype=first.dtype, device=first.device)[None]
                    return (changed, *out[1:]) if isinstance(out, tuple) else changed

                handles.append(modules[part].register_forward_hook(hook))
        try:
            with evaluating(self.module), torch.no_grad():
                output = as_numpy(self.module(_tensor(np.array(tokens)[None], parameter)))[0]
        finally:
            for handle in handles:
                handle.remove()
        stacked = {site: np.stack([seen[site, i] for i in range(len(parts))]) for site, parts in self.sites}
        return output, stacked


def as_numpy(tensor: Any) -> np.ndarray:
    """A tensor of any device; bfloat16, which numpy lacks, as float32."""
    torch = require_torch()
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _tensor(array: np.ndarray, parameter: Any) -> Any:
    """A tensor on the device of a parameter: real numbers in its precision, labels as integers of 64 bits."""
    torch = require_torch()
    real = np.issubdtype(array.dtype, np.floating)
    kind = parameter.dtype if real and parameter.dtype.is_floating_point else torch.float32 if real else torch.int64
    return torch.tensor(array, device=parameter.device, dtype=kind)


@contextmanager
def evaluating(module: Any) -> "Iterator[None]":
    """Evaluation mode for a while; every submodule gets back the mode that it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def require_torch() -> Any:
    """PyTorch, or a line that says how to have it."""
    try:
        import torch
    except ImportError:
        raise BadInput("models of PyTorch need PyTorch (extra torch): pip install torch transformers") from None
    return torch
