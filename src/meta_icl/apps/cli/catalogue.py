"""What `meta-icl train` can be asked for: tasks of every kind, models, layouts, objectives; and the objects of a run.

Tasks are of four kinds, told by what they draw: real targets, integer labels, tokens (whose successors are asked for)
and labelled tokens. The kind decides the objective and how a network reads the prompts, unless the user does.
"""

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from meta_icl.apps.cli import own, spec
from meta_icl.errors import BadInput, choose, require

REALS, LABELS, TOKENS, LABELLED = "real targets", "labels", "tokens", "labelled tokens"
OBJECTIVES = {  # kind of task -> objectives, the default first
    REALS: ("half_mse", "every_position_mse", "every_position_logistic", "context_averaged_mse"),
    LABELS: ("cross_entropy", "every_position_cross_entropy"),
    TOKENS: ("next_token_cross_entropy",),
    LABELLED: ("labelled_cross_entropy",),
}
FACTORIES = {  # tasks whose arrays are drawn or sorted first, by these functions of meta_icl.tasks
    "BurstyGaussian": "bursty_gaussian",
    "MetaClassification": "meta_classification",
    "ProjectedImages": "projected_images",
}


def task_classes() -> dict[str, Any]:
    """All public tasks, and the laws and classes of functions that their fields may be."""
    from meta_icl import tasks
    from meta_icl.prompt import Task

    classes = spec.public(tasks, lambda cls: issubclass(cls, Task | tasks.Law | tasks.FunctionClass | tasks.Curriculum))
    return classes | {"Ramp": tasks.Ramp} | {name: getattr(tasks, factory) for name, factory in FACTORIES.items()}


def tasks_alone() -> dict[str, Any]:
    """All public tasks."""
    from meta_icl.prompt import Task

    classes = task_classes()
    return {n: c for n, c in classes.items() if n in FACTORIES or (isinstance(c, type) and issubclass(c, Task))}


def task_kind() -> own.Kind:
    """What a task of the user's own must be."""
    from meta_icl.prompt import Task

    def fits(found: Any) -> bool:
        return isinstance(found, Task) or (isinstance(found, type) and issubclass(found, Task)) or _function(found)

    wanted = "a class of meta_icl.prompt.Task, an object of one, or a function that makes one"
    return own.Kind("task", wanted, fits, by_function=True)


MODEL = own.Kind(
    "model", "something that, called with a key, draws a predictor or a network", callable, by_function=True
)


def _function(found: Any) -> bool:
    return inspect.isfunction(found)


def kind_of(task: Any) -> str:
    """The kind of a task."""
    import jax
    import jax.numpy as jnp

    from meta_icl.prompt import LabelledTokens, TokenPrompt

    prompt = jax.eval_shape(lambda key: task.sample(key=key), jax.random.key(0))
    if isinstance(prompt, TokenPrompt):
        return LABELLED if isinstance(prompt, LabelledTokens) else TOKENS
    return LABELS if jnp.issubdtype(prompt.y.dtype, jnp.integer) else REALS


def model_classes() -> dict[str, Any]:
    """The published networks by name, and the predictors of the theory: all that draw one when called with a key."""
    from meta_icl import models
    from meta_icl.models import theory

    networks = {name: getattr(models, name) for name in models.NETWORKS}
    # A checkpoint gives a language model of many sizes its sizes; here stand those that are made by naming a few.
    named = {name: made for name, made in networks.items() if not _takes_any(made)}
    return named | spec.public(theory, lambda cls: drawn_by(cls) is not None)


def _takes_any(made: Any) -> bool:
    return any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in inspect.signature(made).parameters.values())


def part_classes(model_name: str) -> dict[str, type]:
    """What a network can be made of: sequence mixers, norms, positions, encoders of items."""
    from meta_icl import models
    from meta_icl.models import mixers

    del model_name  # every network is made of the same parts
    parts = (models.ImageEncoder, models.Norm, models.Rotary, models.Vectors)
    return {name: getattr(mixers, name) for name in mixers.DESCRIPTIONS} | {part.__name__: part for part in parts}


def layout_classes() -> dict[str, type]:
    """All public layouts of prompts."""
    from meta_icl import models

    bases = (models.Layout, models.TokenLayout)  # tokens are read as they stand
    return spec.public(models, lambda cls: issubclass(cls, models.Layout) and cls not in bases)


def optimiser_classes() -> dict[str, type]:
    """The one class of optimisers."""
    from meta_icl.training import Optimiser

    return {"Optimiser": Optimiser}


