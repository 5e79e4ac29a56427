"""Manifests: CSV, JSONL, id lists, wav.scp, folders, globs and standard input become one checked table of clips."""

# Paths stay text: a million of them are mapped in a second, and "//" or ".." mean what they meant.
# ruff: noqa: PTH100, PTH109, PTH111, PTH118

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import methodcaller
from typing import Any, Literal

import numpy as np
import pandas as pd

from mmmos.axes import AXES, SCALE
from mmmos.errors import UnknownName, UsageError
from mmmos.manifest.ids import check_unique, ids_of, number_repeated
from mmmos.manifest.readers import is_audio, read_rows
from mmmos.manifest.rows import (
    Report,
    Rows,
    canonical,
    check_columns,
    derive,
    optional_texts,
    scores,
    texts,
    times,
)

One = str | os.PathLike[str] | pd.DataFrame
Source = One | Sequence[One]
Root = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]

_RATINGS = tuple(f"{axis}_ratings" for axis in AXES)
_PREFERRED = ("wav", "flac", "aiff", "aif")


def read_manifest(
    source: Source | Mapping[str, Source],
    *,
    root: Root | Sequence[Root] | None = None,
    labels: bool | Collection[str] = True,
    label_range: tuple[float, float] = SCALE,
    repeated: Literal["refuse", "number"] = "refuse",
    limit: int = 20,
) -> pd.DataFrame:
    """The clips of one or more inputs as a table indexed by ``id`` (unique text, verbatim).

    ``source`` is a CSV, JSONL, id list, wav.scp, audio file, folder, glob pattern, "-" (standard input) or a manifest's
    DataFrame; a list of them, which is concatenated; or ``{set name: either}``, which adds the column ``set``.
    ``root`` maps path prefixes, ``"/your_path=/data"`` or ``{"/your_path": "/data"}``, the longest first; a folder
    instead is what relative paths are relative to (otherwise the manifest's own folder). It may be a list of these.
    ``labels`` says whether scores are read; for named sets, it may hold the names of the sets whose scores are read.
    ``repeated``: "refuse" an id that an earlier row has, or "number" it: ``#2``, ``#3``, … is put behind it.

    Columns: ``path`` (absolute), ``start`` and ``end`` (s, NaN = whole; only when an input has them), ``domain`` and
    ``system`` (None when unknown), ``group`` (what folds must not split), ``PQ PC CE CU`` (float64, NaN when
    unlabelled), ``set``, ``PQ_ratings`` … (tuples of float, when an input lists ratings), then the other columns.

    Raises ``InputError`` with all problems of all inputs, the first ``limit`` of them in words, and ``UsageError`` for
    an empty list of inputs.

    >>> sets = {"train": "train.csv", "dev": "dev.csv", "pam": "pam.csv", "eval": "test.csv"}
    >>> clips = mmmos.read_manifest(sets, labels={"train", "dev", "pam"})
    >>> clips["set"].value_counts(sort=False).to_dict()
    {'train': 24, 'dev': 10, 'pam': 12, 'eval': 18}
    """
    report, roots = Report(limit), _Roots(root)
    scored = _scored_sets(source, labels)
    parts: list[tuple[Rows, dict[str, Any]]] = []
    for name, inputs in source.items() if isinstance(source, Mapping) else [(None, source)]:
        for one in [inputs] if isinstance(inputs, str | os.PathLike | pd.DataFrame) else inputs:
            rows = _frame_rows(one) if isinstance(one, pd.DataFrame) else read_rows(os.fspath(one), report)
            if rows is not None and check_columns(rows, report):
                parts.append((rows, _table(rows, name, name in scored, label_range, roots, report)))
    if not parts and not report.count:
        raise UsageError("There is nothing to read: the list of inputs is empty.")
    if repeated == "number":
        number_repeated([table["id"] for _, table in parts])
    else:
        check_unique(parts, report)
    report.stop()
    return _join([table for _, table in parts])


