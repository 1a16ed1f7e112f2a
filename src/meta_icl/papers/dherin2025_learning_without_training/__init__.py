"""Learning without training: the implicit dynamics of in-context learning (Dherin et al., arXiv 2507.16003, 2025).

Claims. A contextual block (a layer that mixes tokens, then an MLP) answers with a context exactly as it answers without
it once its first matrix is changed by a matrix of rank one; token by token this is a chain of gradient steps. The
changes shrink along the prompt, and the loss falls as under fine-tuning on the same pairs.

Two kinds of results are kept apart here. D1-D6, D10 and D13 are identities: they hold for any weights, and are checked
on random, untrained blocks. Only D7-D9, D11 and D12 look at trained blocks, and only D9 and D12 are about learning.

Setting. w, x ~ N(0, I), y = w.x, tokens (x_i, y_i) and (x_q, 0) without embedding, half squared error, fresh tasks in
every step. One block without skips, d = 2, N = 50. Not stated: width, optimiser and rate; taken here: one softmax head
of size 16 without causal mask, MLP of width 64, Adam at 5e-3 on 128 tasks a step. Random blocks: width 32, MLP 128, 4
heads, N = 50, causal softmax.

Expected: identities at most 1e-12 (float64) and 1e-5 (float32) in relative error, 1e-4 after ten blocks in float32 (the
paper reports about 1e-6, absolute); the update at token 49 below 0.15 of that at token 2; recurrent layers without
such a decay; fine-tuning at rate 0.01 slower than the prompt, with the same end within a factor of two; thought patches
that settle at 10 to 25 calibration queries.

Command: `meta-icl reproduce dherin2025`. Times on two CPU cores: see `TIMES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from meta_icl.analysis.implicit import (
    answer,
    example_updates,
    factorised_descent,
    fine_tune,
    first_matrix,
    implicit_descent,
    implicit_update,
    in_float64,
    prefix_readings,
    replacement_error,
    suffix_readings,
    thought_errors,
)
from meta_icl.evaluation import loss_on
from meta_icl.models import Concatenated, InContextLearner, Learner
from meta_icl.models.blocks import Attention, BlockNetwork, Blocks, LowRank, Patch, Recurrence, random_networks
from meta_icl.plotting import Bars, Chart, Grid, Heatmaps, Lines, Panel, Series, over_seeds
from meta_icl.prompt import Prompt
from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_least, at_most, is_true, within
from meta_icl.sweeps import run_parts
from meta_icl.tasks import LinearRegression, Normal
from meta_icl.training import Optimiser, train

TIMES = {"smoke": "3 CPU-min", "small": "6 CPU-min", "paper": "hours"}
IDS = tuple(f"D{i}" for i in range(1, 14))
EVAL_KEY, TRAIN_KEY = 2025, 0
N_TEST, N_CONTEXTS = 50, 5  # queries on which thought patches are tested, and contexts per random block
PRECISIONS = {"float64": True, "float32": False}
EXACT = {"float64": 1e-12, "float32": 1e-5}  # what an identity may miss by in one block
Exact = Mapping[str, Mapping[str, np.ndarray]]  # errors by precision and name
IDENTITIES = ("no skip", "skip around", "residual", "pre-LN")
ANY_WEIGHTS = (
    "An identity: it holds for these random, untrained weights as for any others and says nothing of learning."
)


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments."""

    seeds: int = 3  # of the trainings
    n_blocks: int = 20  # random blocks per identity
    d_model: int = 32
    d_mlp: int = 128
    n_heads: int = 4
    n_context: int = 50
    depth: int = 10
    steps: int = 1_500
    batch: int = 128
    n_eval: int = 100  # prompts of every measurement, as published
    deep_steps: int = 150
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    calibration: tuple[int, ...] = (1, 2, 3, 5, 10, 25, 50)
    n_contexts: int = 20  # prompts for which thought patches are fitted


