"""Mechanistic probes and weight constructions."""

from meta_icl.analysis.constructions import (
    copy_then_descend_construction,
    from_products,
    gauge_fixed,
    gradient_descent_construction,
    gradient_descent_plus_plus_construction,
    interpolated,
)
from meta_icl.analysis.copying import TokenCopying, token_copying
from meta_icl.analysis.rollouts import rolled_out, rollout_losses
from meta_icl.analysis.weights import DescentWeights, copying_score, descent_weights, eigenvalues

__all__ = [
    "DescentWeights",
    "TokenCopying",
    "copy_then_descend_construction",
    "copying_score",
    "descent_weights",
    "eigenvalues",
    "from_products",
    "gauge_fixed",
    "gradient_descent_construction",
    "gradient_descent_plus_plus_construction",
    "interpolated",
    "rolled_out",
    "rollout_losses",
    "token_copying",
]
