"""Rank correlations of weighted samples in compiled loops (numba); imported when one is computed.

Conventions
    A sample is ``n`` items and how often each occurs (``counts``, int64). ``order`` sorts the first scores ``x``;
    ``levels`` are the distinct values of the second scores, ascending, and ``group`` names the level of each item.
    Copies of an item are ties. Sums are exact integers, so that a value equals scipy's on the sample written out.
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
    scratch = np.zeros(len(levels) + 1, np.int64)
    sizes = np.zeros(len(levels), np.int64)
    values = np.empty(len(counts))
    for row in range(len(counts)):
        if tau:
            values[row] = _kendall(x, order, levels, group, counts[row], sizes, scratch)
        else:
            values[row] = _spearman(x, order, levels, group, counts[row], sizes, scratch)
    return values


@compiled
def over_models(tau: bool, x: Floats, orders: Ints, levels: Floats, group: Ints) -> Floats:
    """The same for every row of ``x`` (models, n), sorted by ``orders``, each item counted once: (models,)."""
    scratch = np.zeros(len(levels) + 1, np.int64)
    sizes = np.zeros(len(levels), np.int64)
    counts = np.ones(len(group), np.int64)
    values = np.empty(len(x))
    for row in range(len(x)):
        if tau:
            values[row] = _kendall(x[row], orders[row], levels, group, counts, sizes, scratch)
        else:
            values[row] = _spearman(x[row], orders[row], levels, group, counts, sizes, scratch)
    return values


@compiled
def _spearman(x, order, levels, group, counts, sizes, ranks):  # type: ignore[no-untyped-def]
    """Pearson's r of mid-ranks, whose spread over n items with tie groups of k is (n³ - Σ k³) / 12."""
    total = _sizes(group, counts, sizes)
    if _constant(x, order, levels, counts, sizes):
        return np.nan
    below, cubes_y = 0, 0
    for g in range(len(sizes)):  # twice the centred mid-rank of each level
        ranks[g] = 2 * below + sizes[g] - total
        below += sizes[g]
        cubes_y += sizes[g] * sizes[g] * sizes[g]
    shared, below, cubes_x, start = 0, 0, 0, 0
    while start < len(order):
        size, partners, end = 0, 0, start
        while end < len(order) and x[order[end]] == x[order[start]]:
            item = order[end]
            size += counts[item]
            partners += counts[item] * ranks[group[item]]
            end += 1
        shared += partners * (2 * below + size - total)
        below += size
        cubes_x += size * size * size
        start = end
    cube = total * total * total
    return _clipped(3 * shared / (np.sqrt(cube - cubes_x) * np.sqrt(cube - cubes_y)))


@compiled
def _kendall(x, order, levels, group, counts, sizes, tree):  # type: ignore[no-untyped-def]
    """tau-b: items enter by rising x into a binary indexed tree (Fenwick, 1994) over the levels of y."""
    total = _sizes(group, counts, sizes)
    if _constant(x, order, levels, counts, sizes):
        return np.nan
    tied_y = 0
    for g in range(len(sizes)):
        tied_y += sizes[g] * sizes[g]
        sizes[g] = 0
        tree[g + 1] = 0
    concordance, inside, tied_x, start = 0, 0, 0, 0
    while start < len(order):
        size, end = 0, start
        while end < len(order) and x[order[end]] == x[order[start]]:
            count, g = counts[order[end]], group[order[end]]
            if count:
                below, node = 0, g
                while node > 0:
                    below += tree[node]
                    node &= node - 1
                concordance += count * (2 * below + sizes[g] - inside)
                size += count
            end += 1
        for position in range(start, end):
            count, g = counts[order[position]], group[order[position]]
            if count:
                sizes[g] += count
                node = g + 1
                while node < len(tree):
                    tree[node] += count
                    node += node & -node
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
def _constant(x, order, levels, counts, sizes):  # type: ignore[no-untyped-def]
    """Whether one of the two scores is constant over the items that occur."""
    first, last = 0, len(order) - 1
    while first < last and counts[order[first]] == 0:
        first += 1
    while last > first and counts[order[last]] == 0:
        last -= 1
    low, high = 0, len(sizes) - 1
    while low < high and sizes[low] == 0:
        low += 1
    while high > low and sizes[high] == 0:
        high -= 1
    return _rounding(x[order[first]], x[order[last]]) or _rounding(levels[low], levels[high])


@compiled
def _rounding(low, high):  # type: ignore[no-untyped-def]
    return high - low <= CONSTANT * max(abs(low), abs(high))


@compiled
def _clipped(value):  # type: ignore[no-untyped-def]
    return min(1.0, max(-1.0, value))
