"""``prediction_shift``: where predictions for other sets lie, against the scores that heads learned from."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mmmos.ensembles.shift.domains import ks
from mmmos.ensembles.shift.resampling import Array, counts_of, counts_of_both, with_interval

COLUMNS = (
    *("model", "set", "axis", "clips", "mean", "deviation", "train_mean", "train_deviation"),
    *("change", "change_low", "change_high", "ks", "ks_low", "ks_high"),
)


def prediction_shift(
    models: Mapping[str, Mapping[str, pd.DataFrame]],
    truth: pd.DataFrame,
    *,
    reference: str = "oof",
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """A row for each model, set and axis.

    ``models``: predictions (clips, axes) by name and set, those for training clips under ``reference``; ``truth``: the
    training clips' scores (clips, axes). Columns: ``mean`` and ``deviation`` of the predictions and of the truth,
    ``change`` from the truth's mean to the predictions', and ``ks``, the Kolmogorov–Smirnov distance in [0, 1] between
    the predictions for the set and for the training clips, NaN for these; 95 % intervals over the clips of both.
    """
    rows = []
    for model, sets in models.items():
        for name, predicted in sets.items():
            for axis in truth.columns:
                own, known = predicted[axis].to_numpy(np.float64), truth[axis].dropna().to_numpy(np.float64)
                learned = sets[reference][axis].to_numpy(np.float64)
                far = np.full(1, np.nan) if name == reference else _ks(own, learned, resamples, seed)
                rows.append(
                    {"model": model, "set": name, "axis": axis, "clips": len(own)}
                    | {"mean": own.mean(), "deviation": own.std()}
                    | {"train_mean": known.mean(), "train_deviation": known.std()}
                    | with_interval("change", _steps(own, known, resamples, seed))
                    | with_interval("ks", far)
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _steps(own: Array, known: Array, resamples: int, seed: int) -> Array:
    """Difference of the means of two independent samples (1 + resamples,)."""
    first, second = counts_of(len(own), resamples, seed), counts_of(len(known), resamples, seed + 1)
    return first @ own / len(own) - second @ known / len(known)


def _ks(own: Array, other: Array, resamples: int, seed: int) -> Array:
    """Kolmogorov–Smirnov distance of two independent samples (1 + resamples,)."""
    counts = counts_of_both(len(own), len(other), resamples, seed)
    return ks(np.concatenate([own, other]), np.arange(counts.shape[1]) < len(own), counts)
