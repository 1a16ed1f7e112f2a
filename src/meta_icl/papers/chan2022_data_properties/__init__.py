"""Data distributional properties drive emergent in-context learning in transformers (Chan et al., 2022).

arXiv 2205.05055, NeurIPS 2022. Claims. Whether a transformer reads labels in its context (ICL) or keeps them in its
weights (IWL) is decided by the training data: bursty contexts, many rare classes, several labels per class and
variation within classes favour ICL, and a Zipf law of exponent about 1 lets both live side by side; recurrent networks
trained alike do not learn in context.

Setting. Sequences of 8 image-label pairs and a query, 17 tokens; a share p_bursty = .9 has two classes 3 times each and
asks for one of them, else all 9 items are independent; 1,600 classes with a label each. Residual network, label table,
sinusoidal positions of base 30, causal transformer of 12 layers, 8 heads and width 64, cross-entropy at the query, Adam
with warm-up to 3e-4 over 4,000 steps, then falling as 1/sqrt(step); 500,000 steps of 32 sequences. No gradient is
clipped, as in the public code, whose `clip_level` is never applied.

Evaluations. IC: 2 of 10 held-out classes, 4 times each, labels 0 and 1 at random, accuracy between these two (chance
.5) and among all labels (`ic_open`); `ic_published` draws the two classes with replacement, as the public code does,
which bounds it by .95. IW: the query's class is not in the context, labels are true (`iw_common`: queries from the ten
most frequent classes; with several labels per class any of them is right).

Other than published. Characters drawn from fonts stand in for Omniglot (12,800 classes: flips and turns); images of a
prompt are drawn with replacement and normalised one by one, not by batch; a class keeps one of its labels within a
prompt. `small` shrinks the images to 12 x 12 behind the affine encoder that the public code has too (the residual one
takes nine times as long there), and the network to 2 layers of 4 heads, with labels that are visible from the start
(deviation 1, not .02) and a higher rate.

A claim about a sweep is decided only where every training of it has learned its own law: LEARNED is the accuracy
demanded, above the half that copying one of two frequent labels gives. Orders are judged up to two standard errors.

Command: `meta-icl reproduce chan2022`. Times: see `TIMES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import log_spaced
from meta_icl.data.glyphs import font_glyphs
from meta_icl.models import AffineEncoder, Decoder, ImageEncoder, LabelLayout, Learner, Lstm, SequenceClassifier
from meta_icl.plotting import Bars, Chart, Grid, Lines, Series, over_seeds
from meta_icl.prompt import answer_batch
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_least, at_most, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import BurstyImages, FewShot, NoSupport
from meta_icl.training import OnTask, Optimiser, cross_entropy, train

TIMES = {"smoke": "2 CPU-min", "small": "23 CPU-min", "paper": "days (GPU)"}
IDS = tuple(f"C{i}" for i in range(1, 10))
TRAIN_KEY = 0
HELD_OUT, N_COMMON = 10, 10
NOISE = 0.3  # of pixels of deviation 1; about the published .1 of the full scale
D_GAUSSIAN, SPREAD = 64, 0.3  # numbers of an item; share of the variance that drawings of a class do not have in common
LEARNED = 0.6
LONG = 200_000  # steps from which on a missing transience means something


@dataclass(frozen=True)
class Setting:
    """One training: the data set and its law, and the network's body."""

    data: str = "glyphs"
    p_bursty: float = 0.9
    n_classes: int = 1_600
    polysemy: int = 1
    drawings: str = "all"
    zipf: float = 0.0
    body: str = "transformer"


FAMILIES: dict[str, tuple[Any, ...]] = {
    "p_bursty": (0.0, 0.5, 0.9, 1.0),
    "n_classes": (100, 400, 1_600, 12_800),
    "polysemy": (1, 2, 5, 10),
    "drawings": ("one", "noise", "all"),
    "zipf": (0.0, 0.5, 1.0, 1.5, 2.0),
}


def name_of(data: str, field: str, value: Any) -> str:
    """The name of a setting; the published value of a field is the data set's own setting."""
    return data if getattr(Setting(), field) == value else f"{data} {field}={value}"


