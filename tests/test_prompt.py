"""Prompts check and convert what they are given; answers have the shape of the targets; large batches go in blocks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_icl.errors import BadInput
from meta_icl.prompt import (
    BLOCK,
    Ensemble,
    LabelledTokens,
    PlacedPrompt,
    Prompt,
    Task,
    TokenPrompt,
    answer_batch,
    answer_positions,
    in_blocks,
    query_prediction,
)
from meta_icl.tasks import LinearRegression, RepeatedTokens

KEY = jax.random.key(0)
REAL = ["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool"]


@given(st.sampled_from(REAL), st.sampled_from(REAL), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1e-3, 1e3]))
def test_arrays_of_any_type_become_real_inputs_and_targets(x_type, y_type, n, dy, scale):
    rng = np.random.default_rng(n)
    x, y = (scale * rng.uniform(0, 1, (n, 2))).astype(x_type), (9 * rng.uniform(0, 1, (n, dy))).astype(y_type)
    for form in (np.asarray, lambda a: a.tolist(), jnp.asarray):
        prompt = Prompt(form(x), form(y))
        assert prompt.x.dtype.kind == prompt.y.dtype.kind == "f" and prompt.y.shape == (n, dy)
        assert not prompt.has_labels
        np.testing.assert_allclose(prompt.x, x.astype(float), rtol=1e-6)
        np.testing.assert_allclose(prompt.y, y.astype(float), rtol=1e-6)


@given(st.sampled_from(REAL), st.integers(1, 4), st.booleans())
def test_the_rank_tells_labels_from_targets(y_type, n, batched):
    y = (np.arange(n) % 2).astype(y_type)
    shape = (3, n) if batched else (n,)
    prompt = Prompt(np.ones((*shape, 2)), np.broadcast_to(y, shape))
    if np.dtype(y_type).kind == "f":
        assert prompt.y.shape == (*shape, 1) and not prompt.has_labels
        np.testing.assert_array_equal(prompt.y[..., 0], np.broadcast_to(y, shape))
    else:
        assert prompt.y.shape == shape and prompt.has_labels and prompt.y.dtype.kind in "iu"
        np.testing.assert_array_equal(prompt.y, np.broadcast_to(y, shape))


@pytest.mark.parametrize(
    ("x", "y", "named"),
    [
        (np.ones(3), np.ones(3), "x of a prompt"),
        (np.ones((3, 2)), np.ones((4, 1)), r"\(3, dy\)"),
        (np.ones((3, 2)), np.ones(2), r"\(3, dy\)"),
        (np.ones((3, 2)), np.ones((3, 1, 1)), r"\(3, dy\)"),
        (np.ones((3, 2)), np.array([0, -1, 2]), "labels 0, 1"),
        ([[1.0, 2.0], [3.0]], [1.0, 2.0], "rows of different lengths"),
        (np.array([["a"]]), np.ones((1, 1)), "x must be real numbers"),
        (np.ones((3, 2)), np.ones((3, 1)) * 1j, "y must be real numbers"),
        (jnp.ones((3, 2)), jnp.ones((3, 1)) * 1j, "y must be real numbers"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(x, y, named):
    with pytest.raises(BadInput, match=named) as raised:
        Prompt(x, y)
    assert "\n" not in str(raised.value)


def test_traced_arrays_pass_and_are_converted():
    prompt = jax.eval_shape(Prompt, np.ones((3, 2), int), np.ones(3))
    assert prompt.x.dtype == jnp.float32 and prompt.y.shape == (3, 1)
    assert jax.eval_shape(Prompt, np.ones((3, 2)), np.ones(3, int)).has_labels
    with pytest.raises(BadInput, match="y of a prompt"):
        jax.eval_shape(Prompt, np.ones((3, 2)), np.ones(2))


def test_placed_prompts_and_tokens_are_converted_too():
    placed = PlacedPrompt([[1.0]], [0], 3)
    assert placed.offset.shape == () and placed.has_labels
    tokens = TokenPrompt([1, 2, 3], [0, 1, 1])
    assert tokens.loss_mask.dtype == bool and tokens.tokens.dtype == jnp.int32
    assert LabelledTokens([1, 2], [True, False], np.array([3, 4])).labels.tolist() == [3, 4]
    for given_tokens, mask, named in (([1.5], [True], "tokens"), ([1, 2], [True], "loss_mask")):
        with pytest.raises(BadInput, match=f"^{named} must be"):
            TokenPrompt(given_tokens, mask)


class Plain(Task):
    """What a person writes: no field of equinox anywhere."""

    d: int = 2
    noisy: bool = True
    name: str = "plain"
    noise: float = 0
    scale: np.ndarray = 2.0  # type: ignore[assignment]

    def sample(self, *, key):
        x = jax.random.normal(key, (4, self.d))
        return Prompt(x, self.scale * x[:, :1] + self.noise)


def test_a_plain_task_has_its_numbers_as_leaves_and_its_sizes_fixed():
    task = Plain()
    leaves = jax.tree.leaves(task)
    assert len(leaves) == 2 and all(eqx.is_array(leaf) for leaf in leaves)
    assert task.noise.dtype == jnp.float32  # an integer where a real number is declared
    moved = jax.vmap(lambda noise: eqx.tree_at(lambda t: t.noise, task, noise).sample(key=KEY))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(moved.y[1] - moved.y[0], 1.0, rtol=1e-6)


WANTED = r"shape \(2,\), wanted \(1,\) for the query or \(4, 1\) for every position"


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (lambda p: p.query.x, WANTED),
        (lambda p: p.x, r"shape \(4, 2\), wanted \(1,\)"),
        (lambda p: p.y[:3], r"shape \(3, 1\), wanted \(1,\)"),
        (lambda p: p.y[None], r"shape \(1, 4, 1\), wanted \(1,\)"),
        (lambda p: np.ones(2), WANTED),
        (lambda p: (p.y, p.y[0]), "must return an array, got tuple"),
        (lambda p: None, "must return an array, got NoneType"),
        (lambda p: np.asarray(p.x)[0], WANTED),
    ],
)
def test_answers_of_another_shape_are_refused(answer, wanted):
    prompts = Plain().sample_batch(3, key=KEY)
    with pytest.raises(BadInput, match=wanted) as raised:
        answer_batch(answer, prompts)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "answer",
    [
        lambda p: p.query.x[0],
        lambda p: [p.query.x[0]],
        lambda p: float(p.query.x[0]),
        lambda p: np.asarray(p.query.x)[:1],
        lambda p: p.x[:, :1],
    ],
)
def test_a_number_is_an_answer_of_one_channel(answer):
    prompts = Plain().sample_batch(3, key=KEY)
    answers = answer_batch(answer, prompts)
    np.testing.assert_allclose(answers, prompts.x[:, -1, :1], rtol=1e-6)
    one = jax.tree.map(lambda leaf: leaf[0], prompts)
    np.testing.assert_allclose(query_prediction(answer, one), answers[0], rtol=1e-6)


def test_logits_need_a_place_for_every_label():
    prompts = Prompt(jnp.ones((2, 3, 1)), jnp.array([[0, 1, 2], [0, 0, 3]]))
    assert answer_batch(lambda p: jnp.zeros(4), prompts).shape == (2, 4)
    assert answer_positions(lambda p: jnp.zeros((3, 5)), prompts).shape == (2, 3, 5)
    for short in (jnp.zeros(3), jnp.zeros((3, 3)), jnp.zeros((2, 4)), jnp.zeros(())):
        with pytest.raises(BadInput, match="at least 4 logits"):
            answer_batch(lambda p, short=short: short, prompts)


def test_large_batches_go_in_blocks_of_one_length():
    sizes = []

    def batched(block):
        sizes.append(len(block.x))
        return 2 * block.x[:, -1]

    n = 2 * BLOCK + 3
    prompts = Prompt(np.arange(n, dtype=np.float32).reshape(n, 1, 1), np.zeros((n, 1, 1)))
    np.testing.assert_array_equal(in_blocks(batched, prompts)[:, 0], 2 * np.arange(n))
    assert len(set(sizes)) == 1 and sizes[0] <= BLOCK and len(sizes) == 3

    class Batched:
        def __call__(self, prompt):
            raise AssertionError("asked for one prompt")

        def batched(self, block):
            return batched(block)

    np.testing.assert_array_equal(answer_batch(Batched(), prompts)[:, 0], 2 * np.arange(n))


class Scaled(eqx.Module):
    scale: jax.Array

    def __call__(self, prompt):
        return self.scale * prompt.query.x[:1]


def test_slices_and_lists_choose_members():
    ensemble = Ensemble(Scaled(jnp.arange(5.0)))
    assert ensemble[1:3].stacked.scale.tolist() == [1, 2]
    assert ensemble[[4, 0]].stacked.scale.tolist() == [4, 0]
    assert ensemble[np.arange(5) > 3].stacked.scale.tolist() == [4]
    assert float(ensemble[-1].scale) == 4
    with pytest.raises(BadInput, match="index"):
        ensemble[5:]
    with pytest.raises(IndexError):
        ensemble[[7]]


def test_batches_are_the_tasks_own_draws_as_numpy():
    task = LinearRegression(d=2, n_context=3)
    drawn = list(task.batches(4, 2, key=KEY))
    assert [sorted(batch) for batch in drawn] == [["x", "y"]] * 2
    expected = task.sample_batch(4, key=jax.random.fold_in(KEY, 1))
    assert type(drawn[1]["x"]) is np.ndarray
    np.testing.assert_array_equal(drawn[1]["x"], expected.x)
    np.testing.assert_array_equal(drawn[1]["y"], expected.y)
    tokens = next(RepeatedTokens(n_tokens=5, period=3).batches(2, 1, key=KEY))
    assert set(tokens) == {"tokens", "loss_mask"} and tokens["loss_mask"].dtype == bool
    with pytest.raises(BadInput, match="batch"):
        next(task.batches(0, 1, key=KEY))


def test_integers_are_answers_too():
    prompts = Plain().sample_batch(3, key=KEY)
    assert answer_batch(lambda p: 3, prompts).tolist() == [[3.0]] * 3
