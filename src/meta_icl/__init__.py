"""The laboratory for in-context learning: published claims as executable, checked experiments.

The names below are loaded on first use, so that `import meta_icl` and the command line's help cost no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax.random import key

    from meta_icl.algorithms import (
        BayesLinear,
        GradientDescent,
        GradientDescentPlusPlus,
        LeastSquares,
        Ridge,
        best_rate,
    )
    from meta_icl.apps.show import show
    from meta_icl.evaluation import compare, learning_curves, loss_by_context
    from meta_icl.models import Architecture, Attention, Block, Learner, LinearAttention, Network
    from meta_icl.probes.attention import attention_maps
    from meta_icl.prompt import Predictor, Prompt, Task
    from meta_icl.tasks import LinearRegression, Normal, SineRegression, Uniform
    from meta_icl.training import load, train

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Attention",
    "BayesLinear",
    "Block",
    "GradientDescent",
    "GradientDescentPlusPlus",
    "Learner",
    "LeastSquares",
    "LinearAttention",
    "LinearRegression",
    "Network",
    "Normal",
    "Predictor",
    "Prompt",
    "Ridge",
    "SineRegression",
    "Task",
    "Uniform",
    "__version__",
    "attention_maps",
    "best_rate",
    "compare",
    "key",
    "learning_curves",
    "load",
    "loss_by_context",
    "show",
    "train",
]

_HOMES = {
    "meta_icl.algorithms": (
        "BayesLinear",
        "GradientDescent",
        "GradientDescentPlusPlus",
        "LeastSquares",
        "Ridge",
        "best_rate",
    ),
    "meta_icl.apps.show": ("show",),
    "meta_icl.evaluation": ("compare", "learning_curves", "loss_by_context"),
    "meta_icl.models": ("Architecture", "Attention", "Block", "Learner", "LinearAttention", "Network"),
    "meta_icl.probes.attention": ("attention_maps",),
    "meta_icl.prompt": ("Predictor", "Prompt", "Task"),
    "meta_icl.tasks": ("LinearRegression", "Normal", "SineRegression", "Uniform"),
    "meta_icl.training": ("load", "train"),
    "jax.random": ("key",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its room (PEP 562)."""
    if name == "torch":  # models of PyTorch as predictors
        return import_module("meta_icl.torch")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