def locate(clips: pd.DataFrame) -> pd.DataFrame:
    """Where each clip's audio is: ``file`` (text, or None) and ``how`` ("exact", "other extension" or "missing").

    A file that is absent under its own name is looked for in the same folder under the same stem with any audio
    extension; of several, WAV, FLAC and AIFF come before the others, which go by name. Every folder is listed once.
    Nothing is opened, and nothing raised: a folder that cannot be listed holds no files.

    >>> mmmos.locate(clips)["how"].value_counts().to_dict()
    {'exact': 64}
    """
    folders: dict[str, dict[str, os.DirEntry[str]]] = {}
    stems: dict[str, dict[str, str]] = {}
    found: list[tuple[str | None, str]] = []
    for path in clips["path"]:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = _list_folder(folder)
        entry = folders[folder].get(name)
        if entry is not None and _is_file(entry):
            found.append((path, "exact"))
            continue
        if folder not in stems:
            stems[folder] = _best_by_stem(folders[folder].values())
        other = stems[folder].get(name) or (stems[folder].get(name.rpartition(".")[0]) if is_audio(name) else None)
        found.append((os.path.join(folder, other), "other extension") if other else (None, "missing"))
    files, hows = zip(*found, strict=True) if found else ((), ())
    columns = {"file": pd.Series(files, clips.index, dtype=object), "how": pd.Series(hows, clips.index, dtype=object)}
    return pd.DataFrame(columns)


def digest(clips: pd.DataFrame, columns: Sequence[str]) -> str:
    """SHA-256 (hex) over the ids and the given columns; the order of the rows does not matter, that of columns does.

    Floats count by their shortest exact decimals, so that the digest is the same on every platform; NaN and None are
    one value. Raises ``UnknownName`` for a column that is not there.
    """
    for name in columns:
        if name not in clips.columns:
            raise UnknownName("column", name, map(str, clips.columns))
    values = [clips.index.tolist(), *(_plain(clips[name]) for name in columns)]
    hasher = hashlib.sha256(json.dumps(["id", *columns]).encode())
    for row in sorted(zip(*values, strict=True), key=lambda row: str(row[0])):
        hasher.update(b"\n" + json.dumps(row, default=methodcaller("tolist"), sort_keys=True).encode())
    return hasher.hexdigest()


def describe(clips: pd.DataFrame) -> pd.DataFrame:
    """Counts per set (when there are sets) and domain: ``clips``, ``labelled``, ``systems``, ``groups``."""
    by = [name for name in ("set", "domain") if name in clips.columns]
    table = clips.assign(domain=clips["domain"].fillna("unknown"), labelled=clips[list(AXES)].notna().any(axis=1))
    counted = table.groupby(by, sort=False).agg(
        clips=("path", "size"), labelled=("labelled", "sum"), systems=("system", "nunique"), groups=("group", "nunique")
    )
    return counted.reset_index()


class _Roots:
    """Where paths lead: prefixes of whole path components to replace, and the folder of relative paths, if given."""

    def __init__(self, root: Root | Sequence[Root] | None) -> None:
        self.folder: str | None = None
        self.prefixes: dict[str, str] = {}
        for one in [root] if isinstance(root, str | os.PathLike | Mapping) else root or ():
            if isinstance(one, Mapping):
                pairs = [(os.fspath(prefix), os.fspath(target)) for prefix, target in one.items()]
            elif isinstance(one, str) and "=" in one:
                pairs = [(one.partition("=")[0], one.partition("=")[2])]
            elif self.folder is not None:
                raise UsageError(f"Two root folders, {self.folder!r} and {os.fspath(one)!r}; only one can be given.")
            else:
                self.folder, pairs = _absolute(os.fspath(one)), []
            for prefix, target in pairs:
                self._add(prefix, target)
        self.prefixes = dict(sorted(self.prefixes.items(), key=lambda pair: -len(pair[0])))

    def _add(self, prefix: str, target: str) -> None:
        if not prefix or not target:
            raise UsageError(f"The root '{prefix}={target}' lacks a side; write it like /your_path=/data.")
        prefix, target = prefix.rstrip("/"), _absolute(target)
        if self.prefixes.setdefault(prefix, target) != target:
            raise UsageError(f"The root {prefix!r} leads to both {self.prefixes[prefix]!r} and {target!r}.")

    def resolve(self, path: str, folder: str) -> str:
        """The absolute path of a path in a manifest that lies in ``folder``."""
        for prefix, target in self.prefixes.items():
            if path.startswith(prefix + "/") or path == prefix:
                path = target.rstrip("/") + path[len(prefix) :]
                break
        return os.path.join(self.folder or folder, path)


def _absolute(folder: str) -> str:
    return os.path.abspath(os.path.expanduser(folder))