PRESETS = {
    "smoke": Config(
        seeds=2,
        n_blocks=2,
        d_model=8,
        d_mlp=12,
        n_heads=2,
        n_context=50,
        depth=10,
        steps=20,
        batch=8,
        n_eval=4,
        deep_steps=2,
        rates=(0.01,),
        calibration=(3, 10),
        n_contexts=2,
    ),
    # Shrunk: three trainings of each kind, and the ten-block stack is trained for 150 steps only.
    "small": Config(),
    "paper": Config(seeds=10, n_blocks=100, steps=20_000, deep_steps=20_000, n_contexts=100),
}


def run(config: Config, run: Run) -> None:
    """Check the identities on random blocks, and train the blocks of the experiments."""
    shared = asdict(config)
    parts: dict[str, dict[str, Any]] = {
        "deep": {"kind": "deep", "config": shared},
        "recurrent": {"kind": "shallow", "mixer": "recurrent", "config": shared},
        "attention": {"kind": "shallow", "mixer": "attention", "config": shared},
        "thought-random": {"kind": "thought", "config": shared},
    }
    parts |= {f"identities-{name}": {"kind": "identities", "precision": name, "config": shared} for name in PRECISIONS}
    run_parts(run, compute_part, parts)


def compute_part(part: Run, *, kind: str, config: Mapping[str, Any], **arguments: Any) -> dict[str, np.ndarray]:
    """One part of the run."""
    kinds = {"identities": identities, "shallow": train_shallow, "deep": train_deep, "thought": random_thoughts}
    c = Config(**{name: tuple(value) if isinstance(value, list) else value for name, value in config.items()})
    with jax.default_matmul_precision("highest"):  # identities hold to the precision of the arithmetic
        return kinds[kind](part, c, **arguments)


# Identities on random blocks.


def identities(part: Run, c: Config, *, precision: str) -> dict[str, np.ndarray]:
    """Relative errors of every identity, one number per random block."""
    del part
    with jax.enable_x64(PRECISIONS[precision]):
        found: dict[str, Any] = {}
        for kind in IDENTITIES:
            found |= {f"{kind}/{name}": value for name, value in measured(random_identity(c, kind)).items()}
        found |= {f"chains/{name}": value for name, value in measured(random_chains(c)).items()}
        found |= {f"stack/{name}": value for name, value in measured(random_identity(c, "pre-LN", c.depth)).items()}
        return found


