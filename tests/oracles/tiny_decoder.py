"""The language model `tiny` beside a float64 forward pass of its weights."""

import numpy as np
import numpy_decoder
from scipy.special import log_softmax

from meta_icl.lm.loaded import language_model
from meta_icl.lm.names import from_checkpoint
from meta_icl.lm.networks import exported, shape_of_network


def token_losses(tokens, removed=()):
    """Nats of every token but the first, where the heads "layer, head" of `removed` write nothing."""
    network = language_model("tiny").network
    shape = shape_of_network(network)
    arrays = dict(from_checkpoint(exported(network)[1], shape))
    for layer, head in removed:
        name = f"blocks.{layer}.mixer.w_o"
        arrays[name] = np.array(arrays[name])
        arrays[name][head] = 0
    logs = log_softmax(numpy_decoder.logits(shape, arrays, np.array(tokens)), axis=-1)
    return np.array([-logs[i, token] for i, token in enumerate(tokens[1:])])
