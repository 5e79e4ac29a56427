"""Keys of recipes and options of heads, from their pydantic models: what is allowed, default, meaning."""

import ast
import inspect
import math
import types
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from textwrap import dedent
from typing import Any, Literal, Union, get_args, get_origin

from markdown import code, inline, table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Model = type[BaseModel]

KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value", dict: "table"}


def keys(model: Model, names: Iterable[str] | None = None) -> str:
    """A table of a model's keys, or of some of them."""
    chosen = model.model_fields if names is None else {name: model.model_fields[name] for name in names}
    rows = [(code(name), allowed(field), default(field), meanings(model)[name]) for name, field in chosen.items()]
    return table(("key", "allowed", "default", "meaning"), rows)


def own_fields(model: Model, base: Model) -> list[str]:
    """Names of the fields that a model adds to a base, or gives another default."""
    known = base.model_fields
    return [
        name for name, field in model.model_fields.items() if name not in known or known[name].default != field.default
    ]


def allowed(field: FieldInfo) -> str:
    """What may be written for a field, with its range."""
    return inline(kind(field.annotation)) + bounds(field.metadata)


def kind(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in KINDS or origin in KINDS:
        return KINDS[annotation if annotation in KINDS else origin]
    if hasattr(annotation, "__metadata__"):
        return kind(inner[0]) + bounds(annotation.__metadata__)
    if origin is Literal:
        return " or ".join(code(toml(value)) for value in inner)
    if origin in (Union, types.UnionType):
        members = list(dict.fromkeys(kind(each) for each in inner if each is not type(None)))
        repeated = len(members) == 2 and members[1].startswith(f"list of {members[0]}")
        return f"{members[0]}, or a list" if repeated else " or ".join(members)
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"list of {len(inner)} {kind(inner[0])}s"
    if origin in (list, tuple):
        return f"list of {kind(inner[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    raise TypeError(f"no words for {annotation}")


def bounds(metadata: Iterable[Any]) -> str:
    """Ends of a range, from the annotations of a field."""
    marks = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ "}
    found = [
        f"{mark}{getattr(each, name):g}"
        for each in flat(metadata)
        for name, mark in marks.items()
        if hasattr(each, name)
    ]
    return f" {', '.join(found)}" if found else ""


def flat(metadata: Iterable[Any]) -> list[Any]:
    """Annotations, those inside a ``Field`` among them."""
    return [part for each in metadata for part in (each.metadata if isinstance(each, FieldInfo) else [each])]


def default(field: FieldInfo) -> str:
    """A default as TOML; nothing where there is none, or it is empty."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None or value in ("", [], {}) or isinstance(value, BaseModel) else code(toml(value))


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) and abs(value) < 1e-2 and value else str(value)
    return f'"{value}"'.replace("\t", r"\t") if isinstance(value, str) else str(value)


@cache
def meanings(model: Model) -> dict[str, str]:
    """The docstring below each field, of the class that defines it last."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each.__module__.startswith("mmmos."):
            found |= attribute_docstrings(each)
    return {name: inline(found.get(name, "")) for name in model.model_fields}


def definition(thing: Any) -> Any:
    """The syntax tree of a class, a function or a module."""
    tree = ast.parse(dedent(inspect.getsource(thing)))
    return tree if inspect.ismodule(thing) else tree.body[0]


def attribute_docstrings(thing: Any) -> dict[str, str]:
    """The strings that stand below the names of a class or a module."""
    found = {}
    for one, following in pairwise(definition(thing).body):
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
            found |= {
                each.id: inspect.cleandoc(following.value.value) for each in targets if isinstance(each, ast.Name)
            }
    return found
