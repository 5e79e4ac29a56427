"""Losses that compare each prediction with its own target."""

from torch import Tensor

from mmmos.ensembles.losses.base import Loss


def mse(p: Tensor, y: Tensor) -> Tensor:
    """mean (p − y)². Range [0, ∞)."""
    return (p - y).square().mean(-1)


def mae_mse(p: Tensor, y: Tensor) -> Tensor:
    """mean |p − y| + mean (p − y)². Range [0, ∞). Audiobox-Aesthetics (arXiv 2502.05139)."""
    return (p - y).abs().mean(-1) + mse(p, y)


def clipped_mse(p: Tensor, y: Tensor, tau: float) -> Tensor:
    """mean of (p − y)² where |p − y| > tau, 0 elsewhere; B stays the denominator. UTMOS (Saeki et al., 2022)."""
    error = p - y
    return (error.square() * (error.abs() > tau)).mean(-1)


MSE = Loss("mse", mse)
MAE_MSE = Loss("mae_mse", mae_mse)
