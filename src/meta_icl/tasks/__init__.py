"""Distributions over prompts, and the laws of their inputs and weights."""

from meta_icl.tasks.laws import Exponential, IndependentLaw, Laplace, Law, Normal, NormalisedMixture, Uniform
from meta_icl.tasks.regression import LinearRegression
from meta_icl.tasks.sine import SineRegression

__all__ = [
    "Exponential",
    "IndependentLaw",
    "Laplace",
    "Law",
    "LinearRegression",
    "Normal",
    "NormalisedMixture",
    "SineRegression",
    "Uniform",
]
