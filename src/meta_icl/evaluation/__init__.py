"""Losses and distances of predictors, on the same prompts."""

from meta_icl.evaluation.alignment import alignment, alignment_with, loss_on, mean_loss
from meta_icl.evaluation.compare import Comparison, Estimate, compare, estimate, loss_by_context, members_first
from meta_icl.evaluation.distances import (
    gradient_error,
    model_difference,
    prediction_difference,
    prediction_error,
    query_losses,
    reads_hidden_target,
    sensitivities,
    sensitivity,
    sensitivity_cosine,
)

__all__ = [
    "Comparison",
    "Estimate",
    "alignment",
    "alignment_with",
    "compare",
    "estimate",
    "gradient_error",
    "loss_by_context",
    "loss_on",
    "mean_loss",
    "members_first",
    "model_difference",
    "prediction_difference",
    "prediction_error",
    "query_losses",
    "reads_hidden_target",
    "sensitivities",
    "sensitivity",
    "sensitivity_cosine",
]
