"""What turns the features of clips into scores: a bundle, or a published system."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmmos.features.encoders import Encoder
    from mmmos.features.spec import FeatureSpec
    from mmmos.features.table import Features

Array = NDArray[np.float64]


class Loaded(NamedTuple):
    """A feature set and the loaded encoder that gives it."""

    spec: "FeatureSpec"
    encoder: "Encoder"


class Predicted(NamedTuple):
    """``scores`` (clips, axes), score units 0–10, and ``spread`` (clips, axes), the standard deviation of what the
    single heads say; None where there is one head.
    """

    scores: Array
    spread: Array | None


class Model(Protocol):
    """Scores of clips from their features."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that the scores depend on."""
        ...

    @property
    def axes(self) -> tuple[str, ...]:
        """Of the scores."""
        ...

    def encoders(self, device: str) -> list[Loaded]:
        """The feature sets that are read, with their encoders. Raises ``SetupError`` where weights are not to be had or
        are others.
        """
        ...

    def predict(self, features: "Features", domains: Sequence[str | None]) -> Predicted:
        """Scores of clips; ``domains`` (clips,), None where unknown. A clip's do not depend on the others."""
        ...
