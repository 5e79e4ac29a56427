"""The numbers of the report: pooled and within domains, by system, by score, clip by clip.

Conventions
    A *group* is all clips ("all") or those of one domain. Intervals are of 95 %. ``ceilings``: a row for each axis and
    group with columns axis, domain ("all": pooled) and those of ``mmmos.statistics.ceilings`` that are known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.axes import AXES
from mmmos.metrics import LEVELS, Aligned, align
from mmmos.statistics import bootstrap, ceilings, measure, sampling

ALL = "all"
DOMAINS = 6  # that are shown, the largest
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Predicted and true scores (clips, axes) of the same clips, with the system and domain of each where known.

    ``groups``: positions of the clips of "all" and of each domain, where there are two at least, the largest first.
    """

    aligned: Aligned
    groups: dict[str, NDArray[np.int64]]

    @property
    def axes(self) -> list[str]:
        """The axes with truth."""
        return list(self.aligned.true.columns)

    def of(self, group: str) -> Aligned:
        """The clips of a group; without systems where it has fewer than two."""
        rows, whole = self.groups[group], self.aligned
        systems = None if whole.systems is None else whole.systems.iloc[rows]
        systems = None if systems is None or systems.nunique() < 2 else systems
        return Aligned(whole.predicted.iloc[rows], whole.true.iloc[rows], systems)


def compared(predictions: pd.DataFrame, truth: pd.DataFrame) -> Comparison:
    """Predictions beside the truth, whose columns ``system`` and ``domain`` are used where there are any.

    Raises ``InputError`` when they do not hold the same clips.
    """
    aligned = align(predictions, truth)
    groups = {ALL: np.arange(len(aligned.true))}
    domains = truth["domain"] if "domain" in truth else pd.Series(None, truth.index, dtype=object)
    sizes = domains.dropna().astype(str).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    if len(sizes) > 1:
        named = domains.where(domains.isna(), domains.astype(str)).to_numpy(object)
        groups |= {str(name): np.flatnonzero(named == name) for name in sizes.index[:DOMAINS] if name != ALL}
    return Comparison(aligned, groups)


def ceilings_of(truth: pd.DataFrame) -> pd.DataFrame:
    """What the noise of raters leaves room for, from columns ``PQ_ratings`` …; no rows where there are none.

    An axis is left out of a group where a clip has other than the usual number of ratings, or fewer than two.
    """
    rows = []
    groups = {ALL: truth}
    if "domain" in truth and truth["domain"].nunique() > 1:
        groups |= {str(name): part for name, part in truth.groupby("domain", sort=False)}
    for group, part in groups.items():
        systems = part["system"] if "system" in part and part["system"].notna().all() else None
        for axis in AXES:
            ratings = _ratings(part.get(f"{axis}_ratings"))
            if ratings is not None:
                named = systems if systems is not None and systems.nunique() > 2 else None
                rows.append({"axis": axis, "domain": group, **ceilings(ratings, named)})
    return pd.DataFrame(rows, columns=None if rows else ["axis", "domain"])


def _ratings(lists: pd.Series | None) -> Array | None:
    """Ratings (clips, raters), None unless all clips have equally many, at least two, and there are three clips."""
    if lists is None or len(lists) < 3:
        return None
    lengths = {len(each) if isinstance(each, tuple | list) else 0 for each in lists}
    return None if len(lengths) > 1 or min(lengths) < 2 else np.array(list(lists), np.float64)


def ceiling(table: pd.DataFrame, axis: str, group: str, name: str) -> float:
    """One ceiling, NaN where it is unknown."""
    if name not in table:
        return float("nan")
    found = table.loc[(table["axis"] == axis) & (table["domain"] == group), name]
    return float(found.iloc[0]) if len(found) else float("nan")


def correlations(
    comparison: Comparison, limits: pd.DataFrame, metrics: Sequence[str] = ("SRCC", "MSE")
) -> pd.DataFrame:
    """A row for each group, level and axis, and for the mean over axes ("mean"): columns group, level ("utt", "sys"),
    axis, n, and for each metric its value, ``_low``, ``_high`` and ``_ceiling``.
    """
    rows = []
    for group in comparison.groups:
        part = comparison.of(group)
        for level, (predicted, true) in part.levels().items():
            short = LEVELS[level]
            units = None if level == "system" or part.systems is None else part.systems.to_numpy(object)
            found = [_agreement(predicted, true, metric, units) for metric in metrics]
            for axis in ("mean", *comparison.axes):
                row = {"group": group, "level": short, "axis": axis, "n": len(true)}
                for metric, values in zip(metrics, found, strict=True):
                    ends = dict(zip(("", "_low", "_high"), values[axis], strict=True))
                    row |= {metric + end: value for end, value in ends.items()}
                    row[f"{metric}_ceiling"] = _mean_ceiling(limits, comparison.axes, axis, group, f"{short}_{metric}")
                rows.append(row)
    return pd.DataFrame(rows)


