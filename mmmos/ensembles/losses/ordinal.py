"""Losses that cut the scale 0–10 into steps: a head gives logits, their decoding is a score."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid

from mmmos.ensembles.losses.base import Array, Loss

# Score points: 20 bin centres 0, 0.526, …, 10, and 20 thresholds 0.25, 0.75, …, 9.75.
CENTRES = np.linspace(0, 10, 20)
THRESHOLDS = np.arange(0.25, 10, 0.5)


def soft_bins(logits: Tensor, y: Tensor, centres: Tensor, sigma: float = 0.625) -> Tensor:
    """KL divergence of softmax(logits) from a Gaussian around y over 20 bins, exp(−(y − c_k)² / (2 sigma²)) normalised;
    mean over the batch. Gaussian-softened classification (the AudioMOS 2025 Track 1 winner), which has 20 bins
    on 1–5 and sigma 0.25: 1/16 of the scale, as here.

    Range [0, ∞). The score at the optimum is y, but for a pull inwards near the ends of the scale: 0.35 points at 0
    and at 10, 0.03 at 1 and at 9. ``sigma``: in score points, 0.001 at least.
    """
    points = 10 / (centres[..., -1] - centres[..., 0])
    distance = (y.unsqueeze(-1) - centres.unsqueeze(-2)) * points[..., None, None] / max(sigma, 1e-3)
    target = (-distance.square() / 2).log_softmax(-1)
    return kl_div(logits.log_softmax(-1), target, reduction="none", log_target=True).sum(-1).mean(-1)


def expected_centre(logits: Tensor, centres: Tensor) -> Tensor:
    """The mean of the bin centres under softmax(logits), standardised."""
    return (logits.softmax(-1) * centres.unsqueeze(-2)).sum(-1)


def coral(outputs: Tensor, y: Tensor, thresholds: Tensor) -> Tensor:
    """Σ_k binary cross-entropy of logit_k against 1[y > t_k], t_k = 0.25, 0.75, …, 9.75 points; mean over the batch.

    logit_0 = output_0 + n log 2 and logit_k = logit_{k−1} − softplus(output_k): probabilities fall with the threshold.
    After CORAL (Cao et al., arXiv 1901.07884) as the AudioMOS 2025 Track 1 winner has it, there with a threshold at
    each MOS. Half a point is our choice, and n, the number of thresholds below the training mean, with which a head
    begins near the mean. Range (0, ∞); the score at the optimum is y rounded to half a point.
    """
    logits, above = _falling(outputs, thresholds), y.unsqueeze(-1) > thresholds.unsqueeze(-2)
    return -torch.where(above, logsigmoid(logits), logsigmoid(-logits)).sum(-1).mean(-1)


def thresholds_passed(outputs: Tensor, thresholds: Tensor) -> Tensor:
    """Half a point for each threshold times the probability to be above it, standardised."""
    step = thresholds[..., 1] - thresholds[..., 0]
    start = thresholds[..., 0] - step / 2
    return start.unsqueeze(-1) + step.unsqueeze(-1) * logsigmoid(_falling(outputs, thresholds)).exp().sum(-1)


def _falling(outputs: Tensor, thresholds: Tensor) -> Tensor:
    """Logits of being above each threshold."""
    below = (thresholds < 0).sum(-1).to(outputs.dtype)[..., None, None]
    return torch.cat([outputs[..., :1] + below * math.log(2), logsigmoid(-outputs[..., 1:])], -1).cumsum(-1)


def _standardised(points: Array, scale: Array) -> Array:
    """Score points (K,) as standardised scores (axes, K)."""
    standardised: Array = (points - scale[0][:, None]) / scale[1][:, None]
    return standardised


def _centres(scores: Array, scale: Array) -> dict[str, Array]:
    return {"centres": _standardised(CENTRES, scale)}


def _thresholds(scores: Array, scale: Array) -> dict[str, Array]:
    return {"thresholds": _standardised(THRESHOLDS, scale)}


SOFT_BINS = Loss("soft_bins", soft_bins, outputs=len(CENTRES), decode=expected_centre, constants=_centres)
CORAL = Loss("coral", coral, outputs=len(THRESHOLDS), decode=thresholds_passed, constants=_thresholds)
