"""Small language models trained here: attention alone in one or two layers, and GPT-2's shape, on any text.

While they learn, their in-context score on text that is held out and the heads that match prefixes are recorded, since
both appear together, at a bump of the loss (Olsson et al., 2022). Trained, each is a checkpoint of the family GPT-2.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from meta_icl.analysis.circuits import prefix_matching, previous_token
from meta_icl.errors import choose, require
from meta_icl.lm.corpora import TextWindows
from meta_icl.lm.corpora import corpus as made_corpus
from meta_icl.lm.loaded import LanguageModel
from meta_icl.lm.networks import exported
from meta_icl.lm.texts import repeated_tokens
from meta_icl.models import Architecture, Dense, InContextLearner, Learner, Network, TokenLayout, gpt2
from meta_icl.training import Optimiser, next_token_cross_entropy, train

SHAPES = {
    "attention1": "one layer of attention alone",
    "attention2": "two layers of attention alone, the fewest in which induction heads form",
    "gpt2": "GPT-2's blocks in four layers",
}
WRITES_NOTHING = 4  # units of the MLPs that stand in a checkpoint for those that are not there
WINDOWS, SEQUENCES = 128, 8  # of held-out text, and of repeated random tokens


def architecture_named(shape: str, n_tokens: int, length: int, width: int, heads: int) -> Architecture:
    """GPT-2's shape with learned positions, its MLPs left out for attention alone; `BadInput` for another name."""
    layers = {"attention1": 1, "attention2": 2, "gpt2": 4}[choose("shape", shape, SHAPES)]
    require(heads >= 1 and width % heads == 0, "heads", heads, f"a divisor of the width {width}")
    whole = gpt2(n_tokens, width, layers, heads, length)
    (block,) = whole.blocks
    return whole if shape == "gpt2" else replace(whole, block=replace(block, feed_forward=None))


def with_idle_mlps(network: Network) -> Network:
    """The same map from tokens to logits, with MLPs that write nothing where there were none: GPT-2 has them."""
    (block,) = network.config.blocks
    if block.feed_forward is not None:
        return network
    half = Dense(WRITES_NOTHING, "gelu", True)
    filled = replace(network.config, block=replace(block, feed_forward=half))(key=jax.random.key(0))
    (layers,) = filled.blocks
    idle = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, layers.feed_forward)
    (own,) = network.blocks
    layers = eqx.tree_at(
        lambda b: (b.mixer, b.norm_mixer, b.feed_forward), layers, (own.mixer, own.norm_mixer, idle)
    )  # fmt: skip
    return Network(network.embedding, network.positions, (layers,), network.final_norm, network.readout, filled.config)


class OnText(eqx.Module):
    """What is recorded while a model learns: losses by place on held-out text, heads on repeated random tokens."""

    windows: Int[Array, "w t"]
    repeats: Int[Array, "s u"]
    period: int = eqx.field(static=True)

    def __call__(self, predictor: InContextLearner, key: Any) -> dict[str, Any]:
        del key
        network = predictor.network

        def losses(row: Array) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(network(row)[0][:-1], row[1:])

        def heads(row: Array) -> dict[str, Array]:
            pattern = network(row)[1]["pattern"]
            return {"prefix": prefix_matching(pattern, self.period), "previous": previous_token(pattern)}

        found = jax.lax.map(heads, self.repeats)
        return {"losses": jax.lax.map(losses, self.windows).mean(0)} | {n: v.mean(0) for n, v in found.items()}


def pretrain(
    part: Any, *, shape: str, text: str | None, n_tokens: int, length: int, width: int, heads: int, steps: int,
    batch: int, rate: float, seed: int, records: int, corpus: str | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Train one small model; what was recorded, by step, and its checkpoint as arrays "tensors/..." and "config".

    `losses` "records t-1" are of held-out text by place, `prefix` and `previous` "records layers heads".
    """
    source = made_corpus(text or None, n_tokens=n_tokens)
    same = corpus in (None, source.digest)
    require(same, "text", text or "the library of Python", "what it was when this training was asked for")
    architecture = architecture_named(shape, source.tokenizer.n_tokens, length, width, heads)
    period = min(50, (length - 1) // 2)
    drawn = LanguageModel(eqx.filter_eval_shape(architecture, key=jax.random.key(0)), source.tokenizer,
                          source.tokenizer.opening, length)  # fmt: skip
    probe = OnText(jnp.asarray(source.held_out(length, WINDOWS)),
                   jnp.asarray(repeated_tokens(drawn, period, range(SEQUENCES))), period)  # fmt: skip
    assert source.tokenizer.opening is not None
    trained = train(
        TextWindows(jnp.asarray(source.training), source.tokenizer.opening, length),
        Learner(architecture, TokenLayout()),
        steps=steps,
        key=0,
        seeds=[seed],
        batch=batch,
        objective=next_token_cross_entropy,
        # With Adam prefix matching comes to .06 in 4,000 steps of the command's defaults, with Muon to .28 in 2,000.
        optimiser=Optimiser("muon", learning_rate=rate, warmup_steps=min(100, steps // 10), clip_norm=1.0),
        record=max(1, steps // records),
        probes={"text": probe},
        store=part,
    )
    history = {name.removeprefix("text/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}
    config, tensors = exported(with_idle_mlps(trained[0].network), n_positions=length)
    stored = {f"tensors/{name}": array for name, array in tensors.items()}
    return history | stored | {"config": np.frombuffer(json.dumps(config).encode(), np.uint8)}


def checkpoint_of(found: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The configuration and the tensors of a trained model, from what `pretrain` left behind."""
    tensors = {name.removeprefix("tensors/"): a for name, a in found.items() if name.startswith("tensors/")}
    return json.loads(bytes(np.asarray(found["config"], np.uint8))), tensors
