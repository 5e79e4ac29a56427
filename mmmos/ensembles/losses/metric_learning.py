"""Losses on distances between embeddings of clips with near and with far scores; scores themselves get the MSE."""

import torch
from torch import Tensor

from mmmos.ensembles.losses.base import Loss, pairs
from mmmos.ensembles.losses.pointwise import mse

# Pairs that are remembered: four batches of the default size.
MEMORY = 128


def triplet(
    z: Tensor,
    y: Tensor,
    known_z: Tensor,
    known_y: Tensor,
    chance: Tensor,
    alpha: float = 0.2,
    eps: float = 0.5,
    margin: float = 1.0,
) -> Tensor:
    """alpha × mean of max(0, ‖z_a − z_p‖² − ‖z_a − z_n‖² + margin), p and n drawn from the last 128 clips.

    The mean is over clips a of the batch and axes. p is drawn from the remembered pairs with |y_a − y_p| < eps, n from
    those with |y_a − y_n| > eps; an a without either does not count, and 0 is the loss where none counts. Range [0, ∞),
    invariant to rotations and shifts of the embedding; the scores' scale matters through eps alone.

    AESA-Net (arXiv 2509.03292): the formula, alpha and the queue. It leaves eps, margin and memory open; our choice is
    half a standard deviation (28 % of Gaussian pairs are nearer), the customary 1, and 128 pairs.
    """
    gap = (y.unsqueeze(-1) - known_y.unsqueeze(-2)).abs()
    return alpha * _hinge(z, known_z, gap < eps, gap > eps, chance, margin)


def triplet_batch(
    z: Tensor,
    y: Tensor,
    known_z: Tensor,
    known_y: Tensor,
    chance: Tensor,
    alpha: float = 0.2,
    eps: float = 0.5,
    margin: float = 1.0,
) -> Tensor:
    """alpha × mean of max(0, ‖z_a − z_p‖² − ‖z_a − z_n‖² + margin), p and n drawn from the other clips of the batch.

    As ``triplet`` otherwise; nothing is remembered. Range [0, ∞).
    """
    gap = pairs(y).abs()
    others = ~torch.eye(y.shape[-1], dtype=torch.bool, device=y.device)
    return alpha * _hinge(z, z, (gap < eps) & others, gap > eps, chance, margin)


def _hinge(z: Tensor, known: Tensor, near: Tensor, far: Tensor, chance: Tensor, margin: float) -> Tensor:
    """Mean hinge (heads,) over anchors z (heads, B, dim) and axes, of candidates ``known`` (heads, M, dim).

    ``near``, ``far`` (heads, axes, B, M) say who qualifies; of those the one with the largest chance is drawn.
    """
    if not known.shape[1]:
        return z.new_zeros(len(z))
    exists = near.any(-1) & far.any(-1)
    excess = _distance(z, known, near, chance[:, :, 0]) - _distance(z, known, far, chance[:, :, 1]) + margin
    return (torch.relu(excess) * exists).sum((-2, -1)) / exists.sum((-2, -1)).clamp_min(1)


def _distance(z: Tensor, known: Tensor, qualifying: Tensor, chance: Tensor) -> Tensor:
    """Squared distance (heads, axes, B) of each anchor to a candidate drawn among those that qualify."""
    drawn = chance.masked_fill(~qualifying, -1).argmax(-1)
    chosen = torch.take_along_dim(known, drawn.flatten(1).unsqueeze(-1), 1).unflatten(1, drawn.shape[1:])
    return (z.unsqueeze(1) - chosen).square().sum(-1)


TRIPLET = Loss("triplet", mse, embedding=triplet, memory=MEMORY)
TRIPLET_BATCH = Loss("triplet_batch", mse, embedding=triplet_batch)
