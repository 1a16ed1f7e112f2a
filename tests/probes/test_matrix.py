"""Every probe before every kind of network: it runs, or refuses by one line; the pattern is written down here."""

import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from meta_icl import models
from meta_icl.apps.cli.listing import probes
from meta_icl.errors import BadInput
from meta_icl.models import Interleaved, LabelLayout, Learner, Shifted, TokenLayout, Trace, Vectors, Window, mixers
from meta_icl.models.trace import Tap
from meta_icl.plotting import draw
from meta_icl.probes import learner_subject
from meta_icl.prompt import Prompt, TokenPrompt

KEY = jax.random.key(0)
ROWS = np.random.default_rng(0)
REALS = Prompt(ROWS.normal(size=(6, 6, 3)), ROWS.normal(size=(6, 6, 1)))
LABELS = Prompt(ROWS.normal(size=(12, 5, 4)), ROWS.integers(0, 2, (12, 5)))
TOKENS = TokenPrompt(jnp.asarray(ROWS.integers(0, 9, (2, 8))), jnp.ones((2, 8), bool))


class Mine(eqx.Module):
    """A user's network, which names its attention and its stream and is nothing of the house."""

    w: jax.Array

    def __call__(self, tokens, interventions=()):
        tap = Tap(interventions, 0)
        h = tap("resid_pre", tokens)
        pattern = tap("pattern", jax.nn.softmax(h @ self.w @ h.T)[None])
        h = tap("resid_post", h + (pattern[0] @ h) @ self.w)
        return h, Trace({name: site[None] for name, site in tap.sites.items()})


def language(architecture):
    return Learner(architecture, TokenLayout()), TOKENS


NETWORKS = {
    "von_oswald": (Learner(models.von_oswald(4, 2)), REALS),
    "garg": (Learner(models.garg(3, 8, 2, 2, 12), Interleaved()), REALS),
    "raventos": (Learner(models.raventos(3, 8, 2, 2, 12), Interleaved()), REALS),
    "contextual": (Learner(models.contextual(4, 8, 2)), REALS),
    "lstm": (Learner(models.lstm(4, 4)), REALS),
    "memories": (Learner(models.memories(8, (mixers.DeltaNet(chunk_size=4),), 1, d_in=3), Interleaved()), REALS),
    "mine": (lambda key: models.InContextLearner(models.Concatenated(), Mine(0.3 * jnp.eye(4))), REALS),
    "minegishi": (Learner(models.minegishi(2, 16), Window(n_positions=12)), LABELS),
    "reddy": (Learner(models.reddy(2, 68), Window(n_positions=64)), LABELS),
    "singh": (Learner(models.singh(2, 4, 8, 2, 2), LabelLayout()), LABELS),
    "chan": (Learner(models.chan(2, Vectors(4, bias=True), 8, 2, 2), LabelLayout()), LABELS),
    "kirsch": (Learner(models.kirsch(6, 2, 8, 2, 2, 12), Shifted(n_labels=2)), LABELS),
    "mlp": (Learner(models.mlp(6, 8, 2, 2), Shifted(n_labels=2)), LABELS),
    "olsson": language(models.olsson(9, 8, 8, 2, 2)),
    "gpt2": language(models.gpt2(9, 8, 2, 2, 8)),
    "llama": language(models.llama(9, 8, 2, 2, 16, 1)),
    "mistral": language(models.mistral(9, 8, 2, 2, 16, window=4)),
    "qwen2": language(models.qwen2(9, 8, 2, 2, 16, 1)),
    "qwen3": language(models.qwen3(9, 8, 2, 2, 16, 1)),
    "gemma2": language(models.gemma2(9, 8, 2, 2, 16, 1, 4, 4)),
    "gemma3": language(models.gemma3(9, 8, 2, 2, 16, 1, 4, 4)),
    "neox": language(models.neox(9, 8, 2, 2, 16, models.Rotary(fraction=0.5))),
    "olmo2": language(models.olmo2(9, 8, 2, 2, 16)),
}
SITES = ("ablation", "attention", "lens", "task_vectors", "weights")
LANGUAGE = {*SITES, "decodability", "induction", "implicit_updates"}
RUNS = {  # the probes that can look at each network; all others refuse
    "von_oswald": {*SITES, "decodability", "descent"},
    "garg": {*SITES, "circuits", "decodability", "descent", "implicit_updates"},
    "raventos": {*SITES, "circuits", "decodability", "descent", "implicit_updates"},
    "contextual": {*SITES, "decodability", "descent", "implicit_updates"},
    "lstm": {"decodability", "descent", "lens", "task_vectors"},
    "memories": {"ablation", "decodability", "descent", "implicit_updates", "lens", "memories", "task_vectors"},
    "mine": {"attention", "decodability", "descent", "task_vectors"},
    "minegishi": {*SITES, "circuits", "decodability", "induction"},
    "reddy": {*SITES, "circuits", "decodability", "induction"},
    "singh": {*SITES, "circuits", "decodability", "induction"},
    "chan": {*SITES, "circuits", "decodability", "implicit_updates", "induction"},
    "kirsch": {*SITES, "decodability", "implicit_updates"},
    "mlp": set(),
    "olsson": {*SITES, "decodability", "induction"},
    **dict.fromkeys(("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "neox", "olmo2"), LANGUAGE),
}
MEASURED = ("garg", "minegishi", "olsson")  # in every run of the tests; all others among the slow ones


def subject(name):
    model, prompts = NETWORKS[name]
    return learner_subject(model(key=KEY), prompts)


def module(probe):
    return importlib.import_module(f"meta_icl.probes.{probe}")


def test_every_published_network_is_here():
    assert set(models.NETWORKS) | {"mine"} == set(NETWORKS) == set(RUNS)


@pytest.mark.variants("von_oswald", "garg", "lstm", "memories", "mine", "minegishi", "mlp", "llama")
@pytest.mark.parametrize("name", NETWORKS)
def test_what_fits_and_what_refuses(name):
    looked_at, refused = subject(name), {}
    for probe in probes():
        try:
            module(probe).check(looked_at)
        except BadInput as error:
            refused[probe] = str(error)
    assert set(probes()) - set(refused) == RUNS[name]
    assert all(reason and "\n" not in reason for reason in refused.values())


def shown(name, probe):
    """A probe's numbers, table and figures of a network and its untrained twin."""
    looked_at = subject(name)
    found = {"trained": module(probe).measure(looked_at), "untrained": module(probe).measure(looked_at.twin(key=KEY))}
    for measured in found.values():
        rows = module(probe).rows(measured)
        assert rows and all(row.keys() == rows[0].keys() for row in rows)
    charts = module(probe).figures(found)
    assert charts
    for chart in charts.values():
        plt.close(draw(chart))


PAIRS = [(name, probe) for name, known in RUNS.items() for probe in sorted(known)]


@pytest.mark.variants(
    "garg-attention",
    "garg-circuits",
    "garg-decodability",
    "garg-lens",
    "garg-weights",
    "minegishi-ablation",
    "minegishi-circuits",
    "olsson-attention",
    "olsson-decodability",
    "olsson-induction",
    "olsson-lens",
    "olsson-task_vectors",
    "olsson-weights",
)
@pytest.mark.parametrize(("name", "probe"), [pair for pair in PAIRS if pair[0] in MEASURED and pair[1] != "descent"])
def test_probes_of_three_kinds_of_network(name, probe):
    shown(name, probe)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "probe"), [pair for pair in PAIRS if pair[0] not in MEASURED or pair[1] == "descent"])
def test_probes_of_every_other_network(name, probe):
    shown(name, probe)
