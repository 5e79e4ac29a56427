"""One compiled pass over all candidates of a step of forward selection: Spearman's rho and Kendall's tau-b by one sort.

The mean of the chosen predictions and a candidate's moves little from step to step, so that the candidate's last order
is nearly sorted and an insertion sort about linear. Discordant pairs are counted in a set of bits, one for each clip in
the order of its truth.
"""

import numpy as np
from numpy.typing import NDArray

from mmmos.statistics.agreement import RELATIVE_CONSTANT
from mmmos.statistics.compiled import compiled

# Moves for each clip after which an insertion sort is given up.
MOVES = 12

# Of Shell's method (Ciura, 2001, and on by 2.25).
GAPS = (45291, 20129, 8946, 3976, 1767, 701, 301, 132, 57, 23, 10, 4, 1)


class RankedTruth:
    """Truth (n,) as the pass reads it.

    ``rho`` (n,): centred mid-ranks of length 1. ``group`` (n,): dense ranks. ``place`` (n,): a bit for each clip,
    ascending with truth; ``above`` (n,): the first bit of higher truth. ``tied``: pairs of equal truth.
    """

    def __init__(self, truth: NDArray[np.float64]) -> None:
        _, group, sizes = np.unique(truth, return_inverse=True, return_counts=True)
        ends = np.cumsum(sizes)
        rho = (ends - sizes / 2)[group] - len(truth) / 2
        self.rho = rho / (np.sqrt(rho @ rho) or 1.0)
        self.group = group.astype(np.int32)
        self.above = ends[group].astype(np.int32)
        self.place = np.empty(len(truth), np.int32)
        self.place[np.argsort(group, kind="stable")] = np.arange(len(truth), dtype=np.int32)
        self.tied = float((sizes * (sizes - 1) / 2).sum())


def correlations(
    predictions: NDArray[np.float64],
    total: NDArray[np.float64],
    picks: int,
    order: NDArray[np.int32],
    truth: RankedTruth,
    *,
    tau: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SRCC and KTAU (models,) of (total + predictions) / picks, 0 where that is constant; KTAU only with ``tau``.

    ``predictions`` (models, n), ``total`` (n,); ``order`` (models, n): any order of the clips for each model, best a
    nearly ascending one. It is made ascending in place.
    """
    srcc, ktau = np.zeros((2, len(predictions)))
    parts = truth.rho, truth.group, truth.place, truth.above, truth.tied
    _correlate(predictions, total, float(picks), order, *parts, tau, srcc, ktau)
    return srcc, ktau


@compiled
def _correlate(predictions, total, picks, order, rho, group, place, above, tied, tau, srcc, ktau):  # type: ignore[no-untyped-def]
    models, n = predictions.shape
    x = np.empty(n)
    equal = np.zeros(n, np.int32)
    for m in range(models):
        o = order[m]
        for i in range(n):
            x[i] = (predictions[m, o[i]] + total[o[i]]) / picks
        _sort(x, o)
        if x[n - 1] - x[0] <= RELATIVE_CONSTANT * max(abs(x[0]), abs(x[n - 1])):
            continue
        shared, spread, tied_x, tied_both = 0.0, 0.0, 0.0, 0.0
        first = 0
        while first < n:
            last = first + 1
            while last < n and x[last] == x[first]:
                last += 1
            rank = (first + last - n) / 2.0
            spread += (last - first) * rank * rank
            for i in range(first, last):
                shared += rank * rho[o[i]]
            if last - first > 1:
                tied_x += (last - first) * (last - first - 1) / 2.0
                for i in range(first, last):
                    tied_both += equal[group[o[i]]]
                    equal[group[o[i]]] += 1
                for i in range(first, last):
                    equal[group[o[i]]] = 0
            first = last
        srcc[m] = shared / np.sqrt(spread)
        if tau:
            pairs = n * (n - 1) / 2.0
            below = np.sqrt(pairs - tied_x) * np.sqrt(pairs - tied)
            agreed = pairs - tied_x - tied + tied_both - 2.0 * _discordant(x, o, place, above)
            ktau[m] = agreed / below if below > 0 else 0.0


@compiled
def _sort(x, o):  # type: ignore[no-untyped-def]
    """Sort x, and o along with it, in place: by insertion, or where that takes long by Shell's method."""
    if _insert(x, o, 1, MOVES * len(x)):
        return
    for gap in GAPS:
        _insert(x, o, gap, len(x) ** 2)


@compiled
def _insert(x, o, gap, moves):  # type: ignore[no-untyped-def]
    """Sort every sequence of items ``gap`` apart by insertion; False when that was given up after so many moves."""
    for i in range(gap, len(x)):
        value, clip, j = x[i], o[i], i
        while j >= gap and x[j - gap] > value:
            x[j], o[j] = x[j - gap], o[j - gap]
            j -= gap
            moves -= 1
        x[j], o[j] = value, clip
        if moves < 0:
            return False
    return True


@compiled
def _discordant(x, o, place, above):  # type: ignore[no-untyped-def]
    """Pairs whose predictions, ascending in x, and truth are in opposite order; ties in either are none."""
    n = len(x)
    words = np.zeros(n // 64 + 1, np.uint64)
    behind = np.zeros(n // 64 + 1, np.int32)
    count, first = 0, 0
    while first < n:
        last = first
        while last < n and x[last] == x[first]:
            bit = above[o[last]]
            count += behind[bit >> 6] + _ones(words[bit >> 6] >> np.uint64(bit & 63))
            last += 1
        for i in range(first, last):
            bit = place[o[i]]
            words[bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
            for word in range(bit >> 6):
                behind[word] += 1
        first = last
    return count


@compiled
def _ones(word):  # type: ignore[no-untyped-def]
    """Bits set in 64 (Warren, Hacker's Delight, 5-1)."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