SETTINGS = {
    name_of(data, field, value): replace(Setting(data), **{field: value})
    for data in ("glyphs", "gaussian")
    for field, values in FAMILIES.items()
    for value in values
} | {"glyphs lstm": Setting(body="lstm")}


@dataclass(frozen=True)
class Config:
    """Sizes; `settings` are of `SETTINGS`, `encoder` of images is "affine" or "residual" (of vectors affine)."""

    settings: Sequence[str] = tuple(SETTINGS)
    seeds: int = 1
    steps: int = 500_000
    batch: int = 32
    records: int = 60
    n_eval: int = 1_024
    encoder: str = "residual"
    side: int = 105
    channels: Sequence[int] = (16, 32, 32, 64)
    blocks: int = 2
    large_stem: bool = True
    d_model: int = 64
    n_layers: int = 12
    n_heads: int = 8
    label_std: float = 0.02
    learning_rate: float = 3e-4
    warmup_steps: int = 4_000
    hold_steps: int = 0


SWEPT = (
    *("glyphs", "glyphs p_bursty=0.0", "glyphs p_bursty=0.5", "glyphs p_bursty=1.0", "glyphs n_classes=100"),
    *("glyphs polysemy=2", "glyphs drawings=one", "glyphs drawings=noise", "glyphs zipf=1.0", "glyphs zipf=2.0"),
    *("glyphs lstm", "gaussian", "gaussian p_bursty=0.0", "gaussian n_classes=100", "gaussian drawings=one"),
)
PRESETS = {
    "smoke": Config(("glyphs", "glyphs p_bursty=0.0", "gaussian", "gaussian n_classes=100", "glyphs lstm"), steps=4,
                    batch=4, records=2, n_eval=16, side=8, channels=(4, 8), blocks=1, large_stem=False, d_model=8,
                    n_layers=1, n_heads=2, warmup_steps=2),
    # Shrunk: images, network and steps (see above); a few values of every property, and no 12,800 classes.
    "small": Config(SWEPT, steps=10_000, records=20, encoder="affine", side=12, n_layers=2, n_heads=4, label_std=1.0,
                    learning_rate=1e-3, warmup_steps=500, hold_steps=3_500),
    "paper": Config(seeds=3),
}  # fmt: skip


# What is trained and measured.


