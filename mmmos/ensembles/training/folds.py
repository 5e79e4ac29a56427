"""Grouped folds: clips that share a track, a speaker, a prompt or a video stay on one side of every split."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmmos.errors import UsageError


def grouped_folds(groups: Sequence[str], folds: int, labels: Sequence[str] | None = None) -> NDArray[np.int64]:
    """Fold number (clips,) of each clip; the sizes of two folds differ by at most the size of the largest group.

    The fold of a group depends on the groups and their sizes, not on the order of the clips. Fewer groups than folds
    give as many folds as groups. ``labels`` (clips,), such as domains, are dealt out evenly where sizes allow.
    Raises ``UsageError`` for a single group.

    The largest groups go first, each to the smallest fold (Graham, 1969). Groups of one size go in the order of their
    labels and then of the SHA-256 of their names, since names in their own order may follow systems.
    """
    sizes: dict[str, int] = {}
    label: dict[str, str] = {}
    for group, own in zip(groups, [""] * len(groups) if labels is None else labels, strict=True):
        sizes[group] = sizes.get(group, 0) + 1
        label[group] = min(label.get(group, own), own)
    if min(folds, len(sizes)) < 2:
        raise UsageError(
            "All training clips belong to one group, so that none can be held out."
            " Give them a group column with at least two values, or set folds = 1 to hold out dev."
        )
    filled = [0] * min(folds, len(sizes))
    fold: dict[str, int] = {}
    for group in sorted(sizes, key=lambda name: (-sizes[name], label[name], _digest(name))):
        fold[group] = filled.index(min(filled))
        filled[fold[group]] += sizes[group]
    return np.array([fold[group] for group in groups], dtype=np.int64)


def part(groups: Sequence[str], share: float, seed: int, fold: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True (clips,) for the clips of a share of the groups, rounded up to whole ones, of each ``fold`` (clips,) alike.

    The seed decides which; a larger share has all groups of a smaller one.
    """
    if share >= 1:
        return np.ones(len(groups), dtype=bool)
    place: dict[str, tuple[float, bytes]] = {}
    for number in np.unique(fold):
        names = {group: _digest(f"{seed} {group}") for group, own in zip(groups, fold, strict=True) if own == number}
        order = sorted(names, key=names.__getitem__)
        place |= {group: ((rank + 1) / len(order), names[group]) for rank, group in enumerate(order)}
    drawn = set(sorted(place, key=place.__getitem__)[: math.ceil(round(share * len(place), 9))])
    return np.array([group in drawn for group in groups])


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
