"""An ensemble's predictions on the scale of a labelled set, such as the synthetic proxy: a line for each axis."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.ensembles.calibration import cross_fitted, fit
from mmmos.ensembles.folds import grouped_folds
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import SEALED
from mmmos.errors import UnknownName, UsageError

FOLDS = 5


def anchored(pool: Pool, members: NDArray[np.int64], weights: NDArray[np.float64], name: str, on: str) -> pd.DataFrame:
    """``pool.mean`` of a set, mapped by the line for each axis that brings that of a labelled set to its truth.

    ``on``: the labelled set, whose own clips are mapped by lines fitted to the other folds. A slope below 0 becomes 0;
    any other keeps every rank.
    Raises ``UsageError`` for the evaluation set as ``on``, ``UnknownName`` for a set without truth.
    """
    if on in SEALED:
        raise UsageError(f"The set {on!r} is sealed: nothing is calibrated on it.")
    if on not in pool.truth:
        raise UnknownName("labelled set", on, pool.labelled())
    found, known = pool.mean(name, members, weights), pool.mean(on, members, weights).to_numpy()
    truth = pool.truth[on]
    if name == on:
        fold = grouped_folds(pool.ids[on], FOLDS) if len(truth) > 1 else np.zeros(len(truth), np.int64)
        values = cross_fitted("affine", known, truth, fold)
    else:
        values = fit("affine", known, truth)(found.to_numpy())
    return pd.DataFrame(values, index=found.index, columns=found.columns)
