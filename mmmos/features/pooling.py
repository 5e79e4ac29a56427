"""Pooling: frames to window means, windows to clip means, raw vectors to unit vectors and norms.

A stored row is a window: unit vectors in the stored dtype and float32 norms, so that raw = unit × norm.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

ABSURD = 1e6


def split(raw: Array, dtype: str) -> tuple[NDArray[np.floating], Array]:
    """Unit vectors ``(…, dim)`` in ``dtype`` and norms ``(…)`` float32 of raw vectors; a zero vector stays zero."""
    norm = np.linalg.norm(raw.astype(np.float64), axis=-1)
    unit = raw / np.where(norm == 0, 1, norm)[..., None]
    return unit.astype(dtype), norm.astype(np.float32)


def is_sound(raw: Array) -> bool:
    """True when a window's vectors ``(layers, dim)`` are finite, below 1e6 and not all zero."""
    return bool(np.isfinite(raw).all() and np.abs(raw).max() < ABSURD and raw.any())


def clip_means(unit: NDArray[np.floating], norm: Array, frames: NDArray[np.int32], clip: NDArray[np.int64]) -> Array:
    """Frame-weighted means of the windows of each clip.

    ``unit`` (rows, layers, dim), ``norm`` (rows, layers), ``frames`` (rows,), ``clip`` (rows,) numbers from 0 without
    gaps, ascending. Returns raw vectors (clips, layers, dim) float32.
    """
    raw = unit.astype(np.float32) * norm[..., None]
    starts = np.flatnonzero(np.diff(clip, prepend=-1))
    if len(starts) == len(clip):
        return raw
    weight = frames.astype(np.float64) / np.add.reduceat(frames.astype(np.float64), starts)[clip]
    return np.add.reduceat(raw * weight[:, None, None], starts, axis=0).astype(np.float32)
