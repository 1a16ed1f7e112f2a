"""Distributions over prompts, and the laws of their inputs and weights."""

from meta_icl.tasks.automata import Automaton, RandomAutomata, legal_share
from meta_icl.tasks.bursty import BurstyGaussian, BurstyImages, FewShot, NoSupport, bursty_gaussian
from meta_icl.tasks.copying import SelectiveCopying
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
from meta_icl.tasks.curriculum import Curriculum, Ramp, garg_curriculum
from meta_icl.tasks.fixed_weights import FixedWeightMixture
from meta_icl.tasks.functions import (
    DecisionTree,
    FunctionClass,
    FunctionRegression,
    FunctionSample,
    LeakyUnit,
    Linear,
    LinearClassification,
    Quadratic,
    ReluNetwork,
    SparseLinear,
)
from meta_icl.tasks.induction import RepeatedTokens, TwoPairs, every_two_pairs, split_label_pairs
from meta_icl.tasks.laws import Exponential, IndependentLaw, Laplace, Law, Normal, NormalisedMixture, Uniform
from meta_icl.tasks.meta_classification import MetaClassification, MetaSample, meta_classification
from meta_icl.tasks.mixtures import FamilyMixture, SparseBases, disjoint_bases, from_supports, overlapping_bases
from meta_icl.tasks.parity import SparseParity
from meta_icl.tasks.pools import PromptPool
from meta_icl.tasks.projected import UNLIMITED, ProjectedImages, Projection, RandomPoints, projected_images
from meta_icl.tasks.prompt_laws import MatchingQuery, Orthants, OrthogonalQuery, half_subspace_law, skewed_law
from meta_icl.tasks.recall import Mqar, Needle, Overwrite
from meta_icl.tasks.regression import LinearRegression
from meta_icl.tasks.sine import SineRegression

__all__ = [
    "UNLIMITED",
    "Automaton",
    "BurstyGaussian",
    "BurstyImages",
    "Curriculum",
    "DecisionTree",
    "Exponential",
    "FamilyMixture",
    "FewShot",
    "FixedWeightMixture",
    "FunctionClass",
    "FunctionRegression",
    "FunctionSample",
    "IndependentLaw",
    "Laplace",
    "Law",
    "LeakyUnit",
    "Linear",
    "LinearClassification",
    "LinearRegression",
    "Masked",
    "MatchingQuery",
    "MetaClassification",
    "MetaSample",
    "Mqar",
    "Needle",
    "NoSupport",
    "Normal",
    "NormalisedMixture",
    "Orthants",
    "OrthogonalQuery",
    "Overwrite",
    "ProjectedImages",
    "Projection",
    "PromptPool",
    "Quadratic",
    "Ramp",
    "RandomAutomata",
    "RandomPoints",
    "ReluNetwork",
    "RepeatedTokens",
    "SelectiveCopying",
    "SineRegression",
    "SparseBases",
    "SparseLinear",
    "SparseParity",
    "TwoPairs",
    "Uniform",
    "ar1_covariance",
    "bursty_gaussian",
    "covariance_from",
    "disjoint_bases",
    "every_two_pairs",
    "from_supports",
    "garg_curriculum",
    "gaussian_regression",
    "half_subspace_law",
    "legal_share",
    "linear_spectrum",
    "meta_classification",
    "overlapping_bases",
    "power_spectrum",
    "prior_covariance",
    "projected_images",
    "random_rotation",
    "several_tasks",
    "singular_rotation",
    "skewed_law",
    "split_label_pairs",
    "whitened_prompts",
]
