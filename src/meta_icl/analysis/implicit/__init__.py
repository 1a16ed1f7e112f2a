"""The prompt as a weight update: exact patches, their chains, and what one patch can do for many queries."""

from meta_icl.analysis.implicit.descent import (
    Descent,
    FineTuning,
    Readings,
    factorised_descent,
    fine_tune,
    first_matrix,
    implicit_descent,
    implicit_gradients,
    prefix_readings,
    suffix_readings,
)
from meta_icl.analysis.implicit.examples import ExampleUpdates, class_similarity, example_updates
from meta_icl.analysis.implicit.generation import Generated, agreeing_tokens, generate, generate_without_prompt
from meta_icl.analysis.implicit.layers import in_float64
from meta_icl.analysis.implicit.random import random_network, random_networks
from meta_icl.analysis.implicit.thought import (
    ThoughtErrors,
    least_squares,
    thought_errors,
    thought_patch,
    thought_vector,
)
from meta_icl.analysis.implicit.updates import (
    answer,
    implicit_update,
    patch_between,
    position_updates,
    replacement_error,
    update_between,
)

__all__ = [
    "Descent",
    "ExampleUpdates",
    "FineTuning",
    "Generated",
    "Readings",
    "ThoughtErrors",
    "agreeing_tokens",
    "answer",
    "class_similarity",
    "example_updates",
    "factorised_descent",
    "fine_tune",
    "first_matrix",
    "generate",
    "generate_without_prompt",
    "implicit_descent",
    "implicit_gradients",
    "implicit_update",
    "in_float64",
    "least_squares",
    "patch_between",
    "position_updates",
    "prefix_readings",
    "random_network",
    "random_networks",
    "replacement_error",
    "suffix_readings",
    "thought_errors",
    "thought_patch",
    "thought_vector",
    "update_between",
]
