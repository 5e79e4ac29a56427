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

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*["']?([\w./-]+)["']?\s*=""")


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
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    return parse(text, model, str(path))


def parse(text: str, model: type[R], file: str = "recipe") -> R:
    """Read TOML text into a model; ``file`` is the name used in messages. Raises ``RecipeError``."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([f"{file}: not valid TOML: {error}."]) from None
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise RecipeError(sentences(error, model, file, text)) from None


def sentences(error: ValidationError, model: type[BaseModel], file: str, text: str = "") -> list[str]:
    """One sentence for each mistake that pydantic found; with the TOML ``text``, each names its line."""
    return list(dict.fromkeys(_sentence(problem, model, text, file) for problem in error.errors()))


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


def _sentence(problem: Any, model: type[BaseModel], text: str, file: str) -> str:
    location: tuple[str | int, ...] = problem["loc"]
    keys = [part for part in location if isinstance(part, int) or not _is_internal(part)]
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


def _is_internal(part: str) -> bool:
    """True for the names that pydantic puts into a location for union members and validators."""
    return (
        bool(re.search(r"[\[\]()-]", part))
        or part in {"str", "int", "float", "bool", "list", "dict", "tuple"}
        or part[:1].isupper()
    )


def _fields(model: type[BaseModel], keys: list[str | int]) -> list[str]:
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


def _line(text: str, keys: list[str | int]) -> int:
    """Line (from 1) where a key stands, or the line of the nearest table around it."""
    names = [str(key) for key in keys if not isinstance(key, int)]
    wanted_index = next((key for key in keys if isinstance(key, int)), 0)
    table: list[str] = []
    counts: dict[str, int] = {}
    best, best_depth = 1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = header[2].split(".")
            path = table
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
        elif key := _KEY.match(line):
            path = [*table, *key[1].split(".")]
        else:
            continue
        if counts.get(".".join(table), wanted_index) != wanted_index:
            continue
        depth = len(path) if names[: len(path)] == path else 0
        if depth > best_depth:
            best, best_depth = number, depth
    return best
