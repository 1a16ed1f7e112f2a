"""Objects named on the command line: a name and `field=value` texts, checked against the class's fields and types.

A description is JSON, {"name": "LinearRegression", "fields": {"d": 5, "x_law": {"name": "Uniform", "fields": {...}}}},
so that it can stand in a run's configuration; `described` makes one from texts and `built` makes the object of one.
Values that are objects themselves are written `x_law=uniform:half_range=1.0`, sequences `2,10,20` or as JSON.
"""

import dataclasses
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import AbstractArray

from meta_icl.errors import BadInput, choose

T = TypeVar("T")
Description = dict[str, Any]
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def described(
    kind: str,
    name: str,
    texts: Sequence[str],
    classes: Mapping[str, type],
    inner: Mapping[str, type] | None = None,
) -> Description:
    """The description of an object of one of the `classes` (by name) with the fields in `texts`.

    Fields that are objects may be of the `inner` classes (default: `classes`). Names are compared without regard to
    case and underscores. Raises `BadInput` for unknown names and fields, missing fields and values of a wrong type.
    """
    found = find(kind, name, classes)
    fields = {
        field: converted(hint, text, field, classes if inner is None else inner)
        for field, hint, text in _with_hints(classes[found], found, assignments(texts))
    }
    missing = [field for field, required in _fields(classes[found]).items() if required and field not in fields]
    if missing:
        raise BadInput(f"{kind} {found} needs {', '.join(f'{name}=...' for name in missing)}")
    return {"name": found, "fields": fields}


def built(description: Description, classes: Mapping[str, type]) -> Any:
    """The object that a description describes."""
    cls = classes[find("class", description["name"], classes)]
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(value, hints.get(name), classes) for name, value in description["fields"].items()})


def replaced(config: T, texts: Sequence[str]) -> T:
    """A dataclass with the fields in `texts` changed, checked against their types."""
    given = assignments(texts)
    found = _with_hints(type(config), type(config).__name__, given)
    values = {field: _value(converted(hint, text, field, {}), hint, {}) for field, hint, text in found}
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """{field: value} of `field=value` texts."""
    pairs: dict[str, str] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise BadInput(f"expected field=value, got {text!r}")
        if field in pairs:
            raise BadInput(f"{field} is given twice: {pairs[field]!r} and {value!r}")
        pairs[field] = value
    return pairs


def find(kind: str, name: str, classes: Mapping[str, Any]) -> str:
    """The class name that `name` means, whatever its case and underscores."""
    by_plain = {_plain(known): known for known in classes}
    return by_plain[_plain(name)] if _plain(name) in by_plain else choose(kind, name, classes)


def public(room: types.ModuleType, accepts: Callable[[type], bool]) -> dict[str, type]:
    """The public classes of a room for which `accepts` holds."""
    named = {name: getattr(room, name) for name in room.__all__}
    return {name: value for name, value in named.items() if isinstance(value, type) and accepts(value)}


def converted(hint: Any, text: str, field: str, classes: Mapping[str, type]) -> Any:
    """The JSON value of a text for a field of type `hint`; `BadInput` if it is of another type."""
    failed: list[str] = []
    for option in _options(hint, text):
        try:
            return _convert(option, text, field, classes)
        except _Mismatch as error:
            failed.append(str(error))
    raise BadInput(f"{field} must be {' or '.join(dict.fromkeys(failed))}, got {text!r}")


class _Mismatch(Exception):
    """A text is not of a type; says what that type is called."""