def _agreement(
    predicted: pd.DataFrame, true: pd.DataFrame, metric: str, units: NDArray[np.object_] | None
) -> dict[str, tuple[float, float, float]]:
    """Value and interval of a metric for each axis and their mean; ``units`` (clips,) are left out as a whole."""
    samples = sampling(len(true), units)
    drawn = {axis: bootstrap(metric, predicted[axis], true[axis], samples.counts) for axis in true.columns}
    values = {axis: float(measure(metric, predicted[[axis]].to_numpy().T, true[axis])[0]) for axis in true.columns}
    values["mean"] = float(np.mean(list(values.values())))
    drawn["mean"] = np.mean(list(drawn.values()), axis=0)
    return {axis: (value, *samples.interval(drawn[axis], metric)) for axis, value in values.items()}


def _mean_ceiling(limits: pd.DataFrame, axes: Iterable[str], axis: str, group: str, name: str) -> float:
    """A ceiling of an axis, or the mean of those of all axes."""
    return float(np.mean([ceiling(limits, each, group, name) for each in (axes if axis == "mean" else [axis])]))


def systems(comparison: Comparison, axis: str) -> pd.DataFrame:
    """Means of each system, best true mean first: true, predicted, each with ``_low`` and ``_high`` over its clips."""
    names = comparison.aligned.systems
    if names is None:
        return pd.DataFrame()
    rows = {}
    codes, found = pd.factorize(names.to_numpy(object), sort=True)
    for code, name in enumerate(found):
        row: dict[str, float] = {}
        for side, frame in (("true", comparison.aligned.true), ("predicted", comparison.aligned.predicted)):
            row |= _named(side, mean_interval(frame[axis].to_numpy()[codes == code]))
        rows[str(name)] = row
    table = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), dtype=object))
    return table.sort_values("true", ascending=False, kind="stable")


def mean_interval(values: Array) -> tuple[float, float, float]:
    """A mean with its interval by Student's t; NaN ends for fewer than two values."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, float("nan"), float("nan")
    from scipy.special import stdtrit

    reach = float(stdtrit(count - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(count))
    return mean, mean - reach, mean + reach


def _named(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def bias_by_score(true: Array, predicted: Array) -> pd.DataFrame:
    """Mean of predicted − true in bins of one point of the true score: score (mean), clips, mean, low, high."""
    rows = []
    whole = np.floor(true)
    for point in np.unique(whole):
        part = whole == point
        mean, low, high = mean_interval((predicted - true)[part])
        rows.append(
            {"score": float(true[part].mean()), "clips": int(part.sum()), "mean": mean, "low": low, "high": high}
        )
    return pd.DataFrame(rows)


def bias_by_group(comparison: Comparison) -> pd.DataFrame:
    """Mean of predicted − true by group: columns group, n, and for each axis its value, ``_low`` and ``_high``."""
    rows = []
    for group in comparison.groups:
        part = comparison.of(group)
        row: dict[str, Any] = {"group": group, "n": len(part.true)}
        for axis in comparison.axes:
            row |= _named(axis, mean_interval((part.predicted[axis] - part.true[axis]).to_numpy()))
        rows.append(row)
    return pd.DataFrame(rows)


def worst(comparison: Comparison, count: int = 20) -> pd.Series:
    """The clips whose predictions are farthest from the truth: root mean square error over axes by id, worst first."""
    errors = comparison.aligned.predicted - comparison.aligned.true
    size = np.sqrt((errors**2).mean(axis=1))
    return size.sort_values(ascending=False, kind="stable").head(count)


def spread(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row for each axis: lowest, 25 %, median, 75 %, highest and mean of its predictions."""
    scores = predictions[[axis for axis in AXES if axis in predictions]]
    names = {0.0: "lowest", 0.25: "25 %", 0.5: "median", 0.75: "75 %", 1.0: "highest"}
    quantiles = scores.quantile(list(names)).T.rename(columns=names)
    return quantiles.assign(mean=scores.mean()).rename_axis("axis")


def view(frame: pd.DataFrame, most: int | None = None) -> dict[str, Any]:
    """Columns (name, numeric), rows and number of rows left out of a DataFrame, a named index as first column.

    A number is (value, low, high), nan twice where the frame has no columns x_low and x_high beside its x.
    """
    if frame.index.name is not None or frame.index.nlevels > 1:
        frame = pd.concat([frame.index.to_frame(), frame], axis=1)
    shown = frame if most is None else frame.head(most)
    ends = {
        end
        for name in shown
        for end in (f"{name}_low", f"{name}_high")
        if {f"{name}_low", f"{name}_high"} <= set(shown)
    }
    columns, values = [], []
    for name in (name for name in shown if name not in ends):
        kind = shown[name].dtype
        numeric = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        columns.append({"name": str(name), "numeric": numeric})
        sides = [shown.get(f"{name}{end}", pd.Series(np.nan, shown.index)) for end in ("_low", "_high")]
        values.append(list(zip(shown[name], *sides, strict=True)) if numeric else list(shown[name]))
    rows = [list(row) for row in zip(*values, strict=True)]
    return {"columns": columns, "rows": rows, "more": len(frame) - len(shown)}


def records(frame: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Rows of a DataFrame as mappings."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
