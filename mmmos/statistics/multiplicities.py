"""Bootstrap by multiplicities: a resample is a vector of counts, and nothing is drawn or sorted twice."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmmos.statistics.agreement import METRICS, FloatArray, check_finite, check_metric, is_constant

IntArray = NDArray[np.int64]

_BLOCK = 250_000  # numbers in a temporary array, about what a cache holds


def resample_counts(
    n: int, resamples: int, seed: int | tuple[int, ...] = 0, units: ArrayLike | None = None
) -> IntArray:
    """Multiplicities of ``resamples`` bootstrap samples of ``n`` items, or of the units that they belong to.

    ``units``: a label for each item (n,), such as its system; whole units are drawn then, each with all its items.
    Returns int64 (resamples, n), without units each row multinomial(n, 1/n); equal seeds give equal counts.
    Raises ``ValueError`` unless ``n`` >= 1 and ``resamples`` >= 1, and for ``units`` of another length.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"A bootstrap needs at least one item and one resample; got n={n}, resamples={resamples}.")
    rng = np.random.default_rng(seed)
    if units is None:
        return rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    labels, unit = np.unique(np.asarray(units), return_inverse=True)
    if unit.shape != (n,):
        raise ValueError(f"units must name the unit of each of the {n} items; got shape {unit.shape}.")
    return rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=resamples)[:, unit]


def bootstrap(metric: str, x: ArrayLike, y: ArrayLike, counts: IntArray) -> FloatArray:
    """One metric in every resample, as scipy gives it on the resample written out (to 1e-12).

    ``metric``: "MSE", "LCC", "SRCC" or "KTAU" (tau-b); ``x``, ``y``: finite (n,); ``counts``: int (resamples, n).
    Returns float64 (resamples,), nan where a correlation is undefined. Work grows with resamples × n, for KTAU with
    resamples × n log n.
    Raises ``UnknownName`` for another metric, ``ValueError`` for shapes that differ or values that are not finite.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 1:
        raise ValueError(f"x must be (n,); got {x.shape}.")
    return bootstrap_many(metric, x[None], y, counts)[0]


def bootstrap_many(metric: str, predictions: ArrayLike, truth: ArrayLike, counts: IntArray) -> FloatArray:
    """The same for many models on equal resamples: predictions (models, n), truth (n,) -> (models, resamples)."""
    check_metric(metric, METRICS)
    x, y, counts = np.asarray(predictions, np.float64), np.asarray(truth, np.float64), np.asarray(counts, np.int64)
    if x.ndim != 2 or y.shape != x.shape[1:] or counts.ndim != 2 or counts.shape[1:] != y.shape or not len(y):
        raise ValueError(
            f"Scores must be (n,) or (models, n), truth (n,), counts (resamples, n); got {x.shape}, {y.shape}, "
            f"{counts.shape}."
        )
    check_finite(x, y)
    if metric in ("SRCC", "KTAU"):
        return _of_ranks(metric, x, y, counts)
    values = np.empty((len(x), len(counts)))
    rows = max(1, _BLOCK // len(y))
    for start in range(0, len(counts), rows):
        part = slice(start, start + rows)
        with np.errstate(invalid="ignore", divide="ignore"):  # a sample of no items has no value
            values[:, part] = (_mse if metric == "MSE" else _lcc)(x, y, counts[part].astype(np.float64))
    return values


def _of_ranks(metric: str, x: FloatArray, y: FloatArray, counts: IntArray) -> FloatArray:
    from mmmos.statistics import kernels

    levels, group = np.unique(y, return_inverse=True)
    counts = np.ascontiguousarray(counts)
    values = np.empty((len(x), len(counts)))
    for model, scores in enumerate(np.ascontiguousarray(x)):
        order = np.argsort(scores, kind="stable")
        values[model] = kernels.over_counts(metric == "KTAU", scores, order, levels, group, counts)
    return values


def _mse(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    return np.asarray(((x - y) ** 2) @ counts.T / counts.sum(axis=1))


def _lcc(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    """Pearson's r of deviations from each resample's own means."""
    n = counts.sum(axis=1)
    dy = y - (counts @ y / n)[:, None]
    weighted = counts * dy
    spread_y, constant_y = _dots(weighted, dy), _constant(y, counts)
    values = np.full((len(x), len(counts)), np.nan)
    for row, scores in zip(values, x, strict=True):
        dx = scores - (counts @ scores / n)[:, None]
        spread = np.sqrt(_dots(counts * dx, dx)) * np.sqrt(spread_y)
        defined = ~(constant_y | _constant(scores, counts)) & (spread > 0)
        np.divide(_dots(weighted, dx), spread, out=row, where=defined)
    return np.clip(values, -1.0, 1.0)


def _dots(a: FloatArray, b: FloatArray) -> FloatArray:
    """Row by row dot product: (resamples, n) twice -> (resamples,)."""
    return np.asarray(np.einsum("bi,bi->b", a, b))


def _constant(values: FloatArray, counts: FloatArray) -> NDArray[np.bool_]:
    """True for the resamples in which the values are constant."""
    order = np.argsort(values)
    present = (counts > 0)[:, order]
    low = values[order[present.argmax(axis=1)]]
    return is_constant(low, values[order[::-1][present[:, ::-1].argmax(axis=1)]])
