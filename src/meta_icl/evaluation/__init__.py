"""Losses and distances of predictors, on the same prompts."""

from meta_icl.evaluation.alignment import alignment, alignment_with, loss_on, mean_loss
from meta_icl.evaluation.by_position import (
    Band,
    answers_by_position,
    bootstrap,
    correct_by_position,
    distance_by_position,
    errors_by_position,
    up_to,
    with_query,
)
from meta_icl.evaluation.compare import Comparison, Estimate, compare, estimate, loss_by_context, members_first
from meta_icl.evaluation.distances import (
    WeightAlignment,
    gradient_error,
    model_difference,
    prediction_difference,
    prediction_error,
    query_losses,
    reads_hidden_target,
    sensitivities,
    sensitivity,
    sensitivity_cosine,
    weight_alignment,
)
from meta_icl.evaluation.thresholds import between_tasks, closest_approach, crossing

__all__ = [
    "Band",
    "Comparison",
    "Estimate",
    "WeightAlignment",
    "alignment",
    "alignment_with",
    "answers_by_position",
    "between_tasks",
    "bootstrap",
    "closest_approach",
    "compare",
    "correct_by_position",
    "crossing",
    "distance_by_position",
    "errors_by_position",
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
    "up_to",
    "weight_alignment",
    "with_query",
]
