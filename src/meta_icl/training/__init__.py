"""Training: objectives, optimisers and the compiled loop over seeds and sweeps."""

from meta_icl.training.files import load
from meta_icl.training.loop import Store, record_steps, train
from meta_icl.training.objectives import (
    Objective,
    cross_entropy,
    every_position_cross_entropy,
    every_position_logistic,
    every_position_mse,
    half_mse,
    labelled_cross_entropy,
    next_token_cross_entropy,
)
from meta_icl.training.optimisers import Optimiser, rising_and_falling
from meta_icl.training.population import (
    ContextSet,
    FiniteSet,
    Flow,
    OnMap,
    context_averaged_mse,
    context_set,
    context_set_loss,
    finite_set_loss,
    gradient_flow,
    population_objective,
)
from meta_icl.training.program import OnTask
from meta_icl.training.quasi_newton import Minimum, minimise
from meta_icl.training.state import from_arrays, to_arrays
from meta_icl.training.trained import Trained

__all__ = [
    "ContextSet",
    "FiniteSet",
    "Flow",
    "Minimum",
    "Objective",
    "OnMap",
    "OnTask",
    "Optimiser",
    "Store",
    "Trained",
    "context_averaged_mse",
    "context_set",
    "context_set_loss",
    "cross_entropy",
    "every_position_cross_entropy",
    "every_position_logistic",
    "every_position_mse",
    "finite_set_loss",
    "from_arrays",
    "gradient_flow",
    "half_mse",
    "labelled_cross_entropy",
    "load",
    "minimise",
    "next_token_cross_entropy",
    "population_objective",
    "record_steps",
    "rising_and_falling",
    "to_arrays",
    "train",
]
