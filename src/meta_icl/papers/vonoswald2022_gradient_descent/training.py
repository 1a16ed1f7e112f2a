"""What is trained: linear and softmax attention on regression and on sine waves."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from meta_icl.analysis import gradient_descent_construction, token_copying
from meta_icl.evaluation import loss_on
from meta_icl.models import InContextLearner, Learner, Separate, von_oswald
from meta_icl.prompt import Prompt
from meta_icl.runs import Run
from meta_icl.tasks import LinearRegression, SineRegression, Uniform
from meta_icl.training import Optimiser, train

EVAL_KEY, TRAIN_KEY, HALF_RANGE = 5, 0, 0.5
D = N = 10


def train_stack(
    part: Run, *, d: int, layers: int, looped: bool, optimiser: str, rate: float, decay: bool, steps: int, batch: int,
    seeds: int, n_eval: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """K layers of linear attention on d = N; loss on the fixed evaluation set during training."""
    network = von_oswald(d + 1, layers, looped=looped, activation_clip=10.0 if layers > 3 else None)
    described = _adam(rate, 1e-3 if layers < 3 else 10.0, steps, decay, optimiser)
    return _train(part, regression(d), Learner(network), described, steps, batch, seeds, n_eval)


def train_softmax(
    part: Run, *, heads: int, optimiser: str, rate: float, decay: bool, steps: int, batch: int, seeds: int, n_eval: int
) -> dict[str, np.ndarray]:
    """One layer of softmax attention with one or two heads."""
    network = von_oswald(D + 1, n_heads=heads, attention="softmax")
    described = _adam(rate, 1e-3, steps, decay, optimiser)
    return _train(part, regression(D), Learner(network), described, steps, batch, seeds, n_eval)


def train_sine(
    part: Run, *, descend: bool, rate: float, decay: bool, steps: int, batch: int, seeds: int, n_eval: int
) -> dict[str, np.ndarray]:
    """Embedding, MLP and one linear attention layer on sine waves; with `descend` that layer is a fixed step of
    gradient descent (rate 0.1) on the last channel, and only what stands before it is trained."""
    model = Learner(von_oswald(40, d_in=2, input_mlp=160))

    def fixed_layer(*, key: Any) -> InContextLearner:
        learner = model(key=key)
        step = gradient_descent_construction(0.1, d=39, n_context=10)
        return eqx.tree_at(lambda m: m.network.blocks, learner, step.network.blocks)

    return _train(
        part,
        SineRegression(family="released_code"),
        fixed_layer if descend else model,
        _adam(rate, 100.0, steps, decay),
        steps,
        batch,
        seeds,
        n_eval,
        freeze=(lambda m: jax.tree.leaves(m.network.blocks)) if descend else None,
    )


def train_separate(
    part: Run,
    *,
    first: str,
    init: float,
    optimiser: str,
    rate: float,
    decay: bool,
    steps: int,
    batch: int,
    seeds: int,
    n_eval: int,
) -> dict[str, np.ndarray]:
    """Two layers on separate x and y tokens, the first of kind `first`; the copying of tokens during training."""
    network = von_oswald(2 * D, 2, attention=(first, "linear"), init_scale=init)
    described = _adam(rate, 10.0, steps, decay, optimiser)
    prompts = eval_prompts(regression(D), min(n_eval, 128))
    probes = {"copying": lambda predictor, key: token_copying(predictor, prompts)._asdict()}
    model = Learner(network, Separate(d_position=D))
    return _train(part, regression(D), model, described, steps, batch, seeds, n_eval, probes=probes)


def train_part(part: Run, *, kind: str, **arguments: Any) -> dict[str, np.ndarray]:
    """One part of the run, by the kind of training it is."""
    kinds = {"stack": train_stack, "softmax": train_softmax, "sine": train_sine, "separate": train_separate}
    return kinds[kind](part, **arguments)


def _adam(rate: float, clip_norm: float, steps: int, decay: bool = False, name: str = "adam") -> Optimiser:
    """The released optimiser, or another in its place; with `decay` its rate falls to zero."""
    schedule = {"schedule": "cosine", "schedule_steps": steps} if decay else {}
    return Optimiser(name, learning_rate=rate, b2=0.98, clip_norm=clip_norm, **schedule)


def _train(
    part: Run, task: Any, model: Any, optimiser: Optimiser, steps: int, batch: int, seeds: int, n_eval: int,
    *, probes: Mapping[str, Any] | None = None, freeze: Any = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Train and keep the history and the weight products "seeds l heads d d"."""
    trained = train(
        task,
        model,
        steps=steps,
        key=jax.random.key(TRAIN_KEY),
        seeds=seeds,
        batch=batch,
        optimiser=optimiser,
        record=max(1, steps // 50),
        probes={"eval": loss_on(eval_prompts(task, n_eval)), **(probes or {})},
        freeze=freeze,
        store=part,
    )
    networks = [trained[i].network for i in range(len(trained))]
    return trained.history | {
        "qk": np.stack([np.asarray(network.qk()) for network in networks]),
        "ov": np.stack([np.asarray(network.ov()) for network in networks]),
    }


def regression(d: int, **fields: Any) -> LinearRegression:
    """The released code's task with N = d."""
    return LinearRegression(d=d, n_context=d, **({"x_law": Uniform(half_range=HALF_RANGE)} | fields))


def eval_prompts(task: Any, n: int) -> Prompt:
    """The fixed evaluation set of a task, the same for every seed and every model."""
    return task.sample_batch(n, key=jax.random.key(EVAL_KEY))
