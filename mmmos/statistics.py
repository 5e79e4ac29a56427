"""Bootstrap intervals by multiplicities: a resample is a vector of counts, and nothing is drawn or sorted twice.

Conventions
    ``counts`` is an integer array (resamples, n): how often each of the n items occurs in each resample; rows sum to n.
    Scores that share one ``counts`` are *paired*: the interval of their difference is ``interval(a - b)``.
    A correlation is undefined (nan) in a resample whose values are constant, see ``is_constant``.

Contents
    ``resample_counts`` draws the counts, ``bootstrap`` computes one metric in every resample, ``interval`` reads
    the percentile interval (Efron, 1979), ``is_constant`` says when a correlation is undefined.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmmos.errors import UnknownName

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RELATIVE_CONSTANT = 1e-12
_BLOCK = 250_000  # numbers in a temporary array, about what a cache holds
_PRODUCT = 4_000_000  # the same for KTAU, whose work is a matrix product


def resample_counts(n: int, resamples: int, seed: int = 0) -> IntArray:
    """Multiplicities of ``resamples`` bootstrap samples of ``n`` items.

    Returns int64 (resamples, n), each row multinomial(n, 1/n); equal seeds give equal counts.
    Raises ``ValueError`` unless ``n`` >= 1 and ``resamples`` >= 1.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"A bootstrap needs at least one item and one resample; got n={n}, resamples={resamples}.")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def bootstrap(metric: str, x: ArrayLike, y: ArrayLike, counts: IntArray) -> FloatArray:
    """One metric in every resample, as scipy gives it on the resample written out (to 1e-12).

    ``metric``: "MSE", "LCC", "SRCC" or "KTAU" (tau-b); ``x``, ``y``: finite (n,); ``counts``: (resamples, n).
    Returns float64 (resamples,), nan where a correlation is undefined. Work grows with resamples × n, for KTAU with
    resamples × n²; memory stays at a few hundred MB.
    Raises ``UnknownName`` for another metric, ``ValueError`` for shapes that differ or values that are not finite.
    """
    if metric not in _METRICS:
        raise UnknownName("metric", metric, _METRICS)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape or counts.ndim != 2 or counts.shape[1] != len(x):
        raise ValueError(f"x and y must be (n,), counts (resamples, n); got {x.shape}, {y.shape}, {counts.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x and y must be finite.")
    rows = max(1, (_PRODUCT if metric == "KTAU" else _BLOCK) // max(1, len(x)))
    values = np.empty(len(counts))
    for start in range(0, len(counts), rows):
        part = slice(start, start + rows)
        values[part] = _METRICS[metric](x, y, counts[part].astype(np.float64))
    return values


def interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval (low, high) of bootstrap samples (resamples,).

    Undefined samples (nan) are left out; where more than ``1 - level`` of them are undefined, it is (nan, nan).
    """
    samples = np.asarray(samples, np.float64)
    defined = samples[~np.isnan(samples)]
    if not len(defined) or len(samples) - len(defined) > (1 - level) * len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def is_constant(low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
    """True where a range [low, high] is nothing but rounding: at most 1e-12 of its larger end.

    The means of equal scores over systems of different size differ in their last bits; that is no ranking.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return np.asarray(high - low <= RELATIVE_CONSTANT * np.maximum(np.abs(low), np.abs(high)))


def _mse(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    return counts @ (x - y) ** 2 / counts.sum(axis=1)


def _lcc(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    n = counts.sum(axis=1)
    dx = x - (counts @ x / n)[:, None]
    dy = y - (counts @ y / n)[:, None]
    weighted = counts * dx
    spread_x, shared = _dots(weighted, dx), _dots(weighted, dy)
    spread_y = _dots(counts * dy, dy)
    return _ratio(shared, np.sqrt(spread_x) * np.sqrt(spread_y), _undefined(x, y, counts))


def _srcc(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    """Pearson's r of mid-ranks, whose spread over n items with tie groups of k is (n³ - Σ k³) / 12."""
    n = counts.sum(axis=1)
    rank_x, cubes_x = _mid_ranks(x, counts)
    rank_y, cubes_y = _mid_ranks(y, counts)
    rank_x *= counts
    spread = np.sqrt((n**3 - cubes_x) / 12) * np.sqrt((n**3 - cubes_y) / 12)
    return _ratio(_dots(rank_x, rank_y), spread, _undefined(x, y, counts))


def _ktau(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    """tau-b: the concordance cᵀSc over ordered pairs; copies of one item are ties by construction."""
    n = counts.sum(axis=1)
    groups = [np.unique(values, return_inverse=True)[1] for values in (x, y)]
    single_x, single_y = (group.astype(np.float32) for group in groups)  # float32 is exact below 2**24
    single = counts.astype(np.float32)
    concordance = np.zeros(len(counts))
    columns = max(1, _PRODUCT // len(x))
    for start in range(0, len(x), columns):
        part = slice(start, start + columns)
        signs = np.sign(single_x[:, None] - single_x[part])
        signs *= np.sign(single_y[:, None] - single_y[part])
        concordance += _dots((single @ signs).astype(np.float64), counts[:, part])
    pairs_x, pairs_y = (n**2 - (_group_sums(group, counts) ** 2).sum(axis=1) for group in groups)
    return _ratio(concordance, np.sqrt(pairs_x) * np.sqrt(pairs_y), _undefined(x, y, counts))


def _mid_ranks(values: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centred mid-rank of every item in every resample (resamples, n), and Σ k³ over its tie groups (resamples,).

    A mid-rank is the number of items in lower groups, plus the middle of the own group.
    """
    _, group = np.unique(values, return_inverse=True)
    sizes = _group_sums(group, counts)
    ranks = np.cumsum(sizes, axis=1)
    ranks -= sizes / 2
    ranks -= counts.sum(axis=1, keepdims=True) / 2
    return ranks[:, group], np.einsum("bg,bg,bg->b", sizes, sizes, sizes)


def _group_sums(group: NDArray[np.intp], counts: FloatArray) -> FloatArray:
    """Items of every tie group in every resample: (resamples, groups)."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    return np.add.reduceat(counts[:, order], starts, axis=1)


def _dots(a: FloatArray, b: FloatArray) -> FloatArray:
    """Row by row dot product: (resamples, n) twice -> (resamples,)."""
    return np.einsum("bi,bi->b", a, b)


def _ratio(above: FloatArray, below: FloatArray, undefined: NDArray[np.bool_]) -> FloatArray:
    value = np.full(len(above), np.nan)
    np.divide(above, below, out=value, where=~undefined & (below > 0))
    return np.clip(value, -1.0, 1.0)


def _undefined(x: FloatArray, y: FloatArray, counts: FloatArray) -> NDArray[np.bool_]:
    """True for the resamples in which x or y is constant."""
    constant = np.zeros(len(counts), bool)
    for values in (x, y):
        order = np.argsort(values)
        present = (counts > 0)[:, order]
        low = values[order[present.argmax(axis=1)]]
        constant |= is_constant(low, values[order[::-1][present[:, ::-1].argmax(axis=1)]])
    return constant


_METRICS: dict[str, Callable[[FloatArray, FloatArray, FloatArray], FloatArray]] = {
    "MSE": _mse,
    "LCC": _lcc,
    "SRCC": _srcc,
    "KTAU": _ktau,
}
