"""Figures as plain descriptions, drawn alike by plotly (reports) and matplotlib (files); no science, no runs."""

from meta_icl.plotting.axes import told
from meta_icl.plotting.chart import (
    Bars,
    Chart,
    Grid,
    Heatmaps,
    Lines,
    Panel,
    Parallel,
    Series,
    Slider,
    Widget,
    deciding,
    over_seeds,
    still,
    thin,
)
from meta_icl.plotting.dissections import attention_explorer, attention_film, weight_products
from meta_icl.plotting.draw_matplotlib import draw, save, show
from meta_icl.plotting.draw_plotly import tree, trees_on_common_axes
from meta_icl.plotting.parallel import Coordinate
from meta_icl.plotting.widgets import gradient_animation, moving_task

__all__ = [
    "Bars",
    "Chart",
    "Coordinate",
    "Grid",
    "Heatmaps",
    "Lines",
    "Panel",
    "Parallel",
    "Series",
    "Slider",
    "Widget",
    "attention_explorer",
    "attention_film",
    "deciding",
    "draw",
    "gradient_animation",
    "moving_task",
    "over_seeds",
    "save",
    "show",
    "still",
    "thin",
    "told",
    "tree",
    "trees_on_common_axes",
    "weight_products",
]
