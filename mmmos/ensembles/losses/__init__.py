"""Losses by name, in the notation p prediction, y truth, dp = p_i − p_j, dy = y_i − y_j, B batch size.

Each is a function of (…, B) tensors that gives (…): one value per leading index, a head and an axis in practice.
Targets are standardised by the training clips. A ``Loss`` averages over axes.
"""

from collections.abc import Mapping
from typing import Any

from mmmos import registry
from mmmos.ensembles.losses.base import Loss

__all__ = ["Loss", "loss"]


def loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """The loss registered under a name, with some of its parameters set.

    Raises ``UnknownName`` for an unknown loss or parameter, ``UsageError`` for a value that is not a number of 0 up.
    """
    found: Loss = registry.load("losses", name)
    return found.given(options or {})
