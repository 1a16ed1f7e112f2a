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
from meta_icl.analysis.decodability import (
    decodability_by_layer,
    head_importance,
    patching_matrix,
    rank_correlation,
    task_decodability,
    task_means,
)
from meta_icl.analysis.dynamics import (
    DirectionOverlap,
    Plateau,
    conservation_drift,
    diagonal_share,
    direction_overlap,
    distance_to_scaled_identity,
    first_below,
    head_roles,
    homogeneity_score,
    nearest_plateau,
    plateau_table,
    plateaus,
    zero_sum_score,
)
from meta_icl.analysis.rollouts import rolled_out, rollout_losses
from meta_icl.analysis.weights import DescentWeights, copying_score, descent_weights, eigenvalues

__all__ = [
    "DescentWeights",
    "DirectionOverlap",
    "Plateau",
    "TokenCopying",
    "conservation_drift",
    "copy_then_descend_construction",
    "copying_score",
    "decodability_by_layer",
    "descent_weights",
    "diagonal_share",
    "direction_overlap",
    "distance_to_scaled_identity",
    "eigenvalues",
    "first_below",
    "from_products",
    "gauge_fixed",
    "gradient_descent_construction",
    "gradient_descent_plus_plus_construction",
    "head_importance",
    "head_roles",
    "homogeneity_score",
    "interpolated",
    "nearest_plateau",
    "patching_matrix",
    "plateau_table",
    "plateaus",
    "rank_correlation",
    "rolled_out",
    "rollout_losses",
    "task_decodability",
    "task_means",
    "token_copying",
    "zero_sum_score",
]
