"""Distributions over prompts, and the laws of their inputs and weights."""

from meta_icl.tasks.covariance import (
    Masked,
    ar1_covariance,
    covariance_from,
    gaussian_regression,
    linear_spectrum,
    power_spectrum,
    prior_covariance,
    random_rotation,
    several_tasks,
    singular_rotation,
    whitened_prompts,
)
from meta_icl.tasks.fixed_weights import FixedWeightMixture
from meta_icl.tasks.laws import Exponential, IndependentLaw, Laplace, Law, Normal, NormalisedMixture, Uniform
from meta_icl.tasks.regression import LinearRegression
from meta_icl.tasks.sine import SineRegression

__all__ = [
    "Exponential",
    "FixedWeightMixture",
    "IndependentLaw",
    "Laplace",
    "Law",
    "LinearRegression",
    "Masked",
    "Normal",
    "NormalisedMixture",
    "SineRegression",
    "Uniform",
    "ar1_covariance",
    "covariance_from",
    "gaussian_regression",
    "linear_spectrum",
    "power_spectrum",
    "prior_covariance",
    "random_rotation",
    "several_tasks",
    "singular_rotation",
    "whitened_prompts",
]
