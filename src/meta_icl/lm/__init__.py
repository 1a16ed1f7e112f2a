"""Pretrained language models from local folders."""

from meta_icl.lm.checkpoints import load_language_model

__all__ = ["load_language_model"]
