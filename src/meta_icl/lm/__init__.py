"""Pretrained language models from local folders, and decoders written for the libraries that read such folders."""

from meta_icl.lm.checkpoints import load_language_model
from meta_icl.lm.decoders import load_decoder, save_decoder

__all__ = ["load_decoder", "load_language_model", "save_decoder"]
