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
from meta_icl.evaluation.compare import Comparison, compare, members_first
from meta_icl.evaluation.curves import Curves, learning_curves, loss_by_context, loss_by_task
from meta_icl.evaluation.distances import (
    WeightAlignment,
    gradient_error,
    model_difference,
    prediction_difference,
    prediction_error,
    query_accuracy,
    query_losses,
    sensitivities,
    sensitivity,
    sensitivity_cosine,
    weight_alignment,
)
from meta_icl.evaluation.estimates import Estimate, estimate
from meta_icl.evaluation.leaks import Leaks, leaks, reads_hidden_target, reads_later_rows
from meta_icl.evaluation.thresholds import between_tasks, closest_approach, crossing

__all__ = [
    "Band",
    "Comparison",
    "Curves",
    "Estimate",
    "Leaks",
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
    "leaks",
    "learning_curves",
    "loss_by_context",
    "loss_by_task",
    "loss_on",
    "mean_loss",
    "members_first",
    "model_difference",
    "prediction_difference",
    "prediction_error",
    "query_accuracy",
    "query_losses",
    "reads_hidden_target",
    "reads_later_rows",
    "sensitivities",
    "sensitivity",
    "sensitivity_cosine",
    "up_to",
    "weight_alignment",
    "with_query",
]
