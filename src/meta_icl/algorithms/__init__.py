"""Reference learners, all predictors, and the exact formulas about them (`spectral`: many steps, without labels)."""

from meta_icl.algorithms import spectral
from meta_icl.algorithms.closed_form import BayesFinitePool, BayesLinear, LeastSquares, Ridge, ZeroPredictor
from meta_icl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
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

__all__ = [
    "BayesFinitePool",
    "BayesLinear",
    "GradientDescent",
    "GradientDescentPlusPlus",
    "LeastSquares",
    "RegressionMoments",
    "RegressionTask",
    "Ridge",
    "ZeroPredictor",
    "best_gd_loss",
    "best_rate",
    "best_rate_for",
    "gd_loss",
    "line_search",
    "linear_map_loss",
    "sample_best_rate",
    "spectral",
    "zero_loss",
]
