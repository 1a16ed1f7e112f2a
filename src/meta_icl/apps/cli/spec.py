"""Objects named on the command line: a name and `field=value` texts, checked against the class's fields and types.

A description is JSON, {"name": "LinearRegression", "fields": {"d": 5, "x_law": {"name": "Uniform", "fields": {...}}}},
so that it can stand in a run's configuration; `described` makes one from texts and `built` makes the object of one.
Values that are objects themselves are written `x_law=uniform:half_range=1.0`, sequences `2,10,20` or as JSON, arrays
also as files (`arrays`). A description of the user's own (`own`) also holds the record of its code. What takes a `key`
beside its fields is not called but made ready to be called with one.
"""

import dataclasses
import functools
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import AbstractArray

from meta_icl.apps.cli import arrays, own
from meta_icl.errors import BadInput, choose

T = TypeVar("T")
Description = dict[str, Any]
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def described(
    kind: str | own.Kind,
    name: str,
    texts: Sequence[str],
    classes: Mapping[str, Any],
    inner: Mapping[str, Any] | None = None,
) -> Description:
    """The description of an object of one of the `classes` (by name) with the fields in `texts`.

    Fields that are objects may be of the `inner` classes (default: `classes`). Names are compared without regard to
    case and underscores. A name of the user's own is taken where `kind` says what it must be. A class may also be a
    function that makes the object. Raises `BadInput` for unknown names and fields, missing fields and wrong values.
    """
    record = None
    if isinstance(kind, own.Kind) and (at := own.place(name)) is not None:
        maker, record = own.find(kind, name)
        found, texts = record["name"], [*split_fields(at.fields), *texts]
        if not kind.makes(maker):
            if texts:
                raise BadInput(f"{kind.name} {name!r} is an object already and takes no {texts[0]!r}")
            return {"name": found, "own": record}
    else:
        kind = kind.name if isinstance(kind, own.Kind) else kind
        found = find(kind, name, classes)
        maker = classes[found]
    given = _with_hints(maker, found, assignments(texts))
    fields = {f: converted(hint, text, f, classes if inner is None else inner) for f, hint, text in given}
    missing = [field for field, required in _fields(maker).items() if required and field not in fields]
    if missing:
        raise BadInput(f"{getattr(kind, 'name', kind)} {found} needs {', '.join(f'{name}=...' for name in missing)}")
    return {"name": found, "fields": fields} | ({"own": record} if record else {})


def built(description: Description, classes: Mapping[str, Any]) -> Any:
    """The object that a description describes."""
    record = description.get("own")
    maker = own.again(record) if record else classes[find("class", description["name"], classes)]
    if "fields" not in description:  # it is an object already
        return maker
    hints = _hints(maker)
    fields = {name: _value(value, hints.get(name), classes) for name, value in description["fields"].items()}
    return functools.partial(maker, **fields) if takes_key(maker) else maker(**fields)


def takes_key(maker: Any) -> bool:
    """Whether a class or function takes the random key with which it draws what it makes."""
    return "key" in inspect.signature(maker).parameters and "key" not in _fields(maker)


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
    """The class name that `name` means: itself, or the one that differs in case and underscores."""
    if name in classes:
        return name
    by_plain = {_plain(known): known for known in classes}
    return by_plain[_plain(name)] if _plain(name) in by_plain else choose(kind, name, classes)


def public(room: types.ModuleType, accepts: Callable[[type], bool]) -> dict[str, type]:
    """The public classes of a room for which `accepts` holds."""
    named = {name: getattr(room, name) for name in room.__all__}
    return {name: value for name, value in named.items() if isinstance(value, type) and accepts(value)}


def converted(hint: Any, text: str, field: str, classes: Mapping[str, Any]) -> Any:
    """The JSON value of a text for a field of type `hint`; `BadInput` if it is of another type."""
    failed: list[str] = []
    for option in _named(_options(hint, text), text, classes):
        try:
            return _convert(option, text, field, classes)
        except _Mismatch as error:
            failed.append(str(error))
    raise BadInput(f"{field} must be {' or '.join(dict.fromkeys(failed))}, got {text!r}")


class _Mismatch(Exception):
    """A text is not of a type; says what that type is called."""


def _convert(hint: Any, text: str, field: str, classes: Mapping[str, Any]) -> Any:
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
    if _is_array(hint):
        return _array(hint, text, field)
    if isinstance(hint, type) and hint not in (str, object, Any):
        return _object(hint, text, field, classes)
    return text if hint is str else _literal(text)


