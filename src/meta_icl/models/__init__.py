"""Networks, layouts, traces and interventions."""

from meta_icl.models.layouts import Concatenated, Interleaved, Layout, Separate
from meta_icl.models.learner import InContextLearner, Learner
from meta_icl.models.lstm import Lstm, LstmNetwork
from meta_icl.models.trace import Intervention, Trace, ablate_head
from meta_icl.models.transformer import Transformer, TransformerNetwork

__all__ = [
    "Concatenated",
    "InContextLearner",
    "Interleaved",
    "Intervention",
    "Layout",
    "Learner",
    "Lstm",
    "LstmNetwork",
    "Separate",
    "Trace",
    "Transformer",
    "TransformerNetwork",
    "ablate_head",
]
