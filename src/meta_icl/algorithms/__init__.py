"""Reference learners, all predictors, and the exact formulas about them (`spectral`: many steps, without labels)."""

from meta_icl.algorithms import softmax_heads, spectral, time_course
from meta_icl.algorithms.closed_form import BayesFinitePool, BayesLinear, LeastSquares, Ridge, ZeroPredictor
from meta_icl.algorithms.covariance import (
    LinearMap,
    MapLoss,
    PreconditionedDescent,
    SampleMapLoss,
    map_loss,
    map_loss_of,
    sample_map_loss,
    sample_token_loss,
)
from meta_icl.algorithms.fitted import NetworkDescent, ScikitLearn, boosted_trees, greedy_tree, lasso
from meta_icl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from meta_icl.algorithms.label_ceilings import Ceilings, every_item_ceiling, label_ceilings, semi_context_theory
from meta_icl.algorithms.population import (
    RegressionMoments,
    RegressionTask,
    best_gd_loss,
    best_rate,
    best_rate_for,
    gd_loss,
    line_search,
    linear_map_loss,
    sample_best_rate,
    zero_loss,
)
from meta_icl.algorithms.positions import (
    Averaging,
    DiscreteMmse,
    EveryPosition,
    GaussianMixtureBayes,
    NearestNeighbours,
    bayes_over_bases,
    best_training_vector_error,
    smoothed_dmmse,
)
from meta_icl.algorithms.softmax_heads import KernelHeads

__all__ = [
    "Averaging",
    "BayesFinitePool",
    "BayesLinear",
    "Ceilings",
    "DiscreteMmse",
    "EveryPosition",
    "GaussianMixtureBayes",
    "GradientDescent",
    "GradientDescentPlusPlus",
    "KernelHeads",
    "LeastSquares",
    "LinearMap",
    "MapLoss",
    "NearestNeighbours",
    "NetworkDescent",
    "PreconditionedDescent",
    "RegressionMoments",
    "RegressionTask",
    "Ridge",
    "SampleMapLoss",
    "ScikitLearn",
    "ZeroPredictor",
    "bayes_over_bases",
    "best_gd_loss",
    "best_rate",
    "best_rate_for",
    "best_training_vector_error",
    "boosted_trees",
    "every_item_ceiling",
    "gd_loss",
    "greedy_tree",
    "label_ceilings",
    "lasso",
    "line_search",
    "linear_map_loss",
    "map_loss",
    "map_loss_of",
    "sample_best_rate",
    "sample_map_loss",
    "sample_token_loss",
    "semi_context_theory",
    "smoothed_dmmse",
    "softmax_heads",
    "spectral",
    "time_course",
    "zero_loss",
]
