"""Confidence intervals from samples with units left out or resampled: jackknife, BCa and percentile.

"auto" is what ``mmmos.evaluate`` and leaderboards show: for each metric the method whose 95 % intervals cover at the
36 systems of a challenge (``benchmarks/intervals.py``).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mmmos.errors import UnknownName
from mmmos.statistics.agreement import FloatArray, is_constant
from mmmos.statistics.multiplicities import IntArray, bootstrap, resample_counts

METHODS = ("auto", "jackknife", "bca", "percentile")
GROUPS = 200  # more units than this are left out in groups
PAIRS = 4_000_000  # numbers in the counts up to which pairs of units are left out as well
END = 1 - 1e-9


def interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval (low, high) of bootstrap samples (resamples,) (Efron, 1979).

    Undefined samples (nan) are left out; where more than ``1 - level`` of them are undefined, it is (nan, nan).
    """
    defined = _defined(samples, level)
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bca_interval(samples: ArrayLike, value: float, left_out: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated interval (low, high) of bootstrap samples (Efron, 1987).

    ``value``: the statistic of the whole sample; ``left_out``: with each unit left out (units,).
    Undefined samples as in ``interval``; (nan, nan) as well where ``value`` or one of ``left_out`` is undefined. Where
    no correction exists, as when no resample is below ``value``, it is the percentile interval.
    """
    from scipy.special import ndtr, ndtri

    defined, left_out = _defined(samples, level), np.asarray(left_out, np.float64)
    if not len(defined) or np.isnan(value) or np.isnan(left_out).any():
        return float("nan"), float("nan")
    deviations = left_out.mean() - left_out
    spread = (deviations**2).sum()
    acceleration = (deviations**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    bias = ndtri(((defined < value).mean() + (defined <= value).mean()) / 2)
    ends = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    if not np.isfinite(bias) or (acceleration * ends >= 1).any():
        return interval(samples, level)
    low, high = np.quantile(defined, ndtr(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


@dataclass(frozen=True)
class Sampling:
    """Samples of one data set, and how an interval is read off what a statistic is in each of them.

    ``counts``: int64 (samples, n), for ``bootstrap`` and ``bootstrap_many``. Its rows are the whole sample, ``units``
    samples that lack one unit each, ``pairs`` that lack two (in the order of ``np.triu_indices(units, 1)``), and
    resamples; each method has those that it needs.
    """

    method: str
    counts: IntArray
    units: int
    pairs: int

    def interval(self, values: ArrayLike, metric: str | None = None, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval (low, high) of a statistic from its ``values`` in every sample (samples,).

        ``metric`` says what it is: "MSE", "LCC", "SRCC", "KTAU" or a mean of several such, None for another statistic,
        such as a difference. Method "auto" is the jackknife for MSE, LCC and KTAU, and BCa for the rest. BCa is widened
        where units hold several items, by Student's t of units - 1 degrees of freedom (Hesterberg, 2015).
        (nan, nan) for fewer than three units, and where the function of the method gives that.
        """
        if self.units < 3:
            return float("nan"), float("nan")
        values = np.asarray(values, np.float64)
        method = self.method
        if method == "auto":
            method = "bca" if metric in ("SRCC", None) else "jackknife"
        left_out, resampled = np.split(values, [1 + self.units + self.pairs])
        if method == "jackknife":
            return jackknife_interval(left_out, self.units, metric, level)
        if method == "bca":
            level = _widened(level, self.units) if self.counts.shape[1] > self.units else level
            return bca_interval(resampled, float(left_out[0]), left_out[1 : 1 + self.units], level)
        return interval(resampled, level)


def sampling(
    n: int,
    units: ArrayLike | None = None,
    *,
    strata: ArrayLike | None = None,
    method: str = "auto",
    resamples: int = 1000,
    seed: int = 0,
) -> Sampling:
    """The samples from which intervals of statistics of ``n`` items are computed.

    ``units``: a label for each item (n,), such as its system: units are drawn or left out with all their items.
    ``strata``: a label for each item, such as its domain: resamples draw as many of each stratum as there are.
    ``method``: "auto", "jackknife", "bca" or "percentile"; the jackknife needs neither ``resamples`` nor ``seed``.
    More than 200 units are left out in 200 random groups (of fixed seed), pairs of units only where that is at most
    4 million counts.
    Raises ``UnknownName`` for another method, ``ValueError`` unless ``n`` >= 1 and ``units`` has a label for each item.
    """
    if method not in METHODS:
        raise UnknownName("interval method", method, METHODS)
    kept = _left_out(n, units)
    size = len(kept)
    parts, pairs = [np.ones((1, n), np.int64), kept], 0
    if method in ("auto", "jackknife") and size * (size - 1) // 2 * n <= PAIRS:
        first, second = np.triu_indices(size, 1)
        parts.append(kept[first] * kept[second])
        pairs = len(first)
    if method != "jackknife":
        parts.append(_resampled(n, units, strata, resamples, seed))
    return Sampling(method, np.concatenate(parts), size, pairs)


def jackknife_interval(
    values: ArrayLike, units: int, metric: str | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Interval (low, high) of a statistic from its ``values`` in the samples of ``sampling(…, method="jackknife")``.

    It is value ± t · s on a scale that makes ``metric`` near normal: the logarithm for "MSE", Fisher's z for "LCC",
    "SRCC" and "KTAU" (and means of several), for None the values as they are. s² is the jackknife's variance less its
    second-order bias (Efron and Stein, 1981), t Student's quantile with Satterthwaite's degrees of freedom. A
    statistic that no unit changes has an interval of no width. (nan, nan) for fewer than three units, where the
    statistic is undefined without one of them, and where it is the same without any one of them as without another.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, np.float64)
    first = values[: units + 1]
    if units < 3 or not np.isfinite(first).all():
        return float("nan"), float("nan")
    if is_constant(first.min(), first.max()):
        return float(first[0]), float(first[0])
    if is_constant(first[1:].min(), first[1:].max()):
        return float("nan"), float("nan")
    scaled, inverse = _scaled(values, metric)
    variance, freedom = _variance(scaled, units)
    reach = stdtrit(freedom, (1 + level) / 2) * np.sqrt(variance)
    low, high = inverse(scaled[0] + np.array([-reach, reach]))
    return float(low), float(high)


def confidence(
    metric: str,
    x: ArrayLike,
    y: ArrayLike,
    *,
    units: ArrayLike | None = None,
    level: float = 0.95,
    method: str = "auto",
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval (low, high) of "MSE", "LCC", "SRCC" or "KTAU" of scores ``x``, ``y`` (n,).

    It is about the population that the items were drawn from, one by one, or in whole ``units`` (labels (n,), such
    as systems with all their clips). Other arguments and errors as in ``sampling`` and ``bootstrap``.
    """
    samples = sampling(len(np.asarray(x)), units, method=method, resamples=resamples, seed=seed)
    return samples.interval(bootstrap(metric, x, y, samples.counts), metric, level)


def _resampled(n: int, units: ArrayLike | None, strata: ArrayLike | None, resamples: int, seed: int) -> IntArray:
    """``resample_counts`` of all items, or of each stratum by itself."""
    if strata is None:
        return resample_counts(n, resamples, seed, units)
    labels, stratum = np.unique(np.asarray(strata), return_inverse=True)
    if stratum.shape != (n,):
        raise ValueError(f"strata must name the stratum of each of the {n} items; got shape {stratum.shape}.")
    counts = np.zeros((resamples, n), np.int64)
    for number in range(len(labels)):
        own = stratum == number
        some = None if units is None else np.asarray(units)[own]
        counts[:, own] = resample_counts(int(own.sum()), resamples, (seed, number), some)
    return counts


def _left_out(n: int, units: ArrayLike | None) -> IntArray:
    """1 where an item stays when one unit, or one group of units, is left out: (units, n)."""
    if n < 1:
        raise ValueError(f"A jackknife needs at least one item; got n={n}.")
    labels = np.arange(n) if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    if labels.shape != (n,):
        raise ValueError(f"units must name the unit of each of the {n} items; got shape {labels.shape}.")
    size = int(labels.max()) + 1
    if size > GROUPS:
        labels, size = np.random.default_rng(0).permutation(size)[labels] % GROUPS, GROUPS
    return (labels[None] != np.arange(size)[:, None]).astype(np.int64)


def _widened(level: float, units: int) -> float:
    """The level at which a normal interval is as wide as one of ``level`` with Student's t and an unbiased variance."""
    from scipy.special import ndtr, stdtrit

    return float(2 * ndtr(stdtrit(units - 1, (1 + level) / 2) * np.sqrt(units / (units - 1))) - 1)


def _defined(samples: ArrayLike, level: float) -> FloatArray:
    """The samples that are not nan; none where more than ``1 - level`` are."""
    samples = np.asarray(samples, np.float64)
    undefined = np.isnan(samples)
    return samples[:0] if undefined.sum() > (1 - level) * len(samples) else samples[~undefined]


def _scaled(values: FloatArray, metric: str | None) -> tuple[FloatArray, np.ufunc]:
    """Values on the scale of a metric and the way back; linear about the first where one lies at the scale's end."""
    if metric is None:
        return values, np.positive
    first = values[0]
    if metric == "MSE":
        if np.nanmin(values) > 0:
            return np.log(values), np.exp
        return np.log(first) + (values - first) / first, np.exp
    if np.nanmax(np.abs(values)) < END:
        return np.arctanh(values), np.tanh
    first = np.clip(first, -END, END)
    return np.arctanh(first) + (values - values[0]) / (1 - first**2), np.tanh


def _variance(values: FloatArray, units: int) -> tuple[float, float]:
    """Variance of a statistic and the degrees of freedom of that estimate."""
    whole, single, pairs = values[0], values[1 : units + 1], values[units + 1 :]
    squares = (single - single.mean()) ** 2
    rough = variance = (units - 1) / units * squares.sum()
    if len(pairs) and np.isfinite(pairs).all():
        first, second = np.triu_indices(units, 1)
        interaction = units * whole - (units - 1) * (single[first] + single[second]) + (units - 2) * pairs
        excess = ((interaction - interaction.mean()) ** 2).sum() / (units * (units - 1))
        variance = max(rough - excess, rough / 4)
    kurtosis = units * (squares**2).sum() / squares.sum() ** 2
    freedom = min(2 * units / max(kurtosis - 1, 0.2), units - 1) * (variance / rough) ** 2
    return float(variance), float(max(freedom, min(3, units - 1)))
