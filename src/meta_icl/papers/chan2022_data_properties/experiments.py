"""What is trained and measured: transformers on bursty images, and their accuracy in context and in weights."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import log_spaced
from meta_icl.data.glyphs import font_glyphs
from meta_icl.models import ImageEncoder, LabelLayout, Learner, Vectors, chan
from meta_icl.prompt import answer_batch
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.tasks import BurstyImages, FewShot, NoSupport
from meta_icl.training import OnTask, Optimiser, cross_entropy, train

from .config import FAMILIES, MANY, SETTINGS, Config, Setting, name_of

TRAIN_KEY = 0
HELD_OUT, N_COMMON = 10, 10
NOISE = 0.3  # of pixels of deviation 1; about the published .1 of the full scale
D_GAUSSIAN, SPREAD = 64, 0.3  # numbers of an item; share of the variance that drawings of a class do not have in common
Seeds = Sequence[Mapping[str, np.ndarray]]  # what every seed of a setting left behind


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
        encoder = Vectors(D_GAUSSIAN, bias=True)
    elif config.encoder == "affine":
        encoder = Vectors(config.side**2, bias=True)
    else:
        encoder = ImageEncoder(config.side, tuple(config.channels), config.blocks, config.large_stem, config.large_stem)
    network = chan(n_labels, encoder, d, config.n_layers, config.n_heads, setting.body, config.label_std)
    return Learner(network, LabelLayout())


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


# What claims and figures read of a finished run.


def load(run: Run) -> dict[str, Seeds]:
    """What the seeds of every trained setting left behind."""
    parts = run.parts().items()
    found = {
        name: [part.load_arrays("result") for of, part in parts if of.startswith(f"{name.replace(' ', '_')}-seed")]
        for name in SETTINGS
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def sweep(found: Mapping[str, Seeds], data: str, field: str) -> dict[Any, Seeds]:
    """The trained values of a field, in order: around the base of many classes where more of them are trained there."""

    def around(n_classes: int) -> dict[Any, Seeds]:
        names = {value: name_of(data, field, value, n_classes) for value in FAMILIES[field]}
        return {value: found[name] for value, name in names.items() if name in found}

    bases = (1_600,) if field == "n_classes" else (1_600, MANY)
    return max((around(n) for n in bases), key=len)


def final(seeds: Seeds, name: str) -> float:
    """The median over seeds of the last record."""
    return float(np.median([arrays[name][-1] for arrays in seeds]))
