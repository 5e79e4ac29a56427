"""``Rows``: one input as written, and the checks that turn its cells into the columns of a manifest."""

import math
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import numpy as np

from mmmos.axes import AXES, LONG_NAMES, find_axis
from mmmos.errors import InputError, Problem, did_you_mean, shorten

_ALIASES = {
    "id": ("sample_id", "id"),
    "path": ("data_path", "path"),
    "start": ("start", "start_time"),
    "end": ("end", "end_time"),
    **{name: (name,) for name in ("domain", "system", "group")},
}
ROLES = {alias: role for role, aliases in _ALIASES.items() for alias in aliases}

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOMAIN_ID = re.compile(r"audiomos\d+-track\d+-(audio|music|speech)-")
_SYSTEM_ID = re.compile(r"(?:^|-)(sys[A-Za-z0-9]+)-utt")
_VIDEO = re.compile(r"[A-Za-z0-9_-]{11}")
_DOMAINS = {"audio": "sound", "music": "music", "speech": "speech"}
_DATA_SETS = {
    "EARS": "speech",
    "LibriTTS": "speech",
    "MUSDB18": "music",
    "musiccaps": "music",
    "cv-corpus": "speech",
    "unbalanced_train_segments": "sound",
    "PAM": None,
}


class Report:
    """The problems found so far: the first ``limit`` are kept, all are counted."""

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0
        self.problems: list[Problem] = []

    def add(self, file: str, what: str, line: int | None = None, column: str | None = None) -> None:
        """Note one problem."""
        self.count += 1
        if len(self.problems) < self.limit:
            self.problems.append(Problem(file, what, line, column))

    def stop(self) -> None:
        """Raise ``InputError`` if there was any problem."""
        if self.count:
            raise InputError(self.problems, self.count - len(self.problems))


@dataclass
class Rows:
    """One input: ``columns`` maps a column to one raw value per row, None where a row has none.

    Known columns go by their names in a manifest (``id``, ``path``, ``PQ``, …), others by their own; ``shown`` maps
    each to its name in the file. ``kind`` is "csv", "jsonl", "scp", "list", "found" (audio on disk) or "frame".
    ``lines`` are the rows' line numbers, empty where there are none. Relative paths are relative to ``folder``.
    """

    file: str
    kind: str
    folder: str
    columns: dict[str, list[Any]] = field(default_factory=dict)
    lines: Sequence[int] = ()
    shown: dict[str, str] = field(default_factory=dict)
    header_line: int = 1

    def line(self, row: int) -> int | None:
        """Line number of a row, None where rows have none."""
        return self.lines[row] if self.lines else None

    def tell(self, report: Report, row: int, name: str, what: str) -> None:
        """Report what is wrong with one cell."""
        report.add(self.file, what, self.line(row), self.shown.get(name, name))


def canonical(name: str) -> str:
    """The name in a manifest of a column of a file: a known role, an axis, or the name itself."""
    return ROLES.get(name.strip().lower()) or find_axis(name) or name


def check_columns(rows: Rows, report: Report) -> bool:
    """Whether ``id`` (save in JSONL) and ``path`` are there and no other column has nearly the name of an axis."""
    before = report.count
    other = [rows.shown[name] for name in rows.columns if name not in ROLES.values() and name not in AXES]
    for role in ("id", "path") if rows.kind != "jsonl" else ("path",):
        if role not in rows.columns:
            wanted = " or ".join(map(repr, _ALIASES[role]))
            guess = next((near for alias in _ALIASES[role] if (near := did_you_mean(alias, other))), None)
            hint = f"; is it {guess!r}?" if guess else "."
            present = ", ".join(map(shorten, rows.shown.values()))
            report.add(
                rows.file,
                f"no column {wanted}{hint} The columns are: {present}",
                rows.header_line if rows.lines else None,
            )
    missing = [axis for axis in AXES if axis not in rows.columns]
    for name in other:
        axis = _nearly_an_axis(name, missing)
        if axis:
            row = next((row for row, value in enumerate(rows.columns[name]) if value is not None), 0)
            line = rows.line(row) if rows.kind == "jsonl" else rows.header_line
            what = f"nearly the name of an axis; did you mean {LONG_NAMES[axis]!r} or {axis!r}? Otherwise rename it"
            report.add(rows.file, what, line, name)
    return report.count == before


