"""From audio to windows: one decode of a clip for several feature sets, of a file or of samples in memory."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmmos import audio
from mmmos.audio import limits
from mmmos.audio.segment import Numbered, Segment
from mmmos.audio.source import Source
from mmmos.audio.streaming import measured
from mmmos.features.spec import FeatureSpec
from mmmos.resampling import resampler

# Number of a feature set, first sample of a window, its samples at the encoder's rate.
Piece = tuple[int, int, audio.Samples]


class Cutter(Protocol):
    """Takes a mono signal block by block and gives windows: ``audio.Windows``, or what cuts alike."""

    def push(self, block: audio.Samples, last: bool = False) -> Iterator[tuple[int, audio.Samples]]:
        """First sample and samples of each window that is complete by now; with ``last`` of all that are left."""
        ...


def windows(
    blocks: Iterator[audio.Samples], rate: int, specs: Sequence[FeatureSpec], cutters: Sequence[Cutter]
) -> Iterator[Piece]:
    """One pass over a mono signal: each block is resampled once for each rate, and cut for each feature set."""
    kinds = [(spec.encoder.resampler, spec.encoder.rate) for spec in specs]
    resamplers = {kind: resampler(kind[0], rate, kind[1]) for kind in sorted(set(kinds))}
    for block, last in _with_end(blocks):
        resampled = {kind: each.push(block, last) for kind, each in resamplers.items()}
        for number, (kind, cutter) in enumerate(zip(kinds, cutters, strict=True)):
            for start, wave in cutter.push(resampled[kind], last):
                yield number, start, wave


def _with_end(blocks: Iterator[audio.Samples]) -> Iterator[tuple[audio.Samples, bool]]:
    """Each block and whether it is the last one, which is an empty one."""
    for block in blocks:
        yield block, False
    yield np.zeros(0, np.float32), True


def of_samples(samples: NDArray[Any], rate: int, start: float | None = None, end: float | None = None) -> audio.Stream:
    """Samples in memory, or their segment [start, end) in s, as a stream: mixed, checked and measured as a file's are.

    ``samples`` (samples,) or (samples, channels), floating point with full scale 1, or integers with their own full
    scale. Raises ``Rejected`` here and while the blocks are read.
    """
    table = samples[:, None] if samples.ndim == 1 else samples
    channels = table.shape[1]
    limits.check_channels(channels)
    limits.check_rate(rate)
    source = Source(rate, channels, "other", len(table) / rate, False, lambda first, last: _blocks(table, first, last))
    return measured(source, Segment(start, end), lambda: None)


def _blocks(samples: NDArray[Any], first: int, last: int) -> Numbered:
    """The place of each block's first sample, and the block (samples, channels) float32."""
    size = max(limits.BLOCK // samples.shape[1], 1)
    if first >= len(samples):
        yield len(samples), np.zeros((0, samples.shape[1]), np.float32)
        return
    for place in range(first, min(last, len(samples)), size):
        yield place, floating(samples[place : min(place + size, last)])


def floating(samples: NDArray[Any]) -> audio.Samples:
    """Samples as float32 with full scale 1: floating point as it is, integers divided by their own full scale."""
    kind = samples.dtype
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(samples, np.float32)
    scale = 2.0 ** (8 * kind.itemsize - 1)
    scaled: audio.Samples = ((samples.astype(np.float64) - (scale if kind.kind == "u" else 0)) / scale).astype(
        np.float32
    )
    return scaled
