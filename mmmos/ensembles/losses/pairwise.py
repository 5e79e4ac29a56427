"""Losses on differences between the clips of a batch; those without a pointwise term ignore a constant offset.

A batch of one has no differences: its pairwise terms are 0.
"""

import numpy as np
import torch
from torch import Tensor

from mmmos.ensembles.losses.base import Array, Loss, pairs
from mmmos.ensembles.losses.pointwise import clipped_mse, huber, mae_mse, mse

# One-point bins of the scores 0–10; a score of n points, though not exact in float32, is in the bin that starts at n.
BINS = 10
BIN_TOLERANCE = 1e-4


def contrastive(p: Tensor, y: Tensor, margin: float = 0.1) -> Tensor:
    """Σ_{i≠j} max(0, |dp − dy| − margin) / (B (B − 1)). The released MMMOS code.

    Range [0, ∞), shift-invariant; any p whose differences are within margin of the target's is an optimum.
    """
    batch = p.shape[-1]
    return _excess(p, y, margin).sum((-2, -1)) / max(batch * (batch - 1), 1)


def pair_difference(p: Tensor, y: Tensor, margin: float) -> Tensor:
    """mean_ij max(0, |dp − dy| − margin) / 2, diagonal included: (B − 1) / (2B) of ``contrastive``."""
    return _excess(p, y, margin).mean((-2, -1)) / 2


def _excess(p: Tensor, y: Tensor, margin: float) -> Tensor:
    return torch.relu((pairs(p) - pairs(y)).abs() - margin)


def utmos(p: Tensor, y: Tensor, tau: float = 0.5, margin: float = 0.1, weight: float = 0.5) -> Tensor:
    """mean of (p − y)² where |p − y| > tau, plus weight × ``contrastive``. The released MMMOS code, after UTMOS.

    Range [0, ∞). Optimum: p within tau of y, differences within margin, so that an offset below tau is free.
    """
    return clipped_mse(p, y, tau) + weight * contrastive(p, y, margin)


def utmos22(
    p: Tensor, y: Tensor, deviation: Tensor, tau: float = 0.25, margin: float = 0.1, weight: float = 0.5
) -> Tensor:
    """mean of (p − y)² where |p − y| > tau, plus weight × mean_ij max(0, |dp − dy| − margin) / 2, on scores mapped to
    −1…1. UTMOS (Saeki et al., 2022), which mapped the MOS 1–5; here it is 0–10, so that tau is 1.25 points and margin
    half a point.

    Range [0, ∞). Optimum: p within tau of y, differences within margin. An offset below tau is free, which on the
    official training list is 0.7 (PC) to 1 (PQ) standard deviation; lower tau where the offset matters.
    """
    unit = deviation.unsqueeze(-1) / 5
    p, y = p * unit, y * unit
    return clipped_mse(p, y, tau) + weight * pair_difference(p, y, margin)


def utmosv2(p: Tensor, y: Tensor, margin: float = 0.2, pair_weight: float = 0.7, mse_weight: float = 0.2) -> Tensor:
    """pair_weight × mean_ij max(0, |dp − dy| − margin) / 2 + mse_weight × mean (p − y)². UTMOSv2 (arXiv 2409.09305).

    Range [0, ∞), optimum p = y. ``margin``: in standard deviations here, in MOS points there.
    """
    return pair_weight * pair_difference(p, y, margin) + mse_weight * mse(p, y)


def relative_perception(p: Tensor, y: Tensor) -> Tensor:
    """mean_ij (dp − dy)² − mean_ij dp sign(dy), diagonal included. The released MMMOS code calls it DCQ.

    Range (−mean_ij |dy| − 1/4, ∞), shift-invariant. Its optimum p_i = y_i + mean_j sign(y_i − y_j) / 2 + constant
    spreads predictions: for Gaussian targets the standard deviation is 1.28 times the target's. Ties are not spread.
    """
    dp, dy = pairs(p), pairs(y)
    return (dp - dy).square().mean((-2, -1)) - (dp * dy.sign()).mean((-2, -1))


def dcq(p: Tensor, y: Tensor) -> Tensor:
    """mean (p − y)² + mean_ij (dp − dy)² − mean_ij dp sign(dy), diagonal included. DCQ, the dual-criterion quality
    loss, as its paper states it.

    Range (−mean_ij |dy| − 1/4, ∞). Its optimum p_i = y_i + mean_j sign(y_i − y_j) / 3 has the offset of the targets and
    spreads predictions, for Gaussian targets 1.19 times.
    """
    return mse(p, y) + relative_perception(p, y)