def layout_described(text: str | None, model: spec.Description, kind: str) -> spec.Description | None:
    """The layout for a model on a kind of task: the one asked for, else the kind's own; `None` where none is needed."""
    needed = kind in (REALS, LABELS) and reads_rows(model)
    if not needed:
        if text is not None:
            what = f"{model['name']} reads prompts" if kind in (REALS, LABELS) else f"a task of {kind} needs none"
            raise BadInput(f"--layout must be left out, because {what}, got {text!r}")
        return None
    if text is None and kind == LABELS and not _reads_labels(model):
        hint = "--layout shifted:n_labels=10"
        raise BadInput(f"--layout must be given for {model['name']} on a task of labels, such as {hint}")
    text = text or ("LabelLayout" if kind == LABELS else "Concatenated")
    name, _, fields = text.partition(":")
    fitting = {n: cls for n, cls in layout_classes().items() if getattr(cls, "takes_labels", False) == (kind == LABELS)}
    found = spec.find("layout", name, fitting)
    return spec.described("layout", found, spec.split_fields(fields), fitting)


def objective_of(config: Mapping[str, Any], task: Any) -> Any:
    """The objective of a configuration for its task; `BadInput` if it does not fit the task."""
    from meta_icl import training

    name = choose("objective", config["objective"], OBJECTIVES[config["kind"]])
    found = getattr(training, name)
    return found(task) if name == "context_averaged_mse" else found


def task_of(config: Mapping[str, Any]) -> Any:
    """The task of a configuration, or a function of a key that draws it, where a world is drawn per seed."""
    return spec.built(config["task"], task_classes())


def optimiser_of(config: Mapping[str, Any]) -> Any:
    """The optimiser of a configuration."""
    return spec.built(config["optimiser"], optimiser_classes())


def network_of(model: spec.Description) -> Any:
    """What a description of a model describes, without what stands between it and the prompts."""
    if "own" in model:
        found = spec.built(model, {})
        drawn = callable(found) and "key" in inspect.signature(found).parameters
        require(drawn, "model", model["own"]["text"], "something that can be called with a key, as model(key=key)")
        return found
    return spec.built(model, model_classes() | part_classes(model["name"]))


def model_of(config: Mapping[str, Any]) -> Any:
    """The model of a configuration: called with a key it draws a predictor."""
    from meta_icl.models import Learner, TokenLayout

    model = network_of(config["model"])
    if config["layout"] is not None:
        return Learner(model, spec.built(config["layout"], layout_classes()))
    tokens = config["kind"] in (TOKENS, LABELLED) and reads_rows(config["model"])
    return Learner(model, TokenLayout()) if tokens else model


def drawn_by(cls: type) -> type | None:
    """What a description draws when called with a key; `None` if the class is no description."""
    if not dataclasses.is_dataclass(cls) or "__call__" not in vars(cls):
        return None
    hints = typing.get_type_hints(cls.__call__)
    return hints.get("return") if "key" in hints else None


def reads_rows(model: spec.Description) -> bool:
    """Whether the model that a description draws is a network, and so needs a layout, or answers prompts itself."""
    return not _takes_prompts(_call(model))


def _reads_labels(model: spec.Description) -> bool:
    from meta_icl.models import Architecture, Items, LabelTokens

    if "own" not in model and isinstance(network := network_of(model), Architecture):
        return isinstance(network.embedding, Items)
    return LabelTokens in typing.get_type_hints(_call(model)).values()


def _call(model: spec.Description) -> Any:
    """The `__call__` of what a description of a model draws."""
    if "own" not in model:
        made = model_classes()[model["name"]]
        if not isinstance(made, type):  # a published network
            from meta_icl.models import Network

            return Network.__call__
        drawn = drawn_by(made)
        assert drawn is not None, "only descriptions are listed"
        return drawn.__call__
    import equinox as eqx
    import jax

    try:
        drawn = eqx.filter_eval_shape(network_of(model), key=jax.random.key(0))
    except BadInput:
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        raise BadInput(
            f"model {model['own']['text']!r} cannot be drawn from a key: {type(error).__name__}: {told}"
        ) from None
    return drawn if inspect.isfunction(drawn) else type(drawn).__call__


def _takes_prompts(call: Any) -> bool:
    """Whether a call answers prompts: networks take interventions too, or call what they read tokens."""
    return not {"interventions", "tokens"} & set(inspect.signature(call).parameters)
