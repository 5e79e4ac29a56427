"""Ceilings that the noise of human raters sets: how well a perfect model could do against means of few ratings.

A perfect model predicts the expected rating of every clip, the mean over all raters who might have been asked. The
truth that it meets is the mean over the few who were: it cannot correlate with that beyond a ceiling, nor come closer
than a floor of MSE. Raters are exchangeable: the columns of ``ratings`` are in no order.
"""

import logging

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mmmos.axes import AXES
from mmmos.statistics.agreement import METRICS, FloatArray, measure

log = logging.getLogger(__name__)


def ceilings(
    ratings: ArrayLike, systems: ArrayLike | None = None, *, splits: int = 200, seed: int = 0
) -> dict[str, float]:
    """What a perfect model reaches against the mean of these ratings, and how well raters agree with each other.

    ``ratings``: finite (clips, raters), at least two raters; ``systems``: each clip's system (clips,). Reliability is
    that of halves, stepped up to all raters (Spearman, 1910; Brown, 1910), over ``splits`` random splits of each
    clip's raters: 5 against 5 for ten; with an odd number one rater is left out of each split.

    Returns, for ``utt`` and, with systems, for ``sys`` (means over a system's clips, whose noise averages out):
    ``utt_LCC``, ``utt_SRCC``  the square root of reliability by Pearson's and Spearman's correlation: the ceiling,
    ``utt_MSE``  the mean variance of a clip's (system's) mean rating over raters: the floor,
    ``utt_half_LCC``, ``utt_half_SRCC``  the correlation of one half with the other,
    ``utt_single_LCC``  one rating against the mean of the clip's others, over all ratings (``utt`` only),
    ``utt_oracle_MSE``, ``utt_oracle_LCC``, ``utt_oracle_SRCC``, ``utt_oracle_KTAU``  predicting each clip by the mean
    of its system (with systems): what ranking systems alone is worth among clips.
    Correlations that are undefined or reliabilities below zero are nan.
    Raises ``ValueError`` for shapes that do not fit, fewer than two raters or values that are not finite.
    """
    scores = np.asarray(ratings, np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"ratings must be finite, (clips, raters) with two raters or more; got {scores.shape}.")
    raters = scores.shape[1]
    noise = scores.var(axis=1, ddof=1) / raters
    found = _agreement("utt", *_halves(scores, splits, seed), None)
    found["utt_MSE"] = float(noise.mean())
    found["utt_single_LCC"] = _single(scores)
    if systems is not None:
        unit = np.unique(np.asarray(systems), return_inverse=True)[1]
        if unit.shape != (len(scores),):
            raise ValueError(f"systems must name the system of each of the {len(scores)} clips; got {unit.shape}.")
        found |= _agreement("sys", *_halves(scores, splits, seed), unit)
        clips = np.bincount(unit)
        found["sys_MSE"] = float((np.bincount(unit, noise) / clips**2).mean())
        found |= _oracle(scores.mean(axis=1), unit)
    return found


def ceiling_table(clips: pd.DataFrame, *, splits: int = 200, seed: int = 0) -> pd.DataFrame:
    """``ceilings`` for every axis of a manifest that lists ratings (columns ``PQ_ratings`` …, tuples, or None).

    Systems are those of column ``system``; without one for every rated clip, the system level is left out. Clips with
    fewer ratings than the most frequent number, or none, are left out; so is, with a logged note, an axis with fewer
    than two ratings a clip or fewer than two clips. Returns columns ``axis``, ``level`` ("utterance", "system"),
    ``metric`` ("LCC", "SRCC", "MSE", "half_LCC", …), ``value``.
    """
    rows = []
    for axis in AXES:
        column = clips.get(f"{axis}_ratings")
        if column is None:
            continue
        sizes = column.map(lambda one: len(one) if isinstance(one, tuple | list | np.ndarray) else 0)
        usual = sizes[sizes > 0].mode()
        rated = sizes == usual.iloc[-1] if len(usual) else sizes < 0
        if rated.sum() < 2 or usual.iloc[-1] < 2:
            log.warning("%s: ceilings need two ratings or more of two clips or more: left out.", axis)
            continue
        systems = clips.loc[rated, "system"] if "system" in clips else None
        if systems is not None and systems.isna().any():
            systems = None
        found = ceilings(np.stack([np.asarray(one) for one in column[rated]]), systems, splits=splits, seed=seed)
        for key, value in found.items():
            level, metric = key.split("_", 1)
            rows.append((axis, {"utt": "utterance", "sys": "system"}[level], metric, value))
    return pd.DataFrame(rows, columns=["axis", "level", "metric", "value"])


def _halves(scores: FloatArray, splits: int, seed: int) -> tuple[list[FloatArray], list[FloatArray]]:
    """Mean scores of two halves of each clip's raters, in every split: lists of (clips,)."""
    rng, size = np.random.default_rng(seed), scores.shape[1] // 2
    firsts, seconds = [], []
    for _ in range(splits):
        mixed = rng.permuted(scores, axis=1)
        firsts.append(mixed[:, :size].mean(axis=1))
        seconds.append(mixed[:, size : 2 * size].mean(axis=1))
    return firsts, seconds


def _agreement(
    level: str, firsts: list[FloatArray], seconds: list[FloatArray], unit: NDArray[np.intp] | None
) -> dict[str, float]:
    found = {}
    for metric in ("LCC", "SRCC"):
        values = [
            measure(metric, _means(one, unit)[None], _means(other, unit))[0]
            for one, other in zip(firsts, seconds, strict=True)
        ]
        half = float(np.mean(values))
        found[f"{level}_half_{metric}"] = half
        found[f"{level}_{metric}"] = float(np.sqrt(2 * half / (1 + half))) if half >= 0 else float("nan")
    return found


def _means(scores: FloatArray, unit: NDArray[np.intp] | None) -> FloatArray:
    return scores if unit is None else np.bincount(unit, scores) / np.bincount(unit)


def _single(scores: FloatArray) -> float:
    """Pearson's r of one rating with the mean of the clip's others, over all ratings."""
    others = (scores.sum(axis=1, keepdims=True) - scores) / (scores.shape[1] - 1)
    return float(measure("LCC", scores.reshape(1, -1), others.ravel())[0])


def _oracle(means: FloatArray, unit: NDArray[np.intp]) -> dict[str, float]:
    of_system = _means(means, unit)[unit]
    return {f"utt_oracle_{metric}": float(measure(metric, of_system[None], means)[0]) for metric in METRICS}
