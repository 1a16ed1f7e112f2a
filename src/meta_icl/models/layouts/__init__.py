"""Layouts: prompt -> tokens, network output -> prediction."""

from meta_icl.models.layouts.labels import ItemIndex, LabelLayout, LabelTokens, Window
from meta_icl.models.layouts.layout import Layout
from meta_icl.models.layouts.regression import Concatenated, Interleaved, Separate
from meta_icl.models.layouts.shifted import Shifted
from meta_icl.models.layouts.tokens import TokenLayout

__all__ = [
    "Concatenated",
    "Interleaved",
    "ItemIndex",
    "LabelLayout",
    "LabelTokens",
    "Layout",
    "Separate",
    "Shifted",
    "TokenLayout",
    "Window",
]
