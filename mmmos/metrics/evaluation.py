"""``evaluate``: every metric for every axis and level, with intervals on request; ``summary``: the means over axes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmmos.errors import InputError, UnknownName
from mmmos.metrics.alignment import Aligned, Systems, Table, align, read_truth
from mmmos.metrics.definitions import METRICS
from mmmos.statistics import bootstrap, sampling

LEVELS = {"utterance": "utt", "system": "sys"}
UNITS = ("system", "clip")


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

    >>> table = mmmos.evaluate(answer, "test.csv")
    >>> len(table), list(table)
    (32, ['axis', 'level', 'metric', 'value', 'n'])
    """
    if unit not in UNITS:
        raise UnknownName("unit", unit, UNITS)
    clips = truth if isinstance(truth, pd.DataFrame) else read_truth(truth)
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


def _parts(scores: Aligned, clips: pd.DataFrame, by: str) -> dict[str, Aligned]:
    """The clips of each value of a column of the truth, sorted by name."""
    if by not in clips:
        raise InputError([f"The truth has no column {by!r}; it has {', '.join(map(str, clips.columns))}."])
    names = clips[by].where(clips[by].notna(), "unknown").astype(str)
    if clash := {"all", "within"} & set(names):
        raise InputError([f"Column {by!r} may not hold {clash.pop()!r}, which is the name of a row of the result."])
    return {name: scores.of(names.index[names == name]) for name in sorted(set(names))}


def _rows(parts: Sequence[Aligned], level: str, unit: str, settings: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
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


def _units(parts: Sequence[Aligned], level: str, unit: str) -> np.ndarray | None:
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
