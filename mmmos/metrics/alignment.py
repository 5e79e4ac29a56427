"""Predictions and truth over the same clips in the same order, or a sentence for each reason why they are not."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmos.axes import AXES, find_axis
from mmmos.errors import InputError
from mmmos.metrics.definitions import by_system
from mmmos.predictions import read_predictions

SHOWN = 5

log = logging.getLogger(__name__)

Table = pd.DataFrame | str | Path
Systems = pd.Series | Mapping[str, str] | Sequence[str]


@dataclass(frozen=True)
class Aligned:
    """Predictions and truth over the same clips in the same order; float64 columns, one per axis that has truth.

    ``systems`` names each clip's system, or is None; ``notes`` are sentences about what was left out.
    """

    predicted: pd.DataFrame
    true: pd.DataFrame
    systems: pd.Series | None
    notes: list[str] = field(default_factory=list)

    def of(self, ids: pd.Index) -> "Aligned":
        """The same for some of the clips."""
        systems = None if self.systems is None else self.systems.loc[ids]
        return Aligned(self.predicted.loc[ids], self.true.loc[ids], systems, self.notes)

    def levels(self) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        """(predicted, true): "utterance" (clips, axes) and, where systems are known, "system" (systems, axes)."""
        pairs = {"utterance": (self.predicted, self.true)}
        if self.systems is not None:
            predicted, true = (
                pd.DataFrame({axis: by_system(frame[axis], self.systems) for axis in frame.columns})
                for frame in (self.predicted, self.true)
            )
            pairs["system"] = (predicted, true)
        return pairs


def align(predictions: Table, truth: Table, systems: Systems | None = None) -> Aligned:
    """Predictions in the order of the truth; arguments, notes and errors as in ``evaluate``."""
    clips = truth if isinstance(truth, pd.DataFrame) else read_truth(truth)
    predicted = _scores(predictions if isinstance(predictions, pd.DataFrame) else read_predictions(predictions))
    true, notes = _scores(clips), []
    left_out = [axis for axis in AXES if axis not in true or true[axis].isna().all()]
    true = true.drop(columns=left_out, errors="ignore")
    problems = [*_id_problems(predicted.index, true.index), *_value_problems(predicted, true)]
    if problems:
        raise InputError(problems)
    if left_out:
        notes.append(f"No clip has a true score on {', '.join(left_out)}: left out.")
    if systems is not None:
        clip_systems: pd.Series | None = _given_systems(systems, true.index)
    else:
        clip_systems, more = _own_systems(clips)
        notes.extend(more)
    for note in notes:
        log.warning(note)
    return Aligned(predicted.loc[true.index, list(true.columns)], true, clip_systems, notes)


def read_truth(path: str | Path) -> pd.DataFrame:
    """The table of true scores that a manifest is. Raises ``InputError`` as ``read_manifest``."""
    from mmmos.manifest import read_manifest

    return read_manifest(path)


def _scores(frame: pd.DataFrame) -> pd.DataFrame:
    """The axis columns of a DataFrame under their short names, float64."""
    names = {column: axis for column in frame.columns if (axis := find_axis(str(column)))}
    scores = frame[list(names)].rename(columns=names)
    if scores.columns.has_duplicates:
        raise InputError([f"Two columns name one axis: {', '.join(map(str, names))}. Keep one column per axis."])
    try:
        return scores[[axis for axis in AXES if axis in scores]].astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError([f"The axis columns must hold numbers: {error}."]) from None


def _id_problems(predicted: pd.Index, true: pd.Index) -> list[str]:
    cases = {
        "predicted more than once": predicted[predicted.duplicated()].unique(),
        "in the truth more than once": true[true.duplicated()].unique(),
        "without a prediction": true.difference(predicted, sort=False),
        "predicted but not in the truth": predicted.difference(true, sort=False),
    }
    problems = [f"{_clips(ids)} {case}: {_some(ids)}." for case, ids in cases.items() if len(ids)]
    return problems if len(true) else [*problems, "The truth holds no clips."]


def _value_problems(predicted: pd.DataFrame, true: pd.DataFrame) -> list[str]:
    problems = (
        [] if len(true.columns) else ["The truth has no scores on any axis, so there is nothing to compare with."]
    )
    for axis in true.columns:
        if axis not in predicted:
            problems.append(f"The predictions have no column {axis}, which the truth has.")
        for side, frame in (("prediction", predicted), ("true score", true)):
            bad = frame.index[~np.isfinite(frame[axis])] if axis in frame else []
            if len(bad):
                problems.append(f"{_clips(bad)} whose {side} on {axis} is not a finite number: {_some(bad)}.")
    return problems


def _given_systems(systems: Systems, ids: pd.Index) -> pd.Series:
    if isinstance(systems, pd.Series | Mapping):
        given = dict(systems)
        found = pd.Series([given.get(clip) for clip in ids], index=ids, dtype=object)
    elif len(systems) == len(ids):
        found = pd.Series(list(systems), index=ids, dtype=object)
    else:
        raise InputError(
            [f"There are {len(systems)} systems for {len(ids)} clips; give one for each, or a mapping by id."]
        )
    lacking = ids[found.isna()]
    if len(lacking):
        raise InputError([f"{_clips(lacking)} without a system: {_some(lacking)}."])
    return found


def _own_systems(truth: pd.DataFrame) -> tuple[pd.Series | None, list[str]]:
    """The truth's column ``system`` when every clip has one, and a note when only some have."""
    column = truth.get("system")
    if column is None or column.isna().all():
        return None, []
    if column.isna().any():
        return None, [f"{_clips(truth.index[column.isna()])} without a system: the system level is left out."]
    return column, []


def _clips(ids: Sequence[Any] | pd.Index) -> str:
    return "1 clip" if len(ids) == 1 else f"{len(ids)} clips"


def _some(ids: Sequence[Any] | pd.Index) -> str:
    more = f", … and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(repr(str(clip)) for clip in list(ids)[:SHOWN]) + more
