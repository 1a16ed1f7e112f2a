"""What is trained and measured: single layers of fast-weight rules, and recall of several mixers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from meta_icl.evaluation import errors_by_position
from meta_icl.evaluation.league import Arena, arena, losses_at_best, play, roster
from meta_icl.models import Architecture, Block, Concatenated, Learner, mixers
from meta_icl.prompt import Prompt
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import FunctionRegression, Linear, LinearRegression, Normal
from meta_icl.training import Optimiser, half_mse, labelled_cross_entropy, train

from .config import Config

RULES = ("linear_attention", "deltanet", "mesa")  # one layer each
RECALL = ("attention", "deltanet", "gated_deltanet", "mesa")
SINGLE = ("deltanet", "linear_attention")  # one layer, with and without convolution
SWEPT = ("attention", "linear_attention")  # over widths and lengths: all tokens at hand, and a state of fixed size
STYLES = (
    *("attention", "linear_attention", "retnet", "gla", "mamba", "mamba2", "deltanet", "gated_deltanet", "rwkv7"),
    *("mesa", "ttt_linear", "mlstm", "lstm"),
)
CG_STEPS = (0, 1, 5, 10, 20, 30)


class Marked(Concatenated):
    """Tokens (x, y, 1, 1) of the examples and (x, 0, 0, 1) of the query; the answer is the last channel of the query.

    With a constant and a mark a linear layer can gate what it writes, as a bias would.
    """

    def encode(self, prompt: Prompt) -> Float[Array, "n d"]:
        example = (jnp.arange(prompt.x.shape[0]) < prompt.x.shape[0] - 1)[:, None] * jnp.ones((1, 1), prompt.x.dtype)
        return jnp.concatenate([prompt.x, prompt.y * example, example, jnp.ones_like(example)], axis=1)


@dataclass(frozen=True)
class PlainMesa(mixers.Mesa):
    """Mesa whose keys keep their length."""

    unit_keys: ClassVar[bool] = False


def rule_model(name: str, d: int) -> Learner:
    """One head with keys of width d and values of one channel, whose answer is added to nothing."""
    kinds = {"linear_attention": mixers.LinearAttention, "deltanet": mixers.DeltaNet, "mesa": PlainMesa}
    shape: dict[str, Any] = {"n_heads": 1, "d_key": d, "d_value": 1, "conv": 0, "feature": "identity"}
    mixer = kinds[name](**shape, output_norm=False, chunk_size=2 * d + 1)
    return Learner(Architecture(d + 3, block=Block(mixer, skip="none")), Marked())


# What is computed.


def rule_part(part: Run, *, name: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Errors over d "seeds positions" of one trained layer, at its best rate."""
    d, steps, seeds = config["d"], config["rule_steps"], config["seeds"]
    task = LinearRegression(d=d, n_context=2 * d, x_law=Normal())
    schedule: dict[str, Any] = {"schedule": "cosine", "schedule_steps": steps, "warmup_steps": max(1, steps // 20)}
    trained = train(
        task,
        rule_model(name, d),
        steps=steps,
        key=jax.random.key(0),
        seeds=seeds,
        batch=config["rule_batch"],
        optimiser=Optimiser("adam", clip_norm=1.0, **schedule),
        objective=half_mse,
        sweep={"optimiser.learning_rate": tuple(config["rule_rates"])},
        record=max(1, steps // 10),
        store=part,
    )
    losses = trained.history["loss"][-1].reshape(-1, seeds)
    best = int(np.argmin(losses.mean(axis=1)))
    prompts = task.sample_batch(config["rule_eval"], key=jax.random.key(1))
    positions = (d // 2, d, 3 * d // 2, 2 * d)
    members = [trained[best * seeds + i] for i in range(seeds)]
    errors = [errors_by_position(member, prompts, positions=positions).mean(axis=0) / d for member in members]
    return {"losses": losses, "rate": np.array(config["rule_rates"][best]), "t": np.array(positions)} | {
        "errors": np.stack([np.asarray(e) for e in errors])
    }


def recall_part(part: Run, *, name: str, n_layers: int, conv: bool, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One mixer in the recall arena; of Mesa also the losses by the number of steps of conjugate gradient."""
    ground, mixer = arena("mqar", config["length"]), roster(config["chunk_size"])[name]
    sizes = _sizes(config) | {"n_layers": n_layers, "steps": config["steps" if n_layers > 1 else "single_steps"]}

    def cg_losses(predictor: Any, key: Key[Array, ""]) -> Float[Array, " steps"]:
        def loss(steps: int) -> Array:
            model = ground.model(replace(mixer, cg_steps=steps), config["d_model"], n_layers, 4)
            skeleton = eqx.filter_eval_shape(model, key=key)
            same = jax.tree.unflatten(jax.tree.structure(skeleton), jax.tree.leaves(predictor))
            return labelled_cross_entropy(same, ground.task, config["n_eval"], key)

        return jnp.stack([loss(steps) for steps in CG_STEPS])

    measures = {"cg": cg_losses} if name == "mesa" and conv and n_layers > 1 else {}
    mixer = mixer if conv else replace(mixer, conv=0)
    return play(ground, mixer, key=jax.random.key(0), measures=measures, store=part, **sizes)


def style_part(part: Run, *, name: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One mixer on linear functions, scored after 2 d examples and at one to four times the training length."""
    d, n = config["length"] // 8, config["length"] // 2 - 1
    scored = {"2d": 2 * d, "1x": n, "2x": 2 * n, "4x": 4 * n}
    ground = Arena(FunctionRegression(Linear(d), n), {k: FunctionRegression(Linear(d), m) for k, m in scored.items()})
    sizes = _sizes(config) | {"n_layers": 2, "steps": config["style_steps"], "rates": config["style_rates"]}
    return play(ground, roster(config["chunk_size"])[name], key=jax.random.key(0), store=part, **sizes)


def sweep_part(part: Run, *, name: str, width: int, length: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One mixer of one width on recall from so many tokens, an eighth as many pairs."""
    sizes = _sizes(config) | {"n_layers": 2, "steps": config["steps"], "d_model": width, "seeds": 1}
    return play(arena("mqar", length), roster(config["chunk_size"])[name], key=jax.random.key(0), store=part, **sizes)


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in ("batch", "seeds", "d_model", "n_eval", "rates")}


def run(config: Config, run: Run) -> None:
    """All trainings: single layers, recall, styles, widths by lengths."""
    shared = {"config": {field: getattr(config, field) for field in Config.__dataclass_fields__}}
    run_parts(run, rule_part, {f"rule-{name}": {"name": name} | shared for name in RULES})
    recall = {f"recall-{name}": {"name": name, "n_layers": 2, "conv": True} | shared for name in RECALL}
    for conv in (True, False):
        parts = {f"single-{name}-conv={conv}": {"name": name, "n_layers": 1, "conv": conv} | shared for name in SINGLE}
        recall |= parts
    run_parts(run, recall_part, recall)
    run_parts(run, style_part, {f"style-{name}": {"name": name} | shared for name in STYLES})
    swept = {
        f"sweep-{name}-{width}-{length}": {"name": name, "width": width, "length": length} | shared
        for name in SWEPT
        for width in config.widths
        for length in config.lengths
    }
    run_parts(run, sweep_part, swept)
    sizes = {"d": config.d, "pairs": config.length // 8, "widths": config.widths, "lengths": config.lengths}
    run.save_arrays("sizes", {name: np.array(value) for name, value in sizes.items()})


# What claims and figures read of a finished run.


def plateau(arrays: Mapping[str, np.ndarray], pairs: int) -> np.ndarray:
    """Final training losses "seeds" at the best rate, over that of a guess among the values in the context, log P."""
    return losses_at_best(arrays) / np.log(pairs)


def swept(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of every mixer that was swept its recall "widths lengths", and the `plateau` of the same networks.

    Nothing where the preset sweeps none.
    """
    sizes = run.load_arrays("sizes")

    def cell(name: str, width: int, length: int) -> tuple[float, float]:
        arrays = run.part_arrays(f"sweep-{name}-{width}-{length}")
        return float(arrays["score/1x"][0]), float(plateau(arrays, length // 8)[0])

    def table(name: str) -> np.ndarray:
        return np.array([[cell(name, width, length) for length in sizes["lengths"]] for width in sizes["widths"]])

    return {name: (found[..., 0], found[..., 1]) for name in SWEPT if (found := table(name)).size}
