"""Telling two sets of clips apart by their vectors: a cross-fitted classifier, its AUC, and distances.

``source`` clips are those that heads learn from, ``target`` clips those to be predicted; no score is read.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.training.folds import grouped_folds

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Directions of most variance that a classifier sees: at most so many, and one for each so many clips.
COMPONENTS, CLIPS_EACH = 32, 10
FOLDS = 5
# Standard deviations below which a dimension does not vary, and beyond which a value is moved there.
CONSTANT, FAR = 1e-8, 8


def reduced(x: NDArray[np.floating]) -> Array:
    """Vectors (clips, dim) as their whitened principal components (clips, up to 32), of standardised dimensions."""
    from sklearn.decomposition import PCA

    deviation = x.std(axis=0, dtype=np.float64)
    standard = (x - x.mean(axis=0, dtype=np.float64)) / np.where(deviation < CONSTANT, 1, deviation)
    standard = standard.clip(-FAR, FAR).astype(np.float32)
    size = max(min(COMPONENTS, len(x) // CLIPS_EACH, x.shape[1]), 1)
    scores: Array = PCA(size, random_state=0).fit_transform(standard).astype(np.float64)
    spread = scores.std(axis=0)
    return scores / np.where(spread < CONSTANT, 1, spread)


def target_odds(z: Array, target: Mask, groups: Sequence[str]) -> Array:
    """Log odds (clips,) that a clip is of the target, as if both sets were of one size.

    Those of a clip are of a logistic regression on the other folds, which keep ``groups`` whole; 0 where these hold one
    set only.
    """
    from sklearn.linear_model import LogisticRegression

    fold = grouped_folds(groups, FOLDS, [str(each) for each in target])
    odds = np.zeros(len(z))
    for number in range(fold.max() + 1):
        held = fold == number
        if len(np.unique(target[~held])) == 2:
            model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(z[~held], target[~held])
            odds[held] = model.decision_function(z[held])
    return odds


def auc(value: Array, target: Mask, counts: NDArray[np.int64]) -> Array:
    """Area under the ROC curve (resamples,) of values (clips,): the chance that a target clip's value is the larger.

    ``counts`` (resamples, clips): how often each clip occurs; ties count half. 0.5: alike; 1: told apart.
    """
    of_target, of_source = _by_value(value, counts * target), _by_value(value, counts * ~target)
    below = np.cumsum(of_source, axis=1) - of_source / 2
    pairs = of_target.sum(axis=1) * of_source.sum(axis=1)
    return np.asarray((of_target * below).sum(axis=1) / np.where(pairs == 0, np.nan, pairs))


def ks(value: Array, target: Mask, counts: NDArray[np.int64]) -> Array:
    """Kolmogorov–Smirnov distance (resamples,) in [0, 1] of the values (clips,) of both sets; counts as in ``auc``."""
    shares = []
    for each in (target, ~target):
        sums = np.cumsum(_by_value(value, counts * each), axis=1)
        shares.append(sums / sums[:, -1:])
    return np.asarray(np.abs(shares[0] - shares[1]).max(axis=1))


def _by_value(value: Array, counts: NDArray[np.int64]) -> Array:
    """Counts (resamples, clips) summed over equal values, ascending: (resamples, values)."""
    order = np.argsort(value, kind="stable")
    starts = np.flatnonzero(np.diff(value[order], prepend=-np.inf) > 0)
    return np.add.reduceat(counts[:, order].astype(np.float64), starts, axis=1)


def frechet(z: Array, target: Mask) -> float:
    """Fréchet distance, 0 up: |μ − μ'|² + tr(C + C' − 2 √(C C')) of two normal distributions with the sets' moments."""
    a, b = z[~target], z[target]
    first, second = (np.atleast_2d(np.cov(part, rowvar=False, bias=True)) for part in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * shared
    return float(max(distance, 0.0))


def moved(x: NDArray[np.floating], target: Mask, by: float = 0.5) -> float:
    """Share of the dimensions of x (clips, dim) whose means differ by more than ``by`` deviations of the source."""
    deviation = x[~target].std(axis=0, dtype=np.float64)
    step = x[target].mean(axis=0, dtype=np.float64) - x[~target].mean(axis=0, dtype=np.float64)
    return float((np.abs(step) > by * np.where(deviation < CONSTANT, 1, deviation)).mean())
