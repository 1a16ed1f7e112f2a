"""Scores of hand-built patterns, masks, shuffles, ablations, phases and reduced models with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_icl.analysis import circuits as c
from meta_icl.analysis.dynamics import Plateau
from meta_icl.errors import BadInput
from meta_icl.models import (
    Architecture,
    Attention,
    Block,
    Clamped,
    ClampedLearner,
    ItemIndex,
    LabelLayout,
    Learner,
    Norm,
    Tied,
    Tokens,
    minegishi,
)
from meta_icl.prompt import Prompt
from meta_icl.tasks import meta_classification


def uniform(t):
    visible = np.tril(np.ones((t, t)))
    return jnp.asarray(visible / visible.sum(1, keepdims=True))


# Compiled as wholes: one program for every shape instead of one for every operation of every shape.
circuit_scores, previous_token = jax.jit(c.circuit_scores), jax.jit(c.previous_token)
prefix_matching = jax.jit(c.prefix_matching, static_argnums=1)


@given(st.integers(1, 12))
def test_uniform_attention_has_its_closed_forms(n):
    t = 2 * n + 1
    bigram, label, chunk = circuit_scores(uniform(t))
    expected = (1 / t, n / t, np.mean([1 / (2 * k) for k in range(1, n + 1)]))
    np.testing.assert_allclose((bigram, label, chunk), expected, rtol=1e-5)
    np.testing.assert_allclose(c.uniform_circuit_scores(n), expected, rtol=1e-12)


def test_untrained_networks_attend_uniformly():
    @jax.jit
    def scores(key):
        prompts = meta_classification(key=key).sample_batch(64, key=jax.random.fold_in(key, 2))
        learner = Learner(minegishi(32), ItemIndex())(key=jax.random.fold_in(key, 1))
        return jnp.stack(c.circuit_scores(jax.vmap(lambda prompt: learner.trace(prompt)[1]["pattern"])(prompts)))

    found = np.asarray(scores(jax.random.key(0)).mean(1))[:, :, 0]
    # Items see themselves a little more (their norm), which the reference implementation shows too: .109, .422, .266.
    np.testing.assert_allclose(found, np.array([[1 / 9] * 2, [4 / 9] * 2, [0.2604] * 2]), atol=0.03)


@given(st.integers(2, 6), st.integers(2, 4))
@settings(max_examples=3)
def test_a_perfect_induction_head_scores_one(period, repeats):
    t = 1 + period * repeats
    tokens = np.concatenate([[0], np.tile(np.arange(1, period + 1), repeats)])
    head = np.zeros((t, t))
    for i in range(t):  # independent rule: attend to places whose predecessor is the same token
        places = [j for j in range(1, i) if tokens[j - 1] == tokens[i]] or [0]
        head[i, places] = 1 / len(places)
    assert abs(float(prefix_matching(jnp.asarray(head), period)) - 1) < 1e-6
    rows = [i for i in range(t) if i >= 1 + period]
    flat = np.asarray(uniform(t))
    expected = np.mean([sum(flat[i, j] for j in range(1, i) if tokens[j - 1] == tokens[i]) for i in rows])
    assert abs(float(prefix_matching(uniform(t), period)) - expected) < 1e-6
    assert float(previous_token(jnp.eye(t, k=-1))) == 1
    assert abs(float(previous_token(uniform(t))) - np.mean([1 / (i + 1) for i in range(1, t)])) < 1e-6


def test_scores_of_the_query():
    pattern = jnp.zeros((5, 5)).at[-1].set(jnp.asarray([0.1, 0.5, 0.1, 0.2, 0.1]))
    matches = jnp.asarray([True, False])
    assert abs(float(c.matching_label_attention(pattern, matches)) - 0.5) < 1e-6
    assert abs(float(c.induction_strength(pattern, matches)) - 0.3) < 1e-6
    logits, context = jnp.log(jnp.asarray([0.1, 0.2, 0.3, 0.4])), jnp.asarray([1, 3])
    assert abs(float(c.in_context_choice(logits, context)) - 0.6) < 1e-6
    assert abs(float(c.in_context_loss(logits, context, jnp.asarray(3))) + np.log(0.4 / 0.6)) < 1e-6
    assert float(c.icl_score(jnp.arange(10.0), 7, 2)) == 5


def test_copying_of_constructed_heads():
    rng = np.random.default_rng(0)
    embed = jnp.asarray(np.linalg.qr(rng.normal(size=(8, 8)))[0])
    value, write = embed[:, :4], embed[:, :4].T
    copying = c.eigenvalue_copying(embed, value, write, embed.T)
    against = c.eigenvalue_copying(embed, value, -write, embed.T)
    # The product of all four matrices has the same non-zero eigenvalues.
    whole = np.asarray(embed @ value @ write @ embed.T)
    whole = whole - whole.mean(1, keepdims=True)
    values = np.linalg.eigvals(whole)
    assert abs(copying - values.real.sum() / np.abs(values).sum()) < 1e-4
    assert copying > 0.9 and against < -0.9
    tokens = jnp.asarray([0, 1, 2, 3])
    eye = jnp.eye(4)
    assert abs(float(c.output_copying(5 * eye, eye, tokens)) - 1) < 1e-6
    assert abs(float(c.output_copying(5 * jnp.roll(eye, 1, 1), eye, tokens)) + 1) < 1e-6


def test_masks_leave_the_entries_of_a_circuit():
    prompt = eqx.filter_jit(lambda key: meta_classification(key=key, d=4).sample(key=key))(jax.random.key(0))
    learner = Learner(minegishi(32, d_model=4 + 9), ItemIndex(n_positions=9))(key=jax.random.key(1))
    for circuit in ("ncc", "scc", "fcc"):
        mask = c.circuit_mask(circuit, 4)
        _, trace = eqx.filter_jit(learner.trace)(prompt, c.pruned(circuit, 4))
        pattern = np.asarray(trace["pattern"])[:, 0]
        np.testing.assert_array_equal(pattern > 0, mask)
        np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-6)
    scores = [np.asarray(s) for s in c.circuit_scores(jnp.asarray(pattern))]
    assert scores[2][0] == 1 and abs(scores[1][1] - 1) < 1e-6
    with pytest.raises(BadInput, match="circuit"):
        c.circuit_mask("xcc", 2)


def test_removals_take_what_they_say_and_nothing_else():
    """By words and token names: x1 l1 x2 l2 q, causal, three layers."""
    names, layers = ["x1", "l1", "x2", "l2", "q"], (1, 2, 3)
    gone = {
        "no own": {(1, "l1", "x1"), (1, "l2", "x2")},
        "only own": {(1, "l2", "x1")},
        "L2 no labels": {(2, "q", "l1"), (2, "q", "l2")},
        "L1 query no labels": {(1, "q", "l1"), (1, "q", "l2")},
    }
    assert set(gone) == set(c.REMOVALS)
    for removal, entries in gone.items():
        kept = c.without(removal, 2, n_layers=3)
        for layer, i, j in np.ndindex(kept.shape):
            entry = (layers[layer], names[i], names[j])
            assert kept[layer, i, j] == (j <= i and entry not in entries)
    with pytest.raises(BadInput, match="removal"):
        c.without("no items", 2)


def test_own_item_share():
    assert abs(float(c.own_item_share(uniform(9))) - (1 / 2 + 1 / 3 + 1 / 4) / 3) < 1e-6
    pattern = jnp.zeros((5, 5)).at[3].set(jnp.asarray([0.1, 0.5, 0.3, 0.1, 0.0]))
    assert abs(float(c.own_item_share(pattern)) - 0.75) < 1e-6


@pytest.mark.parametrize(("norm_at", "behind"), [("sandwich", "post_norm_mixer"), ("branch", "norm_mixer")])
def test_copying_minds_the_norm_behind_a_mixer(norm_at, behind):
    """The sign of all its scales turns copying into its opposite (Gemma 2, OLMo 2)."""
    block = Block(Attention(n_heads=2, d_head=4), norm=Norm("rms"), norm_at=norm_at)
    network = Architecture(8, embedding=Tokens(12), block=block, readout=Tied())(key=jax.random.key(0))
    turned = eqx.tree_at(lambda n: getattr(n.blocks[0], behind).scale, network, replace_fn=lambda scale: -scale)
    copying = c.heads_copying(network, [0])
    assert np.abs(copying).max() > 0.05
    np.testing.assert_allclose(c.heads_copying(turned, [0]), -copying, rtol=1e-4)


def test_shuffled_labels():
    rng = np.random.default_rng(0)
    y = jnp.asarray(np.argsort(rng.random((500, 9)), 1)[:, :5])
    prompts = Prompt(jnp.zeros((500, 5, 2)), y)
    for kind in ("permutation", "derangement", "iid"):
        other = c.shuffled_labels(prompts, kind, n_labels=9, key=jax.random.key(0)).y
        np.testing.assert_array_equal(other[:, 4], y[:, 4])
        if kind == "iid":
            assert abs(float((other[:, :4] == y[:, :4]).mean()) - 1 / 9) < 0.03
            continue
        np.testing.assert_array_equal(np.sort(other[:, :4], 1), np.sort(y[:, :4], 1))
        kept = float((other[:, :4] == y[:, :4]).any(1).mean())
        assert kept == 0 if kind == "derangement" else abs(kept - 0.625) < 0.08
    alone = Prompt(jnp.zeros((3, 2, 2)), y[:3, :2])
    with pytest.raises(BadInput, match="n_context must be at least 2 for derangements, got 1"):
        c.shuffled_labels(alone, "derangement", n_labels=9, key=jax.random.key(0))


def test_ablation_equals_removing_weights():
    network = minegishi(5, 8, n_heads=2, project=True, init_std=0.6)
    learner = Learner(network, LabelLayout())(key=jax.random.key(0))
    rng = np.random.default_rng(1)
    prompts = Prompt(jnp.asarray(rng.normal(size=(6, 3, 8)), float), jnp.asarray(rng.integers(0, 5, (6, 3))))

    def score(answer, prompt):
        return answer[prompt.y[-1]]

    answers = eqx.filter_jit(lambda learner, prompts: jax.vmap(learner)(prompts))
    plain = c.without_heads(learner.trace, score, prompts, c.each_head(2, 2))
    direct = c.without_heads(learner.trace, score, prompts, c.each_head(2, 2), keep=("pattern",))
    for layer in range(2):
        for head in range(2):
            other = eqx.tree_at(
                lambda whole: whole.network.blocks[0].mixer.w_o,
                learner,
                learner.network.blocks[0].mixer.w_o.at[layer, head].set(0),
            )
            expected = np.mean(np.asarray(answers(other, prompts))[range(6), prompts.y[:, -1]])
            assert abs(float(plain[layer, head]) - expected) < 1e-5
    np.testing.assert_allclose(plain[1], direct[1], atol=1e-6)  # nothing comes after the last layer
    assert np.abs(np.asarray(plain[0] - direct[0])).max() > 1e-4
    sets = c.all_but_one(1, 2, 2)
    assert sets.shape == (2, 2, 2) and not sets[:, 0].any() and sets[0, 1].tolist() == [False, True]


def test_phases_of_a_made_curve():
    steps = np.array(c.log_spaced(100_000, 200, first=10))
    logs = np.log10(steps)
    curve = 0.33 / (1 + np.exp(-12 * (logs - 2.2))) + 0.42 / (1 + np.exp(-12 * (logs - 3.4)))
    curve = curve + 0.25 / (1 + np.exp(-12 * (logs - 4.5)))
    found = c.accuracy_plateaus(steps, curve)
    np.testing.assert_allclose([p.height for p in found], [0.33, 0.75], atol=0.02)
    assert c.accuracy_plateaus(steps, 1 / (1 + np.exp(-12 * (logs - 3)))) == []
    phase = c.stretch_at(steps, curve, 0.30, 0.40)
    assert phase is not None and abs(phase.level - 0.33) < 0.01 and 10**2.2 < phase.start < phase.stop < 10**3.5
    assert c.stretch_at(steps, curve, 1.1, 1.2) is None
    line = np.array([0.0, 10.0, 30.0])
    assert c.onset(line, line) == 15 and np.isnan(c.onset(line, np.ones(3)))
    np.testing.assert_allclose(c.rises(np.array([0, 50, 250]), np.array([0.0, 0.1, 0.5])), [0.2, 0.2, 0.0])
    times = np.linspace(0, 100, 101)
    low, high = c.steepest_window(times, 1 / (1 + np.exp(-(times - 60))))
    assert abs(0.5 * (low + high) - 60) < 1 and abs(high - low - 10) < 1e-6
    assert c.co_occur(10, 19, total=100) and not c.co_occur(10, 21, total=100) and not c.co_occur(np.nan, 1, total=9)


def test_noise_makes_no_plateaus():
    steps = np.array([0, *c.log_spaced(100_000, 120, first=100)])
    logs = np.log10(np.maximum(steps, 1))

    def counted(clean, seed):  # accuracies of 4,096 prompts
        return np.random.default_rng(seed).binomial(4_096, clean) / 4_096

    one = 1 / 32 + 31 / 32 / (1 + np.exp(-8 * (logs - 4.2)))  # a single rise that takes half a decade
    three = sum(h / (1 + np.exp(-12 * (logs - t))) for h, t in ((0.33, 2.5), (0.45, 3.6), (0.22, 4.6)))
    for seed in range(20):
        assert c.accuracy_plateaus(steps, counted(one, seed)) == []
        found = c.accuracy_plateaus(steps, counted(three, seed))
        np.testing.assert_allclose([p.height for p in found], [0.33, 0.78], atol=0.03)


def test_smoothing_keeps_lines_and_lonely_records():
    steps = np.array([0, *c.log_spaced(10_000, 40, first=10)])
    line = np.append(7.0, 2 + 3 * np.log10(steps[1:]))
    np.testing.assert_allclose(c.smoothed(steps, line), line, atol=1e-9)
    few = np.array([0, 1, 1_000, 1_000_000])
    np.testing.assert_array_equal(c.smoothed(few, np.array([1.0, 5.0, 2.0, 9.0])), [1, 5, 2, 9])
    noise = np.random.default_rng(0).normal(size=41)
    assert c.smoothed(steps, noise, 0.1)[1:].std() < 0.8 * noise[1:].std()


def test_phases_are_parted_half_way_between_plateaus():
    steps = np.array([0, 1, 10, 20, 100, 200, 1_000])
    curve = np.array([0.0, 0.0, 0.2, 0.4, 0.4, 0.8, 1.0])
    plateau = Plateau(0.4, np.log10(45), 0.0)
    assert c.phase_numbers(steps, curve, [plateau]).tolist() == [0, 0, 1, 1, 1, 2, 2]  # .2 and .7 part them
    assert c.phase_numbers(steps, curve, []).tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert c.phase_numbers(steps, np.ones(7), []).tolist() == [0] * 7


@pytest.mark.slow
def test_rank_one_toy(x64):
    names = {"a": 3, "b": 3, "c": 3}
    rng = np.random.default_rng(0)
    target, guess = ({k: rng.normal(size=n) for k, n in names.items()} for _ in range(2))
    difference = np.einsum("i,j,k", *target.values()) - np.einsum("i,j,k", *guess.values())
    found = c.rank_one_loss(*({k: jnp.asarray(v) for k, v in d.items()} for d in (guess, target)))
    assert abs(float(found) - 0.5 * np.mean(difference**2)) < 1e-12
    times = []
    for clamped in ((), ("c",), ("b", "c")):
        run = jax.jit(jax.vmap(lambda key, clamped=clamped: c.rank_one_descent(key=key, clamped=clamped)))
        losses = np.asarray(run(jax.random.split(jax.random.key(0), 8)))
        below = losses <= 0.01 * losses[:, :1]
        times.append(np.median(np.where(below.any(1), below.argmax(1), 1000)))
    assert times[0] > times[1] > times[2]


def test_three_parameter_reduction(x64):
    start = jnp.zeros(3)
    gradient = eqx.filter_jit(jax.grad(c.three_parameter_loss))
    np.testing.assert_allclose(gradient(start, n_context=8, n_labels=8), 0, atol=1e-12)
    slopes = np.asarray(gradient(start, n_context=8, n_labels=32))
    assert slopes[2] < -1e-3 and np.abs(slopes[:2]).max() < 1e-12
    # The definition, written out over all labels.
    b, a, xi, n, labels = 0.3, 1.2, 2.0, 4, 9
    s1 = np.exp(b) / (np.exp(b) + n)
    s2 = np.exp(a * s1) / (np.exp(a * s1) + n - 1)
    logits = np.zeros(labels)
    logits[0], logits[1:n] = xi * s2, xi * (1 - s2) / (n - 1)
    expected = np.log(np.exp(logits).sum()) - logits[0]
    found = eqx.filter_jit(c.three_parameter_loss)(jnp.asarray([b, a, xi]), n_context=n, n_labels=labels)
    assert abs(float(found) - expected) < 1e-12
    losses, _ = c.three_parameter_descent(jnp.zeros(3), n_context=8, n_labels=32, steps=5, rate=0.1)
    assert np.all(np.diff(losses) < 0)


def test_clamps_do_what_they_say():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8)), float)
    prompt = Prompt(jnp.stack([x[0], x[1], x[1]]), jnp.asarray([3, 1, 0]))  # the target is hidden; the answer is 1
    how = {"project": True, "scaled": True, "norm": "pre", "rotary": True, "init_std": 0.5}
    base = Learner(minegishi(5, 8, n_hidden=0, n_heads=2, **how), LabelLayout())
    drawn = base(key=jax.random.key(0))

    def clamped(*names, **more):
        return eqx.filter_jit(ClampedLearner(drawn, Clamped(base, names, **more)).trace)(prompt)

    _, trace = clamped("previous", "match")
    np.testing.assert_array_equal(np.asarray(trace["pattern"])[0, :, 2], [[0, 1, 0, 0, 0]] * 2)
    np.testing.assert_array_equal(np.asarray(trace["pattern"])[1, :, 4], [[0, 0, 0, 1, 0]] * 2)
    answer, trace = clamped("layer1", "copy", kept=(1,))
    assert not trace["mixer_out"][0].any() and not trace["z"][1, 0].any()
    np.testing.assert_allclose(trace["k_input"][1, 1:], trace["q_input"][1, :-1], atol=1e-6)
    np.testing.assert_array_equal(answer[jnp.asarray([3, 1])], trace["scores"][1, 1, 4, 1::2])
    assert (answer[jnp.asarray([0, 2, 4])] == -1e9).all()
    plain, _ = clamped()
    np.testing.assert_allclose(plain, eqx.filter_jit(drawn)(prompt), atol=1e-6)
    again, _ = eqx.filter_jit(Clamped(base)(key=jax.random.key(0)).trace)(prompt)  # drawn as the learner is
    np.testing.assert_array_equal(again, plain)
