"""Signals to window rows: cut, encode, pool.

On a CPU windows are encoded one at a time by one thread, so that the numbers are the same bits whatever the neighbours,
the number of processes and the number of cores; elsewhere windows of equal length share a batch.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmmos import audio
from mmmos.errors import SetupError
from mmmos.features import pooling
from mmmos.features.encoders import Encoder
from mmmos.features.shard import ClipRows
from mmmos.features.spec import FeatureSpec

Array = NDArray[np.float32]

BATCH = 16


class Window(NamedTuple):
    """One encoded window: its place in the signal in samples, layer means (layers, dim), number of frames."""

    start: int
    stop: int
    raw: Array
    frames: int


def encode(
    signals: Mapping[str, Array], spec: FeatureSpec, encoder: Encoder, device: str
) -> dict[str, ClipRows | None]:
    """Window rows of each signal (by store key, at the encoder's rate); None for one whose vectors are not sound."""
    rate, minimum = spec.encoder.rate, spec.encoder.minimum
    places: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for key, signal in signals.items():
        for start, stop in audio.windows(len(signal), round(spec.window * rate), round(spec.hop * rate), minimum):
            places[max(stop - start, minimum)].append((key, start, stop))
    windows: dict[str, list[Window]] = defaultdict(list)
    batch = 1 if device == "cpu" else BATCH
    with _threads(1 if device == "cpu" else None):
        for members in places.values():
            for first in range(0, len(members), batch):
                group = members[first : first + batch]
                means, frames = _means(
                    np.stack([audio.pad(signals[key][start:stop], minimum) for key, start, stop in group]), encoder
                )
                for (key, start, stop), raw in zip(group, means, strict=True):
                    windows[key].append(Window(start, stop, raw, frames))
    return {key: _rows(key, sorted(windows[key], key=lambda window: window.start), spec) for key in signals}


def _means(waves: Array, encoder: Encoder) -> tuple[Array, int]:
    """Time means (batch, layers, dim) of equally long waves, and their number of frames."""
    import torch

    states, spec = encoder.encode(torch.from_numpy(waves)), encoder.spec
    if states.ndim != 4 or (*states.shape[:2], states.shape[3]) != (len(waves), spec.layers, spec.dim):
        raise SetupError(
            f"The encoder {spec.name!r} gave states of shape {tuple(states.shape)}; by its spec they are"
            f" ({len(waves)}, {spec.layers}, frames, {spec.dim})."
        )
    return states.mean(dim=2, dtype=torch.float32).cpu().numpy(), states.shape[2]


def _rows(key: str, windows: Sequence[Window], spec: FeatureSpec) -> ClipRows | None:
    raw = np.stack([window.raw for window in windows])
    if not all(pooling.is_sound(window) for window in raw):
        return None
    unit, norm = pooling.split(raw, spec.dtype)
    frames = np.array([window.frames for window in windows], dtype=np.int32)
    span = np.array([window[:2] for window in windows], dtype=np.float64) / spec.encoder.rate
    return ClipRows(key, unit, norm, frames, span)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads inside, for sums in another order are other numbers; None changes nothing."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
