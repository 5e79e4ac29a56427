"""Is one model better than another? Paired tests on the same items, and Holm's correction when there are many.

All tests are two-sided. The resampling tests suit every metric; Williams' and Steiger's suit Pearson's r of
normal scores and need only the three correlations.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mmmos.statistics.agreement import FloatArray, check_metric, measure
from mmmos.statistics.intervals import interval
from mmmos.statistics.multiplicities import IntArray, bootstrap_many

_BLOCK = 2_000_000  # numbers in a temporary array


@dataclass(frozen=True)
class Difference:
    """A difference of one metric between two models, its 95 % interval [low, high] and its p-value."""

    value: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    metric: str, a: ArrayLike, b: ArrayLike, truth: ArrayLike, counts: IntArray, level: float = 0.95
) -> Difference:
    """``metric`` of ``a`` less that of ``b`` (each (n,)) on equal resamples, with its percentile interval.

    ``counts``: from ``resample_counts``. ``p`` is twice the smaller share of resamples on one side of zero, where the
    sample itself counts as one resample (Davison and Hinkley, 1997, section 4.4); nan where the interval is.
    """
    pair = np.stack([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    values = bootstrap_many(metric, pair, truth, np.vstack([np.ones_like(counts[:1]), counts]))
    value, *samples = values[0] - values[1]
    low, high = interval(samples, level)
    if np.isnan(low):
        return Difference(float(value), low, high, float("nan"))
    defined = np.asarray(samples)[~np.isnan(samples)]
    tail = min((defined <= 0).sum(), (defined >= 0).sum())
    return Difference(float(value), low, high, float(min(1.0, 2 * (1 + tail) / (1 + len(defined)))))


def permutation_test(
    metric: str, a: ArrayLike, b: ArrayLike, truth: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> float:
    """p-value of the paired permutation test that two models (each (n,)) agree equally well with ``truth``.

    The two predictions of an item are swapped at random (Fisher, 1935), for SRCC and KTAU as ranks and for LCC in
    standard deviations, so that a model's scale and offset do not count. With at most ``resamples`` ways to swap, all
    are tried and p is exact; else the models as they are count as one more resample, and p is at least
    1 / (``resamples`` + 1). nan where the metric of a model is undefined.
    """
    check_metric(metric)
    pair = np.stack([_comparable(metric, np.asarray(one, np.float64)) for one in (a, b)])
    observed = abs(np.subtract(*measure(metric, pair, truth)))
    if np.isnan(observed):
        return float("nan")
    n = pair.shape[1]
    exact = n < 63 and 2**n <= resamples
    rng, total, reached = np.random.default_rng(seed), 2**n if exact else resamples, 0
    rows = max(1, _BLOCK // n)
    for start in range(0, total, rows):
        size = min(rows, total - start)
        if exact:
            swap = ((np.arange(start, start + size)[:, None] >> np.arange(n)) & 1).astype(bool)
        else:
            swap = rng.integers(0, 2, (size, n), dtype=np.int8).astype(bool)
        first, second = (measure(metric, np.where(swap, *sides), truth) for sides in (pair[::-1], pair))
        reached += int((~(np.abs(first - second) < observed - 1e-12)).sum())
    return reached / total if exact else (reached + 1) / (total + 1)


def holm(p_values: ArrayLike) -> FloatArray:
    """p-values (m,) adjusted for m tests (Holm, 1979): reject those at most alpha, and the chance of any false
    rejection is at most alpha. Undefined ones (nan) stay undefined and do not count.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def williams_test(r_a: float, r_b: float, r_ab: float, n: int) -> tuple[float, float]:
    """Williams' t and p-value of two correlations with one truth (Williams, 1959; Steiger, 1980, equation 7).

    ``r_a``, ``r_b``: Pearson's r of each model with the truth; ``r_ab``: of the models with each other; ``n`` >= 4
    items. t has n - 3 degrees of freedom. Raises ``ValueError`` for correlations that are none.
    """
    from scipy.special import stdtr

    _check_correlations(r_a, r_b, r_ab, n)
    determinant = 1 - r_a**2 - r_b**2 - r_ab**2 + 2 * r_a * r_b * r_ab
    mean = (r_a + r_b) / 2
    below = 2 * (n - 1) / (n - 3) * determinant + mean**2 * (1 - r_ab) ** 3
    t = (r_a - r_b) * np.sqrt((n - 1) * (1 + r_ab) / below)
    return float(t), float(2 * stdtr(n - 3, -abs(t)))


def steiger_test(r_a: float, r_b: float, r_ab: float, n: int) -> tuple[float, float]:
    """Steiger's Z and p-value of two correlations with one truth (Steiger, 1980, equations 3 and 14).

    Arguments as in ``williams_test``. Z compares Fisher's z of both, with their covariance taken at the mean of
    ``r_a`` and ``r_b``.
    """
    from scipy.special import ndtr

    _check_correlations(r_a, r_b, r_ab, n)
    square = ((r_a + r_b) / 2) ** 2
    shared = r_ab * (1 - 2 * square) - square * (1 - 2 * square - r_ab**2) / 2
    covariance = shared / (1 - square) ** 2
    z = (np.arctanh(r_a) - np.arctanh(r_b)) * np.sqrt((n - 3) / (2 - 2 * covariance))
    return float(z), float(2 * ndtr(-abs(z)))


def _comparable(metric: str, scores: FloatArray) -> FloatArray:
    if metric in ("SRCC", "KTAU"):
        from scipy.stats import rankdata

        return np.asarray(rankdata(scores), np.float64)
    if metric == "LCC" and np.ptp(scores) > 0:
        return np.asarray((scores - scores.mean()) / scores.std())
    return scores


def _check_correlations(r_a: float, r_b: float, r_ab: float, n: int) -> None:
    determinant = 1 - r_a**2 - r_b**2 - r_ab**2 + 2 * r_a * r_b * r_ab
    if n < 4 or max(abs(r_a), abs(r_b), abs(r_ab)) >= 1 or determinant < -1e-12:
        raise ValueError(
            "The test needs at least 4 items and three correlations inside (-1, 1) that can hold together; got "
            f"r_a={r_a}, r_b={r_b}, r_ab={r_ab}, n={n}."
        )
