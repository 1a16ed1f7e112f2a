"""Networks, layouts, traces and interventions."""

from typing import Any

from meta_icl.models import layouts, published, theory
from meta_icl.models.block import Block, BlockLayer, Reading
from meta_icl.models.clamped import Clamped, ClampedLearner
from meta_icl.models.embeddings import Items, Tokens, Vectors
from meta_icl.models.feedforward import Dense, Experts, Gated
from meta_icl.models.image_encoder import ImageEncoder, ImageEncoderNetwork
from meta_icl.models.initialisation import GPT2, HE, LECUN, TORCH, Init
from meta_icl.models.interventions import Intervened, Intervention, ablate_head, restricted
from meta_icl.models.layouts import *
from meta_icl.models.learner import InContextLearner, Learner, layout_for
from meta_icl.models.mixers import Attention, AttentionLayer, Lstm
from meta_icl.models.network import Architecture, Network
from meta_icl.models.norms import Norm, NormLayer
from meta_icl.models.patch import LowRank, Patch
from meta_icl.models.positions import Learned, Rotary, Sinusoidal
from meta_icl.models.published import *
from meta_icl.models.readouts import Classifier, Linear, Tied
from meta_icl.models.theory import *
from meta_icl.models.trace import Trace


def LinearAttention(d_model: int, **fields: Any) -> Learner:
    """Linear self-attention on (x, y) tokens, `Learner(von_oswald(d_model, **fields))` with d_model = dx + dy."""
    return Learner(published.von_oswald(d_model, **fields))


__all__ = ["Architecture", "Block", "BlockLayer", "Network", "Reading"]
__all__ += ["Attention", "AttentionLayer", "Dense", "Experts", "Gated", "Lstm", "Norm", "NormLayer"]
__all__ += ["ImageEncoder", "ImageEncoderNetwork", "Items", "Learned", "Rotary", "Sinusoidal", "Tokens", "Vectors"]
__all__ += ["Classifier", "Linear", "Tied"]
__all__ += ["GPT2", "HE", "LECUN", "TORCH", "Init"]
__all__ += ["InContextLearner", "Learner", "LinearAttention", "layout_for"]
__all__ += ["Intervened", "Intervention", "LowRank", "Patch", "Trace", "ablate_head", "restricted"]
__all__ += ["Clamped", "ClampedLearner"]
__all__ += layouts.__all__
__all__ += published.__all__
__all__ += theory.__all__
