"""Networks, layouts, traces and interventions."""

from meta_icl.models.backbone import Backbone, BackboneNetwork, TokenLearner, TokenPredictor
from meta_icl.models.blocks import BlockNetwork, Blocks
from meta_icl.models.decoder import Decoder, DecoderNetwork
from meta_icl.models.layouts import Concatenated, Interleaved, Layout, Separate
from meta_icl.models.learner import InContextLearner, Learner, LinearAttention
from meta_icl.models.linear_attention import (
    CubicMLP,
    CubicMLPPredictor,
    MapPredictor,
    MergedLinearAttention,
    MergedPredictor,
    OneLayerAttention,
    OneLayerPredictor,
    SeparateLinearAttention,
    SeparatePredictor,
    SparseLinearPredictor,
    SparseLinearTransformer,
)
from meta_icl.models.lstm import Lstm, LstmNetwork
from meta_icl.models.softmax_regression import SoftmaxRegression, SoftmaxRegressionPredictor
from meta_icl.models.trace import Intervention, Trace, ablate_head
from meta_icl.models.transformer import Transformer, TransformerNetwork

__all__ = [
    "Backbone",
    "BackboneNetwork",
    "BlockNetwork",
    "Blocks",
    "Concatenated",
    "CubicMLP",
    "CubicMLPPredictor",
    "Decoder",
    "DecoderNetwork",
    "InContextLearner",
    "Interleaved",
    "Intervention",
    "Layout",
    "Learner",
    "LinearAttention",
    "Lstm",
    "LstmNetwork",
    "MapPredictor",
    "MergedLinearAttention",
    "MergedPredictor",
    "OneLayerAttention",
    "OneLayerPredictor",
    "Separate",
    "SeparateLinearAttention",
    "SeparatePredictor",
    "SoftmaxRegression",
    "SoftmaxRegressionPredictor",
    "SparseLinearPredictor",
    "SparseLinearTransformer",
    "TokenLearner",
    "TokenPredictor",
    "Trace",
    "Transformer",
    "TransformerNetwork",
    "ablate_head",
]
