"""Leaderboards: models ranked by the mean over axes of system-level SRCC, every number with its interval.

Conventions
    One row a model, best first. ``sys_SRCC`` is the mean over axes, ``PQ_sys_SRCC`` one axis; "utt" is the level of
    clips. ``_low`` and ``_high`` are the ends of the 95 % interval (``mmmos.statistics.sampling``) over systems, each
    with all its clips, or over clips where no systems are known. All models and axes share the same samples, so the
    interval of a mean over axes is a joint one, and that of a difference of models a paired one.
    ``model``, ``score_test``, ``eval_metric``, ``fit_time`` and ``pred_time_test`` are called as AutoGluon calls them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.axes import AXES
from mmmos.errors import InputError
from mmmos.manifest import read_manifest
from mmmos.metrics import LEVELS, METRICS, Systems, align
from mmmos.predictions import read_predictions
from mmmos.statistics import Sampling, bootstrap_many, holm, measure, permutation_test, sampling

# What may be known of a model beside its predictions.
FACTS = ("members", "fit_time", "pred_time_test")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """All models at one level, ``true`` (axes, items), ``predicted`` (axes, models, items); ``units``: of each clip."""

    true: Array
    predicted: Array
    units: NDArray[np.object_] | None

    @property
    def size(self) -> int:
        """Number of items."""
        return self.true.shape[1]


def leaderboard(
    predictions: Mapping[str, pd.DataFrame],
    truth: pd.DataFrame,
    *,
    systems: Systems | None = None,
    intervals: int = 1000,
    about: pd.DataFrame | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a model, sorted by ``sys_SRCC``, or by ``utt_SRCC`` where no systems are known.

    ``predictions``: model name -> scores indexed by clip id. ``truth``, ``systems``: as in ``mmmos.evaluate``.
    ``intervals``: resamples of the bootstrap and permutations of a test, 0 for neither. ``about``: indexed by model
    name, with any of the columns ``members`` (number of runs), ``fit_time`` (s) and ``pred_time_test`` (s for these
    clips).

    Returns columns ``model``; ``score_test`` and ``eval_metric`` (what ranks, and its name); ``sys_SRCC``,
    ``sys_SRCC_low``, ``sys_SRCC_high``, the same for ``utt_SRCC``; ``behind``, ``behind_low``, ``behind_high`` (how far
    the score is below the first row's, with the interval of that difference); ``p`` (of a paired
    permutation test against the first row, adjusted by Holm's method over all others: from 0.05 up, the data do not
    tell the two apart); ``sys_LCC`` … ``utt_MSE`` (means over axes) and ``PQ_sys_SRCC`` … (every axis, level and
    metric) with their intervals; those of ``about``; ``n_clips``, ``n_systems``. Without systems there are no ``sys_``
    columns and ``n_systems`` is 0.
    Raises ``InputError`` for no models, or naming the model whose predictions do not match the truth.
    """
    if not predictions:
        raise InputError(["A leaderboard needs the predictions of at least one model."])
    levels, axes = _levels(predictions, truth, systems)
    ranking = "sys" if "sys" in levels else "utt"
    models = pd.Series(list(predictions), dtype=object)
    columns: dict[str, Any] = {"model": models, "eval_metric": f"{ranking}_SRCC"}
    samples = {name: _samples(level, intervals, seed) if intervals else None for name, level in levels.items()}
    drawn = {}
    for name, level in levels.items():
        for metric in METRICS:
            found, drawn[f"{name}_{metric}"] = _measured(f"{name}_{metric}", level, axes, samples[name])
            columns |= found
    table = pd.DataFrame(columns)
    table["score_test"] = table[f"{ranking}_SRCC"]
    table["n_clips"], table["n_systems"] = levels["utt"].size, levels["sys"].size if "sys" in levels else 0
    if about is not None:
        table = table.join(about.reindex(columns=[name for name in FACTS if name in about]), on="model")
    table = table.sort_values("score_test", ascending=False, kind="stable", na_position="last")
    first = table.index[0]
    table["behind"] = table["score_test"].loc[first] - table["score_test"]
    used = samples[ranking]
    if used is not None:
        scores = drawn[f"{ranking}_SRCC"]
        table["behind_low"], table["behind_high"] = _ends(used, scores[first] - scores[table.index.to_numpy()], None)
        table["p"] = _against_first(levels[ranking], list(table.index), intervals, seed)
    return table[[column for column in _order() if column in table]].reset_index(drop=True)


