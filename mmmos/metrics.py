"""The metrics of the challenge: how well predicted scores agree with mean ratings, for clips and for systems.

Conventions
    Scores are 1-D arrays of equal length, or DataFrames indexed by clip id whose columns are axes (PQ, PC, CE, CU,
    in any order). Level "utterance" compares clips; level "system" compares the plain means over each system's clips,
    for truth and prediction separately. The challenge ranks by system-level SRCC.
    A correlation with a constant is undefined: nan, without a warning.

Metrics
    ``mse`` mean squared error [0, inf), ``lcc`` Pearson's r [-1, 1], ``srcc`` Spearman's rho [-1, 1],
    ``ktau`` Kendall's tau-b [-1, 1]; numbers as numpy and scipy give them (arXiv 2509.01336, section IV-A).

``evaluate`` makes the table of all 32, ``summary`` its means over the axes. Where the scorers of past challenges keep
only the ids that both files hold, a missing, unknown, repeated or NaN id is an error here.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from mmmos.axes import AXES, find_axis
from mmmos.errors import InputError, UnknownName
from mmmos.predictions import read_predictions
from mmmos.statistics import bootstrap, is_constant, sampling

LEVELS = {"utterance": "utt", "system": "sys"}
UNITS = ("system", "clip")
SHOWN = 5

log = logging.getLogger(__name__)

Table = pd.DataFrame | str | Path
Systems = pd.Series | Mapping[str, str] | Sequence[str]


def validate(predicted: ArrayLike, true: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays as float64 (n,).

    Raises ``ValueError`` unless they are 1-D, of one length n >= 1, and finite.
    """
    x, y = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(
            f"Scores must be two 1-D arrays of one length, at least 1; got shapes {x.shape} and {y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Scores must be finite; leave out clips without a score before a metric is computed.")
    return x, y


def mse(predicted: ArrayLike, true: ArrayLike) -> float:
    """Mean squared error of (n,) scores, in [0, inf). Raises as ``validate``."""
    x, y = validate(predicted, true)
    return float(np.mean((x - y) ** 2))


def lcc(predicted: ArrayLike, true: ArrayLike) -> float:
    """Pearson's linear correlation of (n,) scores, in [-1, 1]; nan when one is constant. Raises as ``validate``."""
    x, y = validate(predicted, true)
    return float("nan") if _constant(x, y) else float(np.corrcoef(x, y)[0, 1])


def srcc(predicted: ArrayLike, true: ArrayLike) -> float:
    """Spearman's rank correlation of (n,) scores, in [-1, 1]; nan when one is constant. Raises as ``validate``."""
    x, y = validate(predicted, true)
    return float("nan") if _constant(x, y) else float(stats.spearmanr(x, y).statistic)


def ktau(predicted: ArrayLike, true: ArrayLike) -> float:
    """Kendall's tau-b of (n,) scores, in [-1, 1]; nan when one is constant. Raises as ``validate``."""
    x, y = validate(predicted, true)
    return float("nan") if _constant(x, y) else float(stats.kendalltau(x, y).statistic)


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"MSE": mse, "LCC": lcc, "SRCC": srcc, "KTAU": ktau}


def by_system(values: pd.Series | ArrayLike, systems: pd.Series | ArrayLike) -> pd.Series:
    """Plain mean of (n,) scores over each system's clips; ``systems`` names the system of each, in the same order.

    Returns a Series indexed by system, sorted by name. Raises ``ValueError`` for lengths that differ.
    """
    scores, names = np.asarray(values, np.float64), np.asarray(systems, object)
    if scores.shape != names.shape or scores.ndim != 1:
        raise ValueError(f"Scores and systems must be 1-D and of one length; got {scores.shape} and {names.shape}.")
    codes, found = pd.factorize(names, sort=True)
    means = pd.Series(scores[codes >= 0]).groupby(codes[codes >= 0]).mean()
    return means.set_axis(pd.Index(found, dtype=object))