def _options(hint: Any, text: str) -> list[Any]:
    """The alternatives of a type in the order in which to try them: a plain string last, a sequence if it is one."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return [hint]
    members = list(typing.get_args(hint))
    plain = [member for member in members if member is str or member is Any]
    many = [member for member in members if typing.get_origin(member) in (tuple, list, Sequence)]
    rest = [member for member in members if member not in plain and member not in many]
    return rest + (many if "," in text or text.startswith("[") or not plain else []) + plain


def _named(options: list[Any], text: str, classes: Mapping[str, Any]) -> list[Any]:
    """Of several types of objects those that the text names, if it names any."""
    name = _plain(text.partition(":")[0])
    named = [cls for known, cls in classes.items() if isinstance(cls, type) and _plain(known) == name]
    objects = [option for option in options if isinstance(option, type) and any(issubclass(c, option) for c in named)]
    return objects or options


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _Mismatch(what) from None


def _sequence(arguments: tuple[Any, ...], text: str, field: str, classes: Mapping[str, Any]) -> list[Any]:
    hints = [argument for argument in arguments if argument is not Ellipsis]
    found = _json(text) if text.startswith("[") else items(text)
    if not isinstance(found, list):
        raise _Mismatch("a sequence such as 1,2,3")
    if Ellipsis not in arguments and len(hints) != len(found) and len(hints) > 1:
        raise _Mismatch(f"a sequence of {len(hints)}")
    each = hints if len(hints) == len(found) else (hints or [Any])[:1] * len(found)
    texts = [item if isinstance(item, str) else json.dumps(item) for item in found]
    return [converted(hint, item, field, classes) for hint, item in zip(each, texts, strict=True)]


def items(text: str) -> list[str]:
    """The pieces of `a:x=1,y=2,b` at the commas that do not continue the fields of an object."""
    parts: list[str] = []
    for part in text.split(","):
        name, equals, _ = part.partition("=")
        if equals and ":" not in name and parts:
            parts[-1] += "," + part
        elif part:
            parts.append(part)
    return parts


def _array(hint: Any, text: str, field: str) -> Any:
    if (file := arrays.described(text, field)) is not None:
        return file
    value = _json(text) if text.startswith("[") else _number(text, "a number or a nested list of numbers")
    try:
        numbers = np.asarray(value, float)
    except (ValueError, TypeError):
        raise _Mismatch("a number or a nested list of numbers") from None
    whole = not any("float" in kind for kind in getattr(hint, "dtypes", ["float"]))
    if whole and not np.array_equal(numbers, np.round(numbers)):
        raise _Mismatch("whole numbers")
    return (numbers.astype(int) if whole else numbers).tolist()


def _is_array(hint: Any) -> bool:
    """Whether a type is one of arrays: of jaxtyping, or bare."""
    return isinstance(hint, type) and (
        issubclass(hint, AbstractArray) or hint.__name__.rpartition(".")[2] in ("Array", "ndarray")
    )


def _literal(text: str) -> Any:
    """A text for a field of unknown type: JSON if it is some, else as it stands."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _object(base: type, text: str, field: str, classes: Mapping[str, Any]) -> Description:
    if own.place(text) is not None:
        inside = own.Kind(field, f"a {base.__name__}, or a class or function that makes one", _makes_a(base))
        return described(inside, text, [], {}, classes)
    if base.__name__ == "ImageSet":
        return arrays.set_described(text, field)
    name, _, fields = text.partition(":")
    fitting = {known: cls for known, cls in classes.items() if isinstance(cls, type) and issubclass(cls, base)}
    concrete = {
        known: cls
        for known, cls in fitting.items()
        if not any(o is not cls and issubclass(o, cls) for o in fitting.values())
    }
    if not concrete:
        raise _Mismatch(f"a {base.__name__}, which cannot be given as text")
    chosen = find(f"{field} ({base.__name__})", name, concrete)
    return described(field, chosen, split_fields(fields), concrete, classes)


def _makes_a(base: type) -> Callable[[Any], bool]:
    """Whether something is a `base` or a class of them; of a protocol, anything that can be called."""
    if getattr(base, "_is_protocol", False):
        return callable
    return lambda found: isinstance(found, base) or (isinstance(found, type) and issubclass(found, base))


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


def _value(value: Any, hint: Any, classes: Mapping[str, Any]) -> Any:
    """The value that a class expects where its description has `value`: arrays, tuples and objects are not JSON."""
    kinds = [option for option in _options(hint, "") if _is_array(option)]
    if isinstance(value, Mapping):
        if not arrays.is_described(value):
            return built(dict(value), classes)
        value = arrays.loaded(value)
    elif any("prng_key" in getattr(kind, "dtypes", ()) for kind in kinds):
        import jax

        return jax.random.key(int(value))
    if kinds and isinstance(value, list | np.ndarray):
        import jax.numpy as jnp

        return jnp.asarray(value)
    return tuple(_value(item, None, classes) for item in value) if isinstance(value, list) else value


def _with_hints(maker: Any, name: str, given: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    hints, known = _hints(maker), _fields(maker)
    return [(field, hints.get(choose(f"field of {name}", field, known), Any), text) for field, text in given.items()]


def _hints(maker: Any) -> dict[str, Any]:
    """The types of all fields; of a function that hands `**fields` on to a class, those of the class too."""
    from meta_icl.data import ImageSet  # which tasks name for type checkers only

    try:
        hints = typing.get_type_hints(
            maker if not isinstance(maker, type) or _annotated(maker) else maker.__init__,
            localns={"ImageSet": ImageSet},
        )
    except (NameError, TypeError, SyntaxError):  # types of the user's own that cannot be read: fields are taken as JSON
        return {}
    return (typing.get_type_hints(rest) | hints) if (rest := _handed_on_to(maker)) else hints


def _annotated(cls: type) -> bool:
    """Whether the fields of a class are its annotations, not the arguments of a constructor of its own."""
    return dataclasses.is_dataclass(cls) and not {*inspect.signature(cls).parameters} - {*cls.__dataclass_fields__}


def _fields(maker: Any) -> dict[str, bool]:
    """{what an object can be made with: whether it must be given}; without the random key."""
    parameters = inspect.signature(maker).parameters
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    own_fields = {
        name: p.default is inspect.Parameter.empty
        for name, p in parameters.items()
        if p.kind not in variable and (name != "key" or (isinstance(maker, type) and _annotated(maker)))
    }
    rest = _handed_on_to(maker)
    return own_fields | ({n: False for n, must in _fields(rest).items() if not must} if rest else {})


def _handed_on_to(maker: Any) -> type | None:
    """The class that a function makes, if it hands further fields on to it."""
    hands_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(maker).parameters.values())
    made = typing.get_type_hints(maker).get("return") if hands_on and not isinstance(maker, type) else None
    return made if isinstance(made, type) else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
