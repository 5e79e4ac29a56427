"""From a file, folder, pattern or standard input that lists clips to ``Rows``: values as written."""

# Paths stay text, so that ids are verbatim and a name that no file can have is an ordinary "does not exist".
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH120, PTH207, PTH208

import csv
import glob
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmmos.errors import did_you_mean, shorten
from mmmos.manifest.rows import ROLES, Report, Rows, canonical

AUDIO_EXTENSIONS = (
    *("wav", "flac", "aiff", "aif", "aac", "amr", "ape", "au", "caf", "m4a", "mka", "mp2", "mp3", "oga", "ogg", "opus"),
    *("rf64", "tta", "w64", "webm", "wma", "wv"),
)
MAX_LINE, MAX_DEPTH, MAX_COLUMNS = 2**20, 16, 1000

_KINDS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".scp": "scp"}
_FOREIGN = {
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"PK\x03\x04": "a zip or Excel file; export the table as CSV in UTF-8",
}


class _Unreadable(Exception):
    """An input that is no table at all: what is wrong, or nothing when the report says it already."""

    def __init__(self, what: str = "", line: int | None = None) -> None:
        super().__init__(what)
        self.what, self.line = what, line


def read_rows(source: str, report: Report) -> Rows | None:
    """The rows of one input; None when it cannot be read as a table, and ``report`` then says why.

    ``source`` is a file, a folder, a glob pattern, or "-" for standard input.
    """
    name = "<stdin>" if source == "-" else source
    try:
        return _read(source, name, report)
    except OSError as error:
        report.add(name, f"cannot be read: {error.strerror}")
    except _Unreadable as error:
        if error.what:
            report.add(name, error.what, error.line)
    return None


def _read(source: str, name: str, report: Report) -> Rows:
    """The rows of one input, by what lies at ``source``."""
    if source == "-":
        return _parse(name, "", Path.cwd(), sys.stdin.buffer.read(), report)
    if os.path.isdir(source):
        return _found(name, source, _scan(source, report))
    if os.path.exists(source):
        path = Path(source)
        if is_audio(source):
            return Rows(name, "found", str(path.parent.absolute()), {"id": [source], "path": [path.name]})
        return _parse(name, path.suffix.lower(), path.parent.absolute(), path.read_bytes(), report)
    magic = re.search(r"[*?[]", source)
    if magic:
        folder = os.path.dirname(source[: magic.start()]) or "."
        return _found(name, folder, filter(is_audio, glob.glob(source, recursive=True)))
    raise _Unreadable(_absent(source))


def is_audio(name: str) -> bool:
    """Whether a file name ends in one of ``AUDIO_EXTENSIONS``, in any case."""
    return name.rpartition(".")[2].lower() in AUDIO_EXTENSIONS and "." in name


def _absent(source: str) -> str:
    """What to say of an input that does not exist."""
    path = Path(source)
    try:
        guess = did_you_mean(path.name, os.listdir(path.parent))
    except (OSError, ValueError):
        return "does not exist, nor does its folder"
    return f"does not exist; did you mean {str(path.with_name(guess))!r}?" if guess else "does not exist"


def _scan(folder: str, report: Report) -> Iterator[str]:
    """Audio files below a folder, without hidden ones; links are followed, each folder is entered once."""
    seen = set()

    def unlisted(error: OSError) -> None:
        report.add(str(error.filename), f"cannot be listed: {error.strerror}")

    for base, folders, files in os.walk(folder, onerror=unlisted, followlinks=True):
        status = os.stat(base)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(base, name) for name in files if is_audio(name) and not name.startswith("."))


def _found(source: str, folder: str, names: Iterable[str]) -> Rows:
    """Audio files found on disk, their ids relative to ``folder`` with ``/`` between the parts, sorted."""
    ids = sorted(os.path.relpath(name, folder).replace(os.sep, "/") for name in names)
    if not ids:
        raise _Unreadable(f"no audio file found; extensions looked for: {', '.join(AUDIO_EXTENSIONS)}")
    return Rows(source, "found", str(Path(folder).absolute()), {"id": ids, "path": list(ids)})


def _parse(name: str, extension: str, folder: Path, data: bytes, report: Report) -> Rows:
    """The rows of a text; its kind is decided by the extension, then by the first line."""
    text = _decode(data)
    first = text.lstrip()[:MAX_LINE].partition("\n")[0].strip()
    kind = _KINDS.get(extension)
    if kind == "jsonl" and first.startswith("["):
        raise _Unreadable("a JSON array; write one object {…} per line, without brackets and commas around them", 1)
    if kind is None and first.startswith("{"):
        kind = "jsonl"
    elif kind is None:
        cells = [cell.strip(' "').lower() for cell in re.split(r"[,;\t]", first)]
        kind = "csv" if len(cells) > 1 and any(ROLES.get(cell) in ("id", "path") for cell in cells) else "list"
    rows = Rows(name, kind, str(folder))
    {"csv": _csv, "jsonl": _jsonl, "scp": _scp, "list": _list}[kind](rows, text, report)
    return rows


