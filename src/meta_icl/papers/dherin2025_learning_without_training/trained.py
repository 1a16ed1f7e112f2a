"""Trained blocks: patched predictions, sizes of patches, and the tuning they stand for."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from meta_icl.analysis.implicit import (
    answer,
    example_updates,
    fine_tune,
    first_matrix,
    implicit_descent,
    implicit_update,
    in_float64,
    prefix_readings,
)
from meta_icl.evaluation import loss_on
from meta_icl.models import Concatenated, InContextLearner, Learner
from meta_icl.models.blocks import Attention, BlockNetwork, Blocks, Recurrence
from meta_icl.prompt import Prompt
from meta_icl.runs import Run
from meta_icl.tasks import LinearRegression, Normal
from meta_icl.training import Optimiser, train

from .config import Config
from .identities import EVAL_KEY, TRAIN_KEY, measured
from .thoughts import stacked, thoughts


def task_of(c: Config) -> LinearRegression:
    """The paper's task: x, w ~ N(0, I) in two dimensions, no noise."""
    return LinearRegression(d=2, n_context=c.n_context, x_law=Normal())


def eval_prompts(c: Config) -> Prompt:
    """The fixed evaluation prompts."""
    return task_of(c).sample_batch(c.n_eval, key=jax.random.key(EVAL_KEY))


def shallow_blocks(mixer: str) -> Blocks:
    """One block without skips on tokens of width 3."""
    layer = Attention(d_head=16, causal=False) if mixer == "attention" else Recurrence(16)
    return Blocks.of_kind("no skip", 3, 64, mixer=layer)


def replaced(learner: InContextLearner, prompt: Prompt) -> Array:
    """The learner's prediction with the context removed and its weights patched instead."""
    tokens = learner.layout.encode(prompt)
    patch = implicit_update(learner.network, tokens[:-1], tokens[-1])
    output = answer(learner.network, tokens[:-1], tokens[-1], None, patch)
    return learner.layout.read(output[None], prompt)


def replacement_probe(prompts: Prompt) -> Any:
    """A training probe: losses with the context and with the patch in its place, and how far the outputs are apart."""

    def probe(learner: InContextLearner, key: Any) -> dict[str, Array]:
        del key
        with_context = jax.vmap(learner)(prompts)
        patched = jax.vmap(lambda prompt: replaced(learner, prompt))(prompts)
        target = prompts.y[:, -1]

        def loss(answers: Array) -> Array:
            return 0.5 * jnp.mean(jnp.sum(jnp.square(answers - target), -1))

        return {
            "context": loss(with_context),
            "patched": loss(patched),
            "apart": jnp.max(jnp.abs(patched - with_context)),
        }

    return probe


def train_shallow(part: Run, c: Config, *, mixer: str) -> dict[str, np.ndarray]:
    """One trained block: D7 while training; chains, losses, fine-tuning and thought patches afterwards."""
    prompts = eval_prompts(c)
    trained = train(
        task_of(c),
        Learner(shallow_blocks(mixer), Concatenated(sign=1.0)),
        steps=c.steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=c.seeds,
        batch=c.batch,
        optimiser=Optimiser(learning_rate=5e-3),
        record=max(1, c.steps // 20),
        probes={"replaced": replacement_probe(prompts)},
        store=part,
    )
    along = eqx.filter_jit(along_the_prompts)
    rows = [measured(along(trained[i], prompts, jnp.asarray(c.rates))) for i in range(c.seeds)]
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if mixer == "attention":
        tokens = jax.vmap(trained[0].layout.encode)(prompts)[:, :-1]
        with jax.enable_x64(True):  # the readings span two of three channels: rounding would fill the third
            networks = [in_float64(trained[i].network) for i in range(c.seeds)]
            errors = thoughts(c, networks, in_float64(tokens)[: c.n_contexts], c.calibration, zero_last=True)
        found |= {f"thought/{name}": values for name, values in errors.items()}
    return dict(trained.history) | {"rates": np.array(c.rates)} | found


def along_the_prompts(learner: InContextLearner, prompts: Prompt, rates: Array) -> dict[str, Array]:
    """Per prompt: sizes of the chain's updates "n", losses behind 0 .. n tokens and of fine-tuning, and cosines."""

    def one(prompt: Prompt) -> dict[str, Array]:
        tokens, w = learner.layout.encode(prompt), first_matrix(learner.network)
        readings = prefix_readings(learner.network, tokens[:-1], tokens[-1])
        steps = implicit_descent(w, readings.mlp_in).steps
        predictions = jax.vmap(lambda out: learner.layout.read(out[None], prompt))(readings.answers)
        tuned = jax.vmap(lambda rate: fine_tune(learner, prompt, rate))(rates)
        inner = jnp.einsum("nd,rndf,nf->rn", steps.inputs[:, 0], tuned.updates, steps.outputs[:, 0])
        lengths = steps.norm()[None] * jnp.linalg.norm(tuned.updates, axis=(-2, -1))
        return {
            "update size": steps.norm(),
            "prompt loss": 0.5 * jnp.sum(jnp.square(predictions - prompt.query.y[None]), axis=-1),
            "tuned loss": tuned.losses,
            "cosine": jnp.where(lengths > 0, inner / jnp.where(lengths > 0, lengths, 1), 0),
        }

    return jax.vmap(one)(prompts)


def train_deep(part: Run, c: Config) -> dict[str, np.ndarray]:
    """A stack of ten pre-LN blocks: output errors of the patched stack, before and after training."""
    blocks = Blocks.of_kind("pre-LN", 16, 32, n_blocks=c.depth, mixer=Attention(n_heads=2), d_in=3, d_out=3)
    prompts = eval_prompts(c)
    trained = train(
        task_of(c),
        Learner(blocks, Concatenated(sign=1.0)),
        steps=c.deep_steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=c.seeds,
        batch=c.batch // 4,
        optimiser=Optimiser(learning_rate=1e-3, clip_norm=1.0),
        record=max(1, c.deep_steps // 4),
        probes={"eval": loss_on(prompts)},
        store=part,
    )

    def distances(network: BlockNetwork, tokens: Array) -> dict[str, Array]:
        def one(tokens: Array) -> tuple[Array, Array]:
            patch = implicit_update(network, tokens[:-1], tokens[-1])
            wanted = answer(network, tokens[:-1], tokens[-1])
            apart = jnp.linalg.norm(answer(network, tokens[:-1], tokens[-1], None, patch) - wanted)
            return apart, apart / jnp.linalg.norm(wanted)

        apart, relative = jax.vmap(one)(tokens)
        return {"absolute": jnp.mean(apart), "relative": jnp.max(relative)}

    tokens = jax.vmap(trained[0].layout.encode)(prompts)
    measure = eqx.filter_jit(distances)
    found = {
        f"float32/{k}": v for k, v in stacked([measure(trained[i].network, tokens) for i in range(c.seeds)]).items()
    }
    one_prompt = tokens[0]
    updates = example_updates(trained[0].network, one_prompt[:-1], one_prompt[-1])
    with jax.enable_x64(True):
        networks = [in_float64(trained[i].network) for i in range(c.seeds)]
        rows = [measure(network, in_float64(tokens)) for network in networks]
    found |= {f"float64/{k}": v for k, v in stacked(rows).items()}
    return dict(trained.history) | found | {"example sizes": np.asarray(updates.relative)}