def _nearly_an_axis(name: str, missing: Sequence[str]) -> str | None:
    """The axis that a name looks misspelt from: close to a long name, or to the short name of the only missing axis."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    longs = {long.lower(): axis for axis, long in LONG_NAMES.items()}
    if any(plain.startswith(f"{long}_") or plain.endswith(f"_{long}") for long in longs):
        return None
    short = plain.replace("_", "").upper()
    if short in AXES:
        return short
    if len(missing) == 1 and len(short) == 2 and set(short) & set(missing[0]):
        return missing[0]
    close = get_close_matches(plain, longs, n=1, cutoff=0.8)
    return longs[close[0]] if close else None


@lru_cache(maxsize=2**14, typed=True)
def number(raw: str | float | None) -> float | str:
    """The finite number in a cell, NaN for an empty one; otherwise a sentence on what is wrong with it."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return math.nan
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return f"{shorten(raw)} is not a number"
    if isinstance(raw, str) and not _NUMBER.fullmatch(raw.strip(" ")):
        comma = _NUMBER.fullmatch(raw.strip(" ").replace(",", ".", 1))
        return f"{shorten(raw)} is not a number" + ("; a decimal comma? Write a point" if comma else ", such as 6.3")
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    return value if math.isfinite(value) else f"{shorten(raw)} is not a finite number"


def texts(rows: Rows, name: str, report: Report, skip: Container[int] = ()) -> list[str]:
    """A column of ids or paths, verbatim; an empty cell, one that is not text, or a control character is a problem.

    Names of files that were found in a folder are what they are. Rows in ``skip`` are not checked. Cells that are not
    text come back as "", so that the other checks can go on.
    """
    column = rows.columns[name]
    for row, value in enumerate(column):
        if row in skip or rows.kind == "found":
            continue
        if not isinstance(value, str):
            empty = "empty" if value is None else f"{shorten(value)} is not text; write it in quotes"
            rows.tell(report, row, name, empty)
        elif not value or value.isspace():
            rows.tell(report, row, name, "empty")
        elif found := _CONTROL.search(value):
            rows.tell(report, row, name, f"{shorten(value)} holds the control character {found[0]!r}")
        elif name == "path" and "://" in value:
            rows.tell(report, row, name, f"{shorten(value)} is a URL; download the audio and give its path")
    return [value if isinstance(value, str) else "" for value in column]


def optional_texts(rows: Rows, name: str, report: Report) -> list[str | None]:
    """A column of names, None where empty; whole numbers become text, anything else is a problem."""
    found: list[str | None] = []
    for row, value in enumerate(rows.columns.get(name, [None] * len(rows.columns["path"]))):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (value is None or whole or isinstance(value, str)):
            rows.tell(report, row, name, f"{shorten(value)} is not text; write it in quotes")
        found.append(str(value) if whole else value or None)
    return found


def times(rows: Rows, report: Report) -> dict[str, np.ndarray]:
    """``start`` and ``end`` in seconds, float64, NaN where empty; {} when neither column is there.

    Negative times, and an end that is not after its start, are problems.
    """
    if not {"start", "end"} & set(rows.columns):
        return {}
    found = {}
    for name in ("start", "end"):
        values = found[name] = np.full(len(rows.columns["path"]), np.nan)
        for row, raw in enumerate(rows.columns.get(name, ())):
            value = _rating(raw, 0.0, math.inf)
            if isinstance(value, str):
                rows.tell(report, row, name, f"{value} (allowed: seconds, from 0)")
            else:
                values[row] = value
    for row in np.flatnonzero(found["end"] <= np.nan_to_num(found["start"])).tolist():
        start, end = np.nan_to_num(found["start"][row]), found["end"][row]
        rows.tell(report, row, "end", f"the segment ends at {end} s but starts at {start} s; end must be greater")
    return found


