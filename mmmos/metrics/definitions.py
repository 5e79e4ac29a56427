"""The four metrics, as numpy and scipy give them, and the means of systems that they are taken over."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mmmos.statistics import is_constant


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
    if _constant(x, y):
        return float("nan")
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def ktau(predicted: ArrayLike, true: ArrayLike) -> float:
    """Kendall's tau-b of (n,) scores, in [-1, 1]; nan when one is constant. Raises as ``validate``."""
    x, y = validate(predicted, true)
    if _constant(x, y):
        return float("nan")
    from scipy.stats import kendalltau

    return float(kendalltau(x, y).statistic)


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


def _constant(x: np.ndarray, y: np.ndarray) -> bool:
    return bool(is_constant(x.min(), x.max()) or is_constant(y.min(), y.max()))
