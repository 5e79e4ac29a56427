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


def clip_means(unit: NDArray[np.floating], norm: Array, frames: NDArray[np.int64], clip: NDArray[np.int64]) -> Array:
    """Frame-weighted means of the windows of each clip.

    ``unit`` (rows, layers, dim), ``norm`` (rows, layers), ``frames`` (rows,), ``clip`` (rows,) numbers from 0 without
    gaps, ascending. Returns raw vectors (clips, layers, dim) float32.
    """
    starts = np.flatnonzero(np.diff(clip, prepend=-1))
    if len(starts) == len(clip):
        raw = unit.astype(np.float32)
        raw *= norm[..., None]
        return raw
    weight = frames.astype(np.float64) / np.add.reduceat(frames.astype(np.float64), starts)[clip]
    means = np.empty((len(starts), *unit.shape[1:]), np.float32)
    # Row by row: the windows of a file of ten hours take as much memory as a store of thousands of clips.
    for number, rows in enumerate(np.split(np.arange(len(clip)), starts[1:])):
        total = np.zeros(unit.shape[1:])
        for row in rows:
            total += unit[row].astype(np.float32) * norm[row][:, None] * weight[row]
        means[number] = total
    return means