def world(setting: Setting, side: int, seed: int) -> tuple[BurstyImages, jax.Array]:
    """The training law of a seed, whose classes stand in random order, and the drawings of its held-out classes."""
    rng = np.random.default_rng((TRAIN_KEY, seed))
    n = setting.n_classes
    if setting.data == "gaussian":
        means = rng.standard_normal((n + HELD_OUT, 1, D_GAUSSIAN))
        own = rng.standard_normal((n + HELD_OUT, 20, D_GAUSSIAN))
        drawings = (1 - SPREAD) ** 0.5 * means + SPREAD**0.5 * own
    else:
        glyphs = (font_glyphs(side=side) if side > 28 else font_glyphs().resized(side)).normalised().by_class()
        copies = 1 if n + HELD_OUT <= len(glyphs) else 8
        drawings = glyphs[rng.permutation(len(glyphs))[: n // copies + HELD_OUT]]
        drawings = (turned(drawings) if copies == 8 else drawings).reshape(-1, 20, side * side)
    shown = jnp.asarray(drawings if setting.drawings == "all" else drawings[:, :1], jnp.float32)
    noise = jnp.asarray(NOISE) if setting.drawings == "noise" else None
    return BurstyImages(shown[:n], setting.p_bursty, setting.zipf, noise, setting.polysemy), shown[n:]


def turned(drawings: np.ndarray) -> np.ndarray:
    """Eight classes of every one, next to each other: four quarter turns of the images and of their mirror images."""
    both = np.stack([drawings, drawings[..., ::-1]], 1)
    every = np.stack([np.rot90(both, k, (-2, -1)) for k in range(4)], 1)
    return every.reshape(-1, *drawings.shape[1:])


def describe(setting: Setting, config: Config) -> Learner:
    """The network of a setting."""
    d, n_labels = config.d_model, setting.n_classes * setting.polysemy
    if setting.data == "gaussian":
        encoder = AffineEncoder(D_GAUSSIAN, d)
    elif config.encoder == "affine":
        encoder = AffineEncoder(config.side**2, d)
    else:
        encoder = ImageEncoder(config.side, tuple(config.channels), config.blocks, config.large_stem, config.large_stem)
    if setting.body == "lstm":
        body = Lstm(d, d, config.n_layers, d_out=n_labels)
    else:
        # The public code's variance 2 / (layers fan-in); GPT-2's .02 is small at this width.
        std = (2 / (config.n_layers * d)) ** 0.5
        body = Decoder(d, config.n_layers, config.n_heads, 17, d_out=n_labels, init_std=std, embedded=True)
    return Learner(SequenceClassifier(encoder, body, config.label_std), LabelLayout())


def train_setting(part: Run, *, name: str, seed: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One seed of one setting: accuracies on all evaluations while it learns."""
    setting, c = SETTINGS[name], Config(**config)
    task, held_out = world(setting, c.side, seed)
    rate = {"learning_rate": c.learning_rate, "warmup_steps": c.warmup_steps, "hold_steps": c.hold_steps}
    trained = train(
        task,
        describe(setting, c),
        steps=c.steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=[seed],
        batch=c.batch,
        objective=cross_entropy,
        optimiser=Optimiser(schedule="inverse_sqrt", **rate),
        record=log_spaced(c.steps, c.records, first=100),
        probes={"at": OnTask(partial(accuracies, held_out=held_out, n=c.n_eval))},
        store=part,
    )
    return {name.removeprefix("at/"): v[:, 0] if v.ndim > 1 else v for name, v in trained.history.items()}


def accuracies(predictor: Any, task: BurstyImages, key: Any, *, held_out: jax.Array, n: int) -> dict[str, Any]:
    """The accuracy on the training law, in context (IC) and in weights (IW), from `n` prompts each."""
    weights = partial(NoSupport, task.images, task.zipf, task.noise, task.polysemy)
    laws = {
        "train": task,
        "ic": FewShot(held_out, task.noise),
        "ic_published": FewShot(held_out, task.noise, replacement=True),
        "iw": weights(),
        "iw_common": weights(n_common=min(N_COMMON, task.images.shape[0])),
    }
    out = {}
    for i, (name, law) in enumerate(laws.items()):
        prompts = law.sample_batch(n, key=jax.random.fold_in(key, i))
        logits, asked = answer_batch(predictor, prompts), prompts.y[:, -1]
        found = jnp.argmax(logits, -1)
        finite = jnp.isfinite(logits).all(-1)
        if name.startswith("ic"):
            out[name] = ((jnp.argmax(logits[:, :2], -1) == asked) & finite).mean()
        else:
            per_class = 1 if name == "train" else task.polysemy
            out[name] = ((found // per_class == asked // per_class) & finite).mean()
        if name == "ic":
            out["ic_open"] = ((found == asked) & finite).mean()
    return out


def run(config: Config, run: Run) -> None:
    """Every seed of every setting."""
    shared = asdict(config)
    run_parts(
        run,
        train_setting,
        {
            f"{name.replace(' ', '_')}-seed{seed}": {"name": name, "seed": seed, "config": shared}
            for name in config.settings
            for seed in range(config.seeds)
        },
    )
    run.save_arrays("sizes", {"steps": np.array(config.steps), "n_eval": np.array(config.n_eval)})


# Claims.

Seeds = Sequence[Mapping[str, np.ndarray]]


def load(run: Run) -> dict[str, Seeds]:
    """What the seeds of every trained setting left behind."""
    parts = run.parts().items()
    found = {
        name: [part.load_arrays("result") for of, part in parts if of.startswith(f"{name.replace(' ', '_')}-seed")]
        for name in SETTINGS
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def sweep(found: Mapping[str, Seeds], data: str, field: str) -> dict[Any, Seeds]:
    """The trained values of a field, in order."""
    names = {value: name_of(data, field, value) for value in FAMILIES[field]}
    return {value: found[name] for value, name in names.items() if name in found}


def final(seeds: Seeds, name: str) -> float:
    """The median over seeds of the last record."""
    return float(np.median([arrays[name][-1] for arrays in seeds]))


def unlearned(values: Mapping[Any, Seeds], least: int = 2) -> str | None:
    """Why a sweep decides nothing, if so."""
    if len(values) < least:
        return "this preset does not train the settings"
    below = [f"{value} ({final(seeds, 'train'):.2f})" for value, seeds in values.items()
             if not final(seeds, "train") >= LEARNED]  # fmt: skip
    return f"accuracy on the training law below {LEARNED} at {', '.join(below)}" if below else None


def trend(values: Mapping[Any, Seeds], field: str, margin: float, **signs: int) -> list[Check]:
    """Checks that accuracies rise (1) or fall (-1) over a sweep: between its ends, and nowhere back."""
    checks = []
    for name, sign in signs.items():
        course = sign * np.array([final(seeds, name) for seeds in values.values()])
        word = "rise" if sign > 0 else "fall"
        checks += [
            Check(f"{name.upper()} accuracy, {word} over {field}", at_least(margin), course[-1] - course[0]),
            Check(f"{name.upper()} accuracy, smallest step of the {word}", at_least(-margin), np.diff(course).min()),
        ]
    return checks


def largest_fall(arrays: Mapping[str, np.ndarray]) -> float:
    """How far the IC accuracy has fallen from its peak, over medians of three records; 0 if the peak is below .7."""
    ic = arrays["ic"]
    smooth = np.median([ic[i : len(ic) - 2 + i] for i in range(3)], axis=0) if len(ic) >= 3 else ic
    return float(smooth.max() - smooth[-1]) if smooth.max() >= 0.7 else 0.0


def claim(number: int, statement: str, source: str, checks: Sequence[Check], why_not: str | None) -> Claim:
    """A claim; where there is a reason why it is undecided, without checks."""
    return Claim(f"chan2022/C{number}", statement, source, () if why_not else tuple(checks), why_not)


def claims(run: Run) -> list[Claim]:
    """C1 .. C9; tolerances are those set for the reproduction."""
    sizes = run.load_arrays("sizes")
    return judged(load(run), steps=int(sizes["steps"]), n_eval=int(sizes["n_eval"]))


def judged(found: Mapping[str, Seeds], *, steps: int, n_eval: int) -> list[Claim]:
    """The claims from the accuracies of every trained setting."""
    margin = 2 * (0.5 / n_eval) ** 0.5  # two standard errors of a difference of accuracies near a half

    def ordered(number: int, statement: str, source: str, field: str, **signs: int) -> Claim:
        values = sweep(found, "glyphs", field)
        why_not = unlearned(values)
        return claim(number, statement, source, [] if why_not else trend(values, field, margin, **signs), why_not)

    steady = {0.0: seeds} if (seeds := found.get("glyphs p_bursty=0.0")) else {}
    lstm = found.get("glyphs lstm")
    falls = [max(largest_fall(a) for a in seeds) for name, seeds in found.items() if name != "glyphs lstm"]
    fall = max(falls, default=0.0)
    zipf = sweep(found, "glyphs", "zipf")
    best = {a: min(2 * final(s, "ic") - 1, final(s, "iw_common")) for a, s in zipf.items()}
    no_zipf = unlearned(zipf, least=3)
    if no_zipf is None and max(final(s, "ic") for s in zipf.values()) < 0.7:
        no_zipf = "no exponent led to in-context learning (IC accuracy below .7)"
    no_lstm = "this preset does not train the settings"
    if lstm is not None:
        learned = final(lstm, "iw") >= 0.5
        no_lstm = None if learned else "the recurrent network has not learned the labels (IW accuracy below .5)"
    gaussian = {
        "p_bursty": {"ic": 1, "iw": -1}, "n_classes": {"ic": 1, "iw": -1}, "drawings": {"ic": 1}
    }  # fmt: skip
    stand_in = {field: sweep(found, "gaussian", field) for field in gaussian}
    reasons = [f"{field}: {why}" for field, values in stand_in.items() if (why := unlearned(values))]
    return [
        ordered(1, "Burstiness: IC up, IW down", "Fig. 3", "p_bursty", ic=1, iw=-1),
        claim(2, "Without burstiness no in-context learning", "Fig. 3",
              [Check("IC accuracy", within(0.45, 0.55), [a["ic"][-1] for s in steady.values() for a in s])]
              if steady else [], unlearned(steady, least=1)),
        ordered(3, "Number of classes: IC up, IW down", "Figs. 3, 4", "n_classes", ic=1, iw=-1),
        ordered(4, "Several labels per class: IC up", "Sec. 3", "polysemy", ic=1),
        ordered(5, "Variation within classes (one drawing, noise, all drawings): IC up", "Sec. 3", "drawings", ic=1),
        claim(6, "Skewed classes: IC falls for large exponents; near 1 it stands beside IW", "Sec. 3", [
            Check("fall of the IC accuracy from exponent 0 to the largest", at_least(margin),
                  final(zipf[min(zipf)], "ic") - final(zipf[max(zipf)], "ic")),
            Check("exponent at which the smaller of 2 IC - 1 and IW (common classes) is largest", within(0.8, 1.2),
                  max(best, key=lambda a: best[a])),
        ] if not no_zipf else [], no_zipf),
        claim(7, "A recurrent network learns the labels, but not in context", "Sec. 4",
              [Check("IC accuracy", at_most(0.6), [a["ic"][-1] for a in lstm])] if lstm else [], no_lstm),
        claim(8, "In-context learning can be transient", "Sec. 3",
              [Check("largest fall of the IC accuracy from its peak", at_least(0.1), fall)],
              None if fall >= 0.1 or steps >= LONG else f"a fall may come later than {steps} steps"),
        claim(9, "Gaussian vectors in the place of images: the directions of C1, C3 and C5", "Sec. 3",
              [check for field, signs in gaussian.items() for check in trend(stand_in[field], field, margin, **signs)]
              if not reasons else [], "; ".join(reasons) or None),
    ]  # fmt: skip


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """Accuracies over training, and at the end of it against every property that was varied."""
    found = load(run)
    out: dict[str, Chart] = {
        "training": Grid("While it learns", [over_training(found, kind) for kind in ("ic", "ic_published", "iw")], 3)
    }
    ends = [chart for field in FAMILIES for chart in at_the_end(found, field)]
    if ends:
        out["properties"] = Grid("At the end of training", ends, 2)
    return out


def over_training(found: Mapping[str, Seeds], kind: str) -> Lines:
    """One accuracy over training: burstiness, and the recurrent network."""
    shown = {f"p_bursty = {value}": seeds for value, seeds in sweep(found, "glyphs", "p_bursty").items()}
    shown |= {"recurrent": found["glyphs lstm"]} if "glyphs lstm" in found else {}
    series = [
        over_seeds(name, seeds[0]["step"][1:], np.stack([a[kind][1:] for a in seeds], -1))
        for name, seeds in shown.items()
    ]
    titles = {"ic": "IC, distinct classes", "ic_published": "IC, classes with replacement", "iw": "IW"}
    levels = [] if kind == "iw" else [("chance", 0.5)]
    return Lines(titles[kind], "training step", "accuracy", series, log_x=True, h_lines=levels)


def at_the_end(found: Mapping[str, Seeds], field: str) -> list[Chart]:
    """IC and IW accuracy against one property, where two values of it were trained."""
    sweeps = {data: v for data in ("glyphs", "gaussian") if len(v := sweep(found, data, field)) > 1}
    if field == "drawings":
        names = [
            f"{kind.upper()}, {data}, {value}" for data, v in sweeps.items() for value in v for kind in ("ic", "iw")
        ]
        values = [final(seeds, kind) for v in sweeps.values() for seeds in v.values() for kind in ("ic", "iw")]
        return [Bars("Variation within classes", "", "accuracy", names, values)] if sweeps else []
    kinds = ("ic", "iw", "iw_common") if field == "zipf" else ("ic", "iw")
    series = [
        Series(f"{kind.upper().replace('_COMMON', ' (common classes)')}, {data}", list(v),
               [final(seeds, kind) for seeds in v.values()])
        for data, v in sweeps.items() for kind in kinds
    ]  # fmt: skip
    titles = {"p_bursty": "Burstiness", "n_classes": "Number of classes", "polysemy": "Labels per class",
              "zipf": "Exponent of the Zipf law"}  # fmt: skip
    return [Lines(titles[field], field, "accuracy", series, log_x=field == "n_classes")] if series else []
