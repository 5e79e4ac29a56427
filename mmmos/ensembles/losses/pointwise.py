"""Losses that compare each prediction with its own target."""

from torch import Tensor

from mmmos.ensembles.losses.base import Loss


def mse(p: Tensor, y: Tensor) -> Tensor:
    """mean (p − y)². Range [0, ∞), optimum p = y."""
    return (p - y).square().mean(-1)


def mae(p: Tensor, y: Tensor) -> Tensor:
    """mean |p − y|. Range [0, ∞), optimum p = y."""
    return (p - y).abs().mean(-1)


def mae_mse(p: Tensor, y: Tensor) -> Tensor:
    """mean |p − y| + mean (p − y)². Range [0, ∞), optimum p = y. Audiobox-Aesthetics (arXiv 2502.05139)."""
    return mae(p, y) + mse(p, y)


def huber(p: Tensor, y: Tensor, delta: float = 1.0) -> Tensor:
    """mean of (p − y)² / 2 where |p − y| ≤ delta, delta (|p − y| − delta / 2) elsewhere (Huber, 1964).

    Range [0, ∞), optimum p = y. ``delta``: in standard deviations of the scores.
    """
    error = (p - y).abs()
    inside = error.clamp_max(delta)
    return (inside * (error - inside / 2)).mean(-1)


def clipped_mse(p: Tensor, y: Tensor, tau: float) -> Tensor:
    """mean of (p − y)² where |p − y| > tau, 0 elsewhere; B stays the denominator. UTMOS (Saeki et al., 2022).

    Range [0, ∞); any p within tau of y is an optimum.
    """
    error = p - y
    return (error.square() * (error.abs() > tau)).mean(-1)


def clipped_l1(p: Tensor, y: Tensor, tau: float = 0.5) -> Tensor:
    """mean of |p − y| where |p − y| > tau, 0 elsewhere; B stays the denominator. SSL-MOS in SHEET (arXiv 2411.03715).

    Range [0, ∞); any p within tau of y is an optimum. ``tau``: in standard deviations here, in MOS points there.
    """
    error = (p - y).abs()
    return (error * (error > tau)).mean(-1)


MSE = Loss("mse", mse)
MAE_MSE = Loss("mae_mse", mae_mse)
HUBER = Loss("huber", huber)
CLIPPED_L1 = Loss("clipped_l1", clipped_l1)
