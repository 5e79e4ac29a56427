"""What is good: the quality of runs on a set, and the sum over sets, axes and metrics that weighing rules work on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import weights_of
from mmmos.errors import UsageError
from mmmos.statistics import is_constant

Names = str | Sequence[str] | Mapping[str, float]

METRIC = "utt_SRCC"


@dataclass(frozen=True)
class Term:
    """One axis of one set at one level: predictions (runs, n), truth (n,), and the weight of each metric of these."""

    axis: int
    predictions: NDArray[np.float64]
    truth: NDArray[np.float64]
    weights: dict[str, float]


def quality(pool: Pool, name: str, metric: Names = METRIC) -> NDArray[np.float64]:
    """Quality (runs,) of every run on a set, higher is better; of several metrics the weighted mean.

    Each is the mean over axes, an MSE negated, a correlation of constant predictions counting as 0. Axes without
    different true scores are left out. Raises ``UsageError`` when that leaves none.
    """
    mix = weights_of(metric)
    total = np.zeros(len(pool))
    for each, weight in mix.items():
        measured = pool.measure(name, each)[:, _axes(pool, name, each)]
        total += weight * np.where(np.isnan(measured), 0.0, measured).mean(axis=1)
    return total / sum(mix.values())


def terms(pool: Pool, on: Names, metric: Names) -> list[Term]:
    """The objective: on each set the ``quality`` of an ensemble, and of several sets the weighted mean.

    The weights of all terms sum to 1. Raises as ``Pool.measure`` and ``quality`` do.
    """
    sets, mix = weights_of(on), weights_of(metric)
    found = []
    for name, set_weight in sets.items():
        axes = {each: _axes(pool, name, each) for each in mix}
        for level in ("utt_", "sys_"):
            own = [each for each in mix if each.startswith(level)]
            weights: dict[int, dict[str, float]] = {}
            for each in own:
                share = set_weight / sum(sets.values()) * mix[each] / sum(mix.values())
                for axis in axes[each]:
                    weights.setdefault(axis, {})[each.removeprefix(level)] = share / len(axes[each])
            pairs = pool.pairs(name, own[0]) if own else ()
            found += [Term(axis, x, y, weights[axis]) for axis, x, y in pairs if axis in weights]
    return found


def finite(some: Sequence[Term]) -> NDArray[np.int64]:
    """Positions of the runs whose predictions are finite in every term. Raises ``UsageError`` when there is none."""
    runs = np.flatnonzero(np.logical_and.reduce([np.isfinite(term.predictions).all(axis=1) for term in some]))
    if not len(runs):
        raise UsageError("No head predicts finite numbers on the sets to select on, so that none can be chosen.")
    return runs


def _axes(pool: Pool, name: str, metric: str) -> list[int]:
    """Axes on which a metric is defined for a set: there is truth, and for correlations it varies."""
    truths = pool.truths(name, metric)
    varies = {axis: not is_constant(truth.min(), truth.max()) for axis, truth in truths.items()}
    axes = [axis for axis in truths if varies[axis] or metric.endswith("_MSE")]
    if not axes:
        least = "at least two systems" if metric.startswith("sys") else "at least two clips"
        raise UsageError(f"{metric} is undefined on {name!r}: it needs {least} with different scores.")
    return axes
