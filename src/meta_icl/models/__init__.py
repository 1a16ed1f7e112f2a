"""Networks, layouts, traces and interventions."""

from typing import Any

from meta_icl.models.block import (
    Block,
    BlockLayer,
    Reading,
)
from meta_icl.models.clamped import (
    Clamped,
    ClampedLearner,
)
from meta_icl.models.embeddings import (
    Items,
    Tokens,
    Vectors,
)
from meta_icl.models.feedforward import (
    Dense,
    Experts,
    Gated,
)
from meta_icl.models.image_encoder import (
    ImageEncoder,
    ImageEncoderNetwork,
)
from meta_icl.models.initialisation import (
    GPT2,
    HE,
    LECUN,
    TORCH,
    Init,
)
from meta_icl.models.interventions import (
    Intervened,
    Intervention,
    ablate_head,
    restricted,
)
from meta_icl.models.layouts import (
    Concatenated,
    Interleaved,
    ItemIndex,
    LabelLayout,
    LabelTokens,
    Layout,
    Separate,
    Shifted,
    TokenLayout,
    Window,
)
from meta_icl.models.learner import InContextLearner, Learner, layout_for
from meta_icl.models.mixers import (
    Attention,
    AttentionLayer,
    Lstm,
)
from meta_icl.models.network import (
    Architecture,
    Network,
)
from meta_icl.models.norms import (
    Norm,
    NormLayer,
)
from meta_icl.models.patch import (
    LowRank,
    Patch,
)
from meta_icl.models.positions import (
    Learned,
    Rotary,
    Sinusoidal,
)
from meta_icl.models.published import (
    ARRANGEMENTS,
    NETWORKS,
    chan,
    contextual,
    garg,
    gemma2,
    gemma3,
    gpt2,
    kirsch,
    llama,
    lstm,
    memories,
    minegishi,
    mistral,
    mlp,
    neox,
    olmo2,
    olsson,
    qwen2,
    qwen3,
    raventos,
    reddy,
    singh,
    von_oswald,
)
from meta_icl.models.readouts import (
    Classifier,
    Linear,
    Tied,
)
from meta_icl.models.theory import (
    CubicMLP,
    CubicMLPPredictor,
    MapPredictor,
    MergedLinearAttention,
    MergedPredictor,
    OneLayerAttention,
    OneLayerPredictor,
    SeparateLinearAttention,
    SeparatePredictor,
    SoftmaxRegression,
    SoftmaxRegressionPredictor,
    SparseLinearPredictor,
    SparseLinearTransformer,
)
from meta_icl.models.trace import (
    Trace,
)


def LinearAttention(d_model: int, **fields: Any) -> Learner:
    """Linear self-attention on (x, y) tokens, `Learner(von_oswald(d_model, **fields))` with d_model = dx + dy."""
    return Learner(von_oswald(d_model, **fields))


__all__ = [
    "ARRANGEMENTS",
    "GPT2",
    "HE",
    "LECUN",
    "NETWORKS",
    "TORCH",
    "Architecture",
    "Attention",
    "AttentionLayer",
    "Block",
    "BlockLayer",
    "Clamped",
    "ClampedLearner",
    "Classifier",
    "Concatenated",
    "CubicMLP",
    "CubicMLPPredictor",
    "Dense",
    "Experts",
    "Gated",
    "ImageEncoder",
    "ImageEncoderNetwork",
    "InContextLearner",
    "Init",
    "Interleaved",
    "Intervened",
    "Intervention",
    "ItemIndex",
    "Items",
    "LabelLayout",
    "LabelTokens",
    "Layout",
    "Learned",
    "Learner",
    "Linear",
    "LinearAttention",
    "LowRank",
    "Lstm",
    "MapPredictor",
    "MergedLinearAttention",
    "MergedPredictor",
    "Network",
    "Norm",
    "NormLayer",
    "OneLayerAttention",
    "OneLayerPredictor",
    "Patch",
    "Reading",
    "Rotary",
    "Separate",
    "SeparateLinearAttention",
    "SeparatePredictor",
    "Shifted",
    "Sinusoidal",
    "SoftmaxRegression",
    "SoftmaxRegressionPredictor",
    "SparseLinearPredictor",
    "SparseLinearTransformer",
    "Tied",
    "TokenLayout",
    "Tokens",
    "Trace",
    "Vectors",
    "Window",
    "ablate_head",
    "chan",
    "contextual",
    "garg",
    "gemma2",
    "gemma3",
    "gpt2",
    "kirsch",
    "layout_for",
    "llama",
    "lstm",
    "memories",
    "minegishi",
    "mistral",
    "mlp",
    "neox",
    "olmo2",
    "olsson",
    "qwen2",
    "qwen3",
    "raventos",
    "reddy",
    "restricted",
    "singh",
    "von_oswald",
]