def adaptive_ranking(p: Tensor, y: Tensor, quality: Tensor, margin: float, preference: float) -> Tensor:
    """mean over pairs with y_i ≠ y_j of w_ij max(0, margin |dy| − sign(dy) dp); 0 where all targets are equal.

    w_ij = 1 + (preference − 1) max(q_i, q_j) with ``quality`` q (…, B) in [0, 1]. Range [0, ∞), shift-invariant; 0
    from dp = margin dy up, in the right order.
    """
    dp, dy = pairs(p), pairs(y)
    weight = 1 + (preference - 1) * torch.maximum(quality.unsqueeze(-1), quality.unsqueeze(-2))
    hinge = weight * torch.relu(margin * dy.abs() - dy.sign() * dp)
    return hinge.sum((-2, -1)) / dy.count_nonzero((-2, -1)).clamp_min(1)


def qamro(
    p: Tensor,
    y: Tensor,
    mean: Tensor,
    deviation: Tensor,
    quality: Tensor,
    margin: float = 0.2,
    preference: float = 7.0,
    weight: float = 1.0,
) -> Tensor:
    """mean |p − y| + mean (p − y)² + weight × mean_ij w_ij max(0, margin |dy| − sign(dy) dp), the last on score points
    over pairs with y_i ≠ y_j. QAMRO, Track 2 (arXiv 2508.08957, released code). Range [0, ∞), optimum p = y.

    w_ij = 1 + (preference − 1) max(q_i, q_j) prefers common scores: q, in [0, 1], is higher the more training scores
    lie in the one-point bin of y. The code leaves pairs with a score below 1 out of the ranking; here they are of least
    weight.
    """
    unit = deviation.unsqueeze(-1)
    bins = (y * unit + mean.unsqueeze(-1) + BIN_TOLERANCE).floor().clamp(0, BINS - 1).long()
    weights = torch.take_along_dim(quality.expand(*bins.shape[:-1], BINS), bins, -1)
    return mae_mse(p, y) + weight * adaptive_ranking(p * unit, y * unit, weights, margin, preference)


def qamro_track1(
    p: Tensor, y: Tensor, margin: float = 0.2, preference: float = 7.0, weight: float = 1.0, delta: float = 1.0
) -> Tensor:
    """``huber`` + weight × mean_ij w_ij max(0, margin |dy| − sign(dy) dp), the last over pairs with y_i ≠ y_j. QAMRO,
    Track 1 (arXiv 2508.08957, released code), there on MOS points 1–5, here on standardised scores. Range [0, ∞),
    optimum p = y.

    w_ij = 1 + (preference − 1) max(q_i, q_j) prefers high scores: q = (y − min y) / (max y − min y) over the batch.
    """
    low, high = y.amin(-1, keepdim=True), y.amax(-1, keepdim=True)
    quality = (y - low) / (high - low).clamp_min(1e-12)
    return huber(p, y, delta) + weight * adaptive_ranking(p, y, quality, margin, preference)


def quality_of_bins(scores: Array) -> Array:
    """QAMRO's weight in [0, 1] of each one-point bin (axes, 10) of training scores (clips, axes) in 0–10.

    (9.5 − r) / 9.5 for the bin that is r-th in frequency, from 0; 0 for bins with less than 3 % of the clips. The
    tables in the released code are these, counted on the official training list, but for three swaps of neighbours.
    """
    bins = np.clip(np.floor(scores + BIN_TOLERANCE), 0, BINS - 1).astype(int)
    counts = np.stack([np.bincount(column, minlength=BINS) for column in bins.T])
    rank = np.argsort(np.argsort(-counts, axis=1, kind="stable"), axis=1)
    return np.where(counts < 0.03 * len(scores), 0.0, (BINS - 0.5 - rank) / (BINS - 0.5))


def _deviation(scores: Array, scale: Array) -> dict[str, Array]:
    return {"deviation": scale[1]}


def _scale_and_bins(scores: Array, scale: Array) -> dict[str, Array]:
    return {"mean": scale[0], "deviation": scale[1], "quality": quality_of_bins(scores)}


UTMOS = Loss("utmos", utmos)
UTMOS22 = Loss("utmos22", utmos22, constants=_deviation)
UTMOSV2 = Loss("utmosv2", utmosv2)
CONTRASTIVE = Loss("contrastive", contrastive, anchored=False)
DCQ = Loss("dcq", dcq, anchored=False)
DCQ_RELEASED = Loss("dcq_released", relative_perception, anchored=False)
QAMRO = Loss("qamro", qamro, constants=_scale_and_bins)
QAMRO_TRACK1 = Loss("qamro_track1", qamro_track1)
