"""Clips without audio: known by name, their embeddings imported from a machine that has the audio.

``clips.csv`` lists the clips of an export: id, base name of the file, start and end in s (empty: of the file), key. A
store keeps the lists that it imported under ``shared/``, each named by the digest of its content.
"""

import csv
import hashlib
import io
import json
import logging
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from mmmos.errors import Rejected, StoreError, shorten
from mmmos.features.store.location import location
from mmmos.features.store.remote import listed
from mmmos.manifest.rows import Report, Rows, texts, times

log = logging.getLogger("mmmos")

FOLDER = "shared"
LIST = "clips.csv"
COLUMNS = ("id", "file", "start", "end", "key")

_KEY = re.compile(r"[0-9a-f]{32}")
# Ids that are paths of one machine: from a root, a drive, a scheme or a home folder, or upwards.
_PLACE = re.compile(r"[/\\~]|\w+:[/\\]|\.\.[/\\]|.*[/\\]\.\.[/\\]")
_BLOCK = 10_000

# Id, path, start and end in s, key.
Entry = tuple[str, str, float | None, float | None, str]


class Shared:
    """The clips of a store's lists, by name."""

    def __init__(self, keys: Mapping[bytes, str]) -> None:
        self._keys = keys

    def key(self, clip: str, path: str, start: float | None, end: float | None) -> str | None:
        """The store key of a clip by its id, the stem of its path and its segment in s; None for an unknown one.

        Raises ``Rejected`` where the lists hold different clips of this name.
        """
        found = self._keys.get(_mark(clip, path, start, end))
        if found == "":
            raise Rejected(
                "missing",
                f"there is no file {path}, and the imports hold different clips called {clip}: they cannot be told"
                " apart; rename one of them where it was exported",
            )
        return found


def known(store: str | Path) -> Shared:
    """The clips of the lists that a store has imported; a damaged list is said and left out."""
    keys: dict[bytes, str] = {}
    for path in listed(location(store) / FOLDER, "*.csv"):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
        if path.name != file_name(data):
            log.warning("%s is damaged and not used; import its folder again.", path)
            continue
        for clip, file, start, end, key in islice(_reader(data), 1, None):
            mark = _mark(clip, file, float(start) if start else None, float(end) if end else None)
            # "" marks a name of different clips.
            keys[mark] = key if keys.get(mark, key) == key else ""
    return Shared(keys)


def file_name(data: bytes) -> str:
    """What a list is called in a store."""
    return f"{hashlib.blake2b(data, digest_size=8).hexdigest()}.csv"


def written(entries: Iterable[Entry]) -> bytes:
    """The content of ``clips.csv``; of paths and of ids that are paths of one machine only the last part."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for clip, path, start, end, key in entries:
        segment = ["" if edge is None else repr(float(edge)) for edge in (start, end)]
        writer.writerow([portable(clip), PurePath(path).name, *segment, key])
    return text.getvalue().encode("utf-8", "surrogateescape")


def portable(clip: str) -> str:
    """An id without the machine that it may name: of a path from a root or upwards only the last part."""
    return re.split(r"[/\\]", clip)[-1] if _PLACE.match(clip) else clip


def checked(data: bytes, name: str, report: Report) -> list[str]:
    """The keys of a list, all its rows checked; what is wrong goes to the report."""
    keys: list[str] = []
    seen: set[tuple[str, ...]] = set()
    reader = _reader(data)
    try:
        if tuple(next(reader, ())) != COLUMNS:
            report.add(name, f"the columns are not {', '.join(COLUMNS)}", 1)
            return []
        while block := [(reader.line_num, row) for row in islice(reader, _BLOCK)]:
            keys += _checked(block, name, report, seen)
    except csv.Error as error:
        report.add(name, f"not CSV: {error}", reader.line_num)
    if not keys and not report.count:
        report.add(name, "it lists no clips")
    return keys


def _checked(block: list[tuple[int, list[str]]], name: str, report: Report, seen: set[tuple[str, ...]]) -> list[str]:
    for line, row in block:
        if len(row) != len(COLUMNS):
            report.add(name, f"{len(row)} fields instead of {len(COLUMNS)}", line)
        elif tuple(row) in seen:
            report.add(name, f"the clip {shorten(row[0])} is there twice", line)
        seen.add(tuple(row))
    whole = [(line, row) for line, row in block if len(row) == len(COLUMNS)]
    names = ("id", "path", "start", "end", "key")
    columns = {name: [row[place] for _, row in whole] for place, name in enumerate(names)}
    rows = Rows(name, "csv", "", dict(columns), [line for line, _ in whole], {"path": "file"})
    for column in ("id", "path"):
        texts(rows, column, report)
    times(rows, report)
    for number, (file, key) in enumerate(zip(columns["path"], columns["key"], strict=True)):
        if "/" in file:
            rows.tell(report, number, "path", f"{shorten(file)} is not a base name")
        if not _KEY.fullmatch(key):
            rows.tell(report, number, "key", f"{shorten(key)} is not a key of 32 hexadecimal digits")
    return [key for key in columns["key"] if _KEY.fullmatch(key)]


def _reader(data: bytes) -> Any:
    return csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""), strict=True)


def _mark(clip: str, path: str, start: float | None, end: float | None) -> bytes:
    about = [portable(clip), PurePath(path).stem, float(start or 0), None if end is None else float(end)]
    return hashlib.blake2b(json.dumps(about).encode(), digest_size=16).digest()
