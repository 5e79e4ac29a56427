"""Stability: would the same runs be chosen again, and does choosing help, over resamples of the labelled clips."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import parallel, progress
from mmmos.ensembles.ensemble import check_rule, looks_at, select, usable
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import SelectRecipe
from mmmos.ensembles.selectors import METRIC, Selection, quality
from mmmos.errors import UsageError
from mmmos.parallel import Jobs
from mmmos.statistics import interval


@dataclass(frozen=True)
class Resamples:
    """A rule's choices on bootstrap resamples of the clips of every labelled set.

    ``weights`` (resamples, runs): of each run, mean over axes, 0 where it was not chosen; ``chosen`` the same, whether
    it was. ``members``: positions of the runs chosen on all clips. ``left_out``: by set and ensemble (the rule, "best",
    "average") the quality (resamples,) on the clips that a resample left out; nan where undefined.
    """

    pool: Pool
    rule: SelectRecipe
    weights: NDArray[np.float64]
    chosen: NDArray[np.bool_]
    members: NDArray[np.int64]
    left_out: dict[tuple[str, str], NDArray[np.float64]]

    def stability(self) -> pd.DataFrame:
        """A row for each member and each run that was ever chosen, most often chosen first.

        ``key``, ``name``; ``chosen``: share of the resamples, 0 to 1; ``weight``: mean over resamples and axes.
        """
        runs = np.union1d(np.flatnonzero(self.chosen.any(axis=0)), self.members)
        table = pd.DataFrame(
            {
                "key": [self.pool.keys[run] for run in runs],
                "name": [self.pool.specs[run].name for run in runs],
                "chosen": self.chosen[:, runs].mean(axis=0),
                "weight": self.weights[:, runs].mean(axis=0),
            }
        )
        return table.sort_values(["chosen", "weight"], ascending=False, kind="stable", ignore_index=True)

    def honest(self) -> pd.DataFrame:
        """How good the rule is on clips that it did not look at, against the best run and the mean of all.

        A row for each set and ensemble: ``quality`` (of the rule's metric, higher is better), its mean over resamples
        with the interval of 95 % of them (``low``, ``high``); ``gain``: the rule's quality minus this one's on the same
        clips, likewise.
        """
        rows = []
        for (name, ensemble), values in self.left_out.items():
            gains = self.left_out[name, self.rule.rule] - values
            rows.append([name, ensemble, *_summary(values), *_summary(gains)])
        names = ["set", "ensemble", "quality", "low", "high", "gain", "gain_low", "gain_high"]
        return pd.DataFrame(rows, columns=names)


def stability(pool: Pool, rule: SelectRecipe, *, resamples: int = 100, seed: int = 0, jobs: Jobs = 1) -> pd.DataFrame:
    """How often a rule chooses each run: ``Resamples.stability`` of ``resample``."""
    return resample(pool, rule, resamples=resamples, seed=seed, jobs=jobs).stability()


def honest(pool: Pool, rule: SelectRecipe, *, resamples: int = 100, seed: int = 0, jobs: Jobs = 1) -> pd.DataFrame:
    """How good a rule is on clips that it did not look at: ``Resamples.honest`` of ``resample``."""
    return resample(pool, rule, resamples=resamples, seed=seed, jobs=jobs).honest()


def resample(pool: Pool, rule: SelectRecipe, *, resamples: int = 100, seed: int = 0, jobs: Jobs = 1) -> Resamples:
    """Apply a rule to resamples of the clips of every labelled set, drawn with replacement.

    ``jobs``: as in ``mmmos.parallel.map``; equal seeds give equal results with any. Raises ``UsageError`` for fewer
    than one resample or a pool without a labelled set, and as ``select``.
    """
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise UsageError(f"resamples must be a whole number, 1 or more; got {resamples!r}.")
    if not pool.labelled():
        raise UsageError("There is no labelled set, so that there are no clips to resample.")
    runs = usable(pool)
    part = pool.only([int(run) for run in runs])
    members = runs[select(part, rule).selection.members]
    task = partial(_trial, _labelled(part), rule, seed)
    with closing(parallel.map(task, range(resamples), jobs=jobs)) as results:
        trials = dict(progress.track(results, resamples, "resamples"))
    weights, chosen = np.zeros((resamples, len(pool))), np.zeros((resamples, len(pool)), bool)
    for number, (selection, _) in trials.items():
        weights[number, runs[selection.members]] = selection.weights.mean(axis=1)
        chosen[number, runs[selection.members]] = True
    left_out = {key: np.array([trials[number][1][key] for number in range(resamples)]) for key in trials[0][1]}
    return Resamples(pool, rule, weights, chosen, members, left_out)


Trial = tuple[int, tuple[Selection, dict[tuple[str, str], float]]]


def _trial(pool: Pool, rule: SelectRecipe, seed: int, number: int) -> Trial:
    """The choice on one resample, and the quality of all ensembles on the clips that it left out."""
    rng = np.random.default_rng([seed, number])
    draws = {name: rng.integers(len(pool.ids[name]), size=len(pool.ids[name])) for name in pool.labelled()}
    seen = pool.resampled(draws)
    rest = {name: np.setdiff1d(np.arange(len(pool.ids[name])), rows) for name, rows in draws.items()}
    by_name = {rule.rule: rule} | {other.rule: other for other in _others(pool, rule) if other.rule != rule.rule}
    chosen = [_selector(each)(seen) for each in by_name.values()]
    unseen = _means(pool.resampled(rest), chosen)
    found: dict[tuple[str, str], float] = {}
    for name in pool.labelled():
        values = _quality(unseen, name, rule)
        found |= {(name, each): float(value) for each, value in zip(by_name, values, strict=True)}
    return number, (chosen[0], found)


def _selector(rule: SelectRecipe) -> Callable[[Pool], Selection]:
    return partial(check_rule(rule), **rule.parameters())


def _others(pool: Pool, rule: SelectRecipe) -> list[SelectRecipe]:
    """What a rule is compared with: the best run on the same sets by the same metric, and the mean of all."""
    on = looks_at(rule) or dict.fromkeys(pool.labelled(), 1.0)
    return [SelectRecipe(rule="best", on=on, metric=rule.metric), SelectRecipe(rule="average")]


def _quality(pool: Pool, name: str, rule: SelectRecipe) -> NDArray[np.float64]:
    try:
        return quality(pool, name, rule.metric or METRIC)
    except UsageError:
        return np.full(len(pool), np.nan)


def _labelled(pool: Pool) -> Pool:
    """The pool without the sets that have no truth."""
    names = pool.labelled()
    ids, scores = {name: pool.ids[name] for name in names}, {name: pool.scores[name] for name in names}
    return replace(pool, ids=ids, scores=scores, systems={name: pool.systems[name] for name in names})


def _means(pool: Pool, selections: list[Selection]) -> Pool:
    """A pool whose runs are ensembles of the pool's runs."""
    scores = {
        name: np.stack([pool.mean(name, each.members, each.weights).to_numpy() for each in selections])
        for name in pool.labelled()
    }
    first = pool.only([0] * len(selections))
    return replace(first, scores=scores)


def _summary(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, low and high of what is defined."""
    defined = values[np.isfinite(values)]
    return (float(defined.mean()) if len(defined) else float("nan"), *interval(values))
