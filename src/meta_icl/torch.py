"""`meta_icl.torch.TorchPredictor`: your PyTorch model in every comparison. PyTorch is imported when it is used."""

from meta_icl.adapters.torch import TorchPredictor

__all__ = ["TorchPredictor"]
