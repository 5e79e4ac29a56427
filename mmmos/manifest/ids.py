"""The ids of clips: read, made from paths, and told apart."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmmos.errors import shorten
from mmmos.manifest.rows import Report, Rows, texts


def ids_of(rows: Rows, paths: list[str], span: dict[str, np.ndarray], report: Report) -> list[str]:
    """The ids; a JSONL row without one has its path verbatim, with ``#start-end`` where several rows share a path."""
    if rows.kind != "jsonl":
        return texts(rows, "id", report)
    given = rows.columns.get("id", [None] * len(paths))
    derived = {row: path for row, path in enumerate(paths) if given[row] is None}
    counts = Counter(derived.values())
    for row, path in derived.items():
        bounds = [float(values[row]) for values in span.values()]
        cut = counts[path] > 1 and not all(map(math.isnan, bounds))
        given[row] = f"{path}#{'-'.join(map(_seconds, bounds))}" if cut else path
    rows.columns["id"] = given
    return texts(rows, "id", report, skip=derived)


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else repr(value).removesuffix(".0")


def check_unique(parts: Sequence[tuple[Rows, dict[str, Any]]], report: Report) -> None:
    """Report every id that an earlier row of any input has."""
    first: dict[str, tuple[Rows, int, str | None]] = {}
    for rows, table in parts:
        name = table["set"][0] if "set" in table and table["id"] else None
        for row, key in enumerate(table["id"]):
            earlier, at, other = first.setdefault(key, (rows, row, name))
            if key and not (earlier is rows and at == row):
                place = earlier.file if earlier.line(at) is None else f"{earlier.file}, line {earlier.line(at)}"
                where = f"in set {other!r}, {place}, and in set {name!r}" if name != other else f"already in {place}"
                rows.tell(report, row, "id", f"id {shorten(key)} is {where}; ids must be unique")


def number_repeated(columns: Sequence[list[str]]) -> None:
    """Put ``#2``, ``#3`` … behind every id that an earlier row has, in place. No id that is written is given twice."""
    written = {key for column in columns for key in column}
    used: set[str] = set()
    counts: Counter[str] = Counter()
    for column in columns:
        for row, key in enumerate(column):
            name = key
            while name in used or (name != key and name in written):
                counts[key] += 1
                name = f"{key}#{counts[key] + 1}"
            column[row] = name
            used.add(name)
