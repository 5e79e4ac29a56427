"""Quality of many models on a set, by domain and axis, with bootstrap samples that are paired over models and axes."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.pool import Pool, system_means
from mmmos.ensembles.recipe import METRICS, SEALED
from mmmos.errors import UnknownName, UsageError
from mmmos.statistics import bootstrap_many, interval, measure, resample_counts

Array = NDArray[np.float64]

# What stands for a whole set among domains, and for the mean among axes.
ALL, MEAN = "all", "mean"


@dataclass(frozen=True)
class Measured:
    """Quality of models on the clips of a domain: ``values`` (models + 1,), ``samples`` (models + 1, resamples).

    The last model always predicts the mean of the truth. NaN where the truth is constant or unknown.
    """

    domain: str
    axis: str
    values: Array
    samples: Array


@dataclass(frozen=True)
class Items:
    """What a metric compares on one axis, clips or systems: ``predictions`` (models, items), ``truth`` (items,)."""

    predictions: Array
    truth: Array


def measured(
    pool: Pool,
    name: str,
    metric: str,
    *,
    scores: NDArray[np.floating[Any]] | None = None,
    by_domain: bool = True,
    resamples: int = 200,
    seed: int = 0,
) -> Iterator[Measured]:
    """Quality of a pool's runs, or of other models' ``scores`` (models, clips, axes), on a labelled set: on all clips,
    then on each domain where there are several, on every axis and on their mean.
    """
    scores, short = pool.scores[name] if scores is None else scores, metric.split("_")[1]
    for domain, clips in parts(pool, name, by_domain):
        draw = _seed(seed, name, domain)
        every = [items_of(pool, name, metric, column, scores, clips) for column in range(len(pool.axes))]
        found = [
            Measured(domain, axis, *_quality(short, items, resamples, draw))
            for axis, items in zip(pool.axes, every, strict=True)
        ]
        yield from found
        yield _mean(found)


def items_of(
    pool: Pool, name: str, metric: str, column: int, scores: NDArray[np.floating[Any]], clips: NDArray[np.int64]
) -> Items:
    """The clips among ``clips`` (positions) whose truth is known on an axis, or the means over those of each system."""
    truth = pool.truth[name][clips, column]
    known = np.isfinite(truth)
    predictions, truth = scores[:, clips[known], column].astype(np.float64), truth[known]
    if metric.startswith("sys_"):
        systems = pool.systems[name]
        if systems is None:
            raise UsageError(f"The clips of {name!r} have no system; use a metric that begins with utt_.")
        own = systems[clips[known]]
        return Items(system_means(predictions, own), system_means(truth, own))
    return Items(predictions, truth)


def parts(pool: Pool, name: str, by_domain: bool) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Positions of all clips of a set, then of those of each domain, by name, where there are several."""
    yield ALL, np.arange(len(pool.ids[name]))
    labels = pool.domains.get(name) if by_domain else None
    if labels is not None and len(set(labels)) > 1:
        for label in sorted(set(labels) - {""}):
            yield str(label), np.flatnonzero(labels == label)


def check_sets(pool: Pool, on: str | Sequence[str] | None, metric: str) -> list[str]:
    """The labelled sets that are named, all of them for None. Raises ``UsageError`` for a sealed or an unknown one, an
    unknown metric, or a metric of systems on clips without.
    """
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS)
    named = [on] if isinstance(on, str) else pool.labelled() if on is None else list(on)
    for name in named:
        if name in SEALED:
            raise UsageError(f"The set {name!r} is sealed: nothing is measured on it. Use {_words(pool.labelled())}.")
        if name not in pool.truth:
            raise UnknownName("labelled set", name, pool.labelled())
    if metric.startswith("sys_") and on is None:
        named = [name for name in named if pool.systems[name] is not None]
    if not named:
        raise UsageError(f"No set of the pool has what {metric} needs: truth, and systems for sys_ metrics.")
    return named


def ends(samples: Array) -> tuple[float, float]:
    """The 95 % interval of samples (resamples,), NaN twice where there are none."""
    return interval(samples) if len(samples) else (float("nan"), float("nan"))


def draws(items: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Bootstrap counts (resamples, items), with ``resamples`` of 0 none."""
    return resample_counts(items, resamples, seed) if resamples else np.zeros((0, items), np.int64)


def _quality(short: str, items: Items, resamples: int, seed: int) -> tuple[Array, Array]:
    """``values`` and ``samples`` of a ``Measured``."""
    models, truth = len(items.predictions) + 1, items.truth
    if len(truth) < 2 or np.unique(truth).size < 2:
        return np.full(models, np.nan), np.full((models, resamples), np.nan)
    predictions = np.vstack([items.predictions, np.full(len(truth), truth.mean())])
    counts = draws(len(truth), resamples, seed)
    samples = bootstrap_many(short, predictions, truth, counts) if resamples else np.zeros((models, 0))
    values = measure(short, predictions, truth)
    return _defined(short, values[:, None])[:, 0], _defined(short, samples)


def _defined(short: str, values: Array) -> Array:
    """Values (models, …) with 0 for the correlation of a constant prediction, and NaN where none is defined."""
    if short == "MSE":
        return values
    return np.where(np.isnan(values) & ~np.isnan(values).all(axis=0), 0.0, values)


def _mean(found: Sequence[Measured]) -> Measured:
    """The mean over those axes whose quality is defined."""
    told = [each for each in found if not np.isnan(each.values).all()] or list(found)
    values, samples = (np.mean([getattr(each, part) for each in told], axis=0) for part in ("values", "samples"))
    return Measured(found[0].domain, MEAN, values, samples)


def _seed(seed: int, *names: str) -> int:
    """A seed of its own for every set and domain, so that draws of two sets of one size have nothing in common."""
    return int.from_bytes(hashlib.sha256(repr((seed, *names)).encode()).digest()[:4])


def _words(names: list[str]) -> str:
    return " or ".join(names) or "a labelled set"