def compare(
    answers: Sequence[str | Path], truth: str | Path | pd.DataFrame, *, intervals: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Leaderboard of answer files against a manifest with scores, each named by its folder or file (``read_answers``).

    Raises ``InputError`` as ``leaderboard`` and ``read_predictions`` do.
    """
    clips = truth if isinstance(truth, pd.DataFrame) else read_manifest(str(truth))
    return leaderboard(read_answers(answers), clips, intervals=intervals, seed=seed)


def read_answers(answers: Sequence[str | Path]) -> dict[str, pd.DataFrame]:
    """Scores of answer files by name: ``first/answer.txt`` is called "first", ``mine.csv`` "mine"; files whose names
    would be equal go by their paths.
    """
    paths = [Path(answer) for answer in answers]
    names = [path.resolve().parent.name if path.stem == "answer" else path.stem for path in paths]
    names = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    return {name: read_predictions(path) for name, path in zip(names, paths, strict=True)}


def _levels(
    predictions: Mapping[str, pd.DataFrame], truth: pd.DataFrame, systems: Systems | None
) -> tuple[dict[str, Level], list[str]]:
    """All models beside the truth at "utt" and, where systems are known, "sys"; and the axes."""
    found = []
    for name, frame in predictions.items():
        try:
            found.append(align(frame, truth, systems))
        except InputError as error:
            raise InputError([f"Model {name!r}: {problem}" for problem in error.problems]) from None
    first, pairs = found[0], [each.levels() for each in found]
    units = None if first.systems is None else first.systems.to_numpy(object)
    levels = {
        LEVELS[level]: Level(
            true.to_numpy().T,
            np.stack([each[level][0].to_numpy().T for each in pairs], axis=1),
            units if level == "utterance" else None,
        )
        for level, (_, true) in pairs[0].items()
    }
    return levels, list(first.true.columns)


def _samples(level: Level, resamples: int, seed: int) -> Sampling:
    return sampling(level.size, level.units, resamples=resamples, seed=seed)


def _measured(name: str, level: Level, axes: Sequence[str], samples: Sampling | None) -> tuple[dict[str, Any], Array]:
    """A metric of all models as columns, of each axis and their mean; and that mean in all samples (models, …)."""
    metric = name.partition("_")[2]
    sides = list(zip(level.predicted, level.true, strict=True))
    parts = [f"{axis}_{name}" for axis in axes]
    values = np.stack([measure(metric, predicted, true) for predicted, true in sides])
    columns: dict[str, Any] = {name: values.mean(axis=0), **dict(zip(parts, values, strict=True))}
    if samples is None:
        return columns, values.mean(axis=0)[:, None]
    drawn = np.stack([bootstrap_many(metric, predicted, true, samples.counts) for predicted, true in sides])
    for column, part in zip((name, *parts), (drawn.mean(axis=0), *drawn), strict=True):
        columns[f"{column}_low"], columns[f"{column}_high"] = _ends(samples, part, metric)
    return columns, drawn.mean(axis=0)


def _ends(samples: Sampling, values: Array, metric: str | None) -> tuple[list[float], list[float]]:
    """Ends of the intervals of statistics (models, samples)."""
    ends = [samples.interval(each, metric) for each in values]
    return [low for low, _ in ends], [high for _, high in ends]


def _against_first(level: Level, order: list[int], resamples: int, seed: int) -> Array:
    """Adjusted p-value of each model in order against the first of them, NaN for that one and where undefined.

    With ranks centred and scaled to unit length, 1 − SRCC is half the sum of squared distances between predicted and
    true ranks. What the test swaps between two models is an item's distance, the root mean square over the axes: so
    all axes of an item go together, and the scale of predictions does not count.
    """
    apart = _unit_ranks(level.predicted) - _unit_ranks(level.true)[:, None]
    distance = np.sqrt((apart**2).mean(axis=0))
    right, first = np.zeros(level.size), distance[order[0]]
    p = [float("nan")]
    for model in order[1:]:
        defined = bool(np.isfinite(first).all() and np.isfinite(distance[model]).all())
        test = (
            permutation_test("MSE", first, distance[model], right, resamples=resamples, seed=seed)
            if defined
            else np.nan
        )
        p.append(test)
    return np.asarray(holm(p))


def _unit_ranks(values: Array) -> Array:
    """Centred mid-ranks along the last axis, scaled to length 1; NaN where all values are equal."""
    from scipy.stats import rankdata

    flat = rankdata(values.reshape(-1, values.shape[-1]), axis=1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.full_like(flat, np.nan), where=length > 0).reshape(values.shape)


def _order() -> list[str]:
    """Every column that a leaderboard may have, in its order."""
    ends, levels, metrics = ("", "_low", "_high"), ("sys", "utt"), ("SRCC", "LCC", "KTAU", "MSE")
    columns = ["model", "score_test", "eval_metric"]
    columns += [f"{level}_SRCC{end}" for level in levels for end in ends]
    columns += [*(f"behind{end}" for end in ends), "p"]
    columns += [f"{level}_{metric}{end}" for level in levels for metric in metrics[1:] for end in ends]
    columns += [f"{a}_{level}_{metric}{end}" for level in levels for metric in metrics for a in AXES for end in ends]
    return [*columns, *FACTS, "n_clips", "n_systems"]
