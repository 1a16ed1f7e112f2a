"""What is measured: patches that stand for a context, on random blocks and along greedy decoding."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from meta_icl.analysis.implicit import (
    agreeing_tokens,
    answer,
    class_similarity,
    example_updates,
    generate,
    generate_without_prompt,
    implicit_update,
    prefix_readings,
    replacement_error,
)
from meta_icl.models.blocks import (
    Attention,
    BlockNetwork,
    Blocks,
    Language,
    LanguageModel,
    LowRank,
    Patch,
    next_token_loss,
    random_network,
    random_networks,
)
from meta_icl.prompt import Task, TokenPrompt
from meta_icl.runs import Run
from meta_icl.sweeps import run_parts
from meta_icl.training import Optimiser, train

from .config import Config

DATA_KEY, TRAIN_KEY = 2511, 0
PRECISIONS = {"float64": True, "float32": False}
FLOOR = 0.1  # to which the lifted form of the Gemma patch lifts entries of the normalised answer
ONE_BLOCK = {  # name: kind of block, what is patched before the MLP
    "Llama": ("Llama", "weights"),
    "Llama, norm scale": ("Llama", "norm_scale"),
    "Gemma": ("Gemma", "weights"),
    "parallel": ("parallel", "weights"),
    "experts": ("experts", "weights"),
}
STACKS = ("pre-LN", "Llama", "Gemma", "parallel", "experts")
ANY_WEIGHTS = (
    "An identity: it holds for these random, untrained weights as for any others and says nothing of learning."
)


def run(config: Config, run: Run) -> None:
    """Check the identities on random blocks and stacks; train a small language model and decode without its prompt."""
    shared = asdict(config)
    parts: dict[str, dict[str, Any]] = {"language": {"kind": "language", "config": shared}}
    parts |= {f"identities-{name}": {"kind": "identities", "precision": name, "config": shared} for name in PRECISIONS}
    run_parts(run, compute_part, parts)


def compute_part(part: Run, *, kind: str, config: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """One part of the run."""
    with jax.default_matmul_precision("highest"):  # identities hold to the precision of the arithmetic
        if kind == "language":
            return decode(part, Config(**config))
        return identities(Config(**config), **arguments)


# Identities on random blocks.


def identities(c: Config, *, precision: str) -> dict[str, np.ndarray]:
    """Relative errors of every identity, one number per random block or stack."""
    with jax.enable_x64(PRECISIONS[precision]):
        found: dict[str, np.ndarray] = {}
        for name, (kind, through) in ONE_BLOCK.items():
            found |= {f"{name}/{key}": value for key, value in errors(c, kind, through, 1).items()}
        for kind in STACKS:
            found |= {f"{kind} stack/{key}": value for key, value in errors(c, kind, "weights", c.depth).items()}
        return found


def errors(c: Config, kind: str, through: str, depth: int) -> dict[str, np.ndarray]:
    """Errors with all and half of the context removed, of incomplete patches, and the largest change of a scale."""

    def one(network: BlockNetwork, context: Array, query: Array) -> dict[str, Array]:
        everything, half = jnp.ones(c.n_context, bool), jnp.arange(c.n_context) % 2 == 0
        subsets = jnp.stack([everything, half])

        def updates(floor: float) -> list[Patch]:
            both = jax.vmap(lambda s: implicit_update(network, context, query, s, through=through, floor=floor))(
                subsets
            )
            return [jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in range(2)]

        own, of_half = updates(0.0)
        tried = {
            "all": (everything, own),
            "half": (half, of_half),
            "no residual patch": (everything, own.zeroed(*own.residual)),
        }
        if depth == 1 and through == "weights":
            tried["before the norm"] = (everything, unnormalised(network, context, query, own))
        removed, patches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tried.values())
        answers = jax.vmap(lambda subset, patch: answer(network, context, query, subset, patch))(removed, patches)
        wanted = answer(network, context, query)
        errors = jnp.linalg.norm(answers - wanted[None], axis=-1) / jnp.linalg.norm(wanted)
        found = dict(zip(tried, errors, strict=True))
        if "post_norm_scale" in own.vectors:
            lifted = updates(FLOOR)
            for part, removed, patch, bare in zip(("all", "half"), subsets, lifted, (own, of_half), strict=True):
                found[f"{part}, lifted"] = replacement_error(network, context, query, removed, patch)
                found[f"scale change, {part}"] = jnp.max(jnp.abs(bare.vectors["post_norm_scale"]))
                found[f"scale change, {part}, lifted"] = jnp.max(jnp.abs(patch.vectors["post_norm_scale"]))
        return found

    networks = random_networks(
        Blocks.of_kind(kind, c.d_model, c.d_mlp, mixer=Attention(n_heads=c.n_heads), n_blocks=depth), c.n_blocks
    )
    rng = np.random.default_rng(DATA_KEY)
    contexts = jnp.asarray(rng.normal(size=(c.n_blocks, c.n_context, c.d_model)), float)
    queries = jnp.asarray(rng.normal(size=(c.n_blocks, c.d_model)), float)
    found = eqx.filter_jit(eqx.filter_vmap(one))(networks, contexts, queries)
    return {name: np.asarray(value) for name, value in found.items()}


def unnormalised(network: BlockNetwork, context: Array, query: Array, patch: Patch) -> Patch:
    """The patch computed, wrongly, from what the norm before the MLP reads instead of what it gives."""
    h_0, h_1 = prefix_readings(network, context, query).source[jnp.array([0, -1])]
    weights = dict(patch.weights)
    for name, w in network.block(0).mlp.reading_weights(h_1).items():
        outputs = jnp.einsum("d,...df->...f", h_1 - h_0, w)[..., None, :]
        inputs = jnp.broadcast_to(h_0 / jnp.sum(jnp.square(h_0)), (*w.shape[:-2], 1, h_0.shape[0]))
        weights[name] = LowRank(inputs[None], outputs[None])
    return Patch(weights, patch.vectors)


# Greedy decoding.


class RepeatedSequences(Task):
    """Sequences of `length` random tokens, twice in a row; the second copy is scored."""

    n_tokens: int = eqx.field(static=True)
    length: int = eqx.field(static=True)

    def sample(self, *, key: Key[Array, ""]) -> TokenPrompt:  # type: ignore[override]
        once = jax.random.randint(key, (self.length,), 0, self.n_tokens)
        scored = jnp.arange(2 * self.length) >= self.length - 1
        return TokenPrompt(jnp.concatenate([once, once]), scored)


def language_loss(model: Any, task: Task, batch: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """Mean cross-entropy of a fresh batch, in nats per token."""
    prompts = task.sample_batch(batch, key=key)
    return jnp.mean(jax.vmap(lambda prompt: next_token_loss(model, prompt.tokens, prompt.loss_mask))(prompts))


def decode(part: Run, c: Config) -> dict[str, np.ndarray]:
    """Continuations of a trained and of a random model: with the prompt, and with patches in its place."""
    blocks = Blocks.of_kind("Gemma", 32, 64, n_blocks=2, mixer=Attention(n_heads=4, rope=100.0))
    config = Language(c.n_tokens, blocks, final_norm="rms")
    task = RepeatedSequences(c.n_tokens, c.length)
    trained = train(
        task,
        config,
        steps=c.steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=c.seeds,
        batch=c.batch,
        optimiser=Optimiser(learning_rate=3e-3, clip_norm=1.0),
        objective=language_loss,
        record=max(1, c.steps // 20),
        store=part,
    )
    batch: Any = task.sample_batch(c.n_prompts, key=jax.random.key(DATA_KEY))
    prompts = batch.tokens[:, : c.length + 2]
    found: dict[str, list[Array]] = {}
    for seed in range(c.seeds):
        fresh = config(key=jax.random.key(seed))
        untrained = eqx.tree_at(lambda model: model.network, fresh, random_network(blocks, seed))
        for name, model in (("trained", trained[seed]), ("untrained", untrained)):
            for key, value in continuations(model, prompts, c.n_new).items():
                found.setdefault(f"{name}/{key}", []).append(value)
    probes = [probed(trained[seed], prompts[:20]) for seed in range(c.seeds)]
    found |= {f"examples/{key}": [probe[key] for probe in probes] for key in probes[0]}
    return {name: np.stack([np.asarray(v) for v in values]) for name, values in found.items()} | dict(trained.history)


def probed(model: LanguageModel, prompts: Array) -> dict[str, Array]:
    """Size and similarity of the updates of the first prompt's tokens; mean similarity of equal and of other tokens."""
    rows = jax.vmap(model.embedded)(prompts)
    each = eqx.filter_jit(jax.vmap(lambda h: example_updates(model.network, h[:-1], h[-1])))(rows)
    pairs = [class_similarity(s, np.asarray(t[:-1])) for s, t in zip(each.similarity, prompts, strict=True)]
    equal, other = (np.mean([np.asarray(pair[i]) for pair in pairs], axis=0) for i in (0, 1))
    return {
        "size": each.relative[0],
        "similarity": each.similarity[0],
        "equal": equal,
        "other": other,
        "tokens": prompts[0],
    }


def continuations(model: LanguageModel, prompts: Array, n_new: int) -> dict[str, Array]:
    """Per prompt: how many tokens agree with the full run, under each patch; and the largest difference of logits."""
    full = jax.vmap(lambda prompt: generate(model, prompt, n_new))(prompts)
    found = {}
    for patch in ("every step", "first step", "none"):
        other = jax.vmap(lambda prompt, patch=patch: generate_without_prompt(model, prompt, n_new, patch=patch))(
            prompts
        )
        found[patch] = jax.vmap(agreeing_tokens)(full, other)
        if patch == "every step":
            spread = jnp.std(full.logits, axis=-1, keepdims=True)
            found["logits"] = jnp.max(jnp.abs(full.logits - other.logits) / spread, axis=(-2, -1))
    return found
