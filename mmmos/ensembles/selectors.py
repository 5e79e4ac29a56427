"""Selectors: which runs of a pool are averaged, and with which weights. They read a pool's predictions and truth only.

Each is a function of a ``Pool`` and keyword parameters that gives a ``Selection``. ``on`` names the sets whose truth
is looked at: pam (synthetic proxy), dev (natural) or oof (out-of-fold); the evaluation set is sealed.
Qualities are means over axes of ``metric`` (utt_SRCC by default); ties go to the earlier run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.pool import Pool
from mmmos.errors import UsageError

METRIC = "utt_SRCC"


@dataclass(frozen=True)
class Selection:
    """Positions of the chosen runs in the pool, and weights (members, axes) that sum to 1 for each axis."""

    members: NDArray[np.int64]
    weights: NDArray[np.float64]


def average(pool: Pool) -> Selection:
    """All runs, equally."""
    return _equal(pool, range(len(pool)))


def best(pool: Pool, *, on: str | Sequence[str] = "pam", metric: str = METRIC) -> Selection:
    """The single best run on a set, or on several by the mean of its ranks."""
    return top_k(pool, on=on, k=1, metric=metric)


def top_k(pool: Pool, *, on: str | Sequence[str] = "pam", k: int = 4, metric: str = METRIC) -> Selection:
    """The k best runs, equally; on several sets, by the mean of their ranks. A pool of fewer runs gives all."""
    return _equal(pool, sorted(_order(pool, _names(on), metric)[:k]))


def intersect(pool: Pool, *, on: str | Sequence[str] = ("dev", "pam"), k: int = 8, metric: str = METRIC) -> Selection:
    """The runs that are among the best on every set: the top n of each, n being the least that leaves k in common.

    The rule of MMMOS (arXiv 2507.04094), which took the top 8 of dev and PAM. Several runs may enter at the last n;
    of these the better by mean rank are kept.
    """
    names = _names(on)
    orders = [_order(pool, [name], metric) for name in names]
    k = min(k, len(pool))
    for size in range(k, len(pool) + 1):
        common = set.intersection(*(set(order[:size]) for order in orders))
        if len(common) >= k:
            chosen = [run for run in _order(pool, names, metric) if run in common][:k]
            return _equal(pool, sorted(chosen))
    raise AssertionError("the whole pool is common to all sets")


def quality(pool: Pool, name: str, metric: str = METRIC) -> NDArray[np.float64]:
    """Quality (runs,) of every run on a set: the mean over axes, a correlation of constant predictions counting as 0.

    Axes without different true scores are left out. Raises ``UsageError`` when that leaves none.
    """
    measured = pool.measure(name, metric)
    if not metric.endswith("_MSE"):
        spread = [np.unique(column[np.isfinite(column)]).size for column in pool.truth[name].T]
        measured = measured[:, np.array(spread) > 1]
    else:
        measured = measured[:, ~np.isnan(measured).all(axis=0)]
    if not measured.size:
        raise UsageError(f"{metric} is undefined on {name!r}: it needs at least two clips with different scores.")
    return np.where(np.isnan(measured), 0.0, measured).mean(axis=1)


def _order(pool: Pool, names: Sequence[str], metric: str) -> list[int]:
    """Runs from best to worst by the sum of their ranks on the sets."""
    ranks = np.zeros(len(pool))
    for name in names:
        order = np.argsort(-quality(pool, name, metric), kind="stable")
        ranks[order] += np.arange(len(pool))
    return [int(run) for run in np.argsort(ranks, kind="stable")]


def _names(on: str | Sequence[str]) -> list[str]:
    return [on] if isinstance(on, str) else list(on)


def _equal(pool: Pool, members: Sequence[int]) -> Selection:
    weights = np.full((len(members), len(pool.axes)), 1 / len(members))
    return Selection(np.array(members, dtype=np.int64), weights)
