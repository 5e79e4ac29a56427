"""Scores as files: JSON lines, the lines of Audiobox's ``audio-aes``, CSV and Parquet.

A *row* is one input's ``Score.row`` with the ``domain`` that it was scored in. JSON lines hold rows whole; CSV and
Parquet hold a flat record for each row, or for each of its segments, under the names of ``columns``.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmos.axes import AXES
from mmmos.errors import SetupError, UnknownName, UsageError

if TYPE_CHECKING:
    from mmmos.scoring.inputs import Clip
    from mmmos.scoring.score import Score

FORMATS = ("jsonl", "aes", "csv", "parquet")
# Audiobox's keys in Audiobox's order.
AES = ("CE", "CU", "PC", "PQ")

_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}

Row = Mapping[str, Any]


def format_of(name: str | None, to: Path | None) -> str:
    """The format that is named, otherwise that of the file's suffix, otherwise "jsonl".

    Raises ``UnknownName``; ``UsageError`` for Parquet without a file, ``SetupError`` for Parquet without pyarrow.
    """
    found = name or (_SUFFIXES.get(to.suffix.lower(), "jsonl") if to else "jsonl")
    if found not in FORMATS:
        raise UnknownName("format", found, FORMATS)
    if found == "parquet" and to is None:
        raise UsageError("Parquet is no text for standard output; name a file: --to scores.parquet.")
    if found == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise SetupError("Parquet needs the package pyarrow: pip install 'mmmos[parquet]'.") from None
    return found


def input_of(clip: "Clip") -> dict[str, Any]:
    """The part of a row that says of what it is: id, path, start, end, domain."""
    edges = {
        name: edge if edge is None else round(float(edge), 6)
        for name, edge in (("start", clip.start), ("end", clip.end))
    }
    return {"id": clip.id, "path": clip.path, **edges, "domain": clip.domain}


def row_of(score: "Score", axes: Sequence[str], domain: str | None) -> dict[str, Any]:
    """The row of a score: its own, with ``domain`` after ``end``."""
    row = score.row(axes)
    first = {key: row.pop(key) for key in ("id", "path", "start", "end")}
    return {**first, "domain": domain, **row}


def line(row: Row) -> bytes:
    """A row as one line of JSON in UTF-8; halves of characters, which names of files may hold, are escaped."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text).encode() + b"\n"


def columns(axes: Sequence[str], *, segments: bool) -> list[str]:
    """The columns of CSV and Parquet."""
    cut = ["segment_start", "segment_end"] if segments else []
    scores = [axis for axis in AXES if axis in axes]
    spread = [f"{axis}_spread" for axis in scores]
    return ["id", "path", "start", "end", "domain", "seconds", *cut, *scores, *spread, "flags", "reason", "detail"]


def records(row: Row, axes: Sequence[str], *, segments: bool) -> Iterator[dict[str, Any]]:
    """The flat records of a row: one, or one for each of its segments, whose scores they then hold.

    Flags are joined by spaces. An input without segments, since it was rejected, gives one record.
    """
    whole = {**row, "flags": " ".join(row["flags"])}
    parts = (row.get("segments") or [{"start": None, "end": None}]) if segments else [{}]
    for part in parts:
        cut = {f"segment_{key}" if key in ("start", "end") else key: value for key, value in part.items()}
        record = {**whole, **cut}
        yield {name: _encodable(record.get(name)) for name in columns(axes, segments=segments)}


def _encodable(value: Any) -> Any:
    """Text with escapes for halves of characters, which UTF-8 does not have; anything else as it is."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def pieces(rows: Iterable[Row], form: str, axes: Sequence[str], *, segments: bool) -> Iterator[bytes]:
    """The bytes of rows as "jsonl", "aes" or "csv", one piece for each row; CSV begins with a header."""
    if form == "csv":
        yield from _csv(rows, axes, segments)
        return
    for row in rows:
        yield line(row if form == "jsonl" else {axis: row.get(axis) for axis in AES})


def _csv(rows: Iterable[Row], axes: Sequence[str], segments: bool) -> Iterator[bytes]:
    """CSV as RFC 4180 has it, with LF as line end. Cells are data: those that begin with = stand as they are, too."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(axes, segments=segments), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerows(records(row, axes, segments=segments))
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    # Without rows, the header alone.
    if text.tell():
        yield text.getvalue().encode()


def parquet(rows: Iterable[Row], axes: Sequence[str], *, segments: bool) -> bytes:
    """A Parquet file of all rows: numbers float64, everything else text, null where unknown."""
    import pandas as pd

    flat = (record for row in rows for record in records(row, axes, segments=segments))
    table = pd.DataFrame(flat, columns=columns(axes, segments=segments))
    words = ("id", "path", "domain", "flags", "reason", "detail")
    kinds = {name: "string" if name in words else "float64" for name in table}
    file = io.BytesIO()
    table.astype(kinds).to_parquet(file, engine="pyarrow", index=False)
    return file.getvalue()
