"""What a head sees: chosen layers of its feature sets, normalised in one of three ways."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.heads import Blocks
from mmmos.ensembles.spec import HeadSpec
from mmmos.features.table import Features


def blocks_of(spec: HeadSpec, features: Features) -> Blocks:
    """The chosen layers of each feature set, (clips, layers, dim), raw or as unit vectors."""
    choice = "all" if spec.layers == "weighted" else spec.layers
    blocks = [features[name].layers(choice) for name in spec.features]
    if spec.normalise == "unit":
        blocks = [_units(block) for block in blocks]
    return blocks


def _units(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every layer's vector divided by its length; a vector of zeros stays."""
    norm = np.linalg.norm(block, axis=-1, keepdims=True)
    return np.divide(block, np.where(norm == 0, 1, norm), dtype=np.float32)


@dataclass(frozen=True)
class Standardiser:
    """Mean and scale of each feature over the clips it was fitted to; the identity for other normalisations."""

    means: list[NDArray[np.float32]]
    scales: list[NDArray[np.float32]]

    @classmethod
    def fit(cls, spec: HeadSpec, blocks: Blocks) -> "Standardiser":
        """Statistics of training blocks; a feature that does not vary keeps scale 1."""
        if spec.normalise != "standard":
            return cls([], [])
        scales = [block.std(axis=0, dtype=np.float64) for block in blocks]
        scales = [np.where(scale < 1e-8, 1, scale) for scale in scales]
        means = [block.mean(axis=0, dtype=np.float64) for block in blocks]
        return cls([m.astype(np.float32) for m in means], [s.astype(np.float32) for s in scales])

    def __call__(self, blocks: Blocks) -> Blocks:
        """The blocks, standardised; values beyond 8 standard deviations are moved there."""
        if not self.means:
            return blocks
        return [((b - m) / s).clip(-8, 8) for b, m, s in zip(blocks, self.means, self.scales, strict=True)]

    def state(self) -> dict[str, NDArray[Any]]:
        """The statistics by name."""
        named = [("mean", self.means), ("scale", self.scales)]
        return {f"{name}.{i}": array for name, arrays in named for i, array in enumerate(arrays)}

    @classmethod
    def from_state(cls, state: dict[str, NDArray[Any]]) -> "Standardiser":
        """The inverse of ``state``."""
        count = sum(name.startswith("mean.") for name in state)
        return cls([state[f"mean.{i}"] for i in range(count)], [state[f"scale.{i}"] for i in range(count)])
