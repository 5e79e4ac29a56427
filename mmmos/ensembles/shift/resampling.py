"""Values that carry their bootstrap samples: the first is the value itself."""

import numpy as np
from numpy.typing import NDArray

from mmmos.statistics import interval, resample_counts

Array = NDArray[np.float64]


def counts_of(clips: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Multiplicities (1 + resamples, clips): every clip once, then bootstrap samples."""
    return np.vstack([np.ones((1, clips), np.int64), resample_counts(clips, resamples, seed)])


def counts_of_both(first: int, second: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Multiplicities (1 + resamples, first + second) of two sets of clips, each resampled by itself."""
    return np.hstack([counts_of(first, resamples, seed), counts_of(second, resamples, seed + 1)])


def with_interval(name: str, samples: Array) -> dict[str, float]:
    """A value, the first of its samples (1 + resamples,), and its 95 % interval from the others, as three columns."""
    low, high = interval(samples[1:])
    return {name: float(samples[0]), f"{name}_low": low, f"{name}_high": high}
