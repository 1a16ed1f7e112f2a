import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Array, Float

from meta_icl import models, tasks
from meta_icl.apps.cli import catalogue, spec
from meta_icl.errors import BadInput


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "3", 3),
        (int, "1e4", 10_000),
        (float, "-2.5", -2.5),
        (float, "inf", math.inf),
        (bool, "True", True),
        (bool, "no", False),
        (str, "a=b", "a=b"),
        (int | None, "none", None),
        (int | None, "7", 7),
        (str | None, "text", "text"),
        (float | str, "0.5", 0.5),
        (float | str, "cosine", "cosine"),
        (tuple[int, ...], "2,10,20", [2, 10, 20]),
        (tuple[int, ...], "5", [5]),
        (tuple[int, ...], "", []),
        (tuple[int, ...], "[1, 2]", [1, 2]),
        (tuple[int, bool], "3,true", [3, True]),
        (tuple[tuple[str, int], ...], '[["linear", 2], ["softmax", 3]]', [["linear", 2], ["softmax", 3]]),
        (str | tuple[str, ...], "linear", "linear"),
        (str | tuple[str, ...], "linear,softmax", ["linear", "softmax"]),
        (Literal["adam", "sgd"], "sgd", "sgd"),
        (Float[Array, ""], "0.1", 0.1),
        (Float[Array, "2 2"], "[[1, 0], [0, 2.5]]", [[1.0, 0.0], [0.0, 2.5]]),
        (Float[Array, "d"] | None, "none", None),
    ],
)
def test_texts_become_values(hint, text, value):
    converted = spec.converted(hint, text, "field", {})
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "message"),
    [
        (int, "1.5", "field must be an integer, got '1.5'"),
        (int, "nan", "field must be an integer"),
        (float, "x", "field must be a number, got 'x'"),
        (bool, "2", "field must be true or false"),
        (int | None, "x", "field must be an integer or none"),
        (tuple[int, ...], "1,x", "field must be an integer, got 'x'"),
        (tuple[int, int], "1,2,3", "field must be a sequence of 2"),
        (tuple[int, ...], "[1", "field must be valid JSON"),
        (Literal["adam", "sgd"], "adm", "unknown field 'adm'; did you mean 'adam'"),
        (Float[Array, "2 2"], "[[1], [1, 2]]", "field must be a number or a nested list of numbers"),
        (dict, "{}", "field must be a dict, which cannot be given as text"),
    ],
)
def test_wrong_texts(hint, text, message):
    with pytest.raises(BadInput) as raised:
        spec.converted(hint, text, "field", {})
    assert message in str(raised.value) and "\n" not in str(raised.value)


@given(st.floats(allow_nan=False))
def test_numbers_survive(value):
    assert spec.converted(float, repr(value), "f", {}) == value


@given(st.integers(-(2**52), 2**52))
def test_integers_survive(value):
    assert spec.converted(int, str(value), "f", {}) == value


@dataclass(frozen=True)
class Config:
    steps: int = 10
    sizes: tuple[int, ...] = (1, 2)
    stacks: tuple[tuple[str, int], ...] = ()


def test_replaced():
    config = spec.replaced(Config(), ["steps=5", "sizes=", 'stacks=[["linear", 2]]'])
    assert config == Config(5, (), (("linear", 2),))
    assert spec.replaced(config, []) == config
    with pytest.raises(BadInput, match="unknown field of Config 'step'; did you mean 'steps'"):
        spec.replaced(config, ["step=3"])


def test_descriptions_make_the_objects():
    import json

    classes = catalogue.task_classes()
    texts = ["d=3", "n_context=4", "x_law=uniform:half_range=0.5", "noise=0.25", "w_law=NORMAL:std=2"]
    described = spec.described("task", "linear-regression", texts, classes)
    assert described["fields"]["x_law"] == {"name": "Uniform", "fields": {"half_range": 0.5}}
    task = spec.built(json.loads(json.dumps(described)), classes)
    expected = tasks.LinearRegression(
        d=3, n_context=4, x_law=tasks.Uniform(half_range=0.5), noise=0.25, w_law=tasks.Normal(std=2)
    )
    assert repr(task) == repr(expected)
    covariance = spec.described("law", "normal", ["covariance=[[2, 0], [0, 1]]"], classes)
    np.testing.assert_array_equal(spec.built(covariance, classes).covariance, [[2, 0], [0, 1]])

    known = {"von_oswald": models.von_oswald, "VonOswald": int}  # of two that differ in case, the name as it stands
    described = spec.described("model", "von_oswald", ["d_model=4", "n_layers=2", "attention=linear,softmax"], known)
    assert spec.built(described, known) == models.von_oswald(4, n_layers=2, attention=("linear", "softmax"))


def test_which_classes_are_what():
    classes = catalogue.model_classes()
    assert {"von_oswald", "lstm", "gpt2"} <= set(classes) and not {"Learner", "Network", "Trace"} & set(classes)
    assert all(catalogue.reads_rows({"name": name, "fields": {}}) for name in ("von_oswald", "lstm"))
    assert not catalogue.reads_rows({"name": "MergedLinearAttention", "fields": {}})
    assert {"LinearRegression", "SineRegression", "Uniform"} <= set(catalogue.task_classes())
    layouts = {"Concatenated", "Interleaved", "Separate", "LabelLayout", "ItemIndex", "Window", "Shifted"}
    assert set(catalogue.layout_classes()) == layouts


def test_fields_of_nested_objects():
    assert spec.split_fields("a=1,b=[1,2],c=x") == ["a=1", "b=[1,2]", "c=x"]
    assert spec.split_fields("") == []
