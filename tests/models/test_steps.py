"""The step form: token by token every network gives what the full pass gives, or refuses in one line."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturbed import drawn

from meta_icl.errors import BadInput
from meta_icl.models import (
    Architecture,
    Attention,
    Block,
    Dense,
    Items,
    LabelTokens,
    Learned,
    Linear,
    Norm,
    Rotary,
    Sinusoidal,
    Tokens,
    Vectors,
    contextual,
    gemma2,
    gemma3,
    gpt2,
    lstm,
    memories,
    mlp,
    neox,
    olmo2,
    olsson,
    von_oswald,
)
from meta_icl.models import mixers as m

T, D, V = 9, 8, 7
TURNED = Rotary(50.0)


def network_of(mixer, n_layers=1, **fields):
    half = fields.pop("feed_forward", None)
    return Architecture(D, n_layers, Block(mixer, half, Norm("rms")), Tokens(V), readout=Linear(3), **fields)


NETWORKS = {
    "softmax": network_of(Attention(2), positions=Learned(T)),
    "window shorter than the text": network_of(Attention(2, window=4, rotary=TURNED), 2),
    "window of one": network_of(Attention(window=1)),
    "window longer than the text": network_of(Attention(window=20)),
    "grouped, norms, cap": network_of(
        Attention(4, 6, 2, rotary=TURNED, qk_norm=Norm("rms"), softcap=2.0, biases=True, bias_out=True), 2
    ),
    "one group": network_of(Attention(4, n_groups=1, qk_norm=Norm(), qk_norm_whole=True)),
    "smeared": network_of(Attention(2, smeared=True, rotary=Rotary(pairs="neighbours"), project=False), 2),
    "smeared groups": network_of(Attention(4, n_groups=2, smeared=True)),
    "smeared window": network_of(Attention(2, smeared=True, window=3)),
    "elu": network_of(Attention(2, kind="elu", n_groups=1), 2),
    "elu with a cache": network_of(Attention(2, kind="elu", rotary=TURNED)),
    "linear": network_of(Attention(2, kind="linear", scale=0.3, project=False), 2),
    "linear window": network_of(Attention(2, kind="linear", window=3)),
    "mixed": network_of(Attention(2, kind="mixed")),
    "sinusoidal, looped": network_of(Attention(2), 3, positions=Sinusoidal(), looped=True, feed_forward=Dense(6)),
    "looped and scanned": network_of(Attention(2, window=3), 6, looped=True),
    "scanned in turn, with a rest": Architecture(
        D, 7, (Block(Attention(2, window=3)), Block(m.Lstm(), Dense(5)), Block(None, Dense(4))), Tokens(V)
    ),
    "looped in turn": Architecture(D, 5, (Block(Attention(2)), Block(m.Lstm(5, project=True))), Tokens(V), looped=True),
    "hybrid": memories(D, (m.DeltaNet(chunk_size=4), m.Titans(chunk_size=2)), 3, n_tokens=V, d_out=V),
    "gpt2": gpt2(V, D, 2, 2, T),
    "olsson": olsson(V, T, D, n_heads=2, smeared=True),
    "gemma2": gemma2(V, D, 3, 4, 6, 2, 4, window=3),
    "gemma3": gemma3(V, D, 3, 4, 6, 2, 4, window=3, global_every=2),
    "neox": neox(V, D, 2, 2, 6, Rotary(fraction=0.5)),
    "olmo2": olmo2(V, D, 2, 4, 6, 2),
    "around": contextual(D, 6, 2, "skip around", Attention(2), n_tokens=V),
    "post norm": Architecture(D, 2, Block(Attention(2), Dense(6), Norm(), "post"), Tokens(V)),
    "lstm": lstm(3, 6, 2),
    "fast weights": lstm(3, 6, fast_weights=2),
    "mlp": mlp(3, 6),
}


@pytest.mark.variants(
    "window shorter than the text",
    "grouped, norms, cap",
    "smeared",
    "linear",
    "hybrid",
    "around",
    "lstm",
    "fast weights",
    "mlp",
)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NETWORKS)
def test_decoding_is_the_full_pass(name):
    architecture = NETWORKS[name]
    network, rng = drawn(architecture), np.random.default_rng(1)
    vectors = name in ("lstm", "fast weights", "mlp")
    tokens = jnp.asarray(rng.normal(size=(T, 3)) if vectors else rng.integers(0, V, T))
    full, steps = eqx.filter_jit(lambda n, tokens: (n(tokens)[0], n.decode(tokens)))(network, tokens)
    assert full.shape[0] == T and np.std(full) > 1e-4
    np.testing.assert_allclose(steps, full, rtol=0, atol=1e-10 * max(1.0, float(jnp.abs(full).max())))


@pytest.mark.usefixtures("x64")
def test_items_and_labels_one_by_one():
    network = drawn(Architecture(D, 1, Block(Attention(2)), Items(4, Vectors(3, bias=True), label_std=1.0)))
    labels = jnp.asarray([-1, 2, -1, 0, -1])
    tokens = LabelTokens(jax.random.normal(jax.random.key(0), (5, 3)) * (labels < 0)[:, None], labels)
    np.testing.assert_allclose(network.decode(tokens), network(tokens)[0], rtol=0, atol=1e-12)


def test_sizes_of_states():
    """Keys and values of a cache, the last key too where they are smeared; sums; a recurrence's state; nothing."""
    assert network_of(Attention(2), 3).state_size(T) == 3 * 2 * D * T
    assert network_of(Attention(2, window=4, smeared=True), 3).state_size(100) == 3 * (2 * D * 4 + D)
    assert network_of(Attention(4, n_groups=1)).state_size(T) == 2 * 2 * T
    assert network_of(Attention(2, kind="elu"), 2).state_size(T) == 2 * (2 * 4 * 4 + 2 * 4)
    assert lstm(3, 6, 2).state_size(T) == 2 * 2 * 6
    assert lstm(3, 6, fast_weights=2).state_size(T) == 2 * 3 * 3 + 6
    assert mlp(3, 6).state_size(T) == 0
    looped = Architecture(D, 5, (Block(Attention(2, window=3)), Block(m.Lstm())), Tokens(V), looped=True)
    assert looped.state_size(T) == 3 * 2 * D * 3 + 2 * 2 * D


def rows_alone(d_model, *, key):
    """A mixer that has no steps."""
    return eqx.nn.Lambda(lambda x, key=None: jnp.cumsum(x, axis=0))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (von_oswald(D), "causal must be True"),
        (lstm(D, 6, bidirectional=True), "bidirectional must be False"),
        (Architecture(D, 1, Block(rows_alone)), r"mixer must be one with initial_state\(\) and step"),
        (Architecture(D, 1, positions=Learned(T - 1)), "tokens must be at most n_positions = 8"),
    ],
)
def test_what_has_no_steps_says_so(architecture, message):
    network = architecture(key=jax.random.key(0))
    with pytest.raises(BadInput, match=message) as caught:
        network.decode(jnp.zeros((T, D)))
    assert "\n" not in str(caught.value)
    if isinstance(network.blocks[0].mixer, m.AttentionLayer) and network.positions is not None:
        with pytest.raises(BadInput, match="capacity must be given"):
            network.initial_state()