def evaluate(
    predictions: Table,
    truth: Table,
    *,
    systems: Systems | None = None,
    by: str | None = None,
    intervals: int = 0,
    method: str = "auto",
    unit: str = "system",
    seed: int = 0,
) -> pd.DataFrame:
    """All metrics for every axis and level, one row each: 32 rows where systems are known, else 16.

    ``predictions``: DataFrame, or the path of an answer file. ``truth``: DataFrame, or what ``read_manifest`` reads.
    ``systems``: system of each clip as a Series or mapping by id, or a sequence in the truth's order; by default the
    truth's column ``system``. An axis without any truth is left out, which is logged and noted in ``attrs["notes"]``.
    ``by``: a column of the truth, such as "domain": the same rows for each of its values ("unknown" where a clip has
    none) and, as "within", their mean weighted by ``n``. Ranks over all domains are inflated by the gaps between them.

    Returns columns ``axis``, ``level`` ("utterance", "system"), ``metric``, ``value``, ``n`` (clips or systems); with
    ``by`` a first column of that name, "all" for all clips; with ``intervals`` > 0 also ``ci_low`` and ``ci_high``, the
    95 % interval by ``method`` (see ``mmmos.statistics.sampling``) with that many resamples. Systems are drawn with
    all their clips, so that it is about other systems alike; with ``unit="clip"``, and where no systems are known,
    clips are, so that intervals of utterances are about other clips of the same systems.
    Raises ``InputError`` naming the ids that are missing, unknown, repeated or not finite, or a column that is absent;
    ``UnknownName`` for another method or unit.
    """
    if unit not in UNITS:
        raise UnknownName("unit", unit, UNITS)
    clips = truth if isinstance(truth, pd.DataFrame) else _read_truth(truth)
    scores = align(predictions, clips, systems)
    parts = {"all": [scores]}
    if by is not None:
        own = _parts(scores, clips, by)
        parts |= {name: [part] for name, part in own.items()} | {"within": list(own.values())}
    settings = {"method": method, "resamples": intervals, "seed": seed} if intervals else None
    rows = [
        row if by is None else {by: name, **row}
        for name, some in parts.items()
        for level in scores.levels()
        for row in _rows(some, level, unit, settings)
    ]
    table = pd.DataFrame(rows)
    table.attrs["notes"] = list(scores.notes)
    return table


def _parts(scores: "Aligned", clips: pd.DataFrame, by: str) -> dict[str, "Aligned"]:
    """The clips of each value of a column of the truth, sorted by name."""
    if by not in clips:
        raise InputError([f"The truth has no column {by!r}; it has {', '.join(map(str, clips.columns))}."])
    names = clips[by].where(clips[by].notna(), "unknown").astype(str)
    if clash := {"all", "within"} & set(names):
        raise InputError([f"Column {by!r} may not hold {clash.pop()!r}, which is the name of a row of the result."])
    return {name: scores.of(names.index[names == name]) for name in sorted(set(names))}


def _rows(
    parts: Sequence["Aligned"], level: str, unit: str, settings: dict[str, Any] | None
) -> Iterator[dict[str, Any]]:
    """The rows of one level: every axis and metric, as means over the parts weighted by their sizes."""
    pairs = [part.levels()[level] for part in parts]
    sizes = np.array([len(true) for _, true in pairs])
    if settings:
        strata = np.repeat(np.arange(len(parts)), sizes) if len(parts) > 1 else None
        samples = sampling(int(sizes.sum()), _units(parts, level, unit), strata=strata, **settings)
        counts = np.split(samples.counts, np.cumsum(sizes)[:-1], axis=1)
    for axis in pairs[0][1].columns:
        scores = [(predicted[axis].to_numpy(), true[axis].to_numpy()) for predicted, true in pairs]
        for name, metric in METRICS.items():
            value = float(_mean([metric(x, y) for x, y in scores], sizes))
            row = {"axis": axis, "level": level, "metric": name, "value": value, "n": int(sizes.sum())}
            if settings:
                values = [bootstrap(name, x, y, part) for (x, y), part in zip(scores, counts, strict=True)]
                row["ci_low"], row["ci_high"] = samples.interval(_mean(values, sizes), name)
            yield row


def _mean(values: Sequence[Any], sizes: np.ndarray) -> Any:
    """Mean of numbers or arrays weighted by sizes; a single one as it is."""
    return values[0] if len(values) == 1 else np.average(values, axis=0, weights=sizes)


def _units(parts: Sequence["Aligned"], level: str, unit: str) -> np.ndarray | None:
    """What intervals take as drawn together: the system of each clip or system mean; None where each is by itself."""
    if unit == "clip" or parts[0].systems is None:
        return None
    if level == "system":
        return np.concatenate([part.levels()[level][1].index.to_numpy() for part in parts])
    return np.concatenate([part.systems.to_numpy() for part in parts if part.systems is not None])


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Means over the axes of a table from ``evaluate``: ``utt_MSE`` … ``utt_KTAU``, ``sys_MSE`` … ``sys_KTAU``.

    A level that the table lacks is left out; a mean over an undefined correlation is nan.
    """
    found = table.groupby(["level", "metric"])["value"].agg(lambda values: float(np.mean(values.to_numpy())))
    return {
        f"{short}_{metric}": float(found[level, metric])
        for level, short in LEVELS.items()
        for metric in METRICS
        if (level, metric) in found.index
    }


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
    clips = truth if isinstance(truth, pd.DataFrame) else _read_truth(truth)
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


def _read_truth(path: str | Path) -> pd.DataFrame:
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


def _constant(x: np.ndarray, y: np.ndarray) -> bool:
    return bool(is_constant(x.min(), x.max()) or is_constant(y.min(), y.max()))


def _clips(ids: Sequence[Any] | pd.Index) -> str:
    return "1 clip" if len(ids) == 1 else f"{len(ids)} clips"


def _some(ids: Sequence[Any] | pd.Index) -> str:
    more = f", … and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(repr(str(clip)) for clip in list(ids)[:SHOWN]) + more
