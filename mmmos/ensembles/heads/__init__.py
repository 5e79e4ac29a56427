"""Heads by name: small regressors from stored embeddings to standardised scores.

A head class has ``Options`` (its hyperparameters), ``own_loss`` (True when it has a criterion of its own), ``reads``
("pooled" or "frames"), ``predict``, ``state`` (its arrays by name) and ``restore``; it is stored as arrays and JSON,
never as code. It is trained by its own ``fit``, or, as a subclass of ``neural.Neural``, by ``engine.trainer``.
"""

import math
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mmmos import registry

Array = NDArray[np.float32]
Blocks = list[Array]


class Head(Protocol):
    """A fitted head. ``Blocks`` hold one array (clips, layers, dim) float32 for each feature set.

    ``Options.model_validate(options)`` are its hyperparameters; ``weighted`` asks for a learned softmax over layers.
    """

    def predict(self, inputs: Any) -> Array:
        """Standardised predictions (clips, axes) float32 of ``Blocks``; of ``Frames`` for a head that reads frames."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that was learned, as arrays by name."""
        ...

    def restore(self, state: dict[str, NDArray[Any]]) -> Self:
        """Take what another head of the same options had learned."""
        ...


class Fitted(Head, Protocol):
    """A head that is trained alone."""

    def fit(self, blocks: Blocks, targets: Array, held_out: tuple[Blocks, Array]) -> "Head":
        """Fit to standardised targets (clips, axes); ``held_out`` clips serve early stopping only."""
        ...


def make_of(spec: Any) -> Head:
    """The untrained head of a ``HeadSpec``."""
    head_class = registry.load("heads", spec.head)
    extra = {"loss_options": spec.loss_options} if spec.loss_options else {}
    head: Head = head_class(
        options=spec.options, weighted=spec.layers == "weighted", loss=spec.loss, seed=spec.seed, **extra
    )
    return head


def own_loss(name: str) -> bool:
    """True for a head with a criterion of its own, which takes no ``loss``."""
    return bool(registry.load("heads", name).own_loss)


def reads(name: str) -> str:
    """What a head reads: "pooled" vectors or "frames"."""
    return str(getattr(registry.load("heads", name), "reads", "pooled"))


def columns(spec: Any) -> tuple[str, ...]:
    """Columns of the clips' table that the head of a ``HeadSpec`` learns from beside the scores."""
    head = make_of(spec)
    return tuple(head.columns()) if hasattr(head, "columns") else ()


def is_neural(name: str) -> bool:
    """True for a head that the engine trains, False for one with a ``fit`` of its own."""
    return not hasattr(registry.load("heads", name), "fit")


def flat(blocks: Blocks) -> Array:
    """All blocks side by side, (clips, features)."""
    return np.concatenate([block.reshape(len(block), math.prod(block.shape[1:])) for block in blocks], axis=1)
