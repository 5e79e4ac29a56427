"""Tables that each answer a question: are the axes independent, what do more clips buy, which loss carries over from
natural to synthetic audio, how many members are enough.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from mmmos.ensembles.ablation.contrasts import balanced, factors_of
from mmmos.ensembles.ablation.contributions import METRIC
from mmmos.ensembles.ablation.measured import Array, check_sets, draws, ends, items_of, measured, parts
from mmmos.ensembles.ensemble import select
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.training.data import OUT_OF_FOLD
from mmmos.errors import UnknownName, UsageError
from mmmos.statistics import bootstrap, measure


def axis_correlations(
    pool: Pool,
    *,
    on: str | Sequence[str] | None = None,
    metric: str = METRIC,
    by_domain: bool = True,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlations between axes: columns set, domain, of, axis, other, metric, value, low, high.

    ``of`` "labels": of the truth; "predictions": of the mean of all runs. Clips (systems) with truth on both axes
    count. Raises ``UsageError`` for an MSE, which is no correlation.
    """
    if metric.endswith("_MSE"):
        raise UsageError(f"{metric} is no correlation; use utt_SRCC, utt_LCC, utt_KTAU or the same with sys_.")
    rows = []
    for name in check_sets(pool, on, metric):
        scores = np.stack([pool.truth[name], pool.scores[name].mean(axis=0, dtype=np.float64)])
        both = np.isfinite(pool.truth[name])
        for domain, clips in parts(pool, name, by_domain):
            for one, other in combinations(range(len(pool.axes)), 2):
                some = clips[both[clips, one] & both[clips, other]]
                sides = [items_of(pool, name, metric, axis, scores, some).predictions for axis in (one, other)]
                for kind, x, y in zip(("labels", "predictions"), *sides, strict=True):
                    found = _correlation(metric.split("_")[1], x, y, resamples, seed)
                    rows.append((name, domain, kind, pool.axes[one], pool.axes[other], metric, *found))
    return pd.DataFrame(rows, columns=["set", "domain", "of", "axis", "other", "metric", "value", "low", "high"])


def _correlation(short: str, x: Array, y: Array, resamples: int, seed: int) -> tuple[float, float, float]:
    """A correlation with its interval, NaN where it is undefined."""
    if len(x) < 2:
        return float("nan"), float("nan"), float("nan")
    value = float(measure(short, x[None], y)[0])
    samples = bootstrap(short, x, y, draws(len(x), resamples, seed)) if resamples else np.zeros(0)
    return value, *ends(samples)


def learning_curve(
    pool: Pool,
    *,
    on: str | Sequence[str] | None = None,
    metric: str = METRIC,
    by_domain: bool = True,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean quality of runs by ``share`` of the training groups, ascending: columns share, set, domain, axis, metric,
    value, low, high, runs, note. It is of those runs that are there with every share and else alike.

    Raises ``UsageError`` for a pool of one share.
    """
    levels = factors_of(pool.specs)
    if "share" not in levels:
        raise UsageError(
            "All heads learn from the same share of the training groups; give a grid share = [0.2, 0.5, 1]."
        )
    curve = sorted(balanced(levels, "share"), key=lambda each: float(each.level))
    rows = []
    for name in check_sets(pool, on, metric):
        for part in measured(pool, name, metric, by_domain=by_domain, resamples=resamples, seed=seed):
            for each in curve:
                value, own = float(each.weights @ part.values), each.weights @ part.samples
                place = (float(each.level), name, part.domain, part.axis, metric)
                rows.append((*place, value, *ends(own), each.runs, each.note))
    columns = ["share", "set", "domain", "axis", "metric", "value", "low", "high", "runs", "note"]
    return pd.DataFrame(rows, columns=columns)


def generalisation(
    pool: Pool,
    factor: str = "loss",
    *,
    natural: str | None = None,
    synthetic: str = "pam",
    metric: str = METRIC,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean quality of each level's runs on a natural set (dev, or out of fold where there is none) and on a synthetic
    one, and the drop from one to the other, each with its interval.

    Columns factor, level, axis, metric, natural, natural_low, …, synthetic, …, drop, …, runs, note; ``drop`` is
    natural − synthetic. It is of those runs that are there with every level and else alike, where there are any.
    Raises ``UnknownName`` for a set or a factor that does not vary.
    """
    levels = factors_of(pool.specs)
    if factor not in levels:
        raise UnknownName("factor that varies in this pool", factor, list(levels))
    natural = natural or ("dev" if "dev" in pool.truth else OUT_OF_FOLD)
    names = check_sets(pool, [natural, synthetic], metric)
    sides = [measured(pool, each, metric, by_domain=False, resamples=resamples, seed=seed) for each in names]
    rows = []
    for here, there in zip(*sides, strict=True):
        for each in balanced(levels, factor):
            values = [float(each.weights @ part.values) for part in (here, there)]
            samples = [each.weights @ part.samples for part in (here, there)]
            both = zip([*values, values[0] - values[1]], [*samples, samples[0] - samples[1]], strict=True)
            numbers = [number for value, own in both for number in (value, *ends(own))]
            rows.append((factor, each.level, here.axis, metric, *numbers, each.runs, each.note))
    told = [f"{what}{end}" for what in ("natural", "synthetic", "drop") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["factor", "level", "axis", "metric", *told, "runs", "note"])


def sizes(
    pool: Pool,
    *,
    chosen_on: str = "dev",
    on: str = "pam",
    metric: str = METRIC,
    by_domain: bool = True,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Quality on one set of the mean of the k runs that are the best on another, k = 1, 2, 4, … and all.

    Columns k, chosen_on, set, domain, axis, metric, value, low, high, and gain, gain_low, gain_high: over the row
    before, with half as many. Raises ``UsageError`` where heads without a scale would be averaged.
    """
    check_sets(pool, [chosen_on, on], metric)
    counts = [2**power for power in range(len(pool).bit_length()) if 2**power < len(pool)] + [len(pool)]
    best = [select(pool, "top_k", on=chosen_on, k=k, metric=metric) for k in counts]
    scores = np.stack([each.predict(on).to_numpy() for each in best])
    rows = []
    for part in measured(pool, on, metric, scores=scores, by_domain=by_domain, resamples=resamples, seed=seed):
        gains = [(float("nan"),) * 3]
        for before, after in pairwise(range(len(counts))):
            difference = part.samples[after] - part.samples[before]
            gains.append((float(part.values[after] - part.values[before]), *ends(difference)))
        for place, (k, gain) in enumerate(zip(counts, gains, strict=True)):
            where = (k, chosen_on, on, part.domain, part.axis, metric)
            rows.append((*where, float(part.values[place]), *ends(part.samples[place]), *gain))
    columns = ["k", "chosen_on", "set", "domain", "axis", "metric", "value", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "gain", "gain_low", "gain_high"])
