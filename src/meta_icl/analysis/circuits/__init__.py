"""Circuits of in-context learning: scores of patterns, masks, ablations, phases of training, reduced models."""

from meta_icl.analysis.circuits.ablation import all_but_one, each_head, without_heads
from meta_icl.analysis.circuits.copying import eigenvalue_copying, output_copying
from meta_icl.analysis.circuits.masks import circuit_mask, pruned, shuffled_labels
from meta_icl.analysis.circuits.patterns import (
    CircuitScores,
    bigram,
    chunk_example,
    circuit_scores,
    icl_score,
    in_context_choice,
    in_context_loss,
    induction_strength,
    label_attention,
    matching_label_attention,
    prefix_matching,
    previous_token,
    uniform_circuit_scores,
)
from meta_icl.analysis.circuits.phases import (
    Phase,
    accuracy_plateaus,
    co_occur,
    log_spaced,
    onset,
    rises,
    steepest_window,
    stretch_at,
)
from meta_icl.analysis.circuits.reduced import (
    rank_one_descent,
    rank_one_loss,
    three_parameter_descent,
    three_parameter_loss,
)

__all__ = [
    "CircuitScores",
    "Phase",
    "accuracy_plateaus",
    "all_but_one",
    "bigram",
    "chunk_example",
    "circuit_mask",
    "circuit_scores",
    "co_occur",
    "each_head",
    "eigenvalue_copying",
    "icl_score",
    "in_context_choice",
    "in_context_loss",
    "induction_strength",
    "label_attention",
    "log_spaced",
    "matching_label_attention",
    "onset",
    "output_copying",
    "prefix_matching",
    "previous_token",
    "pruned",
    "rank_one_descent",
    "rank_one_loss",
    "rises",
    "shuffled_labels",
    "steepest_window",
    "stretch_at",
    "three_parameter_descent",
    "three_parameter_loss",
    "uniform_circuit_scores",
    "without_heads",
]
