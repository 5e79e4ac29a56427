"""Selectors that put runs in an order and average the first ones equally."""

import numpy as np

from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import weights_of
from mmmos.ensembles.selectors.objective import METRIC, Names, quality
from mmmos.ensembles.selectors.selection import Selection, equal


def average(pool: Pool) -> Selection:
    """All runs, equally. No truth is looked at."""
    return equal(pool, range(len(pool)))


def best(pool: Pool, *, on: Names = "pam", metric: Names = METRIC) -> Selection:
    """The single best run on a set, or on several by the weighted mean of its ranks. Raises as ``top_k``."""
    return top_k(pool, on=on, k=1, metric=metric)


def top_k(pool: Pool, *, on: Names = "pam", k: int = 4, metric: Names = METRIC) -> Selection:
    """The k best runs, equally; on several sets, by the weighted mean of their ranks; all of a smaller pool.

    A run's quality is the mean of ``metric`` over axes. Raises ``UnknownName`` for a set without truth or an unknown
    metric, ``UsageError`` for the evaluation set, and where the metric is undefined on a set.
    """
    return equal(pool, _order(pool, on, metric)[:k])


def intersect(pool: Pool, *, on: Names = ("dev", "pam"), k: int = 8, metric: Names = METRIC) -> Selection:
    """The runs that are among the best on every set: the top n of each, n being the least that leaves k in common.

    The rule of MMMOS (arXiv 2507.04094), which took the top 8 of dev and PAM. Several runs may enter at the last n;
    of these the better by weighted mean rank are kept. Raises as ``top_k``.
    """
    k = min(k, len(pool))
    worst = np.zeros(len(pool), dtype=np.int64)
    for name in weights_of(on):
        order = _order(pool, name, metric)
        worst[order] = np.maximum(worst[order], np.arange(len(pool)))
    common = worst <= np.sort(worst)[k - 1]
    return equal(pool, [run for run in _order(pool, on, metric) if common[run]][:k])


def _order(pool: Pool, on: Names, metric: Names) -> list[int]:
    """Runs from best to worst by the weighted sum of their ranks on the sets."""
    ranks = np.zeros(len(pool))
    for name, weight in weights_of(on).items():
        order = np.argsort(-quality(pool, name, metric), kind="stable")
        ranks[order] += weight * np.arange(len(pool))
    return [int(run) for run in np.argsort(ranks, kind="stable")]
