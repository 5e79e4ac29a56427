"""Losses by name, in the notation p prediction, y truth, dp = p_i − p_j, dy = y_i − y_j, B batch size.

Each is a function of (…, B) tensors that gives (…): one value per leading index, one per axis in practice. Targets are
standardised. A ``Loss`` averages over axes.
"""

from mmmos import registry
from mmmos.ensembles.losses.base import Loss

__all__ = ["Loss", "loss"]


def loss(name: str) -> Loss:
    """The loss registered under a name. Raises ``UnknownName``."""
    found: Loss = registry.load("losses", name)
    return found
