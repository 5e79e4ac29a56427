"""Rank correlations of weighted samples in compiled loops (numba); imported when one is computed.

Conventions
    A sample is ``n`` items and how often each occurs (``counts``). ``order`` sorts the first scores ``x``; ``levels``
    are the distinct values of the second scores, ascending, and ``group`` names the level of each item. Inside the
    loops items stand in the order of ``x``. Copies of an item are ties. Sums are exact integers, so that a value equals
    scipy's on the sample written out.
"""

import numpy as np
from numpy.typing import NDArray

from mmmos.statistics.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONSTANT = 1e-12  # as in mmmos.statistics.is_constant


@compiled
def over_counts(tau: bool, x: Floats, order: Ints, levels: Floats, group: Ints, counts: Ints) -> Floats:
    """Kendall's tau-b, else Spearman's rho, in every row of ``counts`` (samples, n): (samples,)."""
    room = _room(len(levels), len(order))
    x, group = x[order], group[order].astype(np.int32)
    own = np.empty(len(order), np.int32)
    values = np.empty(len(counts))
    for row in range(len(counts)):
        for item in range(len(order)):
            own[item] = counts[row, order[item]]
        values[row] = _kendall(x, levels, group, own, room) if tau else _spearman(x, levels, group, own, room)
    return values


@compiled
def over_models(tau: bool, x: Floats, orders: Ints, levels: Floats, group: Ints) -> Floats:
    """The same for every row of ``x`` (models, n), sorted by ``orders``, each item counted once: (models,)."""
    room = _room(len(levels), len(group))
    once = np.ones(len(group), np.int32)
    values = np.empty(len(x))
    for row in range(len(x)):
        scores, own = x[row][orders[row]], group[orders[row]].astype(np.int32)
        values[row] = _kendall(scores, levels, own, once, room) if tau else _spearman(scores, levels, own, once, room)
    return values


@compiled
def _room(levels, items):  # type: ignore[no-untyped-def]
    """Arrays that the loops write to: of each level its size and its rank; of each item that occurs its level, count
    and run of equal ``x``; and the counts below a level, in blocks of 2^bits levels and inside each block.
    """
    bits = 3
    while 1 << 2 * bits < levels:
        bits += 1
    blocks = (levels >> bits) + 8 & ~7  # a whole number of vectors
    sizes, ranks = np.zeros(levels, np.int64), np.zeros(levels, np.int64)
    below_block, below_inside = np.zeros(blocks, np.int32), np.zeros((blocks, 1 << bits), np.int32)
    return sizes, ranks, np.empty((3, items), np.int32), bits, below_block, below_inside


@compiled
def _spearman(x, levels, group, counts, room):  # type: ignore[no-untyped-def]
    """Pearson's r of mid-ranks, whose spread over n items with tie groups of k is (n³ - Σ k³) / 12."""
    sizes, ranks = room[0], room[1]
    total = _sizes(group, counts, sizes)
    if _constant(x, levels, counts, sizes):
        return np.nan
    below, cubes_y = 0, 0
    for g in range(len(sizes)):  # twice the centred mid-rank of each level
        ranks[g] = 2 * below + sizes[g] - total
        below += sizes[g]
        cubes_y += sizes[g] * sizes[g] * sizes[g]
    shared, below, cubes_x, start = 0, 0, 0, 0
    while start < len(x):
        size, partners, end = 0, 0, start
        while end < len(x) and x[end] == x[start]:
            size += counts[end]
            partners += counts[end] * ranks[group[end]]
            end += 1
        shared += partners * (2 * below + size - total)
        below += size
        cubes_x += size * size * size
        start = end
    cube = total * total * total
    return _clipped(3 * shared / (np.sqrt(cube - cubes_x) * np.sqrt(cube - cubes_y)))


@compiled
def _kendall(x, levels, group, counts, room):  # type: ignore[no-untyped-def]
    """tau-b: items enter by rising x, and of each it is known how many of those before lie on a lower level.

    That number is the count below its block of levels and below it inside the block; both are kept by adding to whole
    blocks, which takes the square root of the number of levels and no branches.
    """
    sizes, _, (level, count, run), bits, below_block, below_inside = room
    total = _sizes(group, counts, sizes)
    if _constant(x, levels, counts, sizes):
        return np.nan
    tied_y = 0
    for g in range(len(sizes)):
        tied_y += sizes[g] * sizes[g]
        sizes[g] = 0
    below_block[:] = 0
    below_inside[:] = 0
    present, runs = 0, 0
    for item in range(len(x)):  # those that occur, without a branch
        runs += item > 0 and x[item] != x[item - 1]
        level[present], count[present], run[present] = group[item], counts[item], runs
        present += counts[item] > 0
    width = 1 << bits
    concordance, inside, tied_x, start = 0, 0, 0, 0
    while start < present:
        size, end = 0, start
        while end < present and run[end] == run[start]:
            g = level[end]
            lower = below_block[g >> bits] + below_inside[g >> bits, g & width - 1]
            concordance += np.int64(count[end]) * (2 * np.int64(lower) + sizes[g] - inside)
            size += count[end]
            end += 1
        for item in range(start, end):
            block, place = level[item] >> bits, level[item] & width - 1
            sizes[level[item]] += count[item]
            for k in range(len(below_block)):
                below_block[k] += count[item] * (k > block)
            part = below_inside[block]
            for k in range(width):
                part[k] += count[item] * (k > place)
        inside += size
        tied_x += size * size
        start = end
    square = total * total
    return _clipped(2 * concordance / (np.sqrt(square - tied_x) * np.sqrt(square - tied_y)))


@compiled
def _sizes(group, counts, sizes):  # type: ignore[no-untyped-def]
    """Fill in how many items each level has; returns how many there are in all."""
    sizes[:] = 0
    total = 0
    for item in range(len(group)):
        sizes[group[item]] += counts[item]
        total += counts[item]
    return total


@compiled
def _constant(x, levels, counts, sizes):  # type: ignore[no-untyped-def]
    """Whether one of the two scores is constant over the items that occur."""
    first, last = 0, len(x) - 1
    while first < last and counts[first] == 0:
        first += 1
    while last > first and counts[last] == 0:
        last -= 1
    low, high = 0, len(sizes) - 1
    while low < high and sizes[low] == 0:
        low += 1
    while high > low and sizes[high] == 0:
        high -= 1
    return _rounding(x[first], x[last]) or _rounding(levels[low], levels[high])


@compiled
def _rounding(low, high):  # type: ignore[no-untyped-def]
    return high - low <= CONSTANT * max(abs(low), abs(high))


@compiled
def _clipped(value):  # type: ignore[no-untyped-def]
    return min(1.0, max(-1.0, value))
