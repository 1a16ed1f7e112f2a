"""What `train` is given, as what it works with: descriptions, classes, functions, names and numbers alike.

Whatever has a plain meaning is taken as that; everything else ends in one line that says what is meant.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from meta_icl.errors import BadInput, choose, fitting, require
from meta_icl.models import Architecture, Learner, layout_for
from meta_icl.prompt import Ensemble, LabelledTokens, Prompt, Task, TokenPrompt, called
from meta_icl.training import objectives
from meta_icl.training.objectives import Objective
from meta_icl.training.optimisers import Given, Optimiser


def drawing(model: Any) -> Callable[..., Any]:
    """The function `(*, key) -> predictor` that a `model` stands for.

    A description or function that takes `key` is that function; a class is made without arguments where it can be; a
    function of one argument gets the key as that; a predictor with arrays is trained on from where it stands.
    """
    if isinstance(model, Ensemble):
        raise BadInput(f"model must be one predictor, such as net[0], got an ensemble of {len(model)}")
    if not callable(model):
        raise BadInput(f"model must be a description of a network or a function of a key, got {called(model)}")
    parameters = _parameters(model)
    if "key" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return model
    if isinstance(model, type):
        return drawing(made("model", model))
    if isinstance(model, eqx.Module):
        return lambda *, key: model
    needed = [name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if len(needed) != 1 or needed[0] == "prompt":
        raise BadInput(
            f"model must draw a predictor from a key, as lambda key: Mine(key); {called(model)} takes "
            f"{', '.join(needed) or 'nothing'}"
        )
    return lambda *, key: model(key)


def with_layout(model: Any, task: Task) -> Any:
    """A bare description of a network behind the layout that fits the task's prompts, which is said; else the same."""
    if not isinstance(model, Architecture):
        return model
    prompt = jax.eval_shape(lambda key: task.sample(key=key), jax.random.key(0))
    layout = layout_for(model, prompt)
    print(f"meta_icl: the network reads prompts as {type(layout).__name__} tokens", file=sys.stderr)
    return Learner(model, layout)


def alike(draw: Callable[..., Any]) -> Callable[..., Any]:
    """The same drawing, but every predictor has the fixed parts of the first one.

    A function that is made anew in every draw (an activation written as a lambda) would make each a structure of its
    own, whose weights could not be put together with the rest of another.
    """
    structures: list[Any] = []

    def drawn(*, key: Key[Array, ""]) -> Any:
        leaves, structure = jax.tree.flatten(draw(key=key))
        if not structures:
            structures.append(structure)
        return jax.tree.unflatten(structures[0], leaves)

    return drawn


def kept(model: Any) -> Any:
    """What a trained ensemble keeps to name its model: the description, or of a module with arrays how it is drawn."""
    if not isinstance(model, eqx.Module):
        return model
    draw = drawing(model)
    return lambda *, key: draw(key=key)


def given_task(task: Any) -> Task | Callable[..., Task]:
    """A task, or a function `(*, key) -> Task` that draws a world per seed; a class is made without arguments."""
    if isinstance(task, type) and issubclass(task, Task):
        return made("task", task)
    if isinstance(task, Task):
        return task
    require(
        callable(task), "task", called(task), "a task, as LinearRegression(d=5, n_context=10), or a function of a key"
    )
    parameters = _parameters(task)
    if "key" in parameters or len(parameters) != 1:
        return task
    return lambda *, key: task(key)


def given_optimiser(optimiser: Any) -> Optimiser | Given:
    """An `Optimiser`, one of optax as it is, the name of one, or Adam at a learning rate."""
    if optimiser is None or isinstance(optimiser, Optimiser | Given):
        return Optimiser() if optimiser is None else optimiser
    if isinstance(optimiser, optax.GradientTransformation):
        return Given(optimiser)
    if isinstance(optimiser, str):
        return Optimiser(optimiser)
    if isinstance(optimiser, int | float | np.number) and not isinstance(optimiser, bool):
        return Optimiser(learning_rate=optimiser)
    if optimiser is Optimiser:
        return Optimiser()
    name = called(optimiser)
    raise BadInput(f"optimiser must be an Optimiser, its name, or one of optax, as optax.adam(1e-3), got {name}")


