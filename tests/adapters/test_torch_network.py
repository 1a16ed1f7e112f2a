"""A module of PyTorch as a network that probes can look into, against the same weights in numpy."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.models import Concatenated, InContextLearner, Intervention
from meta_icl.probes import attention, decodability, learner_subject
from meta_icl.prompt import Prompt
from meta_icl.torch import TorchNetwork

torch = pytest.importorskip("torch")


class Pattern(torch.nn.Module):
    """softmax(x A x^T), one head."""

    def __init__(self, a):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a))

    def forward(self, x):
        return torch.softmax(x @ self.a @ x.transpose(1, 2), -1)[:, None]


class Layer(torch.nn.Module):
    """x + P x B."""

    def __init__(self, a, b):
        super().__init__()
        self.pattern, self.b = Pattern(a), torch.nn.Parameter(torch.tensor(b))

    def forward(self, x):
        return x + self.pattern(x)[:, 0] @ x @ self.b


RNG = np.random.default_rng(0)
WEIGHTS = [tuple(RNG.normal(size=(3, 3)).astype(np.float32) for _ in range(2)) for _ in range(2)]
SITES = {"resid_post": ("0", "1"), "pattern": ("0.pattern", "1.pattern")}


def network():
    return TorchNetwork(torch.nn.Sequential(*(Layer(*pair) for pair in WEIGHTS)), SITES)


def by_hand(x, removed=()):
    streams, patterns = [], []
    for layer, (a, b) in enumerate(WEIGHTS):
        scores = np.exp(x @ a @ x.T)
        p = scores / scores.sum(1, keepdims=True) * (layer not in removed)
        x = x + p @ x @ b
        streams.append(x)
        patterns.append(p[None])
    return np.stack(streams), np.stack(patterns)


def test_the_trace_is_that_of_the_module():
    x = 0.5 * RNG.normal(size=(4, 3)).astype(np.float32)
    output, trace = eqx.filter_jit(network())(jnp.asarray(x))
    streams, patterns = by_hand(x.astype(float))
    np.testing.assert_allclose(trace["resid_post"], streams, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(trace["pattern"], patterns, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(output, streams[-1], rtol=2e-5, atol=1e-5)


def test_interventions_change_what_follows():
    x = 0.5 * RNG.normal(size=(4, 3)).astype(np.float32)
    gone = Intervention("pattern", jnp.array([True, False])[:, None, None, None])
    output, _ = eqx.filter_jit(network())(jnp.asarray(x), (gone,))
    np.testing.assert_allclose(output, by_hand(x.astype(float), (0,))[0][-1], rtol=2e-5, atol=1e-5)


def test_probes_look_into_it():
    prompts = Prompt(RNG.normal(size=(6, 6, 2)), RNG.normal(size=(6, 6, 1)))
    subject = learner_subject(InContextLearner(Concatenated(), network()), prompts)
    attention.check(subject)
    measured = attention.measure(subject)
    x = np.asarray(subject.tokens()[0], float)
    entropies = -(by_hand(x)[1] * np.log(by_hand(x)[1])).sum(-1)[:, :, 1:].mean(-1)
    np.testing.assert_allclose(measured["entropy"][0], entropies, rtol=1e-4, atol=1e-5)
    decodability.check(subject)


def test_unknown_submodules_are_named():
    with pytest.raises(BadInput, match="submodule"):
        TorchNetwork(torch.nn.Sequential(torch.nn.Identity()), {"resid_post": ("7",)})
