"""Training: objectives, optimisers and the compiled loop over seeds and sweeps."""

from meta_icl.training.loop import Store, Trained, record_steps, train
from meta_icl.training.objectives import Objective, half_mse, half_mse_on
from meta_icl.training.optimisers import Optimiser
from meta_icl.training.state import from_arrays, to_arrays

__all__ = [
    "Objective",
    "Optimiser",
    "Store",
    "Trained",
    "from_arrays",
    "half_mse",
    "half_mse_on",
    "record_steps",
    "to_arrays",
    "train",
]