def given_objective(objective: Any, task: Task) -> Objective:
    """An objective, by itself or by name; without one that of the task's kind.

    Half the mean squared error for real targets, the cross-entropy of the query for labels, of the labels asked for or
    of the next tokens for tokens.
    """
    if isinstance(objective, str):
        return getattr(objectives, choose("objective", objective, objectives.NAMES))
    if objective is not None:
        require(callable(objective), "objective", called(objective), "a function of (predictor, task, batch, key)")
        return objective
    prompts = eqx.filter_eval_shape(lambda key: task.sample_batch(1, key=key), jax.random.key(0))
    kind = type(prompts).__name__
    require(
        isinstance(prompts, Prompt | TokenPrompt), "sample", kind, "a method that returns a Prompt or a TokenPrompt"
    )
    if isinstance(prompts, TokenPrompt):
        labelled = isinstance(prompts, LabelledTokens)
        return objectives.labelled_cross_entropy if labelled else objectives.next_token_cross_entropy
    return objectives.cross_entropy if prompts.has_labels else objectives.half_mse


def given_sweep(sweep: Any) -> dict[str, tuple[float, ...]] | list[dict[str, float]]:
    """{dotted name: values}, from a mapping or pairs; a single number is one point; or a list of points."""
    if isinstance(sweep, list | tuple) and sweep and all(isinstance(point, Mapping) for point in sweep):
        points = [{name: values[0] for name, values in _given_grid(point).items()} for point in sweep]
        distinct = all(point not in points[:place] for place, point in enumerate(points))
        require(distinct, "sweep", points, "different points")
        return points
    return _given_grid(sweep)


def _given_grid(sweep: Any) -> dict[str, tuple[float, ...]]:
    """{dotted name: values}."""
    pairs = _pairs("sweep", sweep, '{"task.noise": (0, 0.1)}')
    settled: dict[str, tuple[float, ...]] = {}
    for name, values in pairs.items():
        listed = tuple(np.atleast_1d(np.asarray(values)).tolist())
        real = all(isinstance(value, int | float) and np.isfinite(value) for value in listed)
        require(real and len(listed) > 0, f"sweep of {name}", values, "one finite number or more")
        require(len(set(listed)) == len(listed), f"sweep of {name}", listed, "different numbers")
        settled[name] = listed
    return settled


def given_probes(probes: Any) -> dict[str, Any]:
    """{name: probe}; probes in a list, or one alone, are called by function or class."""
    if callable(probes):
        probes = [probes]
    if isinstance(probes, list | tuple) and all(callable(probe) for probe in probes):
        return {called(probe): probe for probe in probes}
    return _pairs("probes", probes, "{'loss': probe}")


def made(field: str, kind: type) -> Any:
    """An instance of a class that needs no arguments; raises `BadInput` naming those that it needs."""
    needed = [name for name, p in _parameters(kind).items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if needed:
        example = ", ".join(f"{name}=.." for name in needed)
        raise BadInput(f"{field} must be an instance, as {kind.__name__}({example}), got the class {kind.__name__}")
    return kind()


def require_fit(objective: Objective, model: Callable[..., Any], task: Task, batch: int, key: Key[Array, ""]) -> None:
    """Follow the shapes through one batch before anything is trained; what does not fit raises `BadInput` here."""
    weights = jax.tree.leaves(eqx.filter(eqx.filter_eval_shape(model, key=key), _is_weight))
    require(len(weights) > 0, "model", called(model), "one with weights to train")
    own = "" if getattr(objective, "__name__", "") in objectives.NAMES else f" under {called(objective)}"
    with fitting(f"the model does not fit {called(task)}{own}"):
        shape = eqx.filter_eval_shape(lambda k: objective(model(key=k), task, batch, k), key).shape
    require(shape == (), f"the loss of objective {called(objective)}", f"shape {shape}", "one number")


def _is_weight(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _pairs(field: str, value: Any, example: str) -> dict[str, Any]:
    """A dictionary, also from (name, value) pairs."""
    if value is None:
        return {}
    listed = isinstance(value, Sequence) and all(isinstance(p, tuple | list) and len(p) == 2 for p in value)
    if not isinstance(value, Mapping) and not listed:
        raise BadInput(f"{field} must be a dictionary, as {example}, got {value!r}")
    return dict(value)


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some built-in functions nothing is known
        return {}
