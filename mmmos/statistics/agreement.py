"""How well the scores of many models agree with one truth, and when a correlation is undefined."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmmos.errors import UnknownName

FloatArray = NDArray[np.float64]

METRICS = ("MSE", "LCC", "SRCC", "KTAU")
RELATIVE_CONSTANT = 1e-12


def measure(metric: str, predictions: ArrayLike, truth: ArrayLike) -> FloatArray:
    """One metric of many models at once, as ``mmmos.metrics`` gives it for each (to 1e-12).

    ``metric``: "MSE", "LCC", "SRCC" or "KTAU" (tau-b); ``predictions``: finite (models, n); ``truth``: finite (n,).
    Returns float64 (models,), nan where a correlation is undefined. Work grows with models × n log n.
    Raises ``UnknownName`` for another metric, ``ValueError`` for shapes that differ or values that are not finite.
    """
    check_metric(metric)
    x, y = np.asarray(predictions, np.float64), np.asarray(truth, np.float64)
    if x.ndim != 2 or y.ndim != 1 or x.shape[1:] != y.shape or not len(y):
        raise ValueError(f"predictions must be (models, n), truth (n,), n at least 1; got {x.shape}, {y.shape}.")
    check_finite(x, y)
    if metric == "MSE":
        return np.asarray(((x - y) ** 2).mean(axis=1))
    if metric == "LCC":
        return _pearson(x, y)
    from mmmos.statistics import kernels

    orders = np.argsort(x, axis=1, kind="stable")
    levels, group = np.unique(y, return_inverse=True)
    return np.asarray(kernels.over_models(metric == "KTAU", x, orders, levels, group))


def is_constant(low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
    """True where a range [low, high] is nothing but rounding: at most 1e-12 of its larger end.

    The means of equal scores over systems of different size differ in their last bits; that is no ranking.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return np.asarray(high - low <= RELATIVE_CONSTANT * np.maximum(np.abs(low), np.abs(high)))


def check_metric(metric: str, allowed: Iterable[str] = METRICS) -> None:
    """Raise ``UnknownName`` unless there is such a metric."""
    if metric not in allowed:
        raise UnknownName("metric", metric, allowed)


def check_finite(x: FloatArray, y: FloatArray) -> None:
    """Raise ``ValueError`` unless all scores are finite."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Scores must be finite.")


def _pearson(x: FloatArray, y: FloatArray) -> FloatArray:
    constant = is_constant(x.min(axis=1), x.max(axis=1)) | is_constant(y.min(), y.max())
    dx, dy = x - x.mean(axis=1, keepdims=True), y - y.mean()
    spread = np.sqrt(np.einsum("mi,mi->m", dx, dx)) * np.sqrt(dy @ dy)
    value = np.full(len(x), np.nan)
    np.divide(dx @ dy, spread, out=value, where=~constant & (spread > 0))
    return np.clip(value, -1.0, 1.0)
