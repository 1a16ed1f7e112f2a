"""The published numbers stand beside ours in the figures of Rossi et al., on runs of made-up numbers."""

import numpy as np
import pytest

from meta_icl.papers.rossi2024_understanding_icl import PRESETS
from meta_icl.papers.rossi2024_understanding_icl.experiments import published
from meta_icl.papers.rossi2024_understanding_icl.figures import alignment_slider, lstm_alignment_figure
from meta_icl.plotting import draw, tree
from meta_icl.runs import Run

MEASURES = ("prediction_error", "gradient_error", "cosine")


@pytest.fixture
def run(tmp_path):
    """One layer at C = 4, which the post's thinned curves lack, and at C = 10, and LSTMs of one and three layers."""
    rng = np.random.default_rng(0)
    with Run.open(tmp_path / "run", {}) as run:
        for c in (4, 10):
            arrays = {f"to_gd/{name}": rng.uniform(0.1, 1, (3, 2)) for name in MEASURES}
            arrays |= {"step": np.array([0, 10, 20]), "eval": rng.uniform(0.1, 1, (3, 2)), "gd_loss": np.array(0.2)}
            with run.part(f"layer-D5-C{c}") as part:
                part.save_arrays("result", arrays)
        for name in ("lstm-uni-1", "lstm-uni-3", "lstm-bi-1"):
            with run.part(name) as part:
                part.save_arrays("result", {f"final/{measure}": rng.uniform(0.1, 1, 2) for measure in MEASURES})
    return Run.load(tmp_path / "run")


def published_in(chart):
    """{name of a published curve: its values} of a chart of lines."""
    return {series.name: np.asarray(series.y).tolist() for series in chart.series if series.published}


def test_final_alignment_stands_beside_the_training(run):
    slider = alignment_slider(run)
    (_, without), (c, grid) = slider.frames
    assert c == 10 and not any(published_in(chart) for chart in without.charts)
    known = next(row for row in published()["alignment_final"] if row["context"] == 10)
    errors, cosine = map(published_in, grid.charts)
    assert errors == {
        "published final, predictions": [known["final_l2_predictions"]] * 2,
        "published final, gradients": [known["final_l2_gradients"]] * 2,
    }
    assert cosine == {"published final, cosine": [known["final_cosine"]] * 2}
    assert tree(slider)
    draw(slider)


def test_published_alignment_of_lstms_stands_beside_ours(run):
    grid = lstm_alignment_figure(run)
    expected = {"uni": (0.756, 0.759, 0.791), "bi": (0.765, 0.959, 0.968)}  # cosines of one, three and five layers
    cosine = published_in(grid.charts[2])
    for kind, values in expected.items():
        np.testing.assert_allclose(cosine[f"published, {kind}directional"], values, atol=6e-4)
    error = published_in(grid.charts[0])
    np.testing.assert_allclose(error["published, unidirectional"], [0.33] * 3, atol=0.01)
    np.testing.assert_allclose(error["published, bidirectional"], [0.321, 0.0905, 0.1], atol=0.002)
    ours = {s.name: list(s.x) for s in grid.charts[0].series if not s.published}
    assert ours == {"unidirectional": [1, 3], "bidirectional": [1]}
    draw(grid)


@pytest.mark.parametrize("preset", ["demo", "small"])
def test_the_slider_begins_where_the_published_curve_is_known(preset):
    contexts = PRESETS[preset].contexts
    assert min(contexts) in {row["context"] for row in published()["alignment_final"]}
