"""Names to objects, through entry points. Built-ins register in ``setup.cfg`` exactly as third parties do in theirs.

Kinds: ``encoders``, ``heads``, ``losses``, ``selectors`` (entry-point groups ``mmmos.<kind>``).
Listing names imports nothing; an object is imported when it is asked for.
A local file serves as a plug-in without packaging: ``path/to/mine.py:name``.
"""

import importlib.util
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mmmos.errors import SetupError, UnknownName, UsageError

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
    except (ImportError, AttributeError) as error:
        package = point.dist.name if point.dist else "its package"
        raise SetupError(
            f"The {KINDS[kind]} {name!r} of {package} cannot be imported from {point.value}: {error}."
            " Install what it needs, or uninstall it."
        ) from error


def _load_file(kind: str, name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(f"mmmos_plugin_{Path(path).stem}", path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise UsageError(f"The {KINDS[kind]} {name!r} names the file {path!r}, which does not exist.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise UnknownName(KINDS[kind], attribute, [n for n in vars(module) if not n.startswith("_")])
    return getattr(module, attribute)
