"""Losses on differences between the clips of a batch; those without a pointwise term ignore a constant offset."""

import torch
from torch import Tensor

from mmmos.ensembles.losses.base import Loss, pairs
from mmmos.ensembles.losses.pointwise import clipped_mse, mse


def contrastive(p: Tensor, y: Tensor, margin: float = 0.1) -> Tensor:
    """Σ_{i≠j} max(0, |dp − dy| − margin) / (B (B − 1)); 0 for B = 1. Range [0, ∞), shift-invariant.

    The released MMMOS code; UTMOS22 has 1/2 in front and the diagonal in the mean.
    """
    batch = p.shape[-1]
    excess = torch.relu((pairs(p) - pairs(y)).abs() - margin)
    return excess.sum((-2, -1)) / max(batch * (batch - 1), 1)


def utmos(p: Tensor, y: Tensor) -> Tensor:
    """Clipped MSE (tau 0.5) + 0.5 × contrastive (margin 0.1). Range [0, ∞). The released MMMOS code, after UTMOS."""
    return clipped_mse(p, y, tau=0.5) + 0.5 * contrastive(p, y)


def relative_perception(p: Tensor, y: Tensor) -> Tensor:
    """mean_ij (dp − dy)² − mean_ij dp sign(dy), diagonal included. Shift-invariant, unbounded below.

    Its optimum spreads predictions: the standard deviation is up to 1.29 times the target's.
    """
    dp, dy = pairs(p), pairs(y)
    return (dp - dy).square().mean((-2, -1)) - (dp * dy.sign()).mean((-2, -1))


def dcq(p: Tensor, y: Tensor) -> Tensor:
    """MSE + relative perception constraint: the dual-criterion quality loss as its paper states it.

    Its optimum spreads predictions, by less than the constraint alone: 1.19 times for Gaussian targets.
    """
    return mse(p, y) + relative_perception(p, y)


UTMOS = Loss("utmos", utmos)
CONTRASTIVE = Loss("contrastive", contrastive, anchored=False)
DCQ = Loss("dcq", dcq, anchored=False)
DCQ_RELEASED = Loss("dcq_released", relative_perception, anchored=False)
