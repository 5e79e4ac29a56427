"""What a head sees that reads frames: those of some clips, read from the store when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmmos.ensembles.heads import Array
from mmmos.ensembles.heads.frame_set import FrameSet, Stored, frame_set
from mmmos.ensembles.heads.inputs import Rows, Standardiser
from mmmos.ensembles.heads.neural import Batch, tensor_of
from mmmos.ensembles.heads.stack import Chance
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import UsageError
from mmmos.features.table import FeatureArray, Features

# Bytes of computed frames that are kept in memory; clips whose windows are looked up at a time.
MEMORY = 2 << 30
CLIPS = 256
# Seconds by which the windows of feature sets may differ.
TOLERANCE = 0.1


class Memory:
    """Frames that were computed, kept while there is room; another process starts without them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], Stored] = {}
        self._free = MEMORY

    def __reduce__(self) -> tuple[Any, ...]:
        return Memory, ()

    def get(self, number: int, key: str) -> Stored | None:
        """The frames of a clip under a feature set, if they are kept."""
        return self._kept.get((number, key))

    def keep(self, number: int, key: str, found: Stored) -> None:
        """Keep frames that were computed."""
        size = found[0].nbytes + found[1].nbytes
        if size <= self._free:
            self._kept[number, key] = found
            self._free -= size


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of some clips under several feature sets, by the store keys of the clips.

    ``unit``: vectors have length 1, as stored; else they are raw, and standardised where ``standardise`` is not empty.
    ``cells``: into how many cells each window of each clip is pooled, the same for all sets; None: frames as stored.
    """

    sets: tuple[FrameSet, ...]
    keys: tuple[str, ...]
    unit: bool = True
    cells: tuple[Rows, ...] | None = None
    standardise: Standardiser = field(default_factory=lambda: Standardiser([], []))
    memory: Memory = field(default_factory=Memory, repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(layers, dim) of each feature set."""
        return [each.shape for each in self.sets]

    @cached_property
    def lengths(self) -> Rows:
        """Frames of each clip (clips,)."""
        if self.cells is not None:
            return np.array([cells.sum() for cells in self.cells], np.int64)
        return np.array([self.sets[0].source.frames(key).windows[-1] for key in self.keys], np.int64)

    def at(self, clips: Rows) -> "Frames":
        """Some clips, by position."""
        cells = None if self.cells is None else tuple(self.cells[clip] for clip in clips)
        return replace(self, keys=tuple(self.keys[clip] for clip in clips), cells=cells)

    def standardised(self, standardise: Standardiser) -> "Frames":
        """The same, standardised when they are read."""
        return replace(self, standardise=standardise)

    def standardiser(self, normalise: str, clips: Rows) -> Standardiser:
        """What brings the frames of some clips to mean 0 and deviation 1; empty for another ``normalise``."""
        if normalise != "standard":
            return Standardiser([], [])
        origin = [block.mean(axis=0) for block in self.read(int(clips[0]))]
        sums, squares, count = [np.zeros(o.shape) for o in origin], [np.zeros(o.shape) for o in origin], 0
        for clip in clips:
            for number, block in enumerate(self.read(int(clip))):
                shifted = np.subtract(block, origin[number], out=block)
                sums[number] += shifted.sum(axis=0, dtype=np.float64)
                squares[number] += np.square(shifted, out=shifted).sum(axis=0, dtype=np.float64)
            count += len(block)
        means = [o + s / count for o, s in zip(origin, sums, strict=True)]
        scales = [np.sqrt(np.maximum(q / count - (s / count) ** 2, 0)) for q, s in zip(squares, sums, strict=True)]
        scales = [np.where(scale < 1e-8, 1, scale) for scale in scales]
        return Standardiser([m.astype(np.float32) for m in means], [s.astype(np.float32) for s in scales])

    def read(self, clip: int) -> list[Array]:
        """The frames of a clip, (frames, layers, dim) float32 for each feature set."""
        rooms = [torch.empty(int(self.lengths[clip]), *shape) for shape in self.shapes]
        self.fill(clip, rooms)
        return [room.numpy() for room in rooms]

    def fill(self, clip: int, rooms: Sequence[Tensor]) -> None:
        """Write the frames of a clip to tensors (frames, layers, dim), one for each feature set."""
        for number, room in enumerate(rooms):
            unit, norm = self._stored(number, clip)
            room.copy_(tensor_of(unit))
            if not self.unit:
                room.mul_(tensor_of(norm)[..., None])
            if self.standardise.means:
                mean, scale = self.standardise.means[number], self.standardise.scales[number]
                room.sub_(torch.from_numpy(mean)).div_(torch.from_numpy(scale)).clamp_(-8, 8)

    def _stored(self, number: int, clip: int) -> Stored:
        each, key = self.sets[number], self.keys[clip]
        cells = None if self.cells is None else self.cells[clip]
        if cells is None and not each.mean:
            return each.stored(key, None)
        found = self.memory.get(number, key)
        if found is None:
            found = each.stored(key, cells)
            self.memory.keep(number, key, found)
        return found


