"""Names to objects, through entry points. Built-ins register in ``setup.cfg`` exactly as third parties do in theirs.

Kinds: ``encoders``, ``heads``, ``losses``, ``selectors`` (entry-point groups ``mmmos.<kind>``).
Listing names imports nothing; an object is imported when it is asked for.
A local file serves as a plug-in without packaging: ``path/to/mine.py:name``.
"""

import importlib.util
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mmmos.errors import SetupError, UnknownName, UsageError
from mmmos.files import key_of

KINDS = {"encoders": "encoder", "heads": "head", "losses": "loss", "selectors": "selector"}


@cache
def _registered(kind: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"mmmos.{kind}"):
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise SetupError(
                f"Two packages register the {KINDS[kind]} {point.name!r}: {known.value} and {point.value}."
                " Uninstall one of them."
            )
    return found


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    return sorted(_registered(kind))


@cache
def load(kind: str, name: str) -> Any:
    """The object registered under a name, or defined in a local file given as ``path.py:name``.

    Raises ``UnknownName`` for a name that nothing registers, ``SetupError`` when the plug-in cannot be imported.
    """
    if ".py:" in name:
        return _load_file(kind, name)
    point = _registered(kind).get(name)
    if point is None:
        raise UnknownName(KINDS[kind], name, names(kind))
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist else "its package"
        raise SetupError(
            f"The {KINDS[kind]} {name!r} of {package} cannot be imported from {point.value}:"
            f" {type(error).__name__}: {error}. Install what it needs, or uninstall it."
        ) from error


def _load_file(kind: str, name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise UsageError(f"The {KINDS[kind]} {name!r} names the file {path!r}, which does not exist.")
    # A name of its own for each file, known to `sys.modules`, so that what it defines can be pickled and annotated.
    module_name = f"mmmos_plugin_{file.stem}_{key_of(str(file))[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise UsageError(f"The {KINDS[kind]} {name!r} cannot be imported: {type(error).__name__}: {error}.") from error
    if not hasattr(module, attribute):
        raise UnknownName(KINDS[kind], attribute, [n for n in vars(module) if not n.startswith("_")])
    return getattr(module, attribute)
