"""Interactive figures that no chart covers: a task that moves under a frozen model, and gradients that find theirs."""

from importlib import resources

import numpy as np

from meta_icl.errors import require
from meta_icl.plotting.chart import Grid, Lines, Numbers, Series, Widget

MAX_SLOPE = 3.0  # the end of the slope's slider


def moving_task(
    qk: Numbers,
    ov: Numbers,
    *,
    rate: float,
    n_context: int = 10,
    half_range: float = 1.0,
    slope: float = 1.5,
    seed: int = 0,
    title: str = "Move the task: the frozen model follows",
    caption: str = "",
) -> Widget:
    """One frozen layer of linear attention on lines through the origin, with sliders for the task (1-D regression).

    `qk` = W_Q W_K^T and `ov` = W_V W_O are "2 2", for rows (x, y). With context rows c_i = (x_i, y_i) and the query row
    q = (x_q, 0) the layer answers -[sum_i (q qk c_i^T) (c_i ov)]_y; beside it stands one gradient step from w = 0 on
    (1/2n) sum_i (w x_i - y_i)^2 with this `rate`. The points are uniform on [-half_range, half_range].
    """
    a, b = np.array(qk, np.float64), np.array(ov, np.float64)
    require(a.shape == (2, 2), "qk", a.shape, "a matrix of shape (2, 2)")
    require(b.shape == (2, 2), "ov", b.shape, "a matrix of shape (2, 2)")
    require(n_context >= 1, "n_context", n_context, "1 or more")
    require(half_range > 0, "half_range", half_range, "more than 0")
    rng = np.random.default_rng(seed)
    x = rng.uniform(-half_range, half_range, n_context)
    y = slope * x
    context = np.stack([x, y], -1)
    model = -float(np.array([1.0, 0.0]) @ a @ context.T @ context @ b[:, 1])  # linear in x_q: the slope of its answers
    step = rate * float(np.mean(x * y))
    ends = np.array([-half_range, half_range])
    series = (
        Series("frozen layer", ends, model * ends),
        Series("one gradient step", ends, step * ends, style="dashed"),
        Series("true task", ends, slope * ends, style="dotted"),
        Series("context", x, y, style="points"),
    )
    data = {
        "A": a,
        "B": b,
        "rate": float(rate),
        "half_range": float(half_range),
        "slope": float(slope),
        "max_slope": MAX_SLOPE,
        "x": x,
        "unit_noise": rng.standard_normal(n_context),
    }
    html = _asset("moving_task.html").replace('min="-1" max="1"', f'min="{-half_range:g}" max="{half_range:g}"')
    return Widget(title, html, _asset("moving_task.js"), data, caption, Lines(title, "x", "y", series, caption=caption))


def gradient_animation(
    steps: Numbers,
    vectors: Numbers,
    fixed: Numbers,
    *,
    title: str = "The gradients of the trained model find those of gradient descent",
    caption: str = "",
) -> Widget:
    """The vectors d f / d x_q of a model over training, beside those of gradient descent, which stand still.

    `vectors` is "steps prompts 2", `fixed` "prompts 2"; `steps` names the training step of every frame. The static
    chart shows the end of training.
    """
    named, moving, still = np.array(steps), np.array(vectors, np.float64), np.array(fixed, np.float64)
    require(moving.ndim == 3 and moving.shape[-1] == 2, "vectors", moving.shape, "of shape (steps, prompts, 2)")
    require(len(moving) >= 1, "vectors", moving.shape, "at least one step")
    require(named.shape == moving.shape[:1], "steps", named.shape, f"one per frame, {moving.shape[:1]}")
    require(still.shape == moving.shape[1:], "fixed", still.shape, f"one vector per prompt, {moving.shape[1:]}")
    charts = [
        Lines(
            f"prompt {i + 1}",
            "x_1",
            "x_2",
            (
                Series("trained model", [0, *moving[-1:, i, 0]], [0, *moving[-1:, i, 1]]),
                Series("on its way", moving[:, i, 0], moving[:, i, 1], style="dotted"),
                Series("gradient descent", [0, still[i, 0]], [0, still[i, 1]], style="dashed"),
            ),
        )
        for i in range(len(still))
    ]
    data = {"steps": named, "vectors": moving, "fixed": still}
    static = Grid(title, charts, min(3, len(charts)), caption)
    return Widget(title, _asset("gradient_animation.html"), _asset("gradient_animation.js"), data, caption, static)


def _asset(name: str) -> str:
    return (resources.files("meta_icl.plotting") / "assets" / name).read_text(encoding="utf-8")
