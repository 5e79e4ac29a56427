"""Names to objects, through entry points. Built-ins register in ``setup.cfg`` exactly as third parties do in theirs.

Kinds: ``encoders``, ``heads``, ``losses``, ``selectors``, ``formats`` (entry-point groups ``mmmos.<kind>``). The
formats of MMMOS are recipes and do not register.
Listing names imports nothing; an object is imported when it is asked for.
A local file serves as a plug-in without packaging: ``path/to/mine.py:name``. It is read each time, so that what it says
now is what runs, and its SHA-256 is part of the keys of what it makes.
"""

import hashlib
import importlib.util
import sys
from functools import cache
from importlib.abc import SourceLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from mmmos.errors import SetupError, UnknownName, UsageError
from mmmos.files import key_of

KINDS = {"encoders": "encoder", "heads": "head", "losses": "loss", "selectors": "selector", "formats": "format"}


def is_local(name: str) -> bool:
    """True for a name that is a local file's, as in ``path/to/mine.py:name``."""
    return ".py:" in name


@cache
def _registered(kind: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"mmmos.{kind}"):
        known = found.setdefault(point.name, point)
        if (_package(known), known.value) != (_package(point), point.value):
            raise _conflict(kind, known, point)
    return found


def _conflict(kind: str, one: EntryPoint, other: EntryPoint) -> SetupError:
    """What is said of two objects with one name."""
    what = f"the {KINDS[kind]} {one.name!r}"
    first, second = _package(one), _package(other)
    if first == second:
        return SetupError(
            f"The package {first} registers {what} twice: {one.value} and {other.value}. Uninstall it, or ask its"
            " author for two names."
        )
    if "mmmos" in (first, second):
        other, second = (other, second) if first == "mmmos" else (one, first)
        return SetupError(
            f"The package {second} registers {what} ({other.value}), which is a name of MMMOS's own."
            f" Uninstall {second}, or ask its author for another name."
        )
    return SetupError(
        f"Two packages register {what}: {first} ({one.value}) and {second} ({other.value}). Uninstall one of them, or"
        " ask an author for another name."
    )


def _package(point: EntryPoint) -> str:
    """The name of the distribution that registers an object."""
    return point.dist.name if point.dist else "unknown"


def package_of(kind: str, name: str) -> str:
    """The distribution that registers a name."""
    return _package(_registered(kind)[name])


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted. Raises ``SetupError`` when two packages register one name."""
    return sorted(_registered(kind))


def load(kind: str, name: str) -> Any:
    """The object registered under a name, or defined in a local file given as ``path.py:name``.

    Raises ``UnknownName`` for a name that nothing registers, ``SetupError`` when the plug-in cannot be imported or two
    packages register one name, ``UsageError`` for a local file that is not there or cannot be imported.
    """
    return _from_file(kind, name) if is_local(name) else _from_package(kind, name)


@cache
def _from_package(kind: str, name: str) -> Any:
    point = _registered(kind).get(name)
    if point is None:
        raise UnknownName(KINDS[kind], name, names(kind))
    try:
        return point.load()
    except Exception as error:
        raise SetupError(
            f"The {KINDS[kind]} {name!r} of the package {_package(point)} cannot be imported from {point.value}:"
            f" {type(error).__name__}: {error}. Install what it needs, or uninstall it."
        ) from error


def code_of(kind: str, name: str) -> str:
    """SHA-256 (hex) of the local file that a name is of; "" for a registered name. Raises ``UsageError``."""
    return hashlib.sha256(_read(kind, name)[1]).hexdigest() if is_local(name) else ""


def _read(kind: str, name: str) -> tuple[Path, bytes]:
    """The path and the content of the local file in a name."""
    path = name.rpartition(":")[0]
    file = Path(path).expanduser().resolve()
    try:
        return file, file.read_bytes()
    except FileNotFoundError:
        what = "which does not exist"
    except OSError as error:
        what = f"which cannot be read: {error}"
    raise UsageError(f"The {KINDS[kind]} {name!r} names the file {path!r}, {what}.")


def _from_file(kind: str, name: str) -> Any:
    file, data = _read(kind, name)
    attribute = name.rpartition(":")[2]
    try:
        module = _module(file, data)
    except Exception as error:
        raise UsageError(f"The {KINDS[kind]} {name!r} cannot be imported: {type(error).__name__}: {error}.") from error
    if not hasattr(module, attribute):
        raise UnknownName(KINDS[kind], attribute, [n for n in vars(module) if not n.startswith("_")])
    return getattr(module, attribute)


@cache
def _module(file: Path, data: bytes) -> ModuleType:
    """The module of a file that holds ``data``; a file with other content is another module.

    It has a name of its own, known to ``sys.modules``, so that what it defines can be pickled and annotated.
    """
    module_name = f"mmmos_plugin_{file.stem}_{key_of([str(file), hashlib.sha256(data).hexdigest()])[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, file, loader=_Source(file, data))
    assert spec is not None and spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


class _Source(SourceLoader):
    """The code of bytes in memory: those that are hashed are those that run, and no bytecode of older ones does."""

    def __init__(self, file: Path, data: bytes) -> None:
        self._file, self._data = file, data

    def get_filename(self, fullname: str) -> str:
        """Where the bytes are from."""
        return str(self._file)

    def get_data(self, path: str) -> bytes:
        """The bytes."""
        return self._data
