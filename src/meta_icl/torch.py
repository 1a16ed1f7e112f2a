"""Your PyTorch model in every comparison, and before the probes. PyTorch is imported when it is used."""

from meta_icl.adapters.torch import TorchNetwork, TorchPredictor
from meta_icl.adapters.transformers import TransformersNetwork

__all__ = ["TorchNetwork", "TorchPredictor", "TransformersNetwork"]
