"""A shift filter: dimensions that lie elsewhere in the clips to be predicted are hidden from a head."""

from dataclasses import replace

import numpy as np

from mmmos.ensembles.heads import Array, Blocks
from mmmos.ensembles.heads.inputs import Standardiser

# Deviations below which a dimension does not vary, in units of the larger one of both, and the most that counts.
CONSTANT = 1e-6
MOST = 1e6


def displacement(block: Array, target: Array) -> Array:
    """How far each dimension (layers, dim) lies apart in two sets of rows (rows, layers, dim), 0 up.

    |difference of the means| in units of the pooled standard deviation, plus |log ratio of the standard deviations|.
    """
    (mean, spread), (other, wide) = (
        (rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)) for rows in (block, target)
    )
    size = np.maximum(np.abs(mean), np.abs(other)) + np.maximum(spread, wide)
    floor = np.where(size > 0, CONSTANT * size, 1)
    pooled = np.sqrt((np.maximum(spread, floor) ** 2 + np.maximum(wide, floor) ** 2) / 2)
    apart = np.abs(other - mean) / pooled + np.abs(np.log(np.maximum(wide, floor) / np.maximum(spread, floor)))
    return apart.clip(0, MOST).astype(np.float32)


def leave_out(standardise: Standardiser, blocks: Blocks, target: Blocks, share: float) -> Standardiser:
    """The standardiser with an infinite scale, so that 0 comes out, where the rows of ``blocks`` and ``target`` lie
    furthest apart: in that share of the dimensions of each feature set, rounded, but not in all.
    """
    scales = []
    for scale, block, other in zip(standardise.scales, blocks, target, strict=True):
        apart = displacement(block, other).ravel()
        count = min(round(share * apart.size), apart.size - 1)
        hidden = np.zeros(apart.size, bool)
        hidden[np.argsort(-apart, kind="stable")[:count]] = True
        scales.append(np.where(hidden.reshape(scale.shape), np.float32(np.inf), scale))
    return replace(standardise, scales=scales)
