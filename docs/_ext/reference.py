"""A page per room with every public name of it; what stands there is the docstrings."""

import importlib
import inspect
import re
from typing import Any

# Rooms in the order in which a reader meets them.
ROOMS = (
    *("prompt", "tasks", "models", "models.mixers", "algorithms", "training", "evaluation", "analysis"),
    *(
        "analysis.circuits",
        "analysis.implicit",
        "probes",
        "lm",
        "data",
        "runs",
        "sweeps",
        "plotting",
        "torch",
        "errors",
    ),
)
ESCAPED = re.compile(r"(?<![\\`])([*|_])")  # markup of reStructuredText, which plain docstrings do not mean


def public(room: str) -> list[str]:
    """The public names of a room: those of `__all__`, or those that its file defines."""
    module = importlib.import_module(f"meta_icl.{room}")
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    )  # fmt: skip


def pages() -> dict[str, str]:
    """Path -> Markdown of all pages."""
    seen: set[int] = set()
    found = {f"reference/{room}.md": _page(room, seen) for room in ROOMS}
    rows = [f"| [`meta_icl.{room}`]({room}.md) | {_first_line(room)} |" for room in ROOMS]
    home = importlib.import_module("meta_icl")
    names = [f"{{py:obj}}`{name} <{_home(getattr(home, name))}.{name}>`" for name in home.__all__ if name[0] != "_"
             and _home(getattr(home, name)).startswith("meta_icl")]  # fmt: skip
    index = ["# Reference", "", "| room | what stands there |", "|---|---|", *rows, ""]
    index += ["## At the door", "", "These can be imported from `meta_icl` itself:", "", ", ".join(names) + ".", ""]
    return found | {"reference/index.md": "\n".join([*index, "```{toctree}", ":hidden:", *ROOMS, "```", ""])}


def _home(value: Any) -> str:
    """The room in whose page a value stands."""
    module = getattr(value, "__module__", "")
    parts = module.split(".")
    return ".".join(parts[:2])


def _first_line(room: str) -> str:
    doc = inspect.getdoc(importlib.import_module(f"meta_icl.{room}")) or ""
    return doc.splitlines()[0].replace("|", "\\|") if doc else ""


def _page(room: str, seen: set[int]) -> str:
    """A directive for every public name; `seen` are the objects whose place is a page before this one."""
    module = importlib.import_module(f"meta_icl.{room}")
    lines = [f"# `meta_icl.{room}`", "", *(inspect.getdoc(module) or "").splitlines(), ""]
    for name in public(room):
        value = getattr(module, name)
        if inspect.isclass(value) or callable(value):
            kind = "autoclass" if inspect.isclass(value) else "autofunction"
            options = ["   :members:"] if kind == "autoclass" else []
            options += ["   :no-index:"] if id(value) in seen else []
            lines += ["```{eval-rst}", f".. {kind}:: meta_icl.{room}.{name}", *options, "```", ""]
            seen.add(id(value))
        elif inspect.ismodule(value):
            lines += ["```{eval-rst}", f".. automodule:: {value.__name__}", "   :members:", "```", ""]
        else:
            names = ", ".join(f"`{entry}`" for entry in value) if isinstance(value, dict | tuple) else f"`{value!r}`"
            lines += [f"```{{py:data}} meta_icl.{room}.{name}", "```", "", names, ""]
    return "\n".join(lines)


def escape(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """For `autodoc-process-docstring`: leave code in backticks as it is and escape what else would be markup."""
    found: list[str] = []
    for line in lines:
        parts = line.split("`")
        text = "`".join(ESCAPED.sub(r"\\\1", part) if n % 2 == 0 else part for n, part in enumerate(parts))
        indented, before = text.startswith("  "), bool(found) and found[-1].startswith("  ")
        if text and found and found[-1] and indented != before:
            found.append("")  # an indented block, such as an equation, stands by itself
        found.append(text)
    lines[:] = found


def shorten(app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None) -> Any:
    """For `autodoc-process-signature`: jax's arrays by the name under which they are imported, and a default that is a
    description (`= Block(mixer=...)`) by its class alone."""
    texts = [text if text is None else text.replace("jaxlib._jax.Array", "Array") for text in (signature, returns)]
    return folded(texts[0]) if texts[0] else texts[0], texts[1]


def folded(signature: str) -> str:
    """A signature whose defaults `Name(...)` have an ellipsis where their arguments are; `Name()` stays."""
    kept, depth = "", 0
    for piece in re.split(r"((?<== )[A-Z]\w*\((?!\))|[()])", signature):
        if depth:
            depth += piece.count("(") - piece.count(")")
            kept += ")" if depth == 0 else ""
        elif re.fullmatch(r"[A-Z]\w*\(", piece):
            kept, depth = f"{kept}{piece}…", 1
        else:
            kept += piece
    return kept


def is_field_of_a_tuple(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """For `autodoc-skip-member`: fields of named tuples stand in the signature, and have no text of their own."""
    return True if type(obj).__name__ == "_tuplegetter" else None
