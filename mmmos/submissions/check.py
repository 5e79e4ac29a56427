"""Checking a submission before it is sent: a reader of its own that shares no code with the writer.

Conventions
    Every problem names the file, the line (from 1, a header being line 1) and the column, where there is one.
    Numbers are plain decimals (``5``, ``5.25``): exponents, signs of plus, spaces, ``nan`` and ``inf`` are problems,
    since scorers of past challenges skip rows that hold them.

Contents
    ``check_submission`` lists every problem of an answer file, a zip or a folder; ``read_answer`` reads a valid one.
"""

import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mmmos.errors import InputError, Problem
from mmmos.submissions.archive import answer_bytes, archives
from mmmos.submissions.formats import PLAIN_NUMBER, Format, read_format

SHOWN = 10
READ_LIMIT = 20


def check_submission(
    path: str | Path,
    *,
    format: str | Path | Format = "audiomos2025-track2",
    clips: pd.DataFrame | Sequence[str] | None = None,
    workspace: str | Path = ".",
) -> list[Problem]:
    """Every problem of a submission; an empty list means that it can be sent.

    ``path``: the answer file, a zip of any name that holds it, or the folder of both. ``clips``: manifest or list of
    ids that must be answered; without it, ids must match the format's ``id_pattern`` and ``rows``.
    Never raises for what the file holds; a file that is not there is a problem too. Raises ``UnknownName`` for an
    unknown format, ``RecipeError`` for one that cannot be read.

    >>> mmmos.check_submission(answer, clips=evaluation)
    []
    """
    rules, path = read_format(format, workspace), Path(path)
    if path.is_dir():
        return _check_folder(path, rules, clips)
    data, problems = answer_bytes(path, rules)
    if data is None:
        return problems
    if not zipfile.is_zipfile(path) and path.name != rules.file:
        problems.append(Problem(str(path), f"the answer file must be called {rules.file}."))
    return problems + _check_bytes(data, str(path), rules, clips)


def read_answer(path: str | Path, format: str | Path | Format, workspace: str | Path = ".") -> pd.DataFrame:
    """Scores of an answer file or its zip: float64, indexed by ``id``, columns ``Format.axes``.

    Whether the clips are those of a list is not asked here. Raises ``InputError`` naming the first twenty problems.
    """
    rules, path = read_format(format, workspace), Path(path)
    data, problems = answer_bytes(path, rules)
    answer = _parse(data, str(path), rules) if data is not None else _Answer(str(path))
    problems = problems + answer.problems
    if problems:
        raise InputError(problems[:READ_LIMIT], max(0, len(problems) - READ_LIMIT))
    index = pd.Index([clip for _, clip in answer.ids], name="id", dtype=object)
    return pd.DataFrame(answer.scores, index=index, columns=list(rules.axes), dtype=float)


def _check_folder(folder: Path, rules: Format, clips: pd.DataFrame | Sequence[str] | None) -> list[Problem]:
    data, problems = answer_bytes(folder / rules.file, rules)
    if data is not None:
        problems = problems + _check_bytes(data, str(folder / rules.file), rules, clips)
    for archive in archives(folder, rules):
        packed, found = answer_bytes(archive, rules)
        problems = problems + found
        if data is not None and packed is not None and packed != data:
            problems.append(Problem(str(archive), f"holds another {rules.file} than the folder. Write both again."))
    return problems


@dataclass
class _Answer:
    """What a parsed file holds: (line, id) and scores of every readable row, and its problems."""

    file: str
    ids: list[tuple[int, str]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, what: str, line: int | None = None, column: str | None = None) -> None:
        self.problems.append(Problem(self.file, what, line, column))


def _check_bytes(data: bytes, name: str, rules: Format, clips: pd.DataFrame | Sequence[str] | None) -> list[Problem]:
    answer = _parse(data, name, rules)
    if clips is None:
        _check_own_ids(answer, rules)
    else:
        _check_listed(
            answer, [str(clip) for clip in (clips.index if isinstance(clips, pd.DataFrame) else clips)], rules
        )
    return answer.problems


