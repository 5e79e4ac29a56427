"""``run_shift`` and ``ranking_agreement``: what labelled sets say of a pool's runs, and whether they say the same."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import metrics
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.shift.resampling import Array, counts_of, with_interval
from mmmos.errors import UnknownName, UsageError
from mmmos.statistics import bootstrap_many

AGREEMENTS = ("first", "second", "axis", "runs", "tau", "tau_low", "tau_high", "rho", "rho_low", "rho_high")
TOP = ("k", "shared", "shared_low", "shared_high", "shared_by_chance")


def qualities(pool: Pool, name: str, metric: str = "SRCC", *, resamples: int = 200, seed: int = 0) -> Array:
    """Quality (1 + resamples, runs, axes) of every run on a labelled set, higher is better (an MSE is negated).

    The first is of the clips as they are, the others of bootstrap samples of them, the same for every run.
    NaN on an axis without truth, and for a run whose predictions are not finite. Raises ``UnknownName`` for a set
    without truth or a metric that is not MSE, LCC, SRCC or KTAU.
    """
    if metric not in metrics.METRICS:
        raise UnknownName("metric", metric, metrics.METRICS)
    pairs = list(pool.pairs(name, f"utt_{metric}"))
    counts = counts_of(len(pool.ids[name]), resamples, seed)
    found = np.full((len(counts), len(pool), len(pool.axes)), np.nan)
    for axis, predictions, truth in pairs:
        known = np.isfinite(pool.truth[name][:, axis])
        finite = np.isfinite(predictions).all(axis=1)
        found[:, finite, axis] = bootstrap_many(metric, predictions[finite], truth, counts[:, known]).T
    return -found if metric == "MSE" else found


def run_shift(
    pool: Pool, source: str, target: str, *, metric: str = "SRCC", resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    """A row for each run, the one that loses most first: key, name, its quality on both sets.

    Qualities are means over the axes that have truth on both. ``change``: quality on ``target`` minus that on
    ``source``; ``beyond``: the run's change minus the mean change of the pool, since a harder set lowers all; both with
    95 % intervals over the clips of the two sets. Raises as ``qualities``.
    """
    if source == target:
        raise UsageError(f"Runs are compared between two sets; got {source!r} twice.")
    both = [
        qualities(pool, name, metric, resamples=resamples, seed=seed + number)
        for number, name in enumerate((source, target))
    ]
    axes = _axes(pool, source, target)
    first, second = (each[:, :, axes].mean(axis=2) for each in both)
    change = second - first
    beyond = change - np.ma.masked_invalid(change).mean(axis=1, keepdims=True).filled(np.nan)
    rows = [
        {"key": key, "name": spec.name, source: first[0, run], target: second[0, run]}
        | with_interval("change", change[:, run])
        | with_interval("beyond", beyond[:, run])
        for run, (key, spec) in enumerate(zip(pool.keys, pool.specs, strict=True))
    ]
    return pd.DataFrame(rows).sort_values("change", kind="stable", ignore_index=True)


def ranking_agreement(
    pool: Pool, sets: Sequence[str], *, metric: str = "SRCC", k: int = 10, resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How alike labelled sets rank the runs: a row for each two of ``sets`` and each axis, "mean" being all axes.

    Columns: Kendall's tau-b and Spearman's ``rho`` between the runs' qualities, and how many of the best ``k`` runs the
    two share, all with 95 % intervals over the clips of both sets; ``shared_by_chance`` = k² / runs. Raises as
    ``qualities``.
    """
    k = min(k, len(pool))
    found = {
        name: qualities(pool, name, metric, resamples=resamples, seed=seed + number) for number, name in enumerate(sets)
    }
    rows = []
    for first, second in combinations(sets, 2):
        places = {axis: [place] for place, axis in enumerate(pool.axes)} | {"mean": _axes(pool, first, second)}
        for axis, columns in places.items():
            a, b = (found[name][:, :, columns].mean(axis=2) for name in (first, second))
            rows.append(
                {"first": first, "second": second, "axis": axis, "runs": len(pool)}
                | with_interval("tau", _correlations("KTAU", a, b))
                | with_interval("rho", _correlations("SRCC", a, b))
                | {"k": k}
                | with_interval("shared", _shared(a, b, k))
                | {"shared_by_chance": k * k / len(pool)}
            )
    return pd.DataFrame(rows, columns=[*AGREEMENTS, *TOP])


def _axes(pool: Pool, first: str, second: str) -> list[int]:
    """Positions of the axes that have truth on both sets. Raises ``UsageError`` for none."""
    known = np.isfinite(pool.truth[first]).any(axis=0) & np.isfinite(pool.truth[second]).any(axis=0)
    if not known.any():
        raise UsageError(f"No axis has scores on both {first} and {second}, so that they cannot be compared.")
    return [int(place) for place in np.flatnonzero(known)]


def _correlations(name: str, a: Array, b: Array) -> Array:
    """A rank correlation (samples,) between the rows of two arrays (samples, runs), over the runs that both know."""
    known = np.isfinite(a) & np.isfinite(b)
    rows = ((x[own], y[own]) for x, y, own in zip(a, b, known, strict=True))
    return np.array([metrics.METRICS[name](x, y) if len(x) else float("nan") for x, y in rows])


def _shared(a: Array, b: Array, k: int) -> Array:
    """How many of the best k (samples,) two arrays of qualities (samples, runs) share; ties go to the earlier run."""
    return np.asarray((_best(a, k) & _best(b, k)).sum(axis=1), np.float64)


def _best(quality: Array, k: int) -> NDArray[np.bool_]:
    """True for the best k of each row; an undefined quality is the worst."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-np.nan_to_num(quality, nan=-np.inf), method="ordinal", axis=1) <= k)