class Padded:
    """Batches of clips, padded with zeros to the longest, in memory that the next batch uses again.

    Fresh memory takes ten times as long to fill as memory that was used before.
    """

    def __init__(self, frames: Frames, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self._frames, self._device = frames, device
        self._rooms = [torch.empty(0, dtype=dtype) for _ in frames.sets]

    def batch(self, clips: Rows, chance: Chance | None = None) -> Batch:
        """The frames of some clips, by position."""
        lengths = self._frames.lengths[clips]
        shapes = [(len(clips), int(lengths.max()), *shape) for shape in self._frames.shapes]
        blocks = [self._room(number, shape) for number, shape in enumerate(shapes)]
        for place, (clip, length) in enumerate(zip(clips.tolist(), lengths.tolist(), strict=True)):
            self._frames.fill(clip, [block[place, :length] for block in blocks])
            for block in blocks:
                block[place, length:] = 0
        on_device = [block[None].to(self._device) for block in blocks]
        return Batch(on_device, torch.from_numpy(lengths)[None].to(self._device), chance)

    def _room(self, number: int, shape: tuple[int, ...]) -> Tensor:
        size = int(np.prod(shape))
        if self._rooms[number].numel() < size:
            self._rooms[number] = torch.empty(size, dtype=self._rooms[number].dtype)
        return self._rooms[number][:size].view(shape)


def frames_of(spec: HeadSpec, features: Features) -> Frames:
    """The frames of all clips under the feature sets of a spec.

    Several feature sets, and one with the option ``rate`` (Hz), are pooled to ``rate`` cells a second; without it, to
    the lowest rate among the sets. Raises ``UsageError`` for a feature set or a layer that keeps no frames, and for
    feature sets with other windows.
    """
    if spec.samples != "clips":
        raise UsageError(f"the head {spec.head!r} reads the frames of whole clips; leave samples out")
    sets = tuple(frame_set(features[name], spec.layers) for name in spec.features)
    rate = spec.options.get("rate")
    if rate is None and len(sets) > 1:
        rate = min(_rate(features[name]) for name in spec.features)
    cells = None if rate is None else _cells(spec.features, features, rate)
    return Frames(sets, features.keys, spec.normalise == "unit", cells)


def _rate(array: FeatureArray) -> float:
    """Frames a second."""
    if array.hop <= 0:
        raise UsageError(f"The hop of {array.name} is not known; write rate (Hz) among the options of the head.")
    return 1 / array.hop


def _cells(names: Sequence[str], features: Features, rate: float) -> tuple[Rows, ...]:
    """Cells of each window of each clip: ``rate`` × its seconds, rounded, 1 at least."""
    found: list[Rows] = []
    for first in range(0, len(features), CLIPS):
        keys = features.keys[first : first + CLIPS]
        clip, spans = _windows(names[0], features, keys)
        for name in names[1:]:
            others = _windows(name, features, keys)[1]
            if others.shape != spans.shape or np.abs(others - spans).max(initial=0) > TOLERANCE:
                raise UsageError(
                    f"{names[0]} and {name} cut clips into different windows, whose frames cannot be put side by side;"
                    " give their encoders the same window and hop in the feature recipe."
                )
        cells = np.maximum(np.rint((spans[:, 1] - spans[:, 0]) * rate), 1).astype(np.int64)
        found += np.split(cells, np.searchsorted(clip, np.arange(1, len(keys))))
    return tuple(found)


def _windows(name: str, features: Features, keys: Sequence[str]) -> tuple[Rows, NDArray[np.float64]]:
    """Of each window of some clips the clip's position among them, and begin and end in s."""
    source = features[name].source
    assert source is not None, name
    rows = source.gather(keys)
    return rows.clip, rows.span