def _scored_sets(source: Source | Mapping[str, Source], labels: bool | Collection[str]) -> set[str | None]:
    """The sets whose scores are read; None stands for an input without sets."""
    names: list[Any] = list(source) if isinstance(source, Mapping) else [None]
    if isinstance(labels, bool):
        return set(names) if labels else set()
    wanted: set[str | None] = {labels} if isinstance(labels, str) else set(labels)
    for name in wanted - set(names):
        raise UnknownName("set", str(name), [known for known in names if known is not None])
    return wanted


def _frame_rows(frame: pd.DataFrame) -> Rows:
    """A DataFrame as rows; missing values of any kind become None, and its row 0 is line 2."""
    if "id" not in map(canonical, map(str, frame.columns)) and frame.index.name is not None:
        frame = pd.concat([frame.index.to_frame(), frame], axis=1)
    shown = {canonical(str(name)): str(name) for name in frame.columns}
    for name, count in Counter(canonical(str(name)) for name in frame.columns).items():
        if count > 1:
            raise UsageError(f"The DataFrame has {count} columns for {name!r}; keep one of them.")
    columns = {canonical(str(name)): _plain(frame[name]) for name in frame.columns}
    for name in {"id", "path"} & set(columns):
        columns[name] = [os.fspath(v) if isinstance(v, os.PathLike) else v for v in columns[name]]
    return Rows("<DataFrame>", "frame", os.getcwd(), columns, range(2, len(frame) + 2), shown)


def _plain(column: pd.Series) -> list[Any]:
    """The values of a column as Python's own, None for every kind of missing value."""
    missing = column.isna().to_numpy()
    return [None if absent else value for value, absent in zip(column.tolist(), missing, strict=True)]


def _table(
    rows: Rows, name: str | None, scored: bool, scale: tuple[float, float], roots: _Roots, report: Report
) -> dict[str, Any]:
    """The columns of one input, checked and completed, in their order."""
    written = texts(rows, "path", report)
    span = times(rows, report)
    ids = ids_of(rows, written, span, report)
    paths = [os.path.join(rows.folder, path) for path in written]
    facts = zip(*map(derive, ids, paths), strict=True) if ids else ((), (), ())
    if rows.kind != "found":
        paths = [roots.resolve(path, rows.folder) for path in written]
    table: dict[str, Any] = {"id": ids, "path": paths, **span}
    for fact, derived in zip(("domain", "system", "group"), facts, strict=True):
        given = optional_texts(rows, fact, report)
        table[fact] = [known or guess for known, guess in zip(given, derived, strict=True)]
    none = {axis: np.full(len(ids), np.nan) for axis in AXES}
    values, ratings = scores(rows, scale, report) if scored else (none, {})
    taken = {*table, *AXES, *(() if scored else _RATINGS)}
    own = {key: column for key, column in rows.columns.items() if key not in taken}
    for key in set(own) & set(ratings):
        report.add(rows.file, f"ratings are there twice: in the lists of {key[:2]} and in this column", None, key)
    sets = {"set": [name] * len(ids)} if name is not None else {}
    return {**table, **values, **sets, **ratings, **{key: column for key, column in own.items() if key not in sets}}


def _join(tables: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One table from several; where an input lacks a column, its rows hold NaN (``start``, ``end``) or None."""
    order = ["path", "start", "end", "domain", "system", "group", *AXES, "set", *_RATINGS]
    names = [name for name in dict.fromkeys([*order, *(name for table in tables for name in table)]) if name != "id"]
    index = pd.Index([key for table in tables for key in table["id"]], dtype=object, name="id")
    columns = {}
    for name in names:
        if any(name in table for table in tables):
            number = name in AXES or name in ("start", "end")
            lacking = math.nan if number else None
            values = [value for table in tables for value in table.get(name, [lacking] * len(table["id"]))]
            columns[name] = pd.Series(values, index, dtype=float if number else object)
    return pd.DataFrame(columns)


def _list_folder(folder: str) -> dict[str, os.DirEntry[str]]:
    """The entries of a folder by name; none when it cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name: entry for entry in entries}
    except (OSError, ValueError):
        return {}


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _best_by_stem(entries: Iterable[os.DirEntry[str]]) -> dict[str, str]:
    """For every stem of an audio file in a folder the file name that is preferred."""

    def rank(name: str) -> tuple[int, str]:
        extension = name.rpartition(".")[2].lower()
        return (_PREFERRED.index(extension) if extension in _PREFERRED else len(_PREFERRED)), name

    best: dict[str, str] = {}
    for name in sorted((entry.name for entry in entries if is_audio(entry.name) and _is_file(entry)), key=rank):
        best.setdefault(name.rpartition(".")[0], name)
    return best
