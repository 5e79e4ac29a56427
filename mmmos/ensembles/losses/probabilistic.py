"""Negative log-likelihoods: a head gives, for each axis, a score and the logarithm of its uncertainty.

The uncertainty has a floor of 0.03 standard deviations, a tenth of what ten raters leave open, so that a clip that is
predicted exactly does not outweigh all others.
"""

import math

import torch
from torch import Tensor

from mmmos.ensembles.losses.base import Loss


def gaussian_nll(outputs: Tensor, y: Tensor, floor: float = 0.03) -> Tensor:
    """mean of ((p − y)² / v + ln v) / 2 with outputs p and s, variance v = exp(s) + floor²; a constant is left out.

    Range (ln floor, ∞), optimum p = y with v at its floor; for noisy targets p is their mean and v their variance.
    SHEET (arXiv 2411.03715) has it with a dead zone and without a floor.
    """
    p, s = outputs.unbind(-1)
    log_variance = _above(s, floor**2)
    return (((p - y).square() * (-log_variance).exp() + log_variance) / 2).mean(-1)


def laplace_nll(outputs: Tensor, y: Tensor, floor: float = 0.03) -> Tensor:
    """mean of |p − y| / b + ln b with outputs p and s, scale b = exp(s) + floor; a constant is left out.

    Range (ln floor, ∞), optimum p = y with b at its floor; for noisy targets p is their median and b their mean
    absolute deviation. SHEET (arXiv 2411.03715) has it with a dead zone and a floor of 1e-6.
    """
    p, s = outputs.unbind(-1)
    log_scale = _above(s, floor)
    return ((p - y).abs() * (-log_scale).exp() + log_scale).mean(-1)


def _above(s: Tensor, floor: float) -> Tensor:
    """ln(exp(s) + floor)."""
    return torch.logaddexp(s, s.new_full((), math.log(floor) if floor else -math.inf))


def first(outputs: Tensor) -> Tensor:
    """The score p."""
    return outputs[..., 0]


GAUSSIAN_NLL = Loss("gaussian_nll", gaussian_nll, outputs=2, decode=first)
LAPLACE_NLL = Loss("laplace_nll", laplace_nll, outputs=2, decode=first)