def _decode(data: bytes) -> str:
    """UTF-8 text without its byte order mark; anything else, and nothing at all, is unreadable."""
    for mark, what in _FOREIGN.items():
        if data.startswith(mark):
            raise _Unreadable(f"not UTF-8 but {what}")
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise _Unreadable("NUL byte: a binary file, or UTF-16 text; save it as UTF-8", line)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts positions behind the mark
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        what = f"byte 0x{error.object[error.start]:02X} is not UTF-8; if this is Latin-1 or similar, save it as UTF-8"
        raise _Unreadable(what, data.count(b"\n", 0, start) + 1) from None
    if not text or text.isspace():
        raise _Unreadable("the file is empty")
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and lines without their ends; blank lines are skipped."""
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if not line.isspace():
            yield number, line.rstrip("\r\n")


def _list(rows: Rows, text: str, report: Report) -> None:
    """One id per line, which is also its path."""
    rows.lines, ids = map(list, zip(*_lines(text), strict=True))
    rows.columns = {"id": ids, "path": list(ids)}


def _scp(rows: Rows, text: str, report: Report) -> None:
    """Kaldi's ``utterance-id path``; the path may hold spaces. Commands (``… |``) are refused."""
    before, found = report.count, []
    for number, line in _lines(text):
        parts = line.split(None, 1)
        if len(parts) < 2:
            report.add(rows.file, f"no path after {shorten(line)}; a line is 'utterance-id path'", number)
        elif line.rstrip().endswith("|"):
            report.add(rows.file, f"{shorten(parts[1])} is a command; only paths of files are read", number)
        else:
            found.append((number, parts[0], parts[1].rstrip()))
    if report.count > before:
        raise _Unreadable
    rows.lines, rows.columns["id"], rows.columns["path"] = map(list, zip(*found, strict=True))


def _csv(rows: Rows, text: str, report: Report) -> None:
    """Comma-separated rows below a header, quoted as usual (RFC 4180); blank lines are skipped."""
    before = report.count
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    table: list[list[str]] = []
    lines, start = [], 1
    try:
        for row in reader:
            if header and len(row) == len(header):
                table.append(row)
                lines.append(start)
            elif header and row:
                what = f"{len(row)} fields, but the header has {len(header)}; a field with a comma must be in quotes"
                report.add(rows.file, what, start)
            elif row:
                header, rows.header_line = row, start
                _check_header(rows, header, start, report)
            start = reader.line_num + 1
    except csv.Error as error:
        what = "a quoted field is never closed" if "end of data" in str(error) else str(error)
        if "field limit" in what:
            what = f"a field of more than {csv.field_size_limit()} characters; a quote that is never closed?"
        raise _Unreadable(what, start) from None
    if not table:
        raise _Unreadable("" if report.count > before else "no rows below the header", rows.header_line)
    names = [canonical(name) for name in header]
    rows.columns = {name: list(column) for name, column in zip(names, zip(*table, strict=True), strict=True)}
    rows.shown, rows.lines = dict(zip(names, header, strict=True)), lines


def _check_header(rows: Rows, header: list[str], line: int, report: Report) -> None:
    """A CSV header is separated by commas and names every column once, or it is unreadable."""
    before = report.count
    for mark, name in {";": "semicolons", "\t": "tabs"}.items():
        if len(header) == 1 and mark in header[0]:
            raise _Unreadable(f"columns are separated by {name}; use commas", line)
    first: dict[str, str] = {}
    for number, name in enumerate(header, 1):
        key = canonical(name)
        if not name.strip():
            report.add(rows.file, f"column {number} has no name", line)
        elif first.get(key) == name:
            report.add(rows.file, "the column is there twice", line, name)
        elif key in first:
            report.add(rows.file, f"names the same as column {first[key]!r}; keep one of them", line, name)
        first.setdefault(key, name)
    if report.count > before:
        raise _Unreadable


def _jsonl(rows: Rows, text: str, report: Report) -> None:
    """One JSON object per line; a column is there when any object has its key."""
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in _lines(text):
        try:
            raw = _record(line)
        except ValueError as error:
            report.add(rows.file, str(error), number)
            continue
        record = {canonical(key): value for key, value in raw.items()}
        if len(record) < len(raw):
            twice = [key for key in raw if sum(canonical(other) == canonical(key) for other in raw) > 1]
            report.add(rows.file, f"keys {', '.join(map(repr, twice))} mean the same; keep one of them", number)
        for key in raw:
            rows.shown.setdefault(canonical(key), key)
        if len(rows.shown) > MAX_COLUMNS:
            raise _Unreadable(f"more than {MAX_COLUMNS} different keys", number)
        records.append(record)
        lines.append(number)
    rows.columns = {name: [record.get(name) for record in records] for name in rows.shown}
    rows.lines = lines
    if not records:
        raise _Unreadable


def _record(line: str) -> dict[str, Any]:
    """The JSON object on one line; ``ValueError`` with a sentence for anything else."""
    if len(line) > MAX_LINE:
        raise ValueError(f"a line of {len(line)} characters; at most {MAX_LINE} are read")
    deep = f"nested deeper than {MAX_DEPTH} levels"
    try:
        value = _DECODER.decode(line)
        if line.count("{") + line.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise ValueError(deep)
    except json.JSONDecodeError as error:
        cut = " (is the line cut off?)" if error.pos >= len(line.rstrip()) or "Unterminated" in error.msg else ""
        more = " (one object per line)" if error.msg == "Extra data" else ""
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}{cut}{more}") from None
    except RecursionError:
        raise ValueError(deep) from None
    if not isinstance(value, dict):
        raise ValueError(f"{shorten(value)} is not a JSON object; one object {{…}} per line is read")
    return value


def _depth(value: object) -> int:
    """Levels of objects and lists in a JSON value, 0 for a number or text."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number; leave the key out, or write null")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)
