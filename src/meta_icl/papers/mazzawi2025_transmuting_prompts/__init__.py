"""Transmuting prompts into weights (Mazzawi et al., arXiv 2510.08734, 2025).

Claim. The updates of single tokens, averaged by least squares over calibration tokens, give a patch that does not
depend on the query: thought matrices for the weights and thought vectors for the biases of every block. They stand in
for a prompt approximately, the better the more calibration tokens.

Setting. The paper steers pretrained models with arithmetic and translation prompts and was read in abstract only; the
form of the averages, delta = mean of the bias patches and Delta = ridge solution over calibration queries, is that of
thought patches (Dherin et al., 2025). A form with the last matrix fitted too, because attention's own addition to the
residual stream depends on the query and a bias does not, was added after a first run; the claim is judged without it.
Here: three pre-LN blocks of width 16 (MLP 32, two heads) trained on linear
regression with d = 2 and N = 20; a prompt is a context, calibration and held-out tokens are queries to it. Untrained
blocks are measured beside them, because the approximation may work for any weights.

Expected: the error on held-out queries lies between that of no patch and of exact patches (asked for once there are as
many calibration queries as channels) and falls with the number of calibration queries. The approximation may work for
any weights: that it works says nothing of learning, a difference between trained and untrained blocks would.

Command: `meta-icl reproduce mazzawi2025`. Times on two CPU cores: see `TIMES`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.implicit import ThoughtErrors, thought_errors
from meta_icl.evaluation import loss_on
from meta_icl.models import Concatenated, Learner
from meta_icl.models.blocks import Attention, Blocks
from meta_icl.plotting import Chart, Grid, Lines, over_seeds
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_most, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, Normal
from meta_icl.training import Optimiser, train

TIMES = {"smoke": "1 CPU-min", "small": "4 CPU-min", "paper": "hours"}
IDS = ("M1",)
EVAL_KEY, TRAIN_KEY = 2510, 0
WIDTH = 16  # of the blocks: fewer calibration queries leave the least squares undetermined


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments."""

    seeds: int = 3
    steps: int = 1_500
    batch: int = 64
    n_context: int = 20
    n_contexts: int = 20  # prompts for which patches are fitted
    n_test: int = 100  # held-out queries per prompt
    calibration: tuple[int, ...] = (1, 4, 16, 64, 256)
    ridge: float = 0.01


PRESETS = {
    "smoke": Config(seeds=2, steps=5, batch=8, n_context=6, n_contexts=2, n_test=4, calibration=(2, 32)),
    # Shrunk: a small model trained here in place of a pretrained language model.
    "small": Config(),
    "paper": Config(seeds=10, steps=20_000, n_contexts=100, n_test=1_000, calibration=(1, 4, 16, 64, 256, 1024)),
}


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


# Claims and figures.


def claims(run: Run) -> list[Claim]:
    """M1, on trained blocks; untrained ones are in the note."""
    arrays = run.part_arrays("regression")
    sizes = [int(k) for k in arrays["sizes"]]
    held = arrays["trained/test"] / arrays["trained/none"][:, None]
    exact = arrays["trained/exact"] / arrays["trained/test"][:, -1]
    checks = [
        Check(f"K = {k}: error on new queries / no patch", at_most(1.0), held[:, i])
        for i, k in enumerate(sizes)
        if k >= WIDTH
    ]
    checks.append(Check(f"K = {sizes[-1]}: exact patches / thought patch", within(0.0, 1.0), exact))
    checks += [
        Check(f"error on new queries at K = {k} / at K = {before}", at_most(1.0), held[:, i + 1] / held[:, i])
        for i, (before, k) in enumerate(pairwise(sizes))
    ]

    def shares(name: str) -> str:
        kind = name.split("/")[0]
        medians = np.median(arrays[name] / arrays[f"{kind}/none"][:, None], axis=0)
        return ", ".join(f"{k}: {share:.3g}" for k, share in zip(sizes, medians, strict=True))

    note = (
        f"Errors as shares of no patch by K, trained: {shares('trained/test')}; thought vector alone: "
        f"{shares('trained/vector')}; untrained blocks: {shares('untrained/test')}. What attention adds to the "
        "residual stream depends on the query, and the last bias adds its mean alone; with the last matrix fitted to "
        f"it as well, trained: {shares('trained/test through the last matrix')}; untrained: "
        f"{shares('untrained/test through the last matrix')}. The paper's arithmetic and translation prompts need a "
        "pretrained language model and are not run here."
    )
    statement = "One averaged patch lies between no patch and exact ones, and improves with calibration"
    steps = int(arrays["step"][-1])
    undecided = None if steps >= 1_000 else f"{steps} training steps are too few"
    return [Claim("mazzawi2025/M1", statement, "abstract", checks, undecided, note)]


def figures(run: Run) -> dict[str, Chart]:
    """Errors against the number of calibration queries, and the training."""
    arrays = run.part_arrays("regression")
    shown = (
        ("new queries", "test", "line"),
        ("calibration queries", "calibration", "dotted"),
        ("thought vector", "vector", "dashed"),
        ("new queries, last matrix fitted too", "test through the last matrix", "line"),
    )
    charts = []
    for name in ("trained", "untrained"):
        none = arrays[f"{name}/none"][:, None]
        series = [
            over_seeds(label, arrays["sizes"], (arrays[f"{name}/{key}"] / none).T, style) for label, key, style in shown
        ]
        title, y_label = f"{name.capitalize()} blocks", "squared error / without a patch"
        charts.append(Lines(title, "calibration queries K", y_label, series, log_x=True, log_y=True))
    losses = (over_seeds("evaluation prompts", arrays["step"], arrays["eval"]),)
    return {
        "thought": Grid("A prompt as one patch for all queries", charts, 2),
        "training": Lines("Training", "training step", "half-MSE", losses),
    }