def measured(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Device arrays as numpy arrays."""
    return {name: np.asarray(value) for name, value in arrays.items()}


def random_blocks(c: Config, kind: str, depth: int = 1) -> tuple[BlockNetwork, Array, Array]:
    """Random networks, contexts "n_blocks N d" and pairs of queries "n_blocks 2 d"."""
    networks = random_networks(
        Blocks.of_kind(kind, c.d_model, c.d_mlp, mixer=Attention(n_heads=c.n_heads), n_blocks=depth), c.n_blocks
    )
    rng = np.random.default_rng(EVAL_KEY)
    contexts = rng.normal(size=(c.n_blocks, c.n_context, c.d_model))
    queries = rng.normal(size=(c.n_blocks, 2, c.d_model))
    return networks, jnp.asarray(contexts, float), jnp.asarray(queries, float)


def random_identity(c: Config, kind: str, depth: int = 1) -> dict[str, Array]:
    """Errors with the whole and half of the context removed; of wrong patches; and against the pseudo-inverse."""

    def one(network: BlockNetwork, context: Array, queries: Array) -> dict[str, Array]:
        query, other = queries
        everything, half = jnp.ones(c.n_context, bool), jnp.arange(c.n_context) % 2 == 0
        own, of_half, of_other = unstacked(
            jax.vmap(lambda query, subset: implicit_update(network, context, query, subset))(
                jnp.stack([query, query, other]), jnp.stack([everything, half, everything])
            )
        )
        tried = {
            "all": (everything, own),
            "half": (half, of_half),
            "other query": (everything, of_other),
            "no patch": (everything, own.zeroed(*own.weights, *own.vectors)),
            "no bias patch": (everything, own.zeroed(*own.residual)),
        }
        removed, patches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tried.values())
        answers = jax.vmap(lambda subset, patch: answer(network, context, query, subset, patch))(removed, patches)
        wanted = answer(network, context, query)
        errors = jnp.linalg.norm(answers - wanted[None], axis=-1)
        found = dict(zip(tried, errors / jnp.linalg.norm(wanted), strict=True)) | {"absolute": errors[0]}
        if depth == 1:
            readings = prefix_readings(network, context, query)
            a_0, a_1, w = readings.mlp_in[0], readings.mlp_in[-1], first_matrix(network)
            dense = own.weights["w_in"].dense()[0]
            least = jnp.linalg.pinv(a_0[None]) @ ((a_1 - a_0) @ w)[None]
            found["least norm"] = jnp.linalg.norm(dense - least) / jnp.linalg.norm(least)
            found["rank"] = jnp.linalg.matrix_rank(dense).astype(dense.dtype)
        return found

    return eqx.filter_jit(eqx.filter_vmap(one))(*random_blocks(c, kind, depth))


def unstacked(patches: Patch) -> list[Patch]:
    """The patches along the first axis."""
    n = jax.tree.leaves(patches)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], patches) for i in range(n)]


def random_chains(c: Config) -> dict[str, Array]:
    """Errors of the additive and the factorised chain in blocks without skips."""

    def one(network: BlockNetwork, context: Array, queries: Array) -> dict[str, Array]:
        query, w = queries[0], first_matrix(network)
        prefixes, suffixes = prefix_readings(network, context, query), suffix_readings(network, context, query)
        additive, factorised = implicit_descent(w, prefixes.mlp_in), factorised_descent(w, suffixes.mlp_in)
        wanted = answer(network, context, query)

        def off(found: Array, expected: Array) -> Array:
            return jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)

        def patch(change: LowRank) -> Patch:
            return Patch({"w_in": LowRank(change.inputs[None], change.outputs[None])}, {})

        def without(i: Array) -> Array:
            """The answer behind the first i tokens removed, with the first i factors in the weights."""
            kept = (jnp.arange(c.n_context) < i)[:, None]
            steps = factorised.steps
            change = LowRank(steps.inputs[:, 0], jnp.where(kept, steps.outputs[:, 0], 0))
            return off(answer(network, context, query, jnp.arange(c.n_context) < i, patch(change)), wanted)

        one_shot = implicit_update(network, context, query).weights["w_in"].dense()[0]

        def factor(product: Array, i: Array) -> tuple[Array, None]:
            b, before = suffixes.mlp_in[i + 1], suffixes.mlp_in[i]
            return product + factorised.step_sizes[i] * jnp.outer(b, (before - b) @ product), None

        # The product itself, as the paper writes it, transposed.
        product, _ = jax.lax.scan(factor, w, jnp.arange(c.n_context))
        total = factorised.after(c.n_context)
        return {
            "additive end": off(additive.after(c.n_context).dense(), one_shot),
            "additive answer": replacement_error(network, context, query, None, patch(additive.after(c.n_context))),
            "factorised answers": jnp.max(jax.lax.map(without, jnp.arange(c.n_context + 1))),
            "factorised product": off(w + total.dense(), product),
            "difference of the chains": off(total.dense(), one_shot),
            "factorised rank": jnp.linalg.matrix_rank(total.dense()).astype(w.dtype),
        }

    return eqx.filter_jit(eqx.filter_vmap(one))(*random_blocks(c, "no skip"))


# Trained blocks.


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


def stacked(rows: Sequence[Mapping[str, Array]]) -> dict[str, np.ndarray]:
    """Measurements of several seeds, stacked."""
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


# Thought patches.


def random_thoughts(part: Run, c: Config) -> dict[str, np.ndarray]:
    """Thought patches of random blocks without skips, whose readings fill all their channels."""
    del part
    sizes = tuple(sorted({*c.calibration, c.d_model, 4 * c.d_model}))
    with jax.enable_x64(True):
        networks, contexts, _ = random_blocks(c, "no skip")
        each = [
            jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, networks)
            for i in range(min(c.seeds, c.n_blocks))
        ]
        return thoughts(c, each, contexts[:N_CONTEXTS], sizes)


def thoughts(
    c: Config, networks: Sequence[BlockNetwork], contexts: Array, sizes: tuple[int, ...], zero_last: bool = False
) -> dict[str, np.ndarray]:
    """Errors of thought patches by number of calibration queries; `zero_last` empties the queries' last channel."""
    rng = np.random.default_rng(EVAL_KEY + 1)
    queries = rng.normal(size=(contexts.shape[0], max(sizes) + N_TEST, contexts.shape[-1]))
    if zero_last:
        queries[..., -1] = 0
    queries = jnp.asarray(queries, contexts.dtype)
    rows = [thought_errors(net, contexts, queries[:, :-N_TEST], queries[:, -N_TEST:], sizes) for net in networks]
    return stacked([row._asdict() for row in rows]) | {"sizes": np.array(sizes)}


# Claims.


def claims(run: Run) -> list[Claim]:
    """D1 .. D13; D1-D6, D10 and D13 are identities and their limits, D7, D8 and D11 about trained blocks.

    Only D9 and D12 are about learning.
    """
    exact = {name: run.part_arrays(f"identities-{name}") for name in PRECISIONS}
    attention, recurrent, deep = (run.part_arrays(name) for name in ("attention", "recurrent", "deep"))
    skips = [f"{kind}/{part}" for kind in IDENTITIES[1:] for part in ("all", "half")]
    chain = ["chains/additive end", "chains/additive answer"]
    factors = ["chains/factorised answers", "chains/factorised product"]
    return [
        identity("D1", "A rank-one change of the first matrix replaces the context", "thm 2.2", ["no skip/all"], exact),
        identity("D2", "The same for a part of the context", "thm 2.2", ["no skip/half"], exact),
        identity("D3", "The same with skips and norms, where the last bias changes too", "thm C.2", skips, exact),
        claim_d4(exact),
        identity("D5", "The additive chain of gradient steps ends at the one-shot patch", "prop. 2.6", chain, exact),
        identity("D6", "The factorised chain answers right behind every token", "cor. C.3", factors, exact),
        claim_d7(attention),
        claim_d8(attention),
        claim_d9(attention),
        claim_d10(exact, deep),
        claim_d11(recurrent),
        claim_d12(attention, run.part_arrays("thought-random")),
        claim_d13(exact),
    ]


def in_every_block(quantity: str, values: np.ndarray, precision: str, limits: Mapping[str, float] = EXACT) -> Check:
    """An error within the limit of its precision in every random block."""
    return Check(f"{quantity}: relative error, {precision}", at_most(limits[precision]), values, share=1.0)


def identity(id: str, statement: str, source: str, names: Sequence[str], exact: Exact) -> Claim:
    """An exact identity of random blocks."""
    checks = [in_every_block(name, exact[precision][name], precision) for name in names for precision in PRECISIONS]
    return Claim(f"dherin2025/{id}", statement, source, checks, note=ANY_WEIGHTS)


def untrained(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Why a preset that hardly trains cannot decide what is about trained blocks."""
    steps = int(arrays["step"][-1])
    return None if steps >= 1_000 else f"{steps} training steps are too few"


def claim_d4(exact: Exact) -> Claim:
    checks = []
    for kind in IDENTITIES:
        name = f"{kind}: distance from the pseudo-inverse solution"
        checks += [in_every_block(name, exact[p][f"{kind}/least norm"], p) for p in PRECISIONS]
        ranks = exact["float64"][f"{kind}/rank"]
        checks.append(Check(f"{kind}: rank of the dense patch", within(1, 1), ranks, share=1.0))
    statement = "The patch has rank one and is the smallest that works"
    return Claim("dherin2025/D4", statement, "thm 2.3", checks, note=ANY_WEIGHTS)


def claim_d7(attention: Mapping[str, np.ndarray]) -> Claim:
    losses = attention["replaced/context"]
    apart = np.abs(losses - attention["replaced/patched"]).max(0)
    checks = (
        Check(
            "largest difference of predictions, any step and prompt", at_most(1e-5), attention["replaced/apart"].max(0)
        ),
        Check("largest difference of the validation losses, any step", at_most(1e-5), apart),
    )
    note = (
        "An identity at every step, trained or not. "
        f"Validation loss {np.median(losses[0]):.3f} before and {np.median(losses[-1]):.3f} after training."
    )
    statement = "Throughout training the loss with the patch is the loss with the context"
    return Claim("dherin2025/D7", statement, "Fig. 2 (v1)", checks, note=note)


def claim_d8(attention: Mapping[str, np.ndarray]) -> Claim:
    means = attention["update size"].mean(1)
    slopes = [np.polyfit(np.log(np.arange(1, m.size)), np.log(m[1:]), 1)[0] for m in means]
    check = Check("median update at the last token / at token 2", at_most(0.15), shrinkage(attention))
    note = f"log-log slope of the mean over prompts: {np.median(slopes):.2f} (1/i is -1)"
    statement = "The updates shrink along the prompt"
    return Claim("dherin2025/D8", statement, "Fig. 3 (v1)", (check,), untrained(attention), note)


def shrinkage(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Per seed: the median size of the last update over that of update 2."""
    medians = np.median(arrays["update size"], axis=1)
    return medians[:, -1] / medians[:, 2]


def claim_d9(attention: Mapping[str, np.ndarray]) -> Claim:
    rates, prompt, tuned = attention["rates"], attention["prompt loss"].mean(1), attention["tuned loss"].mean(1)
    chosen = tuned[:, np.argmin(np.abs(rates - 0.01))]
    ratio = prompt[:, 1:].mean(1) / chosen[:, 1:].mean(1)
    checks = (
        Check("the loss of the patch falls from token 1 to the last", is_true(), prompt[:, -1] < prompt[:, 1]),
        Check("the loss of fine-tuning at rate 0.01 falls", is_true(), chosen[:, -1] < chosen[:, 1]),
        Check("mean loss along the prompt, patch / fine-tuning at rate 0.01", at_most(1.0), ratio),
        Check("last loss, fine-tuning at rate 0.01 / patch", within(0.5, 2.0), chosen[:, -1] / prompt[:, -1]),
    )
    ends = np.median(tuned[:, :, -1] / prompt[:, None, -1], axis=0)
    listed = ", ".join(f"{rate:g}: {end:.3g}" for rate, end in zip(rates, ends, strict=True))
    note = f"About learning, and it depends on the rate: last loss of fine-tuning / patch by rate: {listed}"
    statement = "Fine-tuning on the same pairs lowers the loss in the same way, more slowly"
    return Claim("dherin2025/D9", statement, "Fig. 4 (v1)", checks, untrained(attention), note)


def claim_d10(exact: Exact, deep: Mapping[str, np.ndarray]) -> Claim:
    limits = {"float64": 1e-12, "float32": 1e-4}
    checks = [
        in_every_block(f"random stack, {part} of the context", exact[p][f"stack/{part}"], p, limits)
        for part in ("all", "half")
        for p in PRECISIONS
    ]
    checks += [in_every_block("trained stack", deep[f"{p}/relative"], p, limits) for p in PRECISIONS]
    found = np.median(exact["float32"]["stack/absolute"]), np.median(deep["float32/absolute"])
    note = f"{ANY_WEIGHTS} L2 error in float32: {found[0]:.1e} random, {found[1]:.1e} trained (paper: about 1e-6)."
    statement = "Ten pre-LN blocks, each with its own patch, are replaced exactly"
    return Claim("dherin2025/D10", statement, "v3, experiments", checks, note=note)


def claim_d11(recurrent: Mapping[str, np.ndarray]) -> Claim:
    sizes = recurrent["update size"]
    growing = (sizes[:, :, 1:] > sizes[:, :, :-1]).mean((1, 2))
    checks = (
        Check("median update at the last token / at token 2", at_least(0.15), shrinkage(recurrent)),
        Check("share of tokens whose update is larger than the one before", at_least(0.25), growing),
    )
    note = "An LSTM of 16 units; the paper's recurrent layer is not described. The limit is that of D8, from above."
    statement = "The updates of a recurrent layer oscillate instead of dying out"
    return Claim("dherin2025/D11", statement, "v3", checks, untrained(recurrent), note)


def claim_d12(attention: Mapping[str, np.ndarray], random: Mapping[str, np.ndarray]) -> Claim:
    none = attention["thought/none"][:, None]
    at = {int(k): i for i, k in enumerate(attention["thought/sizes"])}
    last = max(at)
    fitted, tested = attention["thought/calibration"] / none, attention["thought/test"] / none
    checks = [Check(f"test error at K = {last} / no patch", at_most(1.0), tested[:, -1])]
    complete = {3, 25, 50} <= set(at)
    if complete:
        gap = tested - fitted
        checks += [
            Check("test error at K = 25 / at K = 50", within(0.8, 1.25), tested[:, at[25]] / tested[:, at[50]]),
            Check("gap of test and training error, K = 50 / K = 3", at_most(0.5), gap[:, at[50]] / gap[:, at[3]]),
        ]
    shares = np.median(random["test"] / random["none"][:, None], axis=0)
    listed = ", ".join(f"{int(k)}: {share:.2f}" for k, share in zip(random["sizes"], shares, strict=True))
    note = (
        "About learning: errors as shares of no patch, in the trained block, whose readings have two dimensions; the "
        f"paper's setting is not described. In a random block (errors by K: {listed}) K must exceed the width; "
        f"biases alone, the thought vector: {np.median(random['vector'][:, -1] / random['none']):.2f}."
    )
    statement = "One thought patch serves many queries once it is fitted on 10 to 25"
    undecided = untrained(attention) if complete else "this preset fits on too few queries"
    return Claim("dherin2025/D12", statement, "v3, sec. 3.4", checks, undecided, note)


def claim_d13(exact: Exact) -> Claim:
    checks = []
    for name in PRECISIONS:
        own, other = exact[name]["no skip/all"], exact[name]["no skip/other query"]
        quantity = f"error with another query's patch / with its own, {name}"
        checks.append(Check(quantity, at_least(10), other / own.clip(np.finfo(float).tiny), share=1.0))
    for kind in IDENTITIES[1:]:
        values = exact["float64"][f"{kind}/no bias patch"]
        checks.append(Check(f"{kind}: error without the bias patch", at_least(0.1), values))
    statement = "The patch belongs to its query; parts of it are not enough"
    note = "Random, untrained blocks: a limit of the identity, which says nothing of learning."
    return Claim("dherin2025/D13", statement, "limits", checks, note=note)


# Figures.


def figures(run: Run) -> dict[str, Chart]:
    """The paper's figures, and the probe by layer and example."""
    exact = {name: run.part_arrays(f"identities-{name}") for name in PRECISIONS}
    attention, recurrent, deep = (run.part_arrays(name) for name in ("attention", "recurrent", "deep"))
    return {
        "identities": identities_figure(exact),
        "training": training_figure(attention),
        "update_sizes": sizes_figure(attention, recurrent),
        "fine_tuning": tuning_figure(attention),
        "thought": thought_figure(attention, run.part_arrays("thought-random")),
        "examples": examples_figure(deep),
    }


def identities_figure(exact: Exact) -> Chart:
    names = {f"{kind}/all": kind for kind in IDENTITIES} | {
        "stack/all": "ten pre-LN blocks",
        "chains/additive answer": "additive chain",
        "chains/factorised answers": "factorised chain",
    }
    charts = []
    for precision in PRECISIONS:
        largest = [np.log10(max(exact[precision][name].max(), 1e-18)) for name in names]
        charts.append(Bars(precision, "", "log10 of the relative error", list(names.values()), largest))
    title = "The patched block without the context against the block with it"
    n = len(exact["float64"]["no skip/all"])
    return Grid(title, charts, 2, f"Largest error of {n} random blocks. {ANY_WEIGHTS}")


def training_figure(attention: Mapping[str, np.ndarray]) -> Chart:
    steps = attention["step"]
    series = (
        over_seeds("with the context", steps, attention["replaced/context"]),
        over_seeds("context removed, weights patched", steps, attention["replaced/patched"], "dashed"),
    )
    caption = "The two curves coincide at every step, trained or not."
    return Lines("Validation loss while training (Fig. 2, v1)", "training step", "half-MSE", series, caption=caption)


def sizes_figure(attention: Mapping[str, np.ndarray], recurrent: Mapping[str, np.ndarray]) -> Chart:
    series = []
    tokens = np.arange(1, attention["update size"].shape[2])
    for name, arrays in (("softmax attention", attention), ("LSTM", recurrent)):
        sizes = np.median(arrays["update size"], axis=1)
        series.append(over_seeds(name, tokens, (sizes[:, 1:] / sizes[:, 1:2]).T))
    series.append(Series("1 / i", tokens, 1 / tokens, style="dotted"))
    title, y_label = "Size of the update by token (Fig. 3, v1)", "|W_{i+1} - W_i|, relative to i = 1"
    caption = "Median over prompts; a small |A(x)| gives the mean a heavy tail."
    return Lines(title, "token i", y_label, series, log_x=True, log_y=True, caption=caption)


def tuning_figure(attention: Mapping[str, np.ndarray]) -> Chart:
    prompt, tuned, rates = attention["prompt loss"].mean(1), attention["tuned loss"].mean(1), attention["rates"]
    pairs = np.arange(prompt.shape[1])
    losses = [over_seeds("prompt, or its patch", pairs, prompt.T)]
    losses += [
        over_seeds(f"fine-tuning, rate {rate:g}", pairs, tuned[:, i].T, "dashed") for i, rate in enumerate(rates)
    ]
    chosen = int(np.argmin(np.abs(rates - 0.01)))
    aligned = (over_seeds(f"rate {rates[chosen]:g}", pairs[1:], attention["cosine"].mean(1)[:, chosen].T),)
    charts = (
        Lines("Loss on the query", "pairs seen", "half-MSE", losses, log_y=True),
        Lines("Update i against fine-tuning step i", "pair i", "cosine", aligned),
    )
    caption = "How fast fine-tuning is depends wholly on its rate."
    return Grid("The prompt against fine-tuning on its pairs (Fig. 4, v1)", charts, 2, caption)


def thought_figure(attention: Mapping[str, np.ndarray], random: Mapping[str, np.ndarray]) -> Chart:
    shown = (("calibration queries", "calibration", "dotted"), ("new queries", "test", "line"))
    charts = []
    for title, arrays, start in (("Trained block", attention, "thought/"), ("Random block", random, "")):
        none, sizes = arrays[f"{start}none"][:, None], arrays[f"{start}sizes"]
        series = [
            over_seeds(label, sizes, (arrays[start + name] / none).clip(1e-3).T, style)
            for label, name, style in (*shown, ("thought vector", "vector", "dashed"))
        ]
        y_label = "squared error / without a patch"
        charts.append(Lines(title, "calibration queries K", y_label, series, log_x=True, log_y=True))
    caption = (
        "The random block is fitted exactly up to K = its width, where the error on new queries peaks. Shares below "
        "0.001 are drawn there."
    )
    return Grid("One patch for many queries", charts, 2, caption)


def examples_figure(deep: Mapping[str, np.ndarray]) -> Chart:
    sizes = deep["example sizes"]
    blocks, examples = ([str(i + 1) for i in range(n)] for n in sizes.shape)
    panel = Panel("|dW| / |W| of leaving one example out", sizes, examples, [f"block {name}" for name in blocks])
    caption = "One prompt through the trained stack of ten blocks; columns are its examples in order."
    return Heatmaps("Which examples move the weights, and where", (panel,), caption, diverging=False)
