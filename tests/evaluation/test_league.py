"""Probes of memories against hand-made cases; the league's bookkeeping; a mixer of the user's on the command line."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.analysis import memory as probe
from meta_icl.apps.cli import league as command
from meta_icl.errors import BadInput
from meta_icl.evaluation import league
from meta_icl.models import mixers as m
from meta_icl.models.mixers.delta import delta_step

D, T = 8, 9

# Compiled as wholes: run eagerly, every operation would be a program of its own.
course_of, heard, memory_states = map(eqx.filter_jit, (probe.course_of, probe.heard, probe.memory_states))
surprise, lost, alignment = map(eqx.filter_jit, (probe.surprise, probe.lost, probe.alignment))
alignment_with_rule = eqx.filter_jit(probe.alignment_with_rule)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (T, D))


def delta_gradient(state, k, v):
    """Of 1/2 |S k - v|^2, written out."""
    return (state @ k - v)[:, None] * k[None]


def hebbian_gradient(state, k, v):
    """Of -<S k, v>."""
    del state
    return -v[:, None] * k[None]


@pytest.mark.usefixtures("x64")
def test_deltanet_descends_and_linear_attention_does_not(x):
    """Every write of DeltaNet is along minus the delta gradient exactly; of linear attention along the Hebbian one."""
    for description, own in (
        (m.DeltaNet(n_heads=1), delta_gradient),
        (m.LinearAttention(n_heads=1, conv=4), hebbian_gradient),
    ):
        mixer = description(D, key=jax.random.key(1))
        tokens = heard(mixer, jnp.asarray(x, float))
        after = memory_states(mixer, tokens)[:, 0]
        before = jnp.concatenate([jnp.zeros((1, D, D)), after[:-1]])
        given = (before, after, tokens.k[0], tokens.v[0])
        np.testing.assert_allclose(alignment_with_rule(*given, own), 1.0, atol=1e-6)
        both = [alignment_with_rule(*given, g) for g in (delta_gradient, hebbian_gradient)]
        assert float(jnp.abs(both[0] - both[1])[1:].max()) > 1e-3


@pytest.mark.usefixtures("x64")
def test_the_course_of_a_memory_against_numpy(x):
    """The delta rule and ridge regression, written out, on what the two heads hear; persistent tokens come first."""
    x = jnp.asarray(x, float)
    layer = m.Persistent(m.DeltaNet(), n_tokens=3)(D, key=jax.random.key(1))
    course = course_of(layer, x)
    fed = heard(layer.mixer, jnp.concatenate([layer.tokens, x]))
    keys, values, rates = (np.asarray(a) for a in (fed.k, fed.v, jax.nn.sigmoid(fed.raw[..., 0])))
    for h in range(2):
        state, befores = np.zeros((D // 2, D // 2)), []
        for k, v, b in zip(keys[h], values[h], rates[h], strict=True):
            befores.append(state)
            state = state + b * np.outer(v - state @ k, k)
        np.testing.assert_allclose(course.before[h], befores[3:], atol=1e-12)
        np.testing.assert_allclose(course.after[h, -1], state, atol=1e-12)
        errors = [np.sum((s @ k - v) ** 2) for s, k, v in zip(befores, keys[h], values[h], strict=True)]
        np.testing.assert_allclose(surprise(course)[h], errors[3:], atol=1e-12)
        left = np.sum((keys[h] @ state.T - values[h]) ** 2, axis=1)
        np.testing.assert_allclose(lost(course)[h], left[3:], atol=1e-12)
    np.testing.assert_allclose(alignment(course, probe.delta_loss), 1.0, atol=1e-5)
    mesa = m.Mesa(n_heads=1)(D, key=jax.random.key(2))
    course = course_of(mesa, x)
    (k,), (v,), (raw,) = (np.asarray(a) for a in (course.tokens.k, course.tokens.v, course.tokens.raw))
    b, log_g = (np.asarray(a) for a in jax.tree.map(lambda leaf: leaf[0], mesa.memory).gates(jnp.asarray(raw)))
    weights = b * np.exp(np.cumsum(log_g[::-1])[::-1] - log_g)  # what is left of each token at the end
    ridge = np.linalg.solve((k.T * weights) @ k + np.eye(D), (k.T * weights) @ v).T
    np.testing.assert_allclose(course.after[0, -1], ridge, atol=1e-10)


OTHERS = {"mlstm": m.Mlstm(), "titans": m.Titans(depth=2, chunk_size=4), "ttt": m.Ttt(chunk_size=1)}
OTHERS |= {"longhorn": m.Longhorn(diagonal=True)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mlstm" else pytest.mark.slow) for name in OTHERS]
)
def test_what_memories_of_other_families_answer(x, name):
    """Read at its own query, the memory after a token answers what the layer's step reads there."""
    mixer = OTHERS[name](D, key=jax.random.key(5))
    course = course_of(mixer, jnp.asarray(x, float))
    reads = eqx.filter_vmap(lambda memory, tokens: memory.scan(memory.start(), tokens)[1])
    answers = eqx.filter_jit(eqx.filter_vmap(lambda memory, after, q: jax.vmap(memory.answer)(after, q)))
    expected = eqx.filter_jit(reads)(mixer.memory, course.tokens)
    np.testing.assert_allclose(answers(mixer.memory, course.after, course.tokens.q), expected, atol=1e-10)


