"""Forward selection: runs are added one by one, each the one that helps the mean of those before it most."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.pool import Pool
from mmmos.ensembles.selectors.objective import METRIC, Names, Term, finite, terms
from mmmos.ensembles.selectors.selection import Selection, check_choice, check_number, check_whole, weighted
from mmmos.statistics import measure

# Objectives that agree to so many decimals are equal: a sum of correlations has its last digits by chance.
DECIMALS = 10

# A candidate whose spread cancels to less than this part of its summands' is computed anew, without the short cut.
CANCELLED = 1e-6

# The spread of a constant up to rounding, as a part of its square.
FLAT = 1e-20

Array = NDArray[np.float64]


def greedy(
    pool: Pool,
    *,
    on: Names = "pam",
    metric: Names = METRIC,
    k: int = 20,
    start: int = 1,
    bags: int = 10,
    share: float = 0.5,
    per_axis: bool = False,
    seed: int = 0,
) -> Selection:
    """Runs weighted by how often forward selection with replacement picks them (Caruana et al., ICML 2004).

    The objective is ``metric`` of the ensemble, averaged over axes and, by weight, over several sets. In each of
    ``bags`` random subsets of the pool, with ``share`` of its runs, the ``start`` best runs are picked, then one by one
    those that help most, the same ones again if need be, ``k`` in all; of this path the best beginning is kept. Weights
    are means over the bags. With ``per_axis`` each axis is chosen for alone, otherwise one choice serves them all; so
    it does for an axis on which nothing is known. Objectives that agree to 10 decimals are equal, and the earlier run
    is picked. Raises ``UsageError`` for a parameter out of range, and where no run is finite on the sets; otherwise as
    ``top_k``.
    """
    for name, value in (("k", k), ("start", start), ("bags", bags)):
        check_whole(name, value, 1)
    check_whole("seed", seed, 0)
    check_number("share", share, 0, 1, above=True)
    check_choice("per_axis", per_axis, (True, False))
    some = terms(pool, on, metric)
    runs = finite(some)
    judges = [_Judge(term, runs) for term in some]
    subsets = _subsets(len(runs), bags, share, seed)

    def weights(own: Sequence[_Judge]) -> Array:
        paths = [runs[_path(own, subset, k, start)] for subset in subsets]
        return np.mean([np.bincount(path, minlength=len(pool)) / len(path) for path in paths], axis=0)

    by_axis = [[judge for judge in judges if judge.axis == axis] if per_axis else [] for axis in range(len(pool.axes))]
    together = weights(judges) if not all(by_axis) else np.zeros(len(pool))
    return weighted(np.stack([weights(own) if own else together for own in by_axis], axis=1))


def _subsets(runs: int, bags: int, share: float, seed: int) -> list[NDArray[np.int64]]:
    """Random subsets of so many runs, ascending; one where all would be the same."""
    size = ceil(share * runs)
    if size == runs:
        return [np.arange(runs)]
    rng = np.random.default_rng(seed)
    return [np.sort(rng.permutation(runs)[:size]) for _ in range(bags)]


def _path(judges: Sequence["_Judge"], runs: NDArray[np.int64], k: int, start: int) -> NDArray[np.int64]:
    """The picks of the best beginning of a path of k through some runs; the shortest one of equal ones."""
    means = [_Mean(judge, runs) for judge in judges]
    picks: list[int] = []
    values: list[float] = []
    first: list[int] = []
    for _ in range(k):
        scores = np.round(np.sum([mean.scores() for mean in means], axis=0), DECIMALS)
        first = first or [int(run) for run in np.argsort(-scores, kind="stable")[:start]]
        pick = first[len(picks)] if len(picks) < len(first) else int(scores.argmax())
        picks.append(pick)
        values.append(float(scores[pick]))
        for mean in means:
            mean.add(pick)
    return runs[picks[: int(np.argmax(values)) + 1]]


class _Judge:
    """One term of the objective, with what its metrics need of each of some runs."""

    def __init__(self, term: Term, runs: NDArray[np.int64]) -> None:
        self.axis, self.weights, self.truth = term.axis, term.weights, term.truth
        self.predictions = np.ascontiguousarray(term.predictions[runs])
        if {"SRCC", "KTAU"} & set(self.weights):
            from mmmos.ensembles.selectors.greedy_pass import RankedTruth

            self.ranked = RankedTruth(self.truth)
            self.order = np.argsort(self.predictions, axis=1).astype(np.int32)
        if {"LCC", "MSE"} & set(self.weights):
            self.offset = self.predictions.mean(axis=1)
            self.centred = self.predictions - self.offset[:, None]
            self.spread = np.einsum("mi,mi->m", self.centred, self.centred)
            self.shared = self.centred @ (self.truth - self.truth.mean())


class _Mean:
    """The mean of the picks so far, and each candidate's worth as the next one."""

    def __init__(self, judge: _Judge, runs: NDArray[np.int64]) -> None:
        self._judge, self._runs, self._picks = judge, runs, 0
        self._predictions = judge.predictions[runs]
        self._total = np.zeros(len(judge.truth))
        self._order = judge.order[runs] if hasattr(judge, "order") else np.empty((0, 0), np.int32)

    def add(self, pick: int) -> None:
        """Take a candidate, by its position in the subset."""
        self._total += self._predictions[pick]
        self._picks += 1

    def scores(self) -> Array:
        """The term (candidates,) of the mean of the picks and each candidate."""
        weights = self._judge.weights
        result = np.zeros(len(self._runs))
        if {"SRCC", "KTAU"} & set(weights):
            from mmmos.ensembles.selectors.greedy_pass import correlations

            srcc, ktau = correlations(
                self._predictions,
                self._total,
                self._picks + 1,
                self._order,
                self._judge.ranked,
                tau="KTAU" in weights,
            )
            result += weights.get("SRCC", 0.0) * srcc + weights.get("KTAU", 0.0) * ktau
        if {"LCC", "MSE"} & set(weights):
            lcc, mse = self._moments()
            result += weights.get("LCC", 0.0) * lcc - weights.get("MSE", 0.0) * mse
        return result

    def _moments(self) -> tuple[Array, Array]:
        """LCC and MSE (candidates,): both are quadratic in the sum, so that one product with all gives them."""
        judge, runs, picks, n = self._judge, self._runs, self._picks + 1, len(self._total)
        truth = judge.truth - judge.truth.mean()
        total = self._total - self._total.mean()
        summands = total @ total + judge.spread[runs]
        spread = summands + 2 * judge.centred[runs] @ total
        shared = total @ truth + judge.shared[runs]
        mean = self._total.mean() + judge.offset[runs]
        mse = (spread / picks**2 - 2 * shared / picks + truth @ truth) / n + (mean / picks - judge.truth.mean()) ** 2
        below = np.sqrt(np.maximum(spread, 0) * (truth @ truth))
        lcc = np.divide(shared, below, out=np.zeros(len(runs)), where=below > 0)
        flat = np.flatnonzero(spread <= CANCELLED * summands + FLAT * n * mean**2)
        if len(flat) and "LCC" in judge.weights:
            lcc[flat] = np.nan_to_num(measure("LCC", (self._predictions[flat] + self._total) / picks, judge.truth))
        return lcc, mse
