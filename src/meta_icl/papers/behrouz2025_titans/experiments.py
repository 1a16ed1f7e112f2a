"""What is trained: variants of Titans and their rivals in the arenas of the league, and an untrained depth ladder."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from meta_icl import draws
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
from meta_icl.evaluation.league import Arena, arena, losses_at_best, play
from meta_icl.models.mixers import DeltaNet, LinearAttention, Mamba2, Persistent, Titans, TitansBlock, Ttt
from meta_icl.prompt import LabelledTokens, TokenTask, answer_positions
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, Needle, Normal

from .config import Config

CHUNKS = (1, 4, 64)  # besides the preset's own
ABLATIONS = ("no_forgetting", "no_momentum", "no_conv", "no_persistent")
HYBRIDS = ("mac", "mag", "mal")
PLAYED = {
    "mqar": ("lmm", *ABLATIONS, *(f"chunk{b}" for b in CHUNKS), *HYBRIDS),
    "hard": ("linear", "lmm", "depth3"),  # recall of twice as many pairs
    "needle": ("lmm", "ttt", "mamba2", "deltanet"),  # trained at half of the length to all of it
    "far": ("lmm", *HYBRIDS),  # needles of twice the length in chunks of half the size: windows do not reach so far
    "overwrite": ("deltanet", "linear_attention"),
}
FAR_RATE = 1e-3  # of "far" at most: at 3e-3 two LMMs of three and all of MAC diverge there, with either bound of steps


class Needles(TokenTask):
    """Needles of several lengths, each as likely; behind the shorter ones stand tokens that nobody is asked about.

    What is causal answers as if they were not there.
    """

    lengths: tuple[int, ...] = eqx.field(static=True)

    def sample(self, *, key: Key[Array, ""]) -> LabelledTokens:
        which_key, prompt_key = jax.random.split(key)
        longest = max(self.lengths)

        def padded(length: int) -> LabelledTokens:
            prompt = Needle(length=length).sample(key=prompt_key)
            return jax.tree.map(lambda leaf: jnp.pad(leaf, (0, longest - length)), prompt)

        every = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(padded(length) for length in self.lengths))
        return jax.tree.map(lambda leaf: leaf[draws.randint(which_key, (), 0, len(self.lengths))], every)


def ground(name: str, length: int, chunk_size: int) -> tuple[Arena, int]:
    """Where the mixers of an arena's name play, at `length` tokens of "mqar", and their chunk size there."""
    if name == "needle":
        return replace(arena("needle", length), task=Needles(tuple(length * k // 4 for k in (2, 3, 4)))), chunk_size
    kind, times = {"hard": ("mqar", 2), "far": ("needle", 2), "overwrite": ("overwrite", 2)}.get(name, (name, 1))
    return arena(kind, times * length), chunk_size // 2 if name == "far" else chunk_size


def variant(name: str, chunk_size: int, theta_limit: float | None = 0.1) -> Any:
    """The mixer of a name; the LMM has a memory of two layers and four persistent tokens, hybrids attend in chunks.

    With a `theta_limit` of None deep memories step by at most (1 - eta) / chunk_size, which is stable as drawn.
    """
    lmm = Titans(depth=2, chunk_size=chunk_size, theta_limit=theta_limit)
    if name.startswith("chunk"):
        return Persistent(replace(lmm, chunk_size=int(name.removeprefix("chunk"))))
    changes: dict[str, dict[str, Any]] = {
        "lmm": {}, "linear": {"depth": 1, "theta_limit": 1.0}, "depth3": {"depth": 3},
        "no_forgetting": {"forgetting": False}, "no_momentum": {"momentum": False}, "no_conv": {"conv": 0},
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
    sizes = {field: config[field] for field in ("batch", "seeds", "d_model", "n_layers", "n_eval", "rates")}
    sizes["steps"] = config["steps" if arena_name == "mqar" else "long_steps"]
    if arena_name == "overwrite":
        sizes |= {"n_layers": 1, "steps": 2 * config["steps"]}
    where, chunk_size = ground(arena_name, config["length"], config["chunk_size"])
    mixer = variant(name, chunk_size)
    if arena_name == "far":
        sizes["rates"] = sorted({min(rate, FAR_RATE) for rate in config["rates"]})
        mixer = variant(name, chunk_size, theta_limit=None)  # with 0.1 MAC is NaN as it is drawn
    return play(where, mixer, key=jax.random.key(0), store=part, **sizes)


def run(config: Config, run: Run) -> None:
    """The untrained ladder, the times, then the trainings of the preset's arenas."""
    run.save_arrays("ladder", ladder(config))
    run.save_arrays("times", times(config))
    run.save_arrays("sizes", {"pairs": np.array(config.length // 8)})
    shared = {field: getattr(config, field) for field in Config.__dataclass_fields__}
    names = [(arena_name, name) for arena_name in config.arenas for name in PLAYED[arena_name]]
    parts = {f"{a}-{name}": {"arena_name": a, "name": name, "config": shared} for a, name in names}
    run_parts(run, train_part, parts)


def ladder(config: Config) -> dict[str, np.ndarray]:
    """Errors over d by position of the untrained rules, their standard errors, their closed forms; recall."""
    d, n = config.d_ladder, 3 * config.d_ladder
    prompts = LinearRegression(d=d, n_context=n, x_law=Normal()).sample_batch(config.n_ladder, key=jax.random.key(1))
    t = jnp.arange(n + 1.0)
    rules = {"hebbian": Hebbian(), "delta": Delta(), "ridge": RecursiveRidge(), "surprise": Surprise()}
    known = {"hebbian": hebbian_error(t, d), "delta": kaczmarz_error(t, d)}
    known["ridge"] = least_squares_error(t, d)
    out = {"t": np.asarray(t)} | {f"known/{name}": np.asarray(curve) for name, curve in known.items()}
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


def played(run: Run) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """What every mixer left behind, by arena and name."""
    parts = run.arrays_of_parts()
    return {
        arena_name: {name: parts[f"{arena_name}-{name}"] for name in names}
        for arena_name, names in PLAYED.items()
        if f"{arena_name}-{names[0]}" in parts
    }


def final_losses(arrays: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Final training losses "seeds" of every mixer of an arena, each at its best rate."""
    return {name: losses_at_best(of) for name, of in arrays.items()}
