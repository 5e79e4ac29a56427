"""What a head sees: chosen layers of its feature sets, normalised in one of three ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.heads import Array, Blocks
from mmmos.ensembles.spec import HeadSpec
from mmmos.features.table import Features

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pooled:
    """Pooled vectors of some clips: a row for each, or one for each of their windows.

    ``blocks``: (rows, layers, dim) float32 of each feature set. With windows, the rows of clip c are those from
    ``first[c]`` up to ``first[c + 1]``, and ``share`` (rows,) is each one's part of its clip, by seconds.
    """

    blocks: Blocks
    first: Rows | None = None
    share: Array | None = None

    def __len__(self) -> int:
        return len(self.blocks[0]) if self.first is None else len(self.first) - 1

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(layers, dim) of each feature set."""
        return [(block.shape[1], block.shape[2]) for block in self.blocks]

    def clips(self) -> Rows:
        """The clip's position of each row."""
        return self.windows(np.arange(len(self)))[1]

    def standardiser(self, normalise: str, clips: Rows) -> "Standardiser":
        """What brings the rows of some clips to mean 0 and deviation 1; changes nothing for another ``normalise``."""
        return Standardiser.fit(self.at(clips).blocks) if normalise == "standard" else Standardiser([], [])

    def windows(self, clips: Rows) -> tuple[Rows, Rows, Array]:
        """The rows of some clips in their order; of each row the clip's position among them, and its share."""
        if self.first is None or self.share is None:
            return clips, np.arange(len(clips)), np.ones(len(clips), np.float32)
        begin, counts = self.first[clips], (self.first[1:] - self.first[:-1])[clips]
        clip = np.repeat(np.arange(len(clips)), counts)
        rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + begin[clip]
        return rows, clip, self.share[rows]

    def at(self, clips: Rows) -> "Pooled":
        """Some clips, by position."""
        rows, clip, share = self.windows(clips)
        blocks = [block[rows] for block in self.blocks]
        return Pooled(blocks) if self.first is None else Pooled(blocks, _offsets(clip, len(clips)), share)

    def clip_means(self) -> Blocks:
        """The vectors of the clips themselves: blocks (clips, layers, dim)."""
        return [self.means(block) for block in self.blocks]

    def means(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (rows, …) to the means of each clip (clips, …), by share."""
        if self.first is None or self.share is None or not len(self):
            return values
        shares = self.share.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
        return np.add.reduceat(values * shares, self.first[:-1], axis=0)


def _offsets(clip: Rows, clips: int) -> Rows:
    return np.concatenate([[0], np.cumsum(np.bincount(clip, minlength=clips))]).astype(np.int64)


def pooled(spec: HeadSpec, features: Features) -> Pooled:
    """The chosen layers of each feature set, raw or as unit vectors, of every clip or window."""
    choice = "all" if spec.layers == "weighted" else spec.layers
    if spec.samples == "windows":
        tables = features.windows(spec.features)
        blocks, first, share = [table.layers(choice) for table in tables.arrays], tables.first, tables.share
    else:
        blocks, first, share = [features[name].layers(choice) for name in spec.features], None, None
    if spec.normalise == "unit":
        blocks = [units(block) for block in blocks]
    return Pooled(blocks, first, share)


def units(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every vector (…, dim) divided by its length; a vector of zeros stays."""
    norm = np.linalg.norm(block, axis=-1, keepdims=True)
    return np.divide(block, np.where(norm == 0, 1, norm), dtype=np.float32)


@dataclass(frozen=True)
class Standardiser:
    """Mean and scale (layers, dim) of each feature over the clips it was fitted to; empty, it changes nothing."""

    means: list[NDArray[np.float32]]
    scales: list[NDArray[np.float32]]

    @classmethod
    def fit(cls, blocks: Sequence[NDArray[np.float32]]) -> "Standardiser":
        """Statistics of training rows; a feature that does not vary keeps scale 1."""
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
