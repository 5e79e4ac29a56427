"""Grouped folds: clips that share a track, a speaker, a prompt or a video stay on one side of every split."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmmos.errors import UsageError


def grouped_folds(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """Fold number (clips,) of each clip, folds of nearly equal size, the same for the same groups.

    Fewer groups than folds give as many folds as groups. Raises ``UsageError`` for a single group.
    """
    from sklearn.model_selection import GroupKFold

    folds = min(folds, len(set(groups)))
    if folds < 2:
        raise UsageError(
            "All training clips belong to one group, so that none can be held out."
            " Give them a group column with at least two values, or set folds = 1 to hold out dev."
        )
    number = np.zeros(len(groups), dtype=np.int64)
    splitter = GroupKFold(folds, shuffle=True, random_state=0)
    for fold, (_, held_out) in enumerate(splitter.split(number, groups=np.asarray(groups))):
        number[held_out] = fold
    return number