def _convert(hint: Any, text: str, field: str, classes: Mapping[str, type]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        if text.lower() in ("none", "null", ""):
            return None
        raise _Mismatch("none")
    if hint is bool:
        if text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
        raise _Mismatch("true or false")
    if hint is int:
        number = _number(text, "an integer")
        if math.isfinite(number) and number == int(number):
            return int(number)
        raise _Mismatch("an integer")
    if hint is float:
        return _number(text, "a number")
    if origin is Callable:
        raise _Mismatch("a function, which cannot be given as text")
    if origin is typing.Literal:
        return choose(field, text, [str(value) for value in arguments])
    if origin in (tuple, list, Sequence):
        return _sequence(arguments, text, field, classes)
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return _array(text)
    if isinstance(hint, type) and hint not in (str, object):
        return _object(hint, text, field, classes)
    return text


def _options(hint: Any, text: str) -> list[Any]:
    """The alternatives of a type in the order in which to try them: a plain string last, a sequence if it is one."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return [hint]
    members = list(typing.get_args(hint))
    plain = [member for member in members if member is str or member is Any]
    many = [member for member in members if typing.get_origin(member) in (tuple, list, Sequence)]
    rest = [member for member in members if member not in plain and member not in many]
    return rest + (many if "," in text or text.startswith("[") or not plain else []) + plain


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _Mismatch(what) from None


def _sequence(arguments: tuple[Any, ...], text: str, field: str, classes: Mapping[str, type]) -> list[Any]:
    hints = [argument for argument in arguments if argument is not Ellipsis]
    items = _json(text) if text.startswith("[") else _items(text)
    if not isinstance(items, list):
        raise _Mismatch("a sequence such as 1,2,3")
    if Ellipsis not in arguments and len(hints) != len(items) and len(hints) > 1:
        raise _Mismatch(f"a sequence of {len(hints)}")
    each = hints if len(hints) == len(items) else (hints or [Any])[:1] * len(items)
    texts = [item if isinstance(item, str) else json.dumps(item) for item in items]
    return [converted(hint, item, field, classes) for hint, item in zip(each, texts, strict=True)]


def _items(text: str) -> list[str]:
    """`a:x=1,y=2,b` at the commas that do not continue the fields of an object."""
    parts: list[str] = []
    for part in text.split(","):
        name, equals, _ = part.partition("=")
        if equals and ":" not in name and parts:
            parts[-1] += "," + part
        elif part:
            parts.append(part)
    return parts


def _array(text: str) -> Any:
    value = _json(text) if text.startswith("[") else _number(text, "a number or a nested list of numbers")
    try:
        return np.asarray(value, float).tolist()
    except (ValueError, TypeError):
        raise _Mismatch("a number or a nested list of numbers") from None


def _object(base: type, text: str, field: str, classes: Mapping[str, type]) -> Description:
    name, _, fields = text.partition(":")
    fitting = {known: cls for known, cls in classes.items() if issubclass(cls, base)}
    concrete = {
        known: cls
        for known, cls in fitting.items()
        if not any(o is not cls and issubclass(o, cls) for o in fitting.values())
    }
    if not concrete:
        raise _Mismatch(f"a {base.__name__}, which cannot be given as text")
    chosen = find(f"{field} ({base.__name__})", name, concrete)
    return described(field, chosen, split_fields(fields), concrete, classes)


def split_fields(text: str) -> list[str]:
    """`a=1,b=[1,2],c=3` at the commas that start a new field."""
    parts: list[str] = []
    for part in text.split(",") if text else []:
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += "," + part
    return parts


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _Mismatch("valid JSON") from None


def _value(value: Any, hint: Any, classes: Mapping[str, type]) -> Any:
    """The value that a class expects where its description has `value`: arrays, tuples and objects are not JSON."""
    if isinstance(value, Mapping):
        return built(dict(value), classes)
    if isinstance(value, list):
        if any(isinstance(option, type) and issubclass(option, AbstractArray) for option in _options(hint, "")):
            return np.asarray(value)
        return tuple(_value(item, None, classes) for item in value)
    return value


def _with_hints(cls: type, name: str, given: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    hints = typing.get_type_hints(cls)
    known = _fields(cls)
    return [(field, hints.get(choose(f"field of {name}", field, known), Any), text) for field, text in given.items()]


def _fields(cls: type) -> dict[str, bool]:
    """{what the class can be made with: whether it must be given}."""
    return {name: p.default is inspect.Parameter.empty for name, p in inspect.signature(cls).parameters.items()}


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
