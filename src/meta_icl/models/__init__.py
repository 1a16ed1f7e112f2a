"""Networks, layouts, traces and interventions."""

from meta_icl.models.attention_stack import AttentionLayers, AttentionStack
from meta_icl.models.backbone import Backbone, BackboneNetwork, TokenLearner, TokenPredictor
from meta_icl.models.blocks import BlockNetwork, Blocks
from meta_icl.models.clamped import Clamped, ClampedLearner
from meta_icl.models.decoder import Decoder, DecoderNetwork
from meta_icl.models.fast_weight_lstm import FastWeightLstm, FastWeightLstmNetwork
from meta_icl.models.image_encoder import ImageEncoder, ImageEncoderNetwork
from meta_icl.models.induction import Induction, InductionNetwork
from meta_icl.models.label_layouts import ItemIndex, LabelLayout, LabelTokens, Window
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
from meta_icl.models.mlp import Mlp, MlpNetwork
from meta_icl.models.sequence_classifier import AffineEncoder, SequenceClassifier, SequenceClassifierNetwork
from meta_icl.models.shifted import Shifted
from meta_icl.models.softmax_regression import SoftmaxRegression, SoftmaxRegressionPredictor
from meta_icl.models.token_attention import TokenAttention, TokenAttentionNetwork
from meta_icl.models.trace import Intervention, Trace, ablate_head
from meta_icl.models.transformer import Transformer, TransformerNetwork

__all__ = [
    "AffineEncoder",
    "AttentionLayers",
    "AttentionStack",
    "Backbone",
    "BackboneNetwork",
    "BlockNetwork",
    "Blocks",
    "Clamped",
    "ClampedLearner",
    "Concatenated",
    "CubicMLP",
    "CubicMLPPredictor",
    "Decoder",
    "DecoderNetwork",
    "FastWeightLstm",
    "FastWeightLstmNetwork",
    "ImageEncoder",
    "ImageEncoderNetwork",
    "InContextLearner",
    "Induction",
    "InductionNetwork",
    "Interleaved",
    "Intervention",
    "ItemIndex",
    "LabelLayout",
    "LabelTokens",
    "Layout",
    "Learner",
    "LinearAttention",
    "Lstm",
    "LstmNetwork",
    "MapPredictor",
    "MergedLinearAttention",
    "MergedPredictor",
    "Mlp",
    "MlpNetwork",
    "OneLayerAttention",
    "OneLayerPredictor",
    "Separate",
    "SeparateLinearAttention",
    "SeparatePredictor",
    "SequenceClassifier",
    "SequenceClassifierNetwork",
    "Shifted",
    "SoftmaxRegression",
    "SoftmaxRegressionPredictor",
    "SparseLinearPredictor",
    "SparseLinearTransformer",
    "TokenAttention",
    "TokenAttentionNetwork",
    "TokenLearner",
    "TokenPredictor",
    "Trace",
    "Transformer",
    "TransformerNetwork",
    "Window",
    "ablate_head",
]