@pytest.mark.slow
def test_which_layers_have_a_course(x):
    gate = m.TitansBlock("gate", m.Titans(chunk_size=4), segment=4)(D, key=jax.random.key(6))
    assert surprise(course_of(gate, x)).shape == (2, T)
    for description in (m.Attention(), m.LstmMixer(), m.TitansBlock("context", m.Titans(chunk_size=4), segment=4)):
        assert not probe.has_course(description(D, key=jax.random.key(7)))


def test_what_is_read_back():
    step = jax.jit(delta_step)
    keys, values = jnp.eye(4), jax.random.normal(jax.random.key(2), (4, 4))
    state = jnp.zeros((4, 4))
    for k, v in zip(keys[:3], values[:3], strict=True):
        state = step(state, k, k, v, jnp.ones(()), jnp.zeros(()))[0]
    np.testing.assert_allclose(probe.read_back(state, keys, values), [1, 1, 1, 0], atol=1e-5)


def test_descent_and_ridge_are_recognised():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5, 3)), rng.normal(size=(200, 5))
    steps = np.array([[sum(b[i] * a[i] @ a[n] for i in range(n)) for n in range(5)] for a, b in zip(x, y, strict=True)])
    given = jnp.asarray(x), jnp.asarray(y)
    np.testing.assert_allclose(probe.explained_by_descent(jnp.asarray(0.37 * steps), *given)[1:], 1.0, atol=1e-5)
    ridge = np.array(
        [
            [a[n] @ np.linalg.solve(a[:n].T @ a[:n] + 0.5 * np.eye(3), a[:n].T @ b[:n]) for n in range(5)]
            for a, b in zip(x, y, strict=True)
        ]
    )
    assert float(probe.ridge_distance(jnp.asarray(ridge), *given, 0.5).max()) < 1e-6
    assert float(probe.ridge_distance(jnp.asarray(steps), *given, 0.5)[1:].min()) > 0.1
    assert float(probe.explained_by_descent(jnp.asarray(ridge), *given)[3]) < 0.99


def test_a_repeated_token_surprises_less():
    mixer = m.Titans(n_heads=1, chunk_size=1, conv=0)(D, key=jax.random.key(3))
    token = jax.random.normal(jax.random.key(4), (D,))
    surprises = surprise(course_of(mixer, jnp.tile(token[None], (6, 1))))
    assert surprises.shape == (1, 6)
    assert float(surprises[0, 5]) < 0.5 * float(surprises[0, 0])
    tokens = heard(mixer, token[None])
    before = jnp.sum((mixer.initial_state().memory.now.weights[0][0] @ tokens.k[0, 0] - tokens.v[0, 0]) ** 2)
    assert float(surprises[0, 0]) == pytest.approx(float(before), rel=1e-5)


@pytest.mark.slow
def test_the_league_keeps_books():
    arena = league.arena("overwrite", 16)
    out = league.play(
        arena, m.DeltaNet(chunk_size=4, conv=0), steps=4, key=jax.random.key(0), d_model=8, n_layers=1, mlp=0,
        rates=(1e-3, 1e-2), seeds=2, batch=4, n_eval=8,
    )  # fmt: skip
    assert out["losses"].shape == (2, 2) and out["rate"] in (1e-3, 1e-2)
    assert out["losses"][list(out["rates"]).index(out["rate"])].mean() == out["losses"].mean(axis=1).min()
    assert out["score/latest"].shape == (2,) and (out["score/latest"] <= 1).all()
    # Embedding and read-out 32 x 8, three projections and an output 8 x 8, two raw gates, gains of norms 8 + 2 * 8 + 8.
    assert out["parameters"] == 2 * 32 * 8 + 4 * 64 + 8 * 2 + 8 + 3 * 8
    assert out["state"] == 2 * 4 * 4
    assert out["flops"] > 2 * (4 * 64 + 8 * 32) and out["seconds"] > 0


def test_scores_of_perfect_predictors():
    arena = league.arena("overwrite", 16)

    class Perfect(eqx.Module):
        def batched(self, prompts):
            return jax.nn.one_hot(prompts.labels, 32)

    assert float(arena.score(Perfect(), arena.task, 5, jax.random.key(0))) == 1.0
    regression = league.arena("regression", 16)
    zero = lambda prompt: jnp.zeros_like(prompt.y)  # noqa: E731
    assert float(regression.score(zero, regression.task, 50, jax.random.key(0))) == pytest.approx(1.0)


def test_every_name_of_the_roster_is_a_mixer():
    for description in league.roster(8).values():
        assert isinstance(description, m.MixerDescription)


@pytest.mark.slow
def test_a_users_mixer_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("META_ICL_WORKERS", "0")
    words = "--steps 2 --rates 1e-3 --seeds 1 --batch 2 --length 16 --d-model 8 --n-layers 1 --json"
    small = words.split()
    chosen = ["--only", "linear_attention", "--mixer", "meta_icl.models.mixers:LstmMixer", "--root", str(tmp_path)]
    assert command.main([*small, *chosen]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["mixer"] for row in rows] == ["linear_attention", "meta_icl.models.mixers:LstmMixer"]
    assert all(row["parameters"] > 0 and row["state"] > 0 for row in rows)
    for wrong, words in ((["--mixer", "nothing"], "package.module:Name"), (["--only", "deltanets"], "deltanet")):
        with pytest.raises(BadInput, match=words):
            command.main([*small, *wrong, "--root", str(tmp_path)])