def _parse(data: bytes, name: str, rules: Format) -> _Answer:
    answer = _Answer(name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        answer.add(f"is not UTF-8: byte 0x{data[error.start]:02x}.", data.count(b"\n", 0, error.start) + 1)
        return answer
    if text.startswith("\ufeff"):
        answer.add("begins with a byte order mark; save as UTF-8 without BOM.", 1)
        text = text[1:]
    lines = _lines(text, answer, rules)
    if not lines:
        answer.add("is empty.")
        return answer
    start = _header(lines[0], answer, rules)
    first: dict[str, int] = {}
    for number, line in enumerate(lines[start:], start=start + 1):
        if not line.strip():
            answer.add("is an empty line.", number)
            continue
        _row(line, number, answer, rules, first)
    if not answer.ids and not answer.problems:
        answer.add("holds no scores.")
    return answer


def _lines(text: str, answer: _Answer, rules: Format) -> list[str]:
    lines = text.split("\n")
    if lines[-1]:
        answer.add("does not end with a newline.", len(lines))
    else:
        lines.pop()
    returns = [number for number, line in enumerate(lines, start=1) if line.endswith("\r")]
    if rules.newline == "lf" and returns:
        answer.add(f"{len(returns)} lines end with CRLF; the format wants LF.", returns[0])
    if rules.newline == "crlf" and len(returns) < len(lines):
        bare = next(number for number, line in enumerate(lines, start=1) if not line.endswith("\r"))
        answer.add(f"{len(lines) - len(returns)} lines end with LF; the format wants CRLF.", bare)
    lines = [line.removesuffix("\r") for line in lines]
    if inside := [number for number, line in enumerate(lines, start=1) if "\r" in line]:
        answer.add("holds a carriage return where the line does not end; lines end with LF or CRLF.", inside[0])
    return lines


def _header(line: str, answer: _Answer, rules: Format) -> int:
    """Number of header lines, 0 or 1: a first line is a header when no field after the first is a number."""
    fields = _fields(line, rules) or []
    if len(fields) < 2 or any(_is_number(text) for text in fields[1:]):
        if rules.header == "required":
            answer.add(f"the header {rules.delimiter.join(rules.columns)!r} is missing.", 1)
        return 0
    if rules.header == "forbidden":
        answer.add("has a header, which the format forbids.", 1)
    elif tuple(fields) != rules.columns:
        answer.add(f"the header must be {rules.delimiter.join(rules.columns)!r}; got {line!r}.", 1)
    return 1


def _row(line: str, number: int, answer: _Answer, rules: Format, first: dict[str, int]) -> None:
    """Read one line into ``answer``; ``first`` maps each id to the line where it first stood."""
    fields = _fields(line, rules)
    if fields is None:
        answer.add("has a quote that is not closed, or text after it.", number)
        return
    clip = fields[0]
    if not clip or clip != clip.strip():
        answer.add(f"the id {clip!r} is empty or has spaces around it.", number, rules.id)
    if not rules.allows_id(clip):
        answer.add(f"the id {clip!r} ends in a file's extension, which the format forbids.", number, rules.id)
    if clip in first:
        answer.add(f"the id {clip!r} stands on line {first[clip]} and here again.", number, rules.id)
    first.setdefault(clip, number)
    answer.ids.append((number, clip))
    if len(fields) != len(rules.columns):
        count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        wanted = f"{', '.join(rules.columns)}, with {rules.delimiter!r} between them"
        answer.add(f"has {count}; {len(rules.columns)} are needed: {wanted}.", number)
        return
    scores = []
    for column, text in zip(rules.columns[1:], fields[1:], strict=True):
        if problem := _number_problem(text, rules):
            answer.add(problem, number, column)
        else:
            scores.append(float(text))
    answer.scores.append(scores)


def _number_problem(text: str, rules: Format) -> str | None:
    low, high = rules.range
    if not PLAIN_NUMBER.fullmatch(text):
        if not _is_number(text):
            return f"{text!r} is not a number."
        value = float(text)
        if not math.isfinite(value):
            return f"{text!r} is not a finite number."
        if "e" in text.lower():
            return f"{text!r} has an exponent, which some scorers skip; write {value:.{rules.decimals}f}."
        return f"{text!r} is not a plain decimal; write {value:.{rules.decimals}f}."
    if text.startswith("-") and float(text) == 0:
        return f"{text!r} has a sign; write 0."
    if not low <= float(text) <= high:
        return f"{text} is outside {low:g} to {high:g}."
    decimals = len(text.partition(".")[2])
    if decimals < rules.fewest_decimals:
        return f"{text} has too few decimals; the least is {rules.fewest_decimals}."
    if rules.most_decimals is not None and decimals > rules.most_decimals:
        return f"{text} has too many decimals; the most is {rules.most_decimals}."
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fields(line: str, rules: Format) -> list[str] | None:
    """Fields of one line; None where a quote is not closed."""
    if not (rules.quoting and '"' in line):
        return line.split(rules.delimiter)
    fields, rest = [], rules.delimiter + line
    pattern = re.compile(rf'{re.escape(rules.delimiter)}(?:"((?:[^"]|"")*)"|([^{re.escape(rules.delimiter)}"]*))')
    while rest:
        match = pattern.match(rest)
        if match is None or (match.end() < len(rest) and rest[match.end()] != rules.delimiter):
            return None
        fields.append(match[1].replace('""', '"') if match[1] is not None else match[2])
        rest = rest[match.end() :]
    return fields


def _check_own_ids(answer: _Answer, rules: Format) -> None:
    """Ids against the format's pattern and number of rows, where no list is given."""
    for number, clip in answer.ids:
        if rules.id_pattern and not re.fullmatch(rules.id_pattern, clip):
            answer.add(f"the id {clip!r} is not one of this challenge's.", number, rules.id)
    if rules.rows is not None and answer.ids and len(answer.ids) != rules.rows:
        answer.add(f"has {len(answer.ids)} rows; the challenge has {rules.rows} clips.")


def _check_listed(answer: _Answer, wanted: list[str], rules: Format) -> None:
    """Ids against a list: unknown, missing, in another order."""
    known, found = set(wanted), {clip for _, clip in answer.ids}
    for number, clip in answer.ids:
        if clip not in known:
            answer.add(f"the id {clip!r} is not in the list of clips.", number, rules.id)
    missing = [clip for clip in dict.fromkeys(wanted) if clip not in found]
    if missing:
        more = f", … and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        named = ", ".join(repr(clip) for clip in missing[:SHOWN])
        answer.add(f"{len(missing)} of {len(known)} clips are missing: {named}{more}.")
    if rules.order == "list" and found == known and len(answer.ids) == len(known):
        for (number, clip), expected in zip(answer.ids, wanted, strict=False):
            if clip != expected:
                answer.add(f"the order differs from the list: {clip!r} stands where {expected!r} belongs.", number)
                return
