"""What is trained and measured: small language models on repeated tokens, and their induction heads."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from meta_icl.analysis.circuits import each_head, eigenvalue_copying, prefix_matching, previous_token, without_heads
from meta_icl.models import AttentionStack, TokenAttention
from meta_icl.prompt import TokenPrompt
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import RepeatedTokens
from meta_icl.training import Optimiser, next_token_cross_entropy, train

from .config import Config

TRAIN_KEY, EVAL_KEY = 0, 2024
MATCHES = 0.5  # prefix matching above which a head counts as an induction head
MODELS: dict[str, dict[str, Any]] = {
    "two": {"n_layers": 2},
    "one": {"n_layers": 1},
    "one_smeared": {"n_layers": 1, "smeared": True},
}


def task_of(config: Mapping[str, Any], *, training: bool) -> RepeatedTokens:
    """The repeated blocks of a preset: of many lengths in training, of the longest where models are measured."""
    return RepeatedTokens(config["n_tokens"], config["period"], 4, config["shortest"] if training else None)


def train_model(part: Run, *, name: str, seed: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One seed of one model: losses by place, scores of heads and their copying while it learns; ablations after."""
    prompts = task_of(config, training=False).sample_batch(config["n_eval"], key=jax.random.key(EVAL_KEY))
    stack = AttentionStack(
        config["width"], n_heads=config["heads"], project=True, scaled=True, norm="pre", **MODELS[name]
    )
    period = config["period"]

    def probe(predictor: Any, key: Any) -> dict[str, Any]:
        del key
        logits, trace = jax.vmap(predictor.trace)(prompts)
        pattern = trace["pattern"]
        return {
            "losses": losses(logits, prompts.tokens).mean(0),
            "prefix": prefix_matching(pattern, period).mean(0),
            "previous": previous_token(pattern).mean(0),
        }

    trained = train(
        task_of(config, training=True),
        TokenAttention(config["n_tokens"], 1 + 4 * period, stack),
        steps=config["steps"],
        key=jax.random.key(TRAIN_KEY),
        seeds=[seed],
        batch=config["batch"],
        objective=next_token_cross_entropy,
        optimiser=Optimiser(learning_rate=config["learning_rate"]),
        record=max(1, config["steps"] // config["records"]),
        probes={"at": probe},
        store=part,
    )
    model = trained[0]
    history = {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}
    return history | heads_at_end(model, prompts, period, matching_heads(history["prefix"][-1]))


def losses(logits: Any, tokens: Any) -> Any:
    """The loss of every token but the first, in nats, "... t-1"."""
    return optax.softmax_cross_entropy_with_integer_labels(logits[..., :-1, :], tokens[..., 1:])


def score_of(losses: Any, period: int) -> Any:
    """Mean loss on the last copy less that on the first; the first token of a copy follows from nothing at first."""
    return losses[..., -period:].mean(-1) - losses[..., :period].mean(-1)


def matching_heads(prefix: np.ndarray) -> np.ndarray:
    """Which heads match prefixes, "layers heads": those with a score above `MATCHES`, or the best if there is none."""
    return prefix >= min(MATCHES, prefix.max())


def heads_at_end(model: Any, prompts: TokenPrompt, period: int, matching: np.ndarray) -> dict[str, np.ndarray]:
    """Copying by eigenvalues, and the in-context score without each head and without all `matching` heads together.

    Later patterns are kept ("kept") or react to the loss ("free").
    """
    stack = model.stack
    # The scales of the norms belong to the matrices that they meet.
    values = stack.w_v * stack.norm[:, 0][:, None, :, None]
    unembed = stack.norm_final[0][:, None] * model.unembed
    copying = eigenvalue_copying(model.embed, values, stack.writes(), unembed)

    def score(logits: Any, prompt: TokenPrompt) -> Any:
        return score_of(losses(logits, prompt.tokens), period)

    layers, heads = stack.w_q.shape[:2]
    out = {"copying": copying}
    ablated = eqx.filter_jit(without_heads)  # with the model as an argument: as a constant it is folded for a minute
    for name, keep in (("kept", ("pattern",)), ("free", ())):
        sets = jnp.concatenate([each_head(layers, heads).reshape(-1, layers, heads), jnp.asarray(matching)[None]])
        *single, together = np.asarray(ablated(model.trace, score, prompts, sets, keep=keep))
        out[f"without_{name}"] = np.reshape(single, (layers, heads))
        out[f"without_matching_{name}"] = together
    return out


def run(config: Config, run: Run) -> None:
    """Every seed of every model."""
    shared = asdict(config)
    parts = {
        f"{name}-seed{seed}": {"name": name, "seed": seed, "config": shared}
        for name in MODELS
        for seed in range(config.seeds)
    }
    run_parts(run, train_model, parts)


# What claims and figures read of a finished run.


def seeds_of(run: Run, name: str) -> list[dict[str, np.ndarray]]:
    """What every seed of a model left behind."""
    return [
        part.load_arrays("result") for part_name, part in run.parts().items() if part_name.startswith(f"{name}-seed")
    ]


def scores_of(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The in-context score at every record."""
    return score_of(arrays["losses"], arrays["losses"].shape[-1] // 4)
