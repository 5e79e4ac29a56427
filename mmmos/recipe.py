"""Recipes: TOML files read into frozen pydantic models, each mistake named with file, line and the nearest valid key.

A recipe is named ("quick": first ``<workspace>/<shelf>/quick.toml``, then the recipes inside the package)
or given as a path (anything that ends in ``.toml``). Shelves: ``features``, ``ensembles``, ``submissions``.
"""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mmmos.errors import RecipeError, UnknownName, UsageError, did_you_mean

SHELVES = {"features": "feature recipe", "ensembles": "ensemble recipe", "submissions": "submission format"}


class Recipe(BaseModel):
    """Base of all recipe models: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


R = TypeVar("R", bound=BaseModel)


def read(path: str | Path, model: type[R]) -> R:
    """Read a TOML file into a model.

    Raises ``UsageError`` for a file that is not there, ``RecipeError`` with one sentence per mistake.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.toml")]) if path.parent.is_dir() else None
        hint = f" Did you mean {near!r}?" if near else ""
        raise UsageError(f"There is no file {str(path)!r}.{hint}") from None
    except IsADirectoryError:
        raise UsageError(f"{path} cannot be read: it is a folder; name a file in it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    return parse(text, model, str(path))


def parse(text: str, model: type[R], file: str = "recipe") -> R:
    """Read TOML text into a model; ``file`` is the name used in messages. Raises ``RecipeError``."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r" \(at line (\d+)", str(error))
        raise RecipeError([f"{file}:{line[1]}: not valid TOML: {error}." if line else f"{file}: {error}."]) from None
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise RecipeError(sentences(error, model, file, text)) from None


def sentences(error: ValidationError, model: type[BaseModel], file: str, text: str = "") -> list[str]:
    """One sentence for each mistake that pydantic found; with the TOML ``text``, each names its line."""
    table = tomllib.loads(text) if text else None
    found = [(_keys(problem, table), problem) for problem in error.errors()]
    return list(dict.fromkeys(_sentence(keys, problem, model, text, file) for keys, problem in _telling(found)))


def find(shelf: str, name: str, workspace: str | Path = ".") -> Path:
    """Path of a recipe given by name or path; a name is looked up in the workspace, then in the package.

    Raises ``UnknownName`` for a name on neither shelf, ``UsageError`` for a path that is not a file.
    """
    if name.endswith(".toml"):
        path = Path(name) if Path(name).is_absolute() else Path(workspace) / name
        if not path.is_file():
            raise UsageError(
                f"There is no {SHELVES[shelf]} file {str(path)!r}. A name without .toml is looked up on the shelf."
            )
        return path
    for folder in (Path(workspace) / shelf, _packaged(shelf)):
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise UnknownName(SHELVES[shelf], name, names(shelf, workspace))


def names(shelf: str, workspace: str | Path = ".") -> list[str]:
    """Names of all recipes on the workspace's shelf and in the package, sorted."""
    folders = (Path(workspace) / shelf, _packaged(shelf))
    return sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.toml")})


def packaged_files(shelf: str) -> list[Path]:
    """The files of a packaged shelf (recipes and README.md), sorted by name."""
    return sorted(p for p in _packaged(shelf).iterdir() if p.suffix in {".toml", ".md"})


def _packaged(shelf: str) -> Path:
    return Path(str(files("mmmos"))) / "recipes" / shelf


Keys = tuple[str | int, ...]


def _keys(problem: Any, table: dict[str, Any] | None) -> Keys:
    """Where a problem lies in the recipe: pydantic's location without the names it adds for members of a union."""
    location: Keys = problem["loc"]
    own = problem["type"] in {"missing", "extra_forbidden"}
    if table is None:
        return tuple(
            part
            for index, part in enumerate(location)
            if isinstance(part, int) or (own and index == len(location) - 1) or not _is_union_member(part)
        )
    node: Any = table
    keys: list[str | int] = []
    for index, part in enumerate(location):
        if (inner := _child(node, part)) is not _ABSENT:
            node = inner
            keys.append(part)
        elif own and index == len(location) - 1:
            keys.append(part)
    return tuple(keys)


_ABSENT = object()


def _child(node: Any, key: str | int) -> Any:
    """What a table or an array holds under a key, or ``_ABSENT``."""
    if isinstance(node, dict):
        return node.get(key, _ABSENT)
    if isinstance(node, list) and isinstance(key, int) and key < len(node):
        return node[key]
    return _ABSENT


def _is_union_member(part: str) -> bool:
    scalars = {"str", "int", "float", "bool", "list", "dict", "tuple"}
    return bool(re.search(r"[\[\]()-]", part)) or part in scalars or part[:1].isupper()


def _telling(found: list[tuple[Keys, Any]]) -> list[tuple[Keys, Any]]:
    """Of the complaints of a union's members about one value, the deepest: that member is the one that was meant."""
    kept: dict[Keys, Any] = {}
    for keys, problem in found:
        if not any(other[: len(keys)] == keys and len(other) > len(keys) for other, _ in found):
            kept.setdefault(keys, problem)
    return list(kept.items())


def _sentence(keys: Keys, problem: Any, model: type[BaseModel], text: str, file: str) -> str:
    place = f"{file}:{_line(text, keys)}" if text else file
    name = ".".join(str(part) for part in keys)
    if problem["type"] == "extra_forbidden":
        options = _fields(model, keys[:-1])
        near = did_you_mean(str(keys[-1]), options)
        hint = f" Did you mean {near!r}?" if near else ""
        return f"{place}: unknown key {name!r}.{hint} Allowed here: {', '.join(options)}."
    if problem["type"] == "missing":
        return f"{place}: the key {name!r} is missing."
    message = problem["msg"].removeprefix("Value error, ")
    got = "" if problem["type"] == "value_error" else f"; got {problem['input']!r}"
    return f"{place}: {name or 'the recipe'}: {message[:1].lower()}{message[1:].rstrip('.')}{got}."


def _fields(model: type[BaseModel], keys: Keys) -> list[str]:
    """Field names of the model nested under a location."""
    current: Any = model
    for key in keys:
        if isinstance(key, int):
            continue
        field = getattr(current, "model_fields", {}).get(key)
        current = _nested_model(field.annotation) if field else None
    return sorted(getattr(current, "model_fields", {}))


def _nested_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _nested_model(argument)
        if found is not None:
            return found
    return None


def _line(text: str, keys: Keys) -> int:
    """Line (from 1) where a value is written, or the nearest value around it: the line that makes it appear."""
    lines = text.replace("\r\n", "\n").split("\n")
    begin = 0
    for end in range(1, len(lines) + 1):
        try:
            table = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
        if _value(table, keys) is not _ABSENT:
            return 1 + begin + _offset("\n".join(lines[begin:end]), table, keys)
        begin = end
    return _line(text, keys[:-1]) if keys else 1


def _value(table: dict[str, Any], keys: Keys) -> Any:
    node: Any = table
    for key in keys:
        node = _child(node, key)
    return node


def _offset(statement: str, table: dict[str, Any], keys: Keys) -> int:
    """Lines from the beginning of a statement of several lines to its last key."""
    if len(keys) < 3 or not isinstance(keys[-2], int):
        return 0
    before = sum(_child(entry, keys[-1]) is not _ABSENT for entry in _value(table, keys[:-2])[: keys[-2]])
    places = [
        match.start() for match in re.finditer(rf"(?<![\w-])[\"']?{re.escape(str(keys[-1]))}[\"']?\s*=", statement)
    ]
    return statement[: places[before]].count("\n") if before < len(places) else 0
