"""What is trained: variants of Titans and their rivals in the arenas of the league, and an untrained depth ladder."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.algorithms import (
    Delta,
    Hebbian,
    RecursiveRidge,
    Surprise,
    hebbian_error,
    kaczmarz_error,
    least_squares_error,
    recall_accuracy,
)
from meta_icl.evaluation.league import arena, play
from meta_icl.models.mixers import DeltaNet, LinearAttention, Mamba2, Persistent, Titans, TitansBlock, Ttt
from meta_icl.prompt import answer_positions
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, Normal

from .config import Config

CHUNKS = (1, 4, 64)  # besides the preset's own
ABLATIONS = ("no_forgetting", "no_momentum", "no_conv", "no_persistent")
PLAYED = {
    "mqar": ("lmm", "linear", "depth3", *ABLATIONS, *(f"chunk{b}" for b in CHUNKS), "mac", "mag", "mal"),
    "needle": ("lmm", "ttt", "mamba2", "deltanet", "mac", "mag", "mal"),
    "overwrite": ("deltanet", "linear_attention"),
}


def variant(name: str, chunk_size: int) -> Any:
    """The mixer of a name; the LMM has a memory of two layers behind four persistent tokens."""
    lmm = Titans(depth=2, chunk_size=chunk_size)
    if name.startswith("chunk"):
        return Persistent(replace(lmm, chunk_size=int(name.removeprefix("chunk"))))
    changes: dict[str, dict[str, Any]] = {
        "lmm": {}, "linear": {"depth": 1}, "depth3": {"depth": 3}, "no_forgetting": {"forgetting": False},
        "no_momentum": {"momentum": False}, "no_conv": {"conv": 0},
    }  # fmt: skip
    if name in changes:
        return Persistent(replace(lmm, **changes[name]))
    blocks = {"mac": "context", "mag": "gate", "mal": "layer"}
    if name in blocks:
        return TitansBlock(blocks[name], lmm, segment=chunk_size)
    return {
        "no_persistent": lmm,
        "ttt": Ttt(chunk_size=chunk_size, depth=2),
        "mamba2": Mamba2(chunk_size=chunk_size),
        "deltanet": DeltaNet(chunk_size=chunk_size),
        "linear_attention": LinearAttention(chunk_size=chunk_size, conv=4, feature="silu"),
    }[name]


# What is computed.


def train_part(part: Run, *, arena_name: str, name: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One variant in one arena, at its best rate."""
    sizes = {field: config[field] for field in ("steps", "batch", "seeds", "d_model", "n_layers", "n_eval", "rates")}
    mixer, length = variant(name, config["chunk_size"]), config["length"]
    if arena_name == "needle":
        sizes["steps"] = config["needle_steps"]
    if arena_name == "overwrite":
        sizes |= {"n_layers": 1, "steps": 2 * config["steps"]}
        length *= 2
    return play(arena(arena_name, length), mixer, key=jax.random.key(0), store=part, **sizes)


def run(config: Config, run: Run) -> None:
    """The untrained ladder, the times, then all trainings."""
    run.save_arrays("ladder", ladder(config))
    run.save_arrays("times", times(config))
    shared = {field: getattr(config, field) for field in Config.__dataclass_fields__}
    parts = {f"{a}-{name}": {"arena_name": a, "name": name, "config": shared} for a in PLAYED for name in PLAYED[a]}
    run_parts(run, train_part, parts)


def ladder(config: Config) -> dict[str, np.ndarray]:
    """Errors over d by position of the untrained rules, their standard errors, their closed forms; recall."""
    d, n = config.d_ladder, 3 * config.d_ladder
    prompts = LinearRegression(d=d, n_context=n, x_law=Normal()).sample_batch(config.n_ladder, key=jax.random.key(1))
    t = np.arange(n + 1)
    rules = {"hebbian": Hebbian(), "delta": Delta(), "ridge": RecursiveRidge(), "surprise": Surprise()}
    known = {"hebbian": hebbian_error(t, d), "delta": kaczmarz_error(t, d)}
    known["ridge"] = np.asarray(least_squares_error(jnp.asarray(t), d))
    out = {"t": t} | {f"known/{name}": np.asarray(curve) for name, curve in known.items()}
    for name, rule in rules.items():
        answers = jax.jit(lambda prompts, rule=rule: answer_positions(rule, prompts))(prompts)
        errors = np.asarray(jnp.square(answers - prompts.y)[..., 0], np.float64) / d
        out[f"mean/{name}"], out[f"error/{name}"] = errors.mean(0), errors.std(0) / len(errors) ** 0.5
    for name, rule in {"hebbian": Hebbian(raw=True), "delta": Delta(), "ridge": RecursiveRidge(0.01)}.items():
        shares = [recall_accuracy(rule, round(f * 32), 32, 20, key=jax.random.key(2)) for f in (0.5, 1, 2)]
        out[f"recall/{name}"] = np.array([float(s) for s in shares])
    return out


def times(config: Config) -> dict[str, np.ndarray]:
    """CPU seconds per token, forward and backward, "depths lengths"."""
    loss = eqx.filter_jit(eqx.filter_grad(lambda mixer, x: jnp.sum(jnp.square(mixer(x)))))
    table = np.zeros((3, len(config.lengths)))
    for i, depth in enumerate((1, 2, 3)):
        mixer = Titans(depth=depth, chunk_size=config.chunk_size)(config.d_model, key=jax.random.key(0))
        for j, length in enumerate(config.lengths):
            x = jax.random.normal(jax.random.key(1), (length, config.d_model))
            jax.block_until_ready(loss(mixer, x))
            spent = []
            for _ in range(5):
                began = time.process_time()
                jax.block_until_ready(loss(mixer, x))
                spent.append(time.process_time() - began)
            table[i, j] = min(spent) / length
    return {"lengths": np.array(config.lengths), "seconds": table}


# What claims and figures read of a finished run.


def part(run: Run, arena_name: str, name: str) -> dict[str, np.ndarray]:
    return run.part_arrays(f"{arena_name}-{name}")


def final_loss(run: Run, arena_name: str, name: str) -> np.ndarray:
    """Final training losses "seeds" at the best rate."""
    arrays = part(run, arena_name, name)
    return arrays["losses"][int(np.argmin(np.abs(arrays["rates"] - arrays["rate"])))]
