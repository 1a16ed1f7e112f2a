"""What is trained and measured: transformers, and the weight updates that stand for their context."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from meta_icl.analysis.implicit import in_float64, position_updates
from meta_icl.evaluation import loss_on
from meta_icl.models import Attention, BlockLayer, Concatenated, InContextLearner, Learner, contextual
from meta_icl.prompt import Prompt
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, Normal
from meta_icl.training import Optimiser, train

from .config import Config

EVAL_KEY, TRAIN_KEY = 2512, 0
ANY_WEIGHTS = (
    "An identity for any weights: it holds at step 0, untrained, as after training, and says nothing of learning."
)
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "1 block": {"depth": 1},
    "2 blocks": {"depth": 2},
    "d = 5": {"d": 5, "rate": 0.01},
    "d = 8": {"d": 8, "rate": 0.01},
    "1 head": {"heads": 1},
    "layer norm": {"arrangement": "pre-LN"},
    "bidirectional": {"causal": False},
}


def run(config: Config, run: Run) -> None:
    """Train every variant and compare patched and true answers along the way."""
    shared = {name: value for name, value in asdict(config).items() if name != "variants"}
    run_parts(run, train_variant, {part_name(v): {"variant": v, "config": shared} for v in config.variants})


def part_name(variant: str) -> str:
    """A variant's name as that of a folder."""
    return variant.replace(" ", "-").replace("-=-", "=")


def train_variant(part: Run, *, variant: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One variant of the setting: errors in float32 along the training, in float64 at its start and end."""
    c = Config(**config)
    setting: dict[str, Any] = {"depth": 5, "d": 2, "heads": c.n_heads, "arrangement": "residual", "causal": True}
    setting |= {"rate": None} | VARIANTS[variant]
    d, depth = setting["d"], setting["depth"]
    width = d + 1
    mixer = Attention(n_heads=setting["heads"], d_head=width // setting["heads"], causal=setting["causal"])
    blocks = contextual(width, 4 * width, depth, setting["arrangement"], mixer)
    task = LinearRegression(d=d, n_context=c.n_context, x_law=Normal())
    prompts = task.sample_batch(c.n_eval, key=jax.random.key(EVAL_KEY))
    model = Learner(blocks, Concatenated(sign=1.0))
    with jax.default_matmul_precision("highest"):
        trained = train(
            task,
            model,
            steps=c.steps,
            key=jax.random.key(TRAIN_KEY),
            seeds=c.seeds,
            batch=c.batch,
            optimiser=Optimiser(learning_rate=setting["rate"] or (0.1 if depth <= 2 else 0.05)),
            record=max(1, c.steps // 10),
            probes={"eval": loss_on(prompts), "patched": lambda learner, key: position_errors(learner, prompts)},
            store=part,
        )
        fresh = [
            model(key=jax.random.fold_in(jax.random.fold_in(jax.random.key(TRAIN_KEY), s), 0)) for s in range(c.seeds)
        ]
        found: dict[str, Any] = {}
        with jax.enable_x64(True):
            measure = eqx.filter_jit(
                lambda learner, prompts: position_errors(learner, prompts) | geometry(learner, prompts)
            )
            for when, learners in (("untrained", fresh), ("trained", [trained[i] for i in range(c.seeds)])):
                rows = [measure(in_float64(learner), in_float64(prompts)) for learner in learners]
                found |= {f"{when}/{name}": np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    return dict(trained.history) | found | {"width": np.array(width)}


def inputs_of_blocks(learner: InContextLearner, prompt: Prompt) -> Array:
    """The tokens that every block reads, "blocks t d"."""
    return learner.network(learner.layout.encode(prompt))[1]["resid_pre"]


def each_block(function: Callable[[BlockLayer, Array], Any], learner: InContextLearner, prompt: Prompt) -> Any:
    """What a function of a block and the tokens that it reads gives for every block, stacked."""
    (blocks,) = learner.network.blocks  # equal ones
    arrays, static = eqx.partition(blocks, eqx.is_array)
    each = jax.vmap(lambda layer, tokens: function(eqx.combine(layer, static), tokens))
    return each(arrays, inputs_of_blocks(learner, prompt))


def position_errors(learner: InContextLearner, prompts: Prompt) -> dict[str, Array]:
    """Per block: the largest relative error and the mean squared one, over positions and prompts."""

    def of_block(block: BlockLayer, tokens: Array) -> tuple[Array, Array]:
        wanted = block(tokens)
        found = jax.vmap(lambda patch: block(tokens[-1:], patch=patch)[0])(position_updates(block, tokens))
        gaps = jnp.linalg.norm(found - wanted, axis=-1)
        return jnp.max(gaps / jnp.linalg.norm(wanted, axis=-1)), jnp.mean(jnp.square(found - wanted))

    relative, squared = jax.vmap(lambda prompt: each_block(of_block, learner, prompt))(prompts)
    return {"relative": jnp.max(relative, axis=0), "squared": jnp.mean(squared, axis=0)}


def geometry(learner: InContextLearner, prompts: Prompt) -> dict[str, Array]:
    """Of the updates: ranks of each and of their sum, norms, and cosines between positions and between blocks."""

    def of_block(block: BlockLayer, tokens: Array) -> Array:
        return position_updates(block, tokens).weights["w_in"].dense()

    def of_prompt(prompt: Prompt) -> dict[str, Array]:
        updates = each_block(of_block, learner, prompt)  # blocks t d f
        flat = updates.reshape(*updates.shape[:2], -1)
        lengths = jnp.linalg.norm(flat, axis=-1, keepdims=True)
        unit = jnp.where(lengths > 0, flat / jnp.where(lengths > 0, lengths, 1), 0)
        total = jnp.sum(updates, axis=1)
        return {
            "rank": jnp.max(jnp.linalg.matrix_rank(updates)).astype(flat.dtype),
            "rank of sum": jnp.max(jnp.linalg.matrix_rank(total)).astype(flat.dtype),
            "norm": jnp.linalg.norm(flat, axis=-1),
            "spectral norm of sum": jnp.linalg.norm(total, ord=2, axis=(-2, -1)),
            "cosine of positions": jnp.einsum("ltx,lsx->lts", unit, unit),
            "cosine of blocks": jnp.einsum("ltx,mtx->lm", unit, unit) / unit.shape[1],
        }

    found = jax.vmap(of_prompt)(prompts)
    return {name: jnp.max(v, 0) if name.startswith("rank") else jnp.mean(v, 0) for name, v in found.items()}


def variants_of(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """What every variant left behind, by name."""
    return {
        name: run.part(part_name(name)).load_arrays("result") for name in VARIANTS if part_name(name) in run.parts()
    }
