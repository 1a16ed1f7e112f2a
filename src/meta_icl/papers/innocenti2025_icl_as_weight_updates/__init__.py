"""A simple generalisation of the implicit dynamics of in-context learning (Innocenti & Achour, arXiv 2512.11255, 2025).

Claims. At every position and in every block of a transformer, with skips and layer norm, the last token alone gives the
block's answer at that position once the first MLP matrix changes by a rank-one matrix and the last bias by a vector.
Identities for any weights: checked before, during and after training.

Setting (public code). w, x ~ N(0, I), y = w.x, d = 2, N = 50, tokens (x_i, y_i) and (x_q, 0) without embedding; causal
softmax attention with 3 heads of size 1, GELU MLP four times as wide, skips, no layer norm, five blocks; half-MSE on
128 fresh tasks a step, 100 steps, Adam at 0.1 (up to two blocks) or 0.05. The code adds 1e-8 to its denominators and
so agrees to about 1e-6 only; here nothing is added. Settled after an early run: at d = 5 the published rate ended in
numbers that are not finite, so wider tokens are trained at 0.01. In 100 steps that brings them from losses of several
hundred down to about the predictor zero's, d / 2, and no further.

Expected: patched = true at all positions and blocks, at most 1e-5 (float32) and 1e-12 (float64) in relative error; one
update of rank one, their sum over positions of rank at most the width. In the form checked here, the patches of one
block share their input row, so that the sum has rank one as well.

Command: `meta-icl reproduce innocenti2025`. Times on two CPU cores: see `TIMES`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from meta_icl.analysis.implicit import in_float64, position_updates
from meta_icl.evaluation import loss_on
from meta_icl.models import Concatenated, InContextLearner, Learner
from meta_icl.models.blocks import Attention, Block, Blocks
from meta_icl.models.trace import Tap
from meta_icl.plotting import Chart, Grid, Heatmaps, Lines, Panel, over_seeds
from meta_icl.prompt import Prompt
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_most
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, Normal
from meta_icl.training import Optimiser, train

TIMES = {"smoke": "1 CPU-min", "small": "6 CPU-min", "paper": "1 h"}
IDS = tuple(f"I{i}" for i in range(1, 3))
EVAL_KEY, TRAIN_KEY = 2512, 0
PRECISIONS = {"float64": True, "float32": False}
ANY_WEIGHTS = (
    "An identity for any weights: it holds at step 0, untrained, as after training, and says nothing of learning."
)


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments; `variants` are (name, changes of the setting)."""

    seeds: int = 3
    steps: int = 100
    batch: int = 128
    n_eval: int = 16
    n_context: int = 50
    variants: tuple[str, ...] = ("default", "1 block", "d = 5", "d = 8", "layer norm")


PRESETS = {
    "smoke": Config(seeds=2, steps=4, batch=8, n_eval=2, n_context=6, variants=("layer norm",)),
    # Shrunk: one variant of each field of the published sweeps, 16 prompts per measurement.
    "small": Config(),
    "paper": Config(
        n_eval=128,
        variants=("default", "1 block", "2 blocks", "d = 5", "d = 8", "1 head", "layer norm", "bidirectional"),
    ),
}

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "1 block": {"depth": 1},
    "2 blocks": {"depth": 2},
    "d = 5": {"d": 5, "rate": 0.01},
    "d = 8": {"d": 8, "rate": 0.01},
    "1 head": {"heads": 1},
    "layer norm": {"norm": "layer"},
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
    setting = {"depth": 5, "d": 2, "heads": None, "norm": None, "causal": True, "rate": None} | VARIANTS[variant]
    d, depth = setting["d"], setting["depth"]
    width = d + 1
    mixer = Attention(
        n_heads=setting["heads"] or width, d_head=width // (setting["heads"] or width), causal=setting["causal"]
    )
    blocks = Blocks(width, 4 * width, depth, mixer, norm=setting["norm"])
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


