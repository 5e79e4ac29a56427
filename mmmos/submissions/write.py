"""Writing a submission: everything is validated first, and each file is written whole or not at all.

Conventions
    Predictions are a DataFrame indexed by clip id with a column for each score of the format, found by name. A score is
    written as a plain decimal with the format's number of decimals, never with an exponent, never as minus zero.
    Equal predictions give equal bytes, in the answer file, in the zip and in ``provenance.json``.
"""

import hashlib
import io
import logging
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

import mmmos
from mmmos.errors import InputError, UsageError
from mmmos.files import pretty_json, write_atomic
from mmmos.submissions.formats import Format, read_format

PROVENANCE = "provenance.json"
PACKAGES = ("numpy", "pandas", "scipy", "scikit-learn", "torch", "transformers", "nnAudio", "librosa")
SHOWN = 5
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)

log = logging.getLogger(__name__)


class Predictor(Protocol):
    """Anything that predicts scores for the clips of a manifest, such as an ensemble."""

    def predict(self, clips: pd.DataFrame) -> pd.DataFrame:
        """Scores indexed by clip id, one column per axis."""


def write_submission(
    predictions: pd.DataFrame | Predictor,
    clips: pd.DataFrame | Sequence[str] | None = None,
    *,
    format: str | Path | Format = "audiomos2025-track2",
    to: str | Path,
    header: bool | None = None,
    outside: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    workspace: str | Path = ".",
) -> Path:
    """Write the answer file, its zip where the format has one, and ``provenance.json`` into the folder ``to``.

    ``predictions``: DataFrame, or an object with ``predict(clips)``. ``clips``: manifest or list of ids that must be
    answered, in this order; without it the predictions' own ids and order, which then must match the format's
    ``id_pattern`` and ``rows``. ``header``, ``outside`` ("error", "clip"): in place of what the format says.
    ``provenance``: JSON-like mapping kept in ``provenance.json`` beside the answer's SHA-256 and package versions.

    Returns the path of the answer file. Raises ``InputError`` naming every problem, before anything is written;
    ``UsageError`` for options that the format or the arguments do not allow.

    >>> evaluation = clips[clips["set"] == "eval"]
    >>> answer = mmmos.write_submission(ensemble, evaluation, to="submissions/mine", outside="clip")
    >>> answer.name
    'answer.txt'
    """
    rules = read_format(format, workspace)
    frame = _predicted(predictions, clips)
    ids = _listed(clips) if clips is not None else frame.index
    scores, clipped = _validated(frame, ids, rules, outside or rules.outside, listed=clips is not None)
    text = answer_text(scores, rules, header=header)
    answer = text.encode(rules.encoding)
    if clipped:
        log.warning("%d scores lay outside %g to %g and were moved to its ends.", clipped, *rules.range)
    record = {
        "answer": {
            "clipped": clipped,
            "file": rules.file,
            "rows": len(scores),
            "sha256": hashlib.sha256(answer).hexdigest(),
        },
        "format": format if isinstance(format, str) else rules.title,
        "made_from": _plain(provenance or {}, "provenance"),
        "packages": package_versions(),
    }
    files = {rules.file: answer}
    if rules.archive:
        files[rules.archive] = zip_bytes(rules.file, answer)
    files[PROVENANCE] = pretty_json(record).encode()
    for name, data in files.items():
        write_atomic(Path(to) / name, data)
    return Path(to) / rules.file


def answer_text(scores: pd.DataFrame, rules: Format, *, header: bool | None = None) -> str:
    """The answer file's text: one line per row of validated ``scores`` (columns ``Format.axes``)."""
    lines = [rules.delimiter.join(rules.columns)] if rules.has_header(header) else []
    for clip, row in zip(scores.index, scores[list(rules.axes)].to_numpy(np.float64), strict=True):
        fields = [_quoted(clip, rules), *(_decimal(value, rules.decimals) for value in row)]
        lines.append(rules.delimiter.join(fields))
    return "".join(line + rules.line_end for line in lines)


