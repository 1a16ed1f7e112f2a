"""Induction: heads that look for what followed before, and whether they copy it.

What is shown. For networks of tokens, random tokens are repeated: the prefix-matching score of a head is the attention
that goes to the token after an earlier copy of the present one, its copying score says whether its answer raises the
tokens it attends to, from its output and from the eigenvalues of W_E W_V W_O W_U. For networks of items with labels:
the attention of the query to the labels of items of its class, less that to the others.

What it says. A head with both scores near 1 can do in-context copying by itself; scores of untrained weights beside it
say what chance gives (Olsson et al., 2022; Singh et al., 2024).
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import copying_among, heads_copying, induction_strength, prefix_matching
from meta_icl.errors import BadInput, require
from meta_icl.models import AttentionLayer
from meta_icl.models.embeddings import TokenEmbedding
from meta_icl.plotting import Chart
from meta_icl.probes._shared import Measured, head_map, over_prompts, strongest
from meta_icl.probes._subject import Subject, require_site

PERIOD, REPEATED = 50, 8  # tokens of a block that stands twice, and sequences of them
SHOWN = 12


def check(subject: Subject) -> None:
    """Raise `BadInput` unless there is attention over tokens, or over items with labels of their own."""
    require_site(subject, "pattern", "one with attention, or a mixer that offers its pattern")
    if subject.is_language:
        tokens = isinstance(getattr(subject.network, "embedding", None), TokenEmbedding)
        require(tokens, "network", type(subject.network).__name__, "one with a table of tokens, to repeat them")
        return
    labels = jnp.issubdtype(subject.prompts.y.dtype, jnp.integer)
    if not labels or not isinstance(subject.tokens(), tuple):  # LabelTokens
        raise BadInput("the prompts hold neither tokens nor items with label tokens, so nothing can be copied")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`prefix` and `copying` "sequences l h", `eigenvalue` "l h" for tokens; `induction` "prompts l h" for labels."""
    layers = np.array(subject.shape_of_trace().layers_of("pattern"))
    if not subject.is_language:
        pattern = subject.traced(_pattern)
        y = np.asarray(subject.prompts.y)
        matches = jnp.asarray(y[:, :-1] == y[:, -1:])[:, None, None]
        return {"layers": layers, "induction": np.asarray(induction_strength(jnp.asarray(pattern), matches))}
    tokens, period = repeated(subject)
    network = subject.network
    mixers = [network.block(int(i)).mixer for i in layers] if hasattr(network, "block") else []
    plain = bool(mixers) and all(isinstance(mixer, AttentionLayer) for mixer in mixers)
    writes = jnp.stack([_writes(mixer) for mixer in mixers]) if plain and hasattr(network, "read") else None
    measured = jax.tree.map(np.asarray, _scores(network, tokens, period, writes)) | {"layers": layers}
    if plain:
        measured["eigenvalue"] = heads_copying(network, layers)
    return measured


@eqx.filter_jit
def _scores(network: Any, tokens: Any, period: int, writes: Any) -> dict[str, Any]:
    """Prefix matching, and with the heads' maps into the stream copying by output, of every sequence."""

    def one(sequence: Any) -> dict[str, Any]:
        _, trace = network(sequence)
        found = {"prefix": prefix_matching(trace["pattern"], period)}
        if writes is not None:

            def copying(head: tuple[Any, Any, Any]) -> Any:
                z, maps, pattern = head
                return copying_among(network.read(z @ maps, sequence), pattern, sequence)

            heads = (trace["z"], writes, trace["pattern"])
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), heads)
            found["copying"] = jax.lax.map(copying, flat).reshape(trace["z"].shape[:2])
        return found

    return jax.lax.map(one, tokens)


def repeated(subject: Subject, period: int = PERIOD, sequences: int = REPEATED) -> tuple[Any, int]:
    """Sequences of an opening token and a block of distinct random tokens twice, and the length of the block.

    The block is shorter than `period` where the network has fewer tokens or places. The opening token is that of the
    first prompt: language models put idle attention on it.
    """
    size = subject.network.embedding.table.shape[0]
    places = getattr(getattr(subject.network, "positions", None), "table", None)
    longest = size - 1 if places is None else min(size - 1, (places.shape[0] - 1) // 2)
    period, rng = min(period, longest), np.random.default_rng(0)
    require(period >= 2, "network", f"one for {longest} tokens", "one that reads at least five, to repeat two")
    opening = int(np.asarray(subject.prompts.tokens)[0, 0])
    blocks = [rng.choice(size, period, replace=False) for _ in range(sequences)]
    return jnp.asarray(np.stack([np.concatenate([[opening], block, block]) for block in blocks])), period


def rows(measured: Measured) -> list[dict[str, Any]]:
    """The heads with the highest scores, over sequences or prompts, with standard errors."""
    name = "prefix" if "prefix" in measured else "induction"
    mean, error = over_prompts(measured[name])
    title = {"prefix": "prefix matching", "induction": "induction strength"}[name]
    found = []
    for i, h in strongest(mean, SHOWN):
        row = {
            "layer": int(measured["layers"][i]) + 1,
            "head": h + 1,
            title: float(mean[i, h]),
            "+-": float(error[i, h]),
        }
        if "copying" in measured:
            row["copying, by output"] = float(measured["copying"].mean(0)[i, h])
        if "eigenvalue" in measured:
            row["copying, by eigenvalues"] = float(measured["eigenvalue"][i, h])
        found.append(row)
    return found


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """Heads by layer for every score."""
    charts: dict[str, Chart] = {}
    titles = {
        "prefix": (
            "Prefix matching",
            "Attention to what followed earlier copies of the token, random tokens repeated.",
        ),
        "copying": ("Copying, by output", "Whether a head's answer raises the tokens it attends to, from -1 to 1."),
        "induction": ("Induction", "Attention of the query to labels of its class less that to the others."),
    }
    for name, (title, caption) in titles.items():
        having = {label: m for label, m in found.items() if name in m}
        if having:
            charts[name] = head_map(title, having, name, caption, diverging=name != "prefix")
    return charts


def _writes(mixer: AttentionLayer) -> Any:
    h, d, k = mixer.w_q.shape
    return jnp.eye(d, dtype=mixer.w_q.dtype).reshape(h, k, d) if mixer.w_o is None else mixer.w_o


def _pattern(trace: Any) -> Any:
    return trace["pattern"]
