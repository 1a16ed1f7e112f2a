"""Fixed data sets with a training and a test part: bundled, drawn from fonts, or downloaded. numpy only."""

from meta_icl.data.bundled import TABLES, blobs, digits, table
from meta_icl.data.downloads import download
from meta_icl.data.glyphs import characters, draw_glyphs, font_glyphs
from meta_icl.data.images import ImageSet, area_weights, feature_set, stratified_split

__all__ = [
    "TABLES",
    "ImageSet",
    "area_weights",
    "blobs",
    "characters",
    "digits",
    "download",
    "draw_glyphs",
    "feature_set",
    "font_glyphs",
    "stratified_split",
    "table",
]