def zip_bytes(name: str, data: bytes) -> bytes:
    """A zip with one file at its root; equal data give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name, _ZIP_DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        archive.writestr(entry, data, compresslevel=9)
    return buffer.getvalue()


def package_versions() -> dict[str, str]:
    """Versions of Python, this package and those that numbers depend on, as far as they are installed."""
    versions = {"python": ".".join(map(str, sys.version_info[:3])), "mmmos": mmmos.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _predicted(predictions: Any, clips: Any) -> pd.DataFrame:
    if isinstance(predictions, pd.DataFrame):
        return predictions
    if not callable(getattr(predictions, "predict", None)):
        kind = type(predictions).__name__
        raise UsageError(f"Predictions must be a DataFrame or have a method predict(clips); got {kind}.")
    if not isinstance(clips, pd.DataFrame):
        raise UsageError("A predictor needs the clips: pass the manifest as the second argument.")
    frame = predictions.predict(clips)
    if not isinstance(frame, pd.DataFrame):
        raise UsageError(f"predict(clips) must return a DataFrame indexed by id; got {type(frame).__name__}.")
    return frame


def _listed(clips: pd.DataFrame | Sequence[str]) -> pd.Index:
    return clips.index if isinstance(clips, pd.DataFrame) else pd.Index(list(clips), dtype=object)


def _validated(
    frame: pd.DataFrame, ids: pd.Index, rules: Format, outside: str, *, listed: bool
) -> tuple[pd.DataFrame, int]:
    """Finite float64 scores in the order of ``ids`` and how many were clipped; raises with every problem found."""
    if outside not in ("error", "clip"):
        raise UsageError(f'outside must be "error" or "clip"; got {outside!r}.')
    names: dict[str, list[Any]] = {}
    for column in frame.columns:
        if axis := rules.axis_of(str(column)):
            names.setdefault(axis, []).append(column)
    problems = [
        f"The predictions have {len(names.get(a, []))} columns for {a}; one is needed. "
        f"They have: {', '.join(map(str, frame.columns)) or 'none'}."
        for a in rules.axes
        if len(names.get(a, [])) != 1
    ]
    problems += _id_problems(frame.index, ids, rules, listed=listed)
    if problems:
        raise InputError(problems)
    scores = frame.loc[ids, [names[axis][0] for axis in rules.axes]].set_axis(list(rules.axes), axis=1)
    try:
        scores = scores.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError([f"The predictions must be numbers: {error}."]) from None
    low, high = rules.range
    beyond = (scores < low) | (scores > high)
    for axis in rules.axes:
        bad = scores.index[~np.isfinite(scores[axis])]
        problems += [f"{len(bad)} scores on {axis} are not finite numbers: {_some(bad)}."] if len(bad) else []
        out = scores.index[beyond[axis] & np.isfinite(scores[axis])]
        if len(out) and outside == "error":
            problems.append(
                f"{len(out)} scores on {axis} lie outside {low:g} to {high:g}: {_some(out)}. "
                'Calibrate the predictions, or pass outside="clip".'
            )
    if problems:
        raise InputError(problems)
    return scores.clip(low, high), int(beyond.to_numpy().sum())


def _id_problems(predicted: pd.Index, ids: pd.Index, rules: Format, *, listed: bool) -> list[str]:
    cases: dict[str, Sequence[Any] | pd.Index] = {
        "ids are not text": [clip for clip in ids if not isinstance(clip, str)],
        "ids are predicted more than once": predicted[predicted.duplicated()].unique(),
        "ids are in the list more than once": ids[ids.duplicated()].unique() if listed else [],
        "clips have no prediction": ids.difference(predicted, sort=False),
        "predictions are for clips that are not in the list": predicted.difference(ids, sort=False),
        "ids end in a file's extension, which the format forbids": [i for i in ids if not rules.allows_id(str(i))],
        f"ids cannot be written with the delimiter {rules.delimiter!r}": [
            i for i in ids if not _writable(str(i), rules)
        ],
    }
    if not listed and rules.id_pattern:
        cases["ids are not this challenge's; pass its list of clips, or another format"] = [
            clip for clip in ids if not re.fullmatch(rules.id_pattern, str(clip))
        ]
    problems = [f"{len(found)} {case}: {_some(found)}." for case, found in cases.items() if len(found)]
    if not len(ids):
        problems.append("There is no clip to write.")
    elif not listed and rules.rows not in (None, len(ids)):
        problems.append(f"The challenge has {rules.rows} clips, and there are {len(ids)} predictions.")
    return problems


def _writable(clip: str, rules: Format) -> bool:
    """True for an id that a line-based reader gives back unchanged."""
    if not clip or clip != clip.strip() or len(clip.splitlines()) != 1 or "\0" in clip:
        return False
    if any("\ud800" <= letter <= "\udfff" for letter in clip):
        return False
    return rules.quoting or not (rules.delimiter in clip or clip.startswith('"'))


def _quoted(clip: str, rules: Format) -> str:
    if rules.quoting and (rules.delimiter in clip or '"' in clip):
        return '"' + clip.replace('"', '""') + '"'
    return clip


def _decimal(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _plain(value: Any, place: str) -> Any:
    """Mappings, sequences, numpy numbers and paths as JSON types; ``UsageError`` names what has no such form."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part, f"{place}.{key}") for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), place)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and np.isfinite(value)):
        return value
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        parts = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(part, f"{place}[{index}]") for index, part in enumerate(parts)]
    raise UsageError(f"{place} cannot be kept in {PROVENANCE}: {value!r} has no form in JSON.")


def _some(ids: Sequence[Any] | pd.Index) -> str:
    more = f", … and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(repr(clip) for clip in list(ids)[:SHOWN]) + more
