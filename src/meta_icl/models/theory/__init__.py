"""The parametrisations of the theory that are no residual streams: maps of moments, sparse layers, one softmax."""

from meta_icl.models.theory.linear_attention import (
    CubicMLP,
    CubicMLPPredictor,
    MapPredictor,
    MergedLinearAttention,
    MergedPredictor,
    OneLayerAttention,
    OneLayerPredictor,
    SeparateLinearAttention,
    SeparatePredictor,
)
from meta_icl.models.theory.softmax_regression import SoftmaxRegression, SoftmaxRegressionPredictor
from meta_icl.models.theory.sparse import SparseLinearPredictor, SparseLinearTransformer

__all__ = [
    "CubicMLP",
    "CubicMLPPredictor",
    "MapPredictor",
    "MergedLinearAttention",
    "MergedPredictor",
    "OneLayerAttention",
    "OneLayerPredictor",
    "SeparateLinearAttention",
    "SeparatePredictor",
    "SoftmaxRegression",
    "SoftmaxRegressionPredictor",
    "SparseLinearPredictor",
    "SparseLinearTransformer",
]
