"""python.md: the public names and the classes that a plug-in is made of."""

import ast
import inspect
from pkgutil import resolve_name
from typing import Any

from markdown import fenced, inline, page, prose
from models import attribute_docstrings, definition, keys

import mmmos
from mmmos import axes, testing
from mmmos.recipe import Recipe

WIDTH = 100

# In the order in which they are used; the examples follow on one another.
NAMES = (
    *("make_corpus", "AXES", "read_manifest", "locate", "encoder", "extract", "train", "select"),
    *("write_submission", "check_submission", "evaluate", "load", "run", "Workers", "MmmosError"),
)
# What they give, and what a plug-in is made of: where it is imported from.
GIVEN = (
    "mmmos.features.table.Features",
    "mmmos.features.table.FeatureArray",
    "mmmos.ensembles.pool.Pool",
    "mmmos.ensembles.ensemble.Ensemble",
    "mmmos.errors.Problem",
    "mmmos.scoring.scorer.Scorer",
    "mmmos.scoring.score.Score",
    "mmmos.pipeline.Outcome",
)
CONTRACTS = (
    "mmmos.features.encoders.Encoder",
    "mmmos.features.encoders.EncoderCard",
    "mmmos.features.encoders.Deferred",
    "mmmos.features.spec.EncoderSpec",
    "mmmos.ensembles.losses.Loss",
    "mmmos.ensembles.heads.Head",
    "mmmos.ensembles.heads.Fitted",
    "mmmos.ensembles.heads.neural.Neural",
    "mmmos.ensembles.heads.neural.TrainingOptions",
    "mmmos.ensembles.heads.neural.Batch",
    "mmmos.ensembles.heads.neural.Output",
    "mmmos.ensembles.selectors.Selection",
    "mmmos.submissions.formats.Format",
)

HEAD = """\
The public names of `mmmos`, what they give, and the classes that a plug-in is made of. Importing `mmmos` loads neither
torch nor pandas; each name is loaded when it is first used.

Examples follow on one another, begin with `import mmmos` and run in the folder that `mmmos demo --size tiny` makes.
What is not on this page may change without notice."""


def text() -> str:
    """The page."""
    return page(
        "Python",
        HEAD,
        "## Public names",
        *(section(f"mmmos.{name}", getattr(mmmos, name), docs_of(name)) for name in NAMES),
        "## What they give",
        *map(section_of, GIVEN),
        "## What a plug-in is made of",
        "[Plug-ins](../plugins.md) says how to write and register one. A selector reads a [`Pool`](#pool).",
        *map(section_of, CONTRACTS),
        "## mmmos.testing",
        inline(inspect.getdoc(testing) or ""),
        *(section_of(f"mmmos.testing.{name}") for name in testing.__all__),
    )


def docs_of(name: str) -> str:
    """The docstring of a public name."""
    return attribute_docstrings(axes)[name] if name == "AXES" else inspect.getdoc(getattr(mmmos, name)) or ""


def section_of(where: str) -> str:
    """The section of an object by where it is imported from."""
    thing = resolve_name(where)
    return section(where, thing, inspect.getdoc(thing) or "")


def section(where: str, thing: Any, about: str) -> str:
    """One object: where it is, signature, docstring, fields and methods."""
    name = where.rpartition(".")[2]
    parts = [f"### {name}"]
    if isinstance(thing, type) and issubclass(thing, Recipe):
        parts += [fenced(f"class {where}", "python"), prose(about), keys(thing), methods(thing)]
    elif isinstance(thing, type):
        parts += [fenced(class_text(where, thing), "python"), prose(about), methods(thing)]
    elif callable(thing):
        parts += [fenced(signature(definition(thing), where), "python"), prose(about)]
    else:
        parts += [fenced(quoted(f"{where} = {thing!r}"), "python"), prose(about)]
    return "\n\n".join(part for part in parts if part)


def class_text(where: str, thing: type) -> str:
    """A class with its bases and fields, as written."""
    node = definition(thing)
    bases = ", ".join(map(ast.unparse, node.bases))
    lines = [f"    {field(each)}" for each in node.body if isinstance(each, ast.AnnAssign)]
    lines += [signature(each, "    __init__") for each in functions(node) if each.name == "__init__"]
    return f"class {where}{f'({bases})' if bases else ''}{':' if lines else ''}\n" + "\n".join(lines)


def field(node: ast.AnnAssign) -> str:
    """A field with its annotation and default, as written."""
    default = f" = {quoted(ast.unparse(node.value))}" if node.value else ""
    return f"{ast.unparse(node.target)}: {written(node.annotation)}{default}"


def methods(thing: type) -> str:
    """Public methods and properties of a class, each in a line."""
    lines = []
    for each in functions(definition(thing)):
        if each.name == "__call__" or not each.name.startswith("_"):
            shown = each.name if is_property(each) else signature(each, each.name, width=None)
            lines.append(f"- `{shown}`: {inline(' '.join((ast.get_docstring(each) or '').split()))}")
    return "\n".join(lines)


def functions(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """The functions that a class defines."""
    return [each for each in node.body if isinstance(each, ast.FunctionDef)]


def is_property(node: ast.FunctionDef) -> bool:
    """Whether a method is read as an attribute."""
    return any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list)


def signature(node: ast.FunctionDef, name: str, width: int | None = WIDTH) -> str:
    """Parameters and result as written, without self; in one line, or one line for each where that is too long."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    filled = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    shown = [
        parameter(each, value) for each, value in zip(plain, filled, strict=True) if each.arg not in ("self", "cls")
    ]
    if arguments.posonlyargs:
        shown.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg or arguments.kwonlyargs:
        shown.append(f"*{parameter(arguments.vararg, None)}" if arguments.vararg else "*")
    shown += [parameter(each, value) for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    shown += [f"**{parameter(arguments.kwarg, None)}"] if arguments.kwarg else []
    result = f" -> {written(node.returns)}" if node.returns and name.strip() != "__init__" else ""
    line = f"{name}({', '.join(shown)}){result}"
    if width is None or len(line) <= width:
        return line
    indent = " " * (len(name) - len(name.lstrip()))
    return f"{name}(\n" + "".join(f"{indent}    {each},\n" for each in shown) + f"{indent}){result}"


def parameter(argument: ast.arg, default: ast.expr | None) -> str:
    """A parameter with annotation and default, as written."""
    annotation = f": {written(argument.annotation)}" if argument.annotation else ""
    equals = " = " if annotation else "="
    return argument.arg + annotation + (f"{equals}{quoted(ast.unparse(default))}" if default else "")


def written(annotation: ast.expr) -> str:
    """An annotation as written, without the quotes of one that is text."""
    text = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    return str(annotation.value) if text else quoted(ast.unparse(annotation))


def quoted(code: str) -> str:
    """Code with double quotes."""
    return code.replace("'", '"')
