"""Weights as they are drawn: the stated law and variance of every matrix, within the error of so many draws."""

import equinox as eqx
import jax
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.models import (
    Init,
    Vectors,
    chan,
    contextual,
    garg,
    lstm,
    memories,
    minegishi,
    mlp,
    olsson,
    reddy,
    singh,
    von_oswald,
)
from meta_icl.models import mixers as m

D, F = 64, 128


def made(architecture):
    return eqx.filter_jit(architecture)(key=jax.random.key(3))


def fits(weights, variance, kurtosis=3.0):
    """Mean zero and the stated variance, each within five of its standard errors; the fourth moment within ten."""
    w = np.asarray(weights, np.float64).ravel()
    n, std = len(w), np.sqrt(variance)
    assert abs(w.mean()) < 5 * std / np.sqrt(n)
    assert abs((w**2).mean() / variance - 1) < 5 * np.sqrt((kurtosis - 1) / n)
    assert abs((w**4).mean() / variance**2 - kurtosis) < 10 * np.sqrt(96 / n)


# Fourth moments over squared variances: of a uniform law, and of a normal one that is cut off at two deviations.
UNIFORM, CUT = 1.8, 2.366


def test_moments_of_the_laws():
    """The laws themselves; the cut normal by numerical integration."""
    x = np.linspace(-2, 2, 400_001)
    p = np.exp(-(x**2) / 2)
    variance = (x**2 * p).sum() / p.sum()
    assert (x**4 * p).sum() / p.sum() / variance**2 == pytest.approx(CUT, abs=1e-3)
    shape, key = (100, 200), jax.random.key(0)
    for law, kurtosis in (("normal", 3.0), ("uniform", UNIFORM)):
        fits(Init(law, 2.0)(shape, 50, key=key), 2 / 50, kurtosis)
        fits(Init(law, std=0.3)(shape, 50, key=key), 0.09, kurtosis)
    cut = np.asarray(Init("truncated_normal", std=0.3)(shape, 50, key=key))
    fits(cut, 0.09, CUT)
    assert np.abs(cut).max() <= 2 * 0.3 / np.sqrt(variance) * (1 + 1e-6)
    for fields, field in (({"law": "cauchy"}, "law"), ({"gain": 0.0}, "gain"), ({"std": -1.0}, "std")):
        with pytest.raises(BadInput, match=field):
            Init(**fields)


def test_von_oswald():
    """0.002 / (n_layers fan_in) inside the layers, 1 / fan_in outside."""
    network = made(von_oswald(D, 3, 2, d_mlp=F, d_in=20, d_out=50, input_mlp=F))
    mixer, half = network.blocks[0].mixer, network.blocks[0].feed_forward
    for w in (mixer.w_q, mixer.w_k, mixer.w_v):
        fits(w, 0.002 / (3 * D), CUT)
    fits(mixer.w_o, 0.002 / (3 * 2 * D), CUT)
    fits(half.w_in, 0.002 / (3 * D), CUT)
    fits(half.w_out, 0.002 / (3 * F), CUT)
    fits(network.embedding.map.weight, 1 / 20, CUT)
    fits(network.embedding.mlp.w_out, 1 / F, CUT)
    fits(network.readout.map.weight, 1 / D, CUT)
    assert not half.b_in.any() and not half.b_out.any()


def test_garg():
    network = made(garg(20, D, 2, 2, 101, d_out=30, init_std=0.03))
    mixer, half = network.blocks[0].mixer, network.blocks[0].feed_forward
    for w in (mixer.w_q, mixer.w_k, mixer.w_v, half.w_in, network.positions.table, network.embedding.map.weight):
        fits(w, 0.03**2)
    for w in (mixer.w_o, half.w_out):
        fits(w, 0.03**2 / (2 * 2))
    assert not any(b.any() for b in (mixer.b_q, mixer.b_o, half.b_in, half.b_out, network.readout.map.bias))
    network = made(garg(20, D, 1, 2, d_out=30, read_init="torch"))
    fits(network.embedding.map.weight, 1 / (3 * 20), UNIFORM)
    fits(network.embedding.map.bias, 1 / (3 * 20), UNIFORM)
    fits(network.readout.map.weight, 1 / (3 * D), UNIFORM)


def test_classifiers():
    network = made(minegishi(200, D, n_layers=2, d_label=40, n_heads=2, project=True, d_mlp=F))
    mixer = network.blocks[0].mixer
    for w in (mixer.w_q, mixer.w_v, mixer.w_o):
        fits(w, 1 / D)
    fits(network.blocks[0].feed_forward.w_out, 1 / F)
    fits(network.embedding.labels, 1 / 40)
    for layer in network.readout.layers:
        fits(layer.weight, 1 / (3 * D), UNIFORM)
        fits(layer.bias, 1 / (3 * D), UNIFORM)

    network = made(reddy(200, D))
    fits(network.blocks[0].mixer.w_k, 1 / 63)
    fits(network.embedding.labels, 1 / 63)
    assert network.embedding.fixed_labels
    for layer, variance in zip(network.readout.layers, (2 / D, 2 / D, 2 / D, 1 / D), strict=True):
        fits(layer.weight, variance)
        assert layer.bias is None or not layer.bias.any()

    network = made(singh(200, 30, D, n_heads=2))
    fits(network.embedding.encoder.map.weight, 1 / 30)
    fits(network.embedding.labels, 0.02**2)
    fits(network.readout.layers[0].weight, 1 / D)

    network = made(chan(200, Vectors(30, bias=True), D, 2, 2))
    labels, std = np.asarray(network.embedding.labels), np.sqrt(2 / (2 * D))
    assert np.abs(labels).max() <= 2 * 0.02 and np.var(labels) == pytest.approx(0.02**2 * 0.7737, rel=0.05)
    fits(network.blocks[0].mixer.w_q, std**2)
    fits(network.blocks[0].mixer.w_o, std**2 / 4)
    fits(network.readout.map.weight, std**2)


def test_language_recurrent_and_dense():
    network = made(olsson(50, 40, D))
    fits(network.embedding.table, 0.01)
    fits(network.positions.table, 0.01)
    fits(network.readout.map.weight, 1 / D)
    network = made(lstm(30, 40, 2, bidirectional=True, d_out=20))
    cell = network.block(0).mixer.cells[1]
    for w in (cell.w_x, cell.w_h, cell.bias, network.readout.map.weight):
        fits(w, 1 / (3 * 40), UNIFORM)
    network = made(mlp(D, F, d_out=20))
    for layer, variance in zip(network.readout.layers, (2 / D, 2 / F, 1 / F), strict=True):
        fits(layer.weight, variance)
    network = made(contextual(D, F, 1, "Llama", n_tokens=50, n_positions=40, init_scale=0.5))
    fits(network.embedding.table, 1.0)
    fits(network.positions.table, 0.01)
    fits(network.blocks[0].feed_forward.w_gate, 0.5 / D)
    fits(network.blocks[0].feed_forward.w_out, 0.5 / F)
    network = made(memories(D, (m.DeltaNet(chunk_size=4),), 2, n_tokens=50, d_out=40))
    fits(network.embedding.table, 1.0)
    fits(network.blocks[0].feed_forward.w_in, 1 / D)
    fits(network.blocks[0].feed_forward.w_out, 1 / (2 * 4 * D))
