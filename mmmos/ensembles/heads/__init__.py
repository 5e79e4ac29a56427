"""Heads by name: small regressors from pooled embeddings to standardised scores.

A head class has ``Options`` (its hyperparameters), ``own_loss`` (True when it has a criterion of its own), ``fit``,
``predict``, ``state`` (its arrays by name) and ``restore``; it is stored as arrays and JSON, never as code.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmmos import registry
from mmmos.recipe import Recipe

Array = NDArray[np.float32]
Blocks = list[Array]


class Head(Protocol):
    """A fitted head. ``Blocks`` hold one array (clips, layers, dim) float32 for each feature set."""

    Options: type[Recipe]
    own_loss: bool

    def fit(self, blocks: Blocks, targets: Array, held_out: tuple[Blocks, Array]) -> "Head":
        """Fit to standardised targets (clips, axes); ``held_out`` clips serve early stopping only."""
        ...

    def predict(self, blocks: Blocks) -> Array:
        """Standardised predictions (clips, axes) float32."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that was learned, as arrays by name."""
        ...

    def restore(self, state: dict[str, NDArray[Any]]) -> "Head":
        """Take what another head of the same options had learned."""
        ...


def make(name: str, *, options: dict[str, Any], weighted: bool, loss: str, seed: int) -> Head:
    """An unfitted head; ``weighted`` asks for a learned softmax over layers."""
    head: Head = registry.load("heads", name)(options=options, weighted=weighted, loss=loss, seed=seed)
    return head


def own_loss(name: str) -> bool:
    """True for a head with a criterion of its own, which takes no ``loss``."""
    return bool(registry.load("heads", name).own_loss)


def flat(blocks: Blocks) -> Array:
    """All blocks side by side, (clips, features)."""
    return np.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1)
