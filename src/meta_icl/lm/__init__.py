"""Pretrained language models from local folders, and decoders written for the libraries that read such folders."""

from meta_icl.lm.checkpoints import load_language_model
from meta_icl.lm.decoders import load_decoder, save_decoder
from meta_icl.lm.texts import Tokens, tokenized

__all__ = ["Tokens", "load_decoder", "load_language_model", "save_decoder", "tokenized"]
