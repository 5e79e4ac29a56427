"""Diversity: how much the members of an ensemble differ, and what that gains."""

from itertools import combinations

import numpy as np
import pandas as pd

from mmmos.ensembles.pool import Pool
from mmmos.ensembles.selectors import Selection
from mmmos.statistics import measure


def diversity(pool: Pool, selection: Selection, name: str) -> pd.DataFrame:
    """A row for each axis that has truth on a labelled set, clips without truth left out.

    ``member_MSE`` is the weighted mean of the members' errors, ``ensemble_MSE`` that of their weighted mean, and
    ``ambiguity`` the weighted mean of their squared distances from it: ensemble_MSE = member_MSE − ambiguity exactly
    (Krogh and Vedelsby, NIPS 1995). ``pairwise_LCC`` is the mean correlation of two members, nan where there are none
    or one is constant. Raises as ``Pool.measure``.
    """
    rows = []
    part = pool.only([int(member) for member in selection.members])
    for axis, predictions, truth in part.pairs(name):
        weights = selection.weights[:, axis]
        mean = weights @ predictions
        pairs = [measure("LCC", predictions[[a]], predictions[b])[0] for a, b in combinations(range(len(part)), 2)]
        rows.append(
            {
                "axis": pool.axes[axis],
                "member_MSE": float(weights @ ((predictions - truth) ** 2).mean(axis=1)),
                "ensemble_MSE": float(((mean - truth) ** 2).mean()),
                "ambiguity": float(weights @ ((predictions - mean) ** 2).mean(axis=1)),
                "pairwise_LCC": float(np.mean(pairs)) if pairs else float("nan"),
            }
        )
    return pd.DataFrame(rows)
