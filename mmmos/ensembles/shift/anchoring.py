"""An ensemble's predictions on the scale of a labelled set, such as the synthetic proxy: a line for each axis."""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.ensembles.calibration import Calibration, fit, of_other_folds
from mmmos.ensembles.folds import grouped_folds
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import SEALED
from mmmos.errors import UnknownName, UsageError

FOLDS = 5

# Labelled clips of a domain that a line of its own takes.
FEWEST = 10

Array = NDArray[np.float64]


def anchored(
    pool: Pool, members: NDArray[np.int64], weights: Array, name: str, on: str, *, by_domain: bool = False
) -> pd.DataFrame:
    """``pool.mean`` of a set, mapped by the line for each axis that brings that of a labelled set to its truth.

    ``on``: the labelled set, whose own clips are mapped by lines fitted to the other folds. Every rank is kept: an axis
    whose line does not rise is shifted alone. ``by_domain``: each domain of which ``on`` holds 10 clips has lines of
    its own, so that ranks are kept within domains; other clips have those of all.
    Raises ``UsageError`` for the evaluation set as ``on``, ``UnknownName`` for a set without truth.
    """
    if on in SEALED:
        raise UsageError(f"The set {on!r} is sealed: nothing is calibrated on it.")
    if on not in pool.truth:
        raise UnknownName("labelled set", on, pool.labelled())
    found, known = pool.mean(name, members, weights), pool.mean(on, members, weights).to_numpy()
    values = np.empty(found.shape)
    for fitted, mapped in _parts(pool, name, on, by_domain):
        if name == on:
            values[mapped] = _of_other_folds(
                known[fitted], pool.truth[on][fitted], [pool.ids[on][row] for row in fitted]
            )
        else:
            values[mapped] = _lines(known[fitted], pool.truth[on][fitted])(found.to_numpy()[mapped])
    return pd.DataFrame(values, index=found.index, columns=found.columns)


def _parts(pool: Pool, name: str, on: str, by_domain: bool) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of the clips of ``on`` that lines are fitted to, and of those of the set that they map; later go before
    earlier ones.
    """
    parts = [(np.arange(len(pool.ids[on])), np.arange(len(pool.ids[name])))]
    if by_domain and on in pool.domains and name in pool.domains:
        for domain in sorted(set(pool.domains[on]) - {""}):
            fitted, mapped = (np.flatnonzero(pool.domains[each] == domain) for each in (on, name))
            if len(fitted) >= FEWEST:
                parts.append((fitted, mapped))
    return parts


def _of_other_folds(known: Array, truth: Array, ids: list[str]) -> Array:
    fold = grouped_folds(ids, FOLDS) if len(truth) > 1 else np.zeros(len(truth), np.int64)
    return of_other_folds(_lines, known, truth, fold)


def _lines(prediction: Array, truth: Array) -> Calibration:
    """The least-squares line of each axis, of slope 1 where it would not rise."""
    found = fit("affine", prediction, truth)
    return replace(found, slope=np.where(found.slope > 0, found.slope, 1.0))
