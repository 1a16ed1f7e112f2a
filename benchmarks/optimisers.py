"""Which optimiser leaves the plateau of a family of networks first: steps to a given loss, by optimiser and rate."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RECORDS = 200  # looks at the loss, each a mean over the steps since the one before


@dataclass(frozen=True)
class Race:
    """A training of one family: how many steps, at most, until the loss is below `target`, for each rate.

    `setting` makes task, model and objective; `start` is the loss of answers that know nothing of the prompt.
    """

    about: str
    setting: Callable[[], tuple[Any, Any, Any]]
    start: float
    target: float
    steps: int
    batch: int
    rates: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Result:
    """What one optimiser came to: by rate, the step of every seed at which the target was reached, None if it was not.

    `lowest` are the lowest losses of the seeds, `cpu_ms` the time of one step of one seed, compilation included.
    """

    race: str
    optimiser: str
    cpu_ms: float
    reached: dict[float, list[int | None]]
    lowest: dict[float, list[float]]


def run(name: str, seeds: int, only: Sequence[str] = ()) -> list[Result]:
    """Every optimiser of a race (or those of `only`), from the same initial weights and prompts."""
    from meta_icl.training import Optimiser, train

    race = RACES[name]
    task, model, objective = race.setting()
    found = []
    for optimiser, rates in race.rates.items():
        if only and optimiser not in only:
            continue
        began = time.process_time()
        trained = train(
            task,
            model,
            steps=race.steps,
            key=0,
            seeds=seeds,
            batch=race.batch,
            objective=objective,
            optimiser=Optimiser(optimiser, clip_norm=1.0, warmup_steps=100),
            sweep={"optimiser.learning_rate": rates},
            record=max(1, race.steps // RECORDS),
            stop_below=race.target,
        )
        done, losses = trained.history["step"], trained.history["loss"]
        cpu_ms = 1e3 * (time.process_time() - began) / (done[-1] * len(trained))
        members = dict(zip(rates, trained.points().values(), strict=True))  # in the order of the sweep
        found.append(
            Result(
                name,
                optimiser,
                cpu_ms,
                {rate: [first_below(done, losses[:, i], race.target) for i in of] for rate, of in members.items()},
                {rate: [float(np.nanmin(losses[:, i])) for i in of] for rate, of in members.items()},
            )
        )
    return found


def first_below(steps: np.ndarray, losses: np.ndarray, target: float) -> int | None:
    """The recorded step at which the first two losses in a row that are below the target begin; None without any."""
    below = losses < target
    twice = np.flatnonzero(below[:-1] & below[1:])
    return int(steps[twice[0]]) if len(twice) else None


def linear() -> tuple[Any, Any, Any]:
    from meta_icl.models import von_oswald
    from meta_icl.tasks import LinearRegression

    return LinearRegression(10, 10), von_oswald(11), None


def softmax() -> tuple[Any, Any, Any]:
    from meta_icl.models import Concatenated, Learner, von_oswald
    from meta_icl.tasks import LinearRegression

    network = von_oswald(64, 2, attention="softmax", d_in=6, d_out=6, init_scale=2.0)
    return LinearRegression(5, 10), Learner(network, Concatenated()), None


def recurrent() -> tuple[Any, Any, Any]:
    from meta_icl.models import Concatenated, Learner, lstm
    from meta_icl.tasks import LinearRegression

    return LinearRegression(10, 10), Learner(lstm(11, 100), Concatenated(sign=1.0)), None


def decoder() -> tuple[Any, Any, Any]:
    from meta_icl.models import Interleaved, Learner, garg
    from meta_icl.tasks import LinearRegression, Normal

    task = LinearRegression(5, 10, x_law=Normal())
    return task, Learner(garg(5, 32, 3, 2, 22), Interleaved()), "every_position_mse"


def general() -> tuple[Any, Any, Any]:
    import jax

    from meta_icl.data import digits
    from meta_icl.models import Learner, Shifted, kirsch
    from meta_icl.tasks import projected_images

    images = digits().resized(8).normalised()
    task = projected_images(images, n_context=15, n_labels=3, key=jax.random.key(25))
    network = kirsch(task.d + 3, 3, 32, 2, 2, 16, init_std=32**-0.5)
    return task, Learner(network, Shifted(3)), "every_position_cross_entropy"


RACES = {
    "linear": Race(
        "one linear layer, d = N = 10, batch 256",
        linear, 5 / 3, 1.0, 4_000, 256,
        {"sgd": (1e-2, 1e-1, 1.0), "adam": (1e-3, 3e-3, 1e-2), "muon": (1e-3, 3e-3, 1e-2)},
    ),
    "softmax": Race(
        "two softmax layers of width 64 without MLPs, d = 5, N = 10, batch 64",
        softmax, 5 / 6, 0.3, 6_000, 64, {"adam": (1e-3, 3e-3, 1e-2), "muon": (3e-3, 1e-2, 3e-2)},
    ),
    "lstm": Race(
        "LSTM of 100 units, d = N = 10, batch 64",
        recurrent, 5 / 3, 1.1, 6_000, 64, {"adam": (1e-3, 3e-3, 1e-2), "muon": (3e-3, 1e-2, 3e-2)},
    ),
    "decoder": Race(
        "decoder 3 x 32, d = 5, 11 pairs, every position, batch 64",
        decoder, 5.0, 2.0, 6_000, 64, {"adam": (3e-4, 1e-3, 3e-3), "muon": (1e-3, 3e-3, 1e-2)},
    ),
    "general": Race(
        "transformer 2 x 32 on projected digits of three labels, unbiased, 16 rows, batch 64",
        general, 1.0986, 0.9, 6_000, 64, {"adam": (1e-3, 3e-3), "muon": (1e-3, 3e-3)},
    ),
}  # fmt: skip