def scores(
    rows: Rows, scale: tuple[float, float], report: Report
) -> tuple[dict[str, np.ndarray], dict[str, list[Any]]]:
    """The axes, float64, NaN where unlabelled, and ``{axis}_ratings`` for those with lists: tuples of floats, or None.

    A list of ratings is scored by its mean. What is no number or outside ``scale`` is a problem, as is an axis that is
    empty in a row where another has a score, unless it is empty in the whole file (or the rows are a DataFrame's).
    """
    size = len(rows.columns["path"])
    values = {axis: np.full(size, np.nan) for axis in AXES}
    given = {axis: np.zeros(size, bool) for axis in AXES}
    ratings: dict[str, list[Any]] = {}
    for axis in AXES:
        for row, raw in enumerate(rows.columns.get(axis, ())):
            score = _score(raw, *scale)
            given[axis][row] = score == score
            if isinstance(score, str):
                rows.tell(report, row, axis, f"{score} (allowed: {scale[0]:g} to {scale[1]:g})")
            elif isinstance(score, tuple):
                ratings.setdefault(f"{axis}_ratings", [None] * size)[row] = score
                values[axis][row] = math.fsum(score) / len(score)
            else:
                values[axis][row] = score
    some = np.logical_or.reduce(list(given.values()))
    for axis in AXES if rows.kind != "frame" else ():
        for row in np.flatnonzero(some & ~given[axis]).tolist() if given[axis].any() else ():
            rows.tell(report, row, axis, "empty, though other axes of this row have scores; fill it or empty them all")
    return values, ratings


def _score(raw: object, low: float, high: float) -> float | tuple[float, ...] | str:
    """The score in a cell, the ratings when it is a list, NaN when it is empty, or what is wrong with it."""
    if not isinstance(raw, list | tuple):
        return _rating(raw, low, high)
    ratings = []
    for one in raw:
        rating = _rating(one, low, high)
        if isinstance(rating, str):
            return rating
        ratings.append(rating)
    if not ratings or any(map(math.isnan, ratings)):
        return "an empty rating" if ratings else "an empty list of ratings"
    return tuple(ratings)


def _rating(raw: Any, low: float, high: float) -> float | str:
    value = f"{shorten(raw)} is not a number" if isinstance(raw, list | tuple | dict) else number(raw)
    if isinstance(value, str) or not (value < low or value > high):
        return value
    return f"{shorten(raw)} is out of range"


def derive(name: str, path: str) -> tuple[str | None, str | None, str]:
    """``domain``, ``system`` and ``group`` from an id and a path as written; None when unknown, the group then the id.

    A group is what folds must not split: a MUSDB18 track, an EARS or LibriTTS speaker, the clips of one PAM prompt, a
    YouTube video (musiccaps, AudioSet, and PAM's music, whose prompts are musiccaps videos).
    """
    named, in_id = _DOMAIN_ID.match(name), _SYSTEM_ID.search(name)
    parts = path.split("/")
    domain = system = group = None
    for place in range(len(parts) - 2, -1, -1):
        data_set = "cv-corpus" if parts[place].startswith("cv-corpus") else parts[place]
        if data_set in _DATA_SETS:
            domain, system, group = _in_data_set(data_set, parts[place + 1 : -1], parts[-1])
            break
    return _DOMAINS[named[1]] if named else domain, in_id[1] if in_id else system, group or name


def _in_data_set(data_set: str, folders: list[str], file: str) -> tuple[str | None, str | None, str | None]:
    """What ``derive`` wants to know of a file in ``folders`` of a known data set; None for what cannot be told."""
    if data_set == "PAM":
        if len(folders) != 3 or folders[0] != "human_eval" or folders[1] not in ("audio", "music"):
            return None, None, None
        video = _VIDEO.fullmatch(file.rpartition(".")[0]) if folders[1] == "music" else None
        return _DOMAINS[folders[1]], "/".join(folders[1:]), video[0] if video else f"{folders[1]}/{file}"
    group = None
    if data_set in ("musiccaps", "unbalanced_train_segments") and (video := _VIDEO.match(file)):
        group = video[0]
    elif data_set == "MUSDB18" and len(folders) > 1:
        group = f"MUSDB18/{folders[-1]}"
    elif data_set == "EARS" and folders and re.fullmatch(r"p\d+", folders[0]):
        group = f"EARS/{folders[0]}"
    elif data_set == "LibriTTS" and (speaker := re.match(r"\d+(?=_)", file)):
        group = f"LibriTTS/{speaker[0]}"
    return _DATA_SETS[data_set], None, group
