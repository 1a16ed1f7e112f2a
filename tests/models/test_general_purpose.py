"""The shifted layout hides labels; the networks against loops in numpy float64; sizes of states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.models import Decoder, FastWeightLstm, Learner, Lstm, Mlp, Shifted
from meta_icl.prompt import Prompt

N, D, LABELS = 7, 4, 3
WIDTH = D + LABELS
NETWORKS = {
    "decoder": Decoder(8, 2, 2, N, d_in=WIDTH, d_out=LABELS, init_std=0.4),
    "linear": Decoder(8, 2, 2, N, d_in=WIDTH, d_out=LABELS, init_std=0.4, attention="linear"),
    "lstm": Lstm(WIDTH, 6, d_out=LABELS),
    "fast": FastWeightLstm(WIDTH, 2, 3, d_out=LABELS),
    "mlp": Mlp(WIDTH, 6, d_out=LABELS),
}


def prompt(seed=0):
    rng = np.random.default_rng(seed)
    return Prompt(jnp.asarray(rng.normal(size=(N, D))), jnp.asarray(rng.integers(0, LABELS, N)))


def sigmoid(u):
    return 1 / (1 + np.exp(-u))


@pytest.mark.usefixtures("x64")
def test_tokens_carry_the_label_before():
    asked = prompt()
    tokens = np.asarray(Shifted(LABELS).encode(asked))
    assert tokens.shape == (N, WIDTH)
    np.testing.assert_array_equal(tokens[:, :D], asked.x)
    assert not tokens[0, D:].any()
    for t in range(1, N):
        np.testing.assert_array_equal(tokens[t, D:], np.eye(LABELS)[asked.y[t - 1]])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NETWORKS)
def test_no_row_sees_its_own_label_or_what_follows(name):
    learner = Learner(NETWORKS[name], layout=Shifted(LABELS))(key=jax.random.key(0))
    answer = eqx.filter_jit(learner)
    asked = prompt()
    before = np.asarray(answer(asked))
    assert before.shape == (N, LABELS)
    after = np.asarray(answer(Prompt(asked.x.at[5:].add(1.0), asked.y.at[4:].set((asked.y[4:] + 1) % LABELS))))
    np.testing.assert_allclose(after[:5], before[:5], atol=1e-12)
    assert (after[5:] != before[5:]).any(axis=1).all()
    last = np.asarray(answer(Prompt(asked.x, asked.y.at[-1].set((asked.y[-1] + 1) % LABELS))))
    np.testing.assert_array_equal(last, before)  # the query's label is in no token
    earlier = np.asarray(answer(Prompt(asked.x, asked.y.at[0].set((asked.y[0] + 1) % LABELS))))
    seen = earlier != before
    assert not seen[0].any()
    assert seen[1].any()  # the token of row 1 holds the label of row 0
    assert seen[2:].any() == (name != "mlp")  # without memory it is forgotten at once


@pytest.mark.usefixtures("x64")
def test_fast_weight_lstm_is_a_loop_of_outer_products():
    config = FastWeightLstm(WIDTH, 2, 3, d_out=LABELS)
    net = config(key=jax.random.key(1))
    net = eqx.tree_at(lambda n: n.log_scale, net, jax.random.normal(jax.random.key(2), (3, 2)))
    tokens = np.random.default_rng(0).normal(size=(N, WIDTH))
    w_x, w_h, bias, scale = (np.asarray(a) for a in (net.w_x, net.w_h, net.bias, np.log1p(np.exp(net.log_scale))))
    h, memory, expected = np.zeros(6), np.zeros((2, 3, 3)), []
    for x in tokens:
        a_i, b_i, a_g, b_g, a_f, b_f, q, o = (x @ w_x + h @ w_h + bias).reshape(8, 2, 3)
        new = np.zeros(6)
        for head in range(2):
            write, candidate, keep = (
                scale[gate, head] * np.outer(np.tanh(a[head]), np.tanh(b[head]))
                for gate, (a, b) in enumerate([(a_i, b_i), (a_g, b_g), (a_f, b_f)])
            )
            memory[head] = sigmoid(keep + 1) * memory[head] + sigmoid(write) * candidate
            new[3 * head : 3 * head + 3] = sigmoid(o[head]) * np.tanh(memory[head] @ q[head])
        h = new
        expected.append(h @ np.asarray(net.w_out) + np.asarray(net.b_out))
    np.testing.assert_allclose(net(jnp.asarray(tokens))[0], expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_linear_attention_is_a_recurrence_of_its_state():
    """One layer written as sums that are carried along, as many numbers as `state_size` says."""
    config = Decoder(8, 1, 2, N, d_in=WIDTH, d_out=LABELS, init_std=0.4, attention="linear")
    net = eqx.filter_jit(config)(key=jax.random.key(1))
    _, trace = eqx.filter_jit(net)(jax.random.normal(jax.random.key(2), (N, WIDTH)))
    q, k, v = (np.asarray(trace[name][0]) for name in "qkv")

    def phi(u):
        return np.where(u > 0, u + 1, np.exp(np.minimum(u, 0)))

    sums, totals = np.zeros((2, 4, 4)), np.zeros((2, 4))
    for t in range(N):
        for head in range(2):
            sums[head] += np.outer(phi(k[head, t]), v[head, t])
            totals[head] += phi(k[head, t])
            expected = phi(q[head, t]) @ sums[head] / (phi(q[head, t]) @ totals[head])
            np.testing.assert_allclose(trace["z"][0, head, t], expected, atol=1e-12)
    assert config.state_size(N) == sums.size + totals.size


@pytest.mark.usefixtures("x64")
def test_mlp_is_two_hidden_layers():
    net = Mlp(WIDTH, 6, d_out=LABELS)(key=jax.random.key(0))
    tokens = np.random.default_rng(0).normal(size=(N, WIDTH))
    w, b = ([np.asarray(a) for a in part] for part in (net.weights, net.biases))
    expected = np.maximum(np.maximum(tokens @ w[0] + b[0], 0) @ w[1] + b[1], 0) @ w[2] + b[2]
    np.testing.assert_allclose(net(jnp.asarray(tokens))[0], expected, atol=1e-12)


def test_state_sizes():
    assert NETWORKS["decoder"].state_size(N) == 2 * 8 * 2 * N  # keys and values of two layers
    assert NETWORKS["lstm"].state_size(N) == 2 * 6
    assert NETWORKS["fast"].state_size(N) == 2 * 3 * 3 + 6
    assert NETWORKS["mlp"].state_size(N) == 0