def position_errors(learner: InContextLearner, prompts: Prompt) -> dict[str, Array]:
    """Per block: the largest relative error and the mean squared one, over positions and prompts."""

    def of_block(block: Block, tokens: Array) -> tuple[Array, Array]:
        t = tokens.shape[0]
        wanted = block(tokens, jnp.ones(t, bool), Tap((), 0))
        alone, there = tokens[-1:], jnp.ones(1, bool)
        found = jax.vmap(lambda patch: block(alone, there, Tap((), 0), patch)[0])(position_updates(block, tokens))
        gaps = jnp.linalg.norm(found - wanted, axis=-1)
        return jnp.max(gaps / jnp.linalg.norm(wanted, axis=-1)), jnp.mean(jnp.square(found - wanted))

    def of_prompt(prompt: Prompt) -> tuple[Array, Array]:
        arrays, static = eqx.partition(learner.network.blocks, eqx.is_array)
        return jax.vmap(lambda layer, tokens: of_block(eqx.combine(layer, static), tokens))(
            arrays, inputs_of_blocks(learner, prompt)
        )

    relative, squared = jax.vmap(of_prompt)(prompts)
    return {"relative": jnp.max(relative, axis=0), "squared": jnp.mean(squared, axis=0)}


def geometry(learner: InContextLearner, prompts: Prompt) -> dict[str, Array]:
    """Of the updates: ranks of each and of their sum, norms, and cosines between positions and between blocks."""

    def of_prompt(prompt: Prompt) -> dict[str, Array]:
        arrays, static = eqx.partition(learner.network.blocks, eqx.is_array)

        def of_block(layer: Block, tokens: Array) -> Array:
            return position_updates(eqx.combine(layer, static), tokens).weights["w_in"].dense()

        updates = jax.vmap(of_block)(arrays, inputs_of_blocks(learner, prompt))  # blocks t d f
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


# Claims.


def claims(run: Run) -> list[Claim]:
    """I1 and I2: identities of any weights, checked on untrained and trained ones."""
    found = variants_of(run)
    i1, i2 = [], []
    for name, arrays in found.items():
        error = arrays["patched/relative"].max((0, 2))
        i1.append(Check(f"{name}: largest relative error, float32, all steps", at_most(1e-5), error, share=1.0))
        for when in ("untrained", "trained"):
            error, start = arrays[f"{when}/relative"].max(1), f"{name}, {when}"
            i1.append(Check(f"{start}: largest relative error, float64", at_most(1e-12), error, share=1.0))
            rank, total = (arrays[f"{when}/{key}"] for key in ("rank", "rank of sum"))
            i2.append(Check(f"{start}: largest rank of one update", at_most(1), rank, share=1.0))
            limit = at_most(float(arrays["width"]))
            i2.append(Check(f"{start}: largest rank of the sum over positions", limit, total, share=1.0))
    squared = max(arrays["patched/squared"][-1].max() for arrays in found.values())
    note = (
        f"{ANY_WEIGHTS} Largest mean squared difference at the end, float32: {squared:.1e}. The relative error is that "
        "of the worst of all positions, whose answer, of few numbers, may nearly cancel."
    )
    statement = "Patched and true answers agree at all positions and in all blocks"
    rank_note = (
        "The patches of a block share their input row, that of the last token alone: their sum has rank one here."
    )
    ranks = "One update has rank one, the sum over positions at most the width"
    return [
        Claim("innocenti2025/I1", statement, "main theorem", i1, note=note),
        Claim("innocenti2025/I2", ranks, "spectra", i2, note=f"{ANY_WEIGHTS} {rank_note}"),
    ]


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """Training, errors, and the geometry of the updates of the first variant."""
    found = variants_of(run)
    name, first = next(iter(found.items()))
    losses = [over_seeds(variant, arrays["step"], arrays["eval"]) for variant, arrays in found.items()]
    squared, norms = first["patched/squared"], first["trained/norm"]
    errors = [over_seeds(f"block {i + 1}", first["step"], squared[:, :, i]) for i in range(squared.shape[2])]
    positions = np.arange(1, norms.shape[-1] + 1)
    sizes = [over_seeds(f"block {i + 1}", positions, norms[:, i].T) for i in range(norms.shape[1])]
    panels = [Panel(f"block {i + 1}", matrix) for i, matrix in enumerate(first["trained/cosine of positions"][0][:3])]
    training = (
        Lines("Loss", "training step", "half-MSE", losses, log_y=True),
        Lines(f"Patched - true answers, {name}", "training step", "mean square, float32", errors, log_y=True),
    )
    heat = f"Cosine of the updates of two positions, {name}, after training"
    return {
        "training": Grid("Training, and patched against true answers", training, 2, ANY_WEIGHTS),
        "positions": Heatmaps(heat, panels, "Mean over prompts; seed 0.", shared_scale=True),
        "norms": Lines("Size of the update by position, after training", "position", "|dW|", sizes),
    }
