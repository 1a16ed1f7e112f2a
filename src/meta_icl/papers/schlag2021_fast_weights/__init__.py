"""Linear transformers are secretly fast weight programmers (Schlag, Irie & Schmidhuber, 2021; arXiv 2102.11174).

Claims. Linear attention programs a fast-weight matrix by sums of outer products; the delta rule, which writes only what
is missing, programs it better. The family that grew from this, up to layers that solve their regression (MesaNet, von
Oswald et al., 2025) and that forget by gates (Gated DeltaNet, Yang et al., 2025), recalls from its context as attention
does within the capacity of its state, and learns functions in context. Its claims come from several publications, each
named as a source, besides those Zoology (Arora et al., 2024), Lee et al. (2024), Park et al. (2024) and RegBench
(Akyurek et al., 2024). F-1 and F-5 stand in `behrouz2025_titans`.

Setting. F: one layer and nothing else, no norms and no MLP, on y = w.x with x, w ~ N(0, I_10); tokens (x, y, is an
example, 1); loss on the query after 20 pairs only. Keys of Mesa keep their length there: unit keys fit y / |x|, not y.
Q, M: backbones of width 32 on associative recall of 4 pairs in 32 tokens. L: the same backbones on linear functions of
4 inputs, 15 pairs. Every architecture has its own rate. What was measured on corpora, on automata or after long
training is marked undecided with its reason.

Command: `meta-icl reproduce schlag2021`. Times on two CPU cores: see `TIMES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from meta_icl.algorithms import hebbian_error, least_squares_error
from meta_icl.evaluation import errors_by_position
from meta_icl.evaluation.league import Arena, arena, play, roster
from meta_icl.models import Concatenated, Intervention, Learner, Trace, mixers
from meta_icl.plotting import Bars, Chart, Lines, Series, over_seeds
from meta_icl.prompt import Prompt
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_least, at_most, relative, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import FunctionRegression, Linear, LinearRegression, Normal
from meta_icl.training import Optimiser, half_mse, labelled_cross_entropy, train

TIMES = {"smoke": "2 min", "small": "32 CPU-min", "paper": "hours (GPU)"}
IDS = ("F-2", "F-3", "F-4", *(f"{k}-{i}" for k in "LMPQR" for i in (1, 2)), "Q-3", "R-3", "G-1")
RULES = ("linear_attention", "deltanet", "mesa")  # one layer each
RECALL = ("attention", "deltanet", "gated_deltanet", "mesa")
SINGLE = ("deltanet", "linear_attention")  # one layer, with and without convolution
STYLES = (
    *("attention", "linear_attention", "retnet", "gla", "mamba", "mamba2", "deltanet", "gated_deltanet", "rwkv7"),
    *("mesa", "ttt_linear", "mlstm", "lstm"),
)
CG_STEPS = (0, 1, 5, 10, 20, 30)
UNDECIDED = {
    "Q-2": ("Zoology, Fig. 2", "Attention recalls at any length with one width; fixed states need width as pairs grow"),
    "P-1": ("Park et al., 2024", "Mamba learns sparse parity in context, a plain transformer does not"),
    "P-2": ("Park et al., 2024", "Mamba is behind on decision trees and retrieval, hybrids are best"),
    "R-1": ("Akyurek et al., 2024", "Transformers learn random automata in context better than recurrent networks"),
    "R-2": ("Akyurek et al., 2024", "Heads that count n-grams help every model"),
    "R-3": ("MesaNet, Fig. 9", "Mesa is on random automata where the transformer is"),
    "M-2": ("MesaNet, Tab. 3", "Mesa stays behind attention on recall in context"),
    "G-1": (
        "Gated DeltaNet, Tab. 2",
        "With length, gates lose the pass-key and delta rules the number; both keep more",
    ),
}
REASONS = {
    "Q": "needs a sweep of widths and lengths up to 512 tokens: the `paper` preset's scale on a GPU",
    "P": "needs far longer training than minutes on two cores: the `paper` scale of that publication on a GPU",
    "R": "needs 200 epochs over thousands of automata at width 128 and 8 layers",
    "M": "a statement about language models of 400M parameters and more",
    "G": "published for 1,000 to 8,000 tokens; training at that length needs a GPU",
}


@dataclass(frozen=True)
class Config:
    """Sizes: `d` inputs and 2 d pairs for one layer; `length` tokens of recall; `style_steps` for linear functions."""

    seeds: int = 3
    d: int = 10
    rule_steps: int = 1_500
    rule_batch: int = 64
    rule_rates: tuple[float, ...] = (3e-2,)
    rule_eval: int = 20_000
    steps: int = 600
    style_steps: int = 200
    batch: int = 32
    rates: tuple[float, ...] = (3e-3, 1e-2)
    d_model: int = 32
    length: int = 32
    chunk_size: int = 16
    n_eval: int = 500


PRESETS = {
    "smoke": Config(
        seeds=2, d=2, rule_steps=3, rule_batch=4, rule_rates=(1e-2,), rule_eval=50, steps=2, style_steps=2, batch=4,
        rates=(1e-2,), d_model=8, length=16, chunk_size=4, n_eval=8,
    ),
    # Shrunk: recall in 32 tokens at width 32, not in 64 at width 64; 600 steps of 32 prompts at each of two rates, 200
    # on linear functions. A single layer has one rate, the best of .003, .01 and .03 for linear attention and DeltaNet.
    "small": Config(),
    "paper": Config(
        seeds=5, rule_steps=20_000, rule_batch=512, rule_rates=(1e-3, 3e-3, 1e-2), rule_eval=100_000, steps=20_000,
        style_steps=20_000, batch=256, rates=(3e-4, 1e-3, 3e-3, 1e-2), d_model=64, length=64, n_eval=3_000,
    ),
}  # fmt: skip


# One layer without anything around it.


class Marked(Concatenated):
    """Tokens (x, y, 1, 1) of the examples and (x, 0, 0, 1) of the query; the answer is the last channel of the query.

    With a constant and a mark a linear layer can gate what it writes, as a bias would.
    """

    def encode(self, prompt: Prompt) -> Float[Array, "n d"]:
        example = (jnp.arange(prompt.x.shape[0]) < prompt.x.shape[0] - 1)[:, None] * jnp.ones((1, 1), prompt.x.dtype)
        return jnp.concatenate([prompt.x, prompt.y * example, example, jnp.ones_like(example)], axis=1)


class OneLayer(eqx.Module):
    """A mixer as a network."""

    mixer: Any

    def __call__(
        self, tokens: Float[Array, "t d"], interventions: Sequence[Intervention] = ()
    ) -> tuple[Float[Array, "t d"], Trace]:
        del interventions  # it names no sites
        return mixers.mix(self.mixer, tokens), Trace({})


@dataclass(frozen=True)
class OneMixer:
    """Describes a `OneLayer`."""

    mixer: Any
    width: int

    def __call__(self, *, key: Key[Array, ""]) -> OneLayer:
        return OneLayer(self.mixer(self.width, key=key))


@dataclass(frozen=True)
class PlainMesa(mixers.Mesa):
    """Mesa whose keys keep their length."""

    unit_keys: ClassVar[bool] = False


def rule_model(name: str, d: int) -> Learner:
    """One head with keys of width d and values of one channel."""
    kinds = {"linear_attention": mixers.LinearAttention, "deltanet": mixers.DeltaNet, "mesa": PlainMesa}
    shape: dict[str, Any] = {"n_heads": 1, "d_key": d, "d_value": 1, "conv": 0, "feature": "identity"}
    return Learner(OneMixer(kinds[name](**shape, output_norm=False, chunk_size=2 * d + 1), d + 3), Marked())


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
    sizes = _sizes(config) | {"n_layers": n_layers, "steps": config["steps"]}

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
    sizes = _sizes(config) | {"n_layers": 2, "steps": config["style_steps"]}
    return play(ground, roster(config["chunk_size"])[name], key=jax.random.key(0), store=part, **sizes)


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in ("batch", "seeds", "d_model", "n_eval", "rates")}


def run(config: Config, run: Run) -> None:
    """All trainings: single layers, recall, styles."""
    shared = {"config": {field: getattr(config, field) for field in Config.__dataclass_fields__}}
    run_parts(run, rule_part, {f"rule-{name}": {"name": name} | shared for name in RULES})
    recall = {f"recall-{name}": {"name": name, "n_layers": 2, "conv": True} | shared for name in RECALL}
    for conv in (True, False):
        parts = {f"single-{name}-conv={conv}": {"name": name, "n_layers": 1, "conv": conv} | shared for name in SINGLE}
        recall |= parts
    run_parts(run, recall_part, recall)
    run_parts(run, style_part, {f"style-{name}": {"name": name} | shared for name in STYLES})
    run.save_arrays("sizes", {"d": np.array(config.d)})


# What is claimed.


def claim(id: str, source: str, statement: str, checks: Sequence[Check], note: str | None = None) -> Claim:
    return Claim(f"schlag2021/{id}", statement, source, tuple(checks), note=note)


def claims(run: Run) -> list[Claim]:
    """F-2 to F-4 of single layers, Q, L and M of small networks, and what is not decided here."""
    undecided = [
        Claim(f"schlag2021/{id}", statement, source, undecided=REASONS[id[0]])
        for id, (source, statement) in UNDECIDED.items()
    ]
    return [*claims_rules(run), *claims_recall(run), *claims_styles(run), *undecided]


def claims_rules(run: Run) -> list[Claim]:
    d = int(run.load_arrays("sizes")["d"])
    arrays = {name: run.part_arrays(f"rule-{name}") for name in RULES}
    t, last = arrays["mesa"]["t"], {name: arrays[name]["errors"][:, -1] for name in RULES}
    linear, solved = float(hebbian_error(t[-1], d)), float(least_squares_error(jnp.asarray(t[-1]), d))
    late = arrays["mesa"]["errors"][:, t >= d].max(axis=1)
    after = f"after {t[-1]} examples: error / d"
    return [
        claim(
            "F-2",
            "von Oswald et al., 2023",
            "One trained layer of linear attention has the error of one gradient step, (d + 1) / (t + d + 1)",
            [Check(after, relative(linear, 0.05), last["linear_attention"])],
        ),
        claim(
            "F-3",
            "von Oswald et al., 2025",
            "One trained Mesa layer solves linear regression once there are d examples",
            [Check("largest error / d from d examples on", at_most(0.02), late)],
        ),
        claim(
            "F-4",
            "derived",
            "One trained layer of the delta rule stands between linear attention and Mesa",
            [Check(f"DeltaNet, {after}", within(solved, linear), last["deltanet"])],
        ),
    ]


def claims_recall(run: Run) -> list[Claim]:
    scores = {name: run.part_arrays(f"recall-{name}")["score/1x"] for name in RECALL}
    single = {
        name: run.part_arrays(f"single-{name}-conv=True")["score/1x"]
        - run.part_arrays(f"single-{name}-conv=False")["score/1x"]
        for name in SINGLE
    }
    losses = run.part_arrays("recall-mesa")["cg"]
    monotone = Check("largest rise of the loss with more steps, nats", at_most(1e-3), np.diff(losses).max(axis=1))
    ten, most = CG_STEPS.index(10), len(CG_STEPS) - 1
    flat = Check("loss at 10 steps - at 30, nats", at_most(1e-3), losses[:, ten] - losses[:, most])
    return [
        claim(
            "Q-1",
            "Zoology",
            "Two layers of attention, DeltaNet, Gated DeltaNet and Mesa recall all pairs",
            [Check(f"{name}: accuracy", at_least(0.98), score) for name, score in scores.items()],
            "at width 32 and 32 tokens; published at width 64 and 64 tokens",
        ),
        claim(
            "Q-3",
            "implementations of the family",
            "Without its convolution one recurrent layer recalls less",
            [Check(f"{name}: accuracy with - without", at_least(0), gain) for name, gain in single.items()],
        ),
        claim("M-1", "MesaNet, Fig. 7", "The loss of Mesa falls with steps of conjugate gradient", [monotone, flat]),
    ]


def claims_styles(run: Run) -> list[Claim]:
    arrays = {name: run.part_arrays(f"style-{name}") for name in STYLES}
    learn = [Check(f"{name}: error / zero predictor's", at_most(0.9), a["score/2d"]) for name, a in arrays.items()]
    no_better = np.mean([a["score/4x"] >= 0.9 * a["score/1x"] for a in arrays.values()], axis=0)
    return [
        claim("L-1", "Lee et al., 2024", "All architectures learn in context: below 0.9 after 2 d examples", learn),
        claim(
            "L-2",
            "Lee et al., 2024",
            "With more examples than in training most architectures stay where they are or get worse",
            [Check("share whose error at 4x is at least 0.9 of that at 1x", at_least(0.5), no_better)],
        ),
    ]


# What is drawn.


def figures(run: Run) -> dict[str, Chart]:
    """Single layers and their closed forms, recall, conjugate gradient, styles by length."""
    d, arrays = int(run.load_arrays("sizes")["d"]), {name: run.part_arrays(f"rule-{name}") for name in RULES}
    t = np.arange(0, arrays["mesa"]["t"][-1] + 1)
    curves = [over_seeds(name, a["t"], a["errors"].T, style="points") for name, a in arrays.items()]
    curves += [
        Series("one gradient step", t, hebbian_error(t, d), style="dashed"),
        Series("least squares", t, np.maximum(0, 1 - t / d), style="dashed"),
    ]
    names = [*(f"recall-{n}" for n in RECALL), *(f"single-{n}-conv={c}" for n in SINGLE for c in (True, False))]
    scores = np.stack([run.part_arrays(name)["score/1x"] for name in names])
    styles = {name: run.part_arrays(f"style-{name}") for name in STYLES}
    lengths = np.array([1, 2, 4])
    by_length = [over_seeds(name, lengths, np.stack([a[f"score/{n}x"] for n in lengths])) for name, a in styles.items()]
    cg = [over_seeds("Mesa", np.array(CG_STEPS), run.part_arrays("recall-mesa")["cg"].T)]
    low, high = scores.min(axis=1), scores.max(axis=1)
    return {
        "rules": Lines("One trained layer on linear regression", "examples", "error / d", tuple(curves)),
        "recall": Bars("Associative recall", "", "accuracy", names, np.median(scores, axis=1), low, high),
        "styles": Lines(
            "Linear functions by length", "length / training length", "error", tuple(by_length), log_x=True
        ),
        "cg": Lines("Mesa by steps of conjugate gradient", "steps", "loss, nats", tuple(cg)),
    }
