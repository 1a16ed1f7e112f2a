"""What is trained and measured: a network, and one patch of its weights fitted to many queries."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.implicit import ThoughtErrors, thought_errors
from meta_icl.evaluation import loss_on
from meta_icl.models import Concatenated, Learner
from meta_icl.models.blocks import Attention, Blocks
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, Normal
from meta_icl.training import Optimiser, train

from .config import Config

EVAL_KEY, TRAIN_KEY = 2510, 0
WIDTH = 16  # of the blocks: fewer calibration queries leave the least squares undetermined


def run(config: Config, run: Run) -> None:
    """Train the blocks and fit thought patches."""
    run_parts(run, train_and_patch, {"regression": {"config": asdict(config)}})


def train_and_patch(part: Run, *, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Errors of thought patches by number of calibration queries, for trained and untrained blocks."""
    c = Config(**{**config, "calibration": tuple(config["calibration"])})
    task = LinearRegression(d=2, n_context=c.n_context, x_law=Normal())
    prompts = task.sample_batch(c.n_contexts, key=jax.random.key(EVAL_KEY))
    blocks = Blocks.of_kind("pre-LN", WIDTH, 32, n_blocks=3, mixer=Attention(n_heads=2), d_in=3, d_out=1)
    model = Learner(blocks, Concatenated(sign=1.0))
    key = jax.random.key(TRAIN_KEY)
    trained = train(
        task,
        model,
        steps=c.steps,
        key=key,
        seeds=c.seeds,
        batch=c.batch,
        optimiser=Optimiser(learning_rate=1e-3, clip_norm=1.0),
        record=max(1, c.steps // 20),
        probes={"eval": loss_on(prompts)},
        store=part,
    )
    contexts = jax.vmap(trained[0].layout.encode)(prompts)[:, :-1]
    x = jax.random.normal(jax.random.key(EVAL_KEY + 1), (c.n_contexts, max(c.calibration) + c.n_test, 2))
    queries = jnp.concatenate([x, jnp.zeros_like(x[..., :1])], axis=-1)
    calibrating, test = queries[:, : -c.n_test], queries[:, -c.n_test :]
    fresh = [model(key=jax.random.fold_in(jax.random.fold_in(key, seed), 0)) for seed in range(c.seeds)]
    found: dict[str, Any] = {"sizes": np.array(c.calibration)}
    for name, learners in (("trained", [trained[i] for i in range(c.seeds)]), ("untrained", fresh)):
        for carry in ("bias", "matrix"):
            rows = [
                thought_errors(each.network, contexts, calibrating, test, c.calibration, ridge=c.ridge, carry=carry)
                for each in learners
            ]
            fields = ThoughtErrors._fields if carry == "bias" else ("calibration", "test")
            end = "" if carry == "bias" else " through the last matrix"
            found |= {f"{name}/{field}{end}": np.stack([getattr(row, field) for row in rows]) for field in fields}
    return dict(trained.history) | found
