"""A module of PyTorch as a predictor: numpy in, numpy out, without gradients, in evaluation mode."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meta_icl.errors import BadInput, require
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
        torch = _torch()
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
        torch = _torch()
        parameter = next(iter(self.module.parameters()), torch.zeros(()))
        with _evaluating(self.module), torch.no_grad():
            answer = self.module(*(_tensor(np.asarray(array), parameter) for array in arrays))
        if not isinstance(answer, torch.Tensor):
            raise BadInput(f"{self.__name__} must return a tensor, got {type(answer).__name__}")
        answer = answer.detach().cpu()
        return (answer.float() if answer.dtype == torch.bfloat16 else answer).numpy()


def _tensor(array: np.ndarray, parameter: Any) -> Any:
    """A tensor on the device of a parameter: real numbers in its precision, labels as integers of 64 bits."""
    torch = _torch()
    real = np.issubdtype(array.dtype, np.floating)
    kind = parameter.dtype if real and parameter.dtype.is_floating_point else torch.float32 if real else torch.int64
    return torch.tensor(array, device=parameter.device, dtype=kind)


@contextmanager
def _evaluating(module: Any) -> "Iterator[None]":
    """Evaluation mode for a while; every submodule gets back the mode that it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise BadInput("models of PyTorch need the extra: pip install 'meta-icl[torch]'") from None
    return torch
