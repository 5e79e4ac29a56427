"""``feature_shift``: how far the feature vectors of other sets are from those that heads learn from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.ensembles.shift.domains import Array, Mask, auc, frechet, moved, reduced, target_odds
from mmmos.ensembles.shift.resampling import counts_of_both, with_interval
from mmmos.ensembles.training.data import groups_of, sets_of
from mmmos.errors import UnknownName
from mmmos.features.table import Features

DISTANCES = ("auc", "frechet", "moved")
COLUMNS = (
    *("feature_set", "set", "clips", "auc", "auc_low", "auc_high", "auc_equal"),
    *("frechet", "frechet_equal", "moved", "moved_equal"),
)

# Clips that a set needs to be compared.
FEWEST = 8


def feature_shift(
    features: Features,
    clips: pd.DataFrame,
    *,
    train: Sequence[str] = ("train",),
    resamples: int = 200,
    splits: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """A row for each feature set and each set not in ``train``: its vectors against those of the training clips.

    ``auc``: of a classifier that tells both apart in grouped folds (0.5: alike, 1: separable), with its 95 % interval
    over clips. ``frechet``: distance of normal distributions in 32 whitened principal components. ``moved``: share of
    dimensions whose mean moved by more than half a standard deviation. ``…_equal``: what clips of one distribution stay
    below 97.5 times in 100, from ``splits`` random splits of the training clips by group, one part as large as the set,
    or half. No score is read; sets of fewer than 8 clips are left out. Raises ``UnknownName`` for a set to train on.
    """
    ids = pd.Index(features.ids, dtype=object)
    sets = sets_of(clips).reindex(ids).to_numpy(object)
    for name in train:
        if name not in sets:
            raise UnknownName("set to train on", name, sorted({str(each) for each in sets}))
    groups = np.array(groups_of(clips.loc[ids]), dtype=object)
    learned = np.flatnonzero(np.isin(sets, list(train)))
    others = {name: np.flatnonzero(sets == name) for name in dict.fromkeys(sets) if name not in train}
    rows = []
    for feature_set, array in features.sets.items():
        x = array.raw.reshape(len(features), -1)
        limits: dict[int, Array] = {}
        for name, clips_of in others.items():
            if min(len(clips_of), len(learned)) < FEWEST:
                continue
            pair = np.concatenate([learned, clips_of])
            target = np.arange(len(pair)) >= len(learned)
            size = min(len(clips_of), len(learned) // 2)
            if size not in limits:
                limits[size] = _limits(x[learned], groups[learned], size, splits, seed)
            counts = counts_of_both(len(learned), len(clips_of), resamples, seed)
            measured = _measure(x[pair], target, groups[pair], counts)
            rows.append(
                {"feature_set": feature_set, "set": name, "clips": len(clips_of)}
                | {each: samples[0] for each, samples in measured.items()}
                | with_interval("auc", measured["auc"])
                | {f"{each}_equal": limit for each, limit in zip(DISTANCES, limits[size], strict=True)}
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _measure(
    x: NDArray[np.float32], target: Mask, groups: NDArray[np.object_], counts: NDArray[np.int64]
) -> dict[str, Array]:
    """The distances between the clips of the target and the others; the AUC in every resample."""
    z = reduced(x)
    return {
        "auc": auc(target_odds(z, target, list(groups)), target, counts),
        "frechet": np.array([frechet(z, target)]),
        "moved": np.array([moved(x, target)]),
    }


def _limits(x: NDArray[np.float32], groups: NDArray[np.object_], size: int, splits: int, seed: int) -> Array:
    """The 97.5 % quantile (distances,) over random splits of clips by group, one part of about ``size`` clips."""
    random = np.random.default_rng(seed)
    names, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    found = []
    for _ in range(splits if len(names) > 1 else 0):
        order = random.permutation(len(names))
        chosen = order[: max(np.searchsorted(np.cumsum(sizes[order]), size, side="right"), 1)]
        target = np.isin(group, chosen)
        measured = _measure(x, target, groups, np.ones((1, len(x)), np.int64))
        found.append([measured[each][0] for each in DISTANCES])
    return np.quantile(found, 0.975, axis=0) if found else np.full(len(DISTANCES), np.nan)
