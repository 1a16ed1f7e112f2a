"""The forms of linear and softmax attention against token-by-token numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl import models
from meta_icl.errors import BadInput
from meta_icl.prompt import Prompt, answer_batch

# Few shapes, so that programs are compiled once and used for many examples.
seeds = st.integers(0, 10**6)


def shapes(*cases):
    """One of the given tuples of sizes."""
    return st.sampled_from(cases)


@eqx.filter_jit
def answer(predictor, prompt):
    """One compiled program per structure and shape."""
    return predictor(prompt)


@eqx.filter_jit
def batch_answer(predictor, prompt):
    return answer_batch(predictor, jax.tree.map(lambda leaf: leaf[None], prompt))[0]


@eqx.filter_jit
def residual_map(predictor, second_moment):
    return predictor.residual_map(second_moment)


@eqx.filter_jit
def draw(config, key):
    return config(key=key)


def random_prompt(d, n, seed, n_out=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n + 1, d)), rng.normal(size=(n + 1, n_out))


@given(shapes((1, 1, 1, 1), (3, 4, 2, 2)), seeds)
def test_map_predictors_are_attention_layers(shape, seed):
    d, n, heads, rank = shape
    x, y = random_prompt(d, n, seed)
    z = np.concatenate([x, np.vstack([y[:-1], [[0.0]]])], axis=1).T  # columns, the query's y empty
    with jax.enable_x64(True):
        key = jax.random.key(seed)
        merged = draw(models.MergedLinearAttention(d, heads, 1.0), key)
        separate = draw(models.SeparateLinearAttention(d, heads, rank, 1.0), key)
        prompt = Prompt(jnp.asarray(x), jnp.asarray(y))
        for predictor, products in (
            (merged, np.asarray(merged.w_kq)),
            (separate, np.einsum("hrd,hre->hde", np.asarray(separate.w_k), np.asarray(separate.w_q))),
        ):
            output = np.zeros(d + 1)
            for v, u in zip(np.asarray(predictor.v), products, strict=True):
                value, kq = np.zeros((d + 1, d + 1)), np.zeros((d + 1, d + 1))
                value[-1, -1], kq[:d, :d] = v, u
                output = output + (value @ z @ z.T @ kq @ z)[:, -1] / n
            np.testing.assert_allclose(answer(predictor, prompt), output[-1:], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(batch_answer(predictor, prompt), output[-1:], rtol=1e-9, atol=1e-12)


@given(shapes((1, 1, 1), (3, 4, 2)), seeds)
def test_cubic_mlp_is_merged_attention(shape, seed):
    d, n, width = shape
    x, y = random_prompt(d, n, seed)
    with jax.enable_x64(True):
        key = jax.random.key(seed)
        mlp = draw(models.CubicMLP(d, width, 1.0), key)
        merged = draw(models.MergedLinearAttention(d, width, 1.0), key)
        prompt = Prompt(jnp.asarray(x), jnp.asarray(y))
        # The same key draws the same weights, so the two are the same function from the first step on.
        maps = [np.asarray(eqx.filter_jit(lambda p: p.effective_map())(p)) for p in (mlp, merged)]
        np.testing.assert_allclose(maps[0], maps[1], atol=1e-13)
        features = np.outer((y[:-1, 0] @ x[:-1]) / n, x[-1]).ravel()
        by_hand = np.asarray(mlp.w_out) @ (np.asarray(mlp.w_in) @ features)
        np.testing.assert_allclose(answer(mlp, prompt), by_hand, rtol=1e-9, atol=1e-12)


@given(shapes((1, 1, 1, True), (3, 4, 3, True), (3, 4, 3, False)), seeds)
def test_sparse_transformer_is_the_published_layer(shape, seed):
    d, n, layers, rewrites = shape
    x, y = random_prompt(d, n, seed)
    rng = np.random.default_rng(seed + 1)
    a = rng.normal(size=(layers, d, d)) / d
    b = rng.normal(size=(layers, d, d)) / d if rewrites else np.zeros((layers, d, d))
    z = np.concatenate([x, np.vstack([y[:-1], [[0.0]]])], axis=1).T
    mask = np.diag([1.0] * n + [0.0])
    for layer in range(layers):
        p, q = np.zeros((d + 1, d + 1)), np.zeros((d + 1, d + 1))
        p[:d, :d], p[d, d], q[:d, :d] = b[layer], 1.0, a[layer]
        z = z + p @ z @ mask @ (z.T @ q @ z) / n
    with jax.enable_x64(True):
        predictor = models.SparseLinearPredictor(jnp.asarray(a), jnp.asarray(b) if rewrites else None)
        given_answer = answer(predictor, Prompt(jnp.asarray(x), jnp.asarray(y)))
        np.testing.assert_allclose(given_answer, [-z[-1, -1]], rtol=1e-9, atol=1e-10)
        # Noise-free labels: the error is w^T T x_q.
        w = rng.normal(size=d)
        clean = answer(predictor, Prompt(jnp.asarray(x), jnp.asarray(x @ w)[:, None]))
        t = np.asarray(residual_map(predictor, jnp.asarray(x[:-1].T @ x[:-1] / n)))
        np.testing.assert_allclose(w @ x[-1] - clean[0], w @ t @ x[-1], rtol=1e-8, atol=1e-9)


@given(shapes((1, 1, 1, 1, "softmax"), (3, 4, 2, 2, "linear"), (3, 4, 2, None, "softmax")), seeds)
def test_one_layer_attention_by_tokens(shape, seed):
    d, n, heads, rank, kind = shape
    x, y = random_prompt(d, n, seed)
    with jax.enable_x64(True):
        predictor = draw(models.OneLayerAttention(d, heads, rank, kind, init=1.0), jax.random.key(seed))
        rng = np.random.default_rng(seed)
        v = rng.normal(size=(heads, d + 1))  # the x block, too, which starts at zero
        assert (np.asarray(predictor.v)[:, :-1] == 0).all()
        predictor = models.OneLayerPredictor(jnp.asarray(v), predictor.w_k, predictor.w_q, kind)
        given_answer = answer(predictor, Prompt(jnp.asarray(x), jnp.asarray(y)))
    w_k, w_q = np.asarray(predictor.w_k), None if rank is None else np.asarray(predictor.w_q)
    expected = 0.0
    for h in range(heads):
        product = w_k[h] if w_q is None else w_k[h] @ w_q[h]
        rows = [np.append(x[i], y[i, 0] if i < n else 0.0) for i in range(n + 1)]
        scores = np.array([row @ product @ x[-1] for row in rows])
        raised = np.exp(scores - scores.max())
        pattern = raised / raised.sum() if kind == "softmax" else scores / n
        expected += sum(weight * (v[h] @ row) for weight, row in zip(pattern, rows, strict=True))
    np.testing.assert_allclose(given_answer, [expected], rtol=1e-9, atol=1e-10)


@given(shapes((1, 1, 1, 1), (3, 4, 3, 2)), seeds)
def test_softmax_regression_by_tokens(shape, seed):
    d, n, heads, n_out = shape
    x, y = random_prompt(d, n, seed, n_out)
    with jax.enable_x64(True):
        predictor = draw(models.SoftmaxRegression(d, heads, n_out), jax.random.key(seed))
        prompt = Prompt(jnp.asarray(x), jnp.asarray(y))
        answers = answer(predictor, prompt), batch_answer(predictor, prompt)
    z, z_q = np.concatenate([x, y], axis=1)[:-1], np.append(x[-1], np.zeros(n_out))
    expected = np.zeros(n_out)
    for h in range(heads):
        w_q, w_k, w_v, w_o = (np.asarray(w[h]) for w in (predictor.w_q, predictor.w_k, predictor.w_v, predictor.w_o))
        scores = (z @ w_k.T) @ (w_q @ z_q) / np.sqrt(d + n_out)
        pattern = np.exp(scores - scores.max())
        expected += w_o @ w_v @ z.T @ (pattern / pattern.sum())
    for given_answer in answers:
        np.testing.assert_allclose(given_answer, expected, rtol=1e-9, atol=1e-11)


def test_initial_scales():
    key = jax.random.key(0)
    separate = draw(models.SeparateLinearAttention(4, 400, 2, 0.5), key)
    np.testing.assert_allclose(np.std(separate.w_k), 0.5 / np.sqrt(400 * 2 * 5), rtol=0.05)
    np.testing.assert_allclose(np.std(separate.v), 0.5 / np.sqrt(400 * 25), rtol=0.1)
    soft = draw(models.SoftmaxRegression(5, 300), key)
    np.testing.assert_allclose(np.abs(soft.w_k).max(), 1 / np.sqrt(6), rtol=0.01)
    np.testing.assert_allclose(np.abs(soft.w_o).max(), 1 / np.sqrt(300 * 6), rtol=0.01)


def test_omega_and_mu_of_two_outputs():
    soft = models.SoftmaxRegression(3, 2, 2)(key=jax.random.key(1))
    kq, ov = np.asarray(soft.kq()), np.asarray(soft.ov())
    np.testing.assert_allclose(soft.omega(), [np.trace(m[:3, :3]) / 3 for m in kq], rtol=1e-5)
    np.testing.assert_allclose(soft.mu(), [[m[0, 3], m[1, 4]] for m in ov], rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.MergedLinearAttention(0),
        lambda: models.MergedLinearAttention(3, init_std=0.0),
        lambda: models.SeparateLinearAttention(3, rank=4),
        lambda: models.OneLayerAttention(3, kind="softmx"),
        lambda: models.SoftmaxRegression(3, n_heads=0),
        lambda: models.SparseLinearTransformer(3, n_layers=0),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
