"""Channels to mono: the mean, or the first channel where channels cancel each other.

Stereo in anti-phase has a mean of silence that nobody hears. The beginning of a clip decides for all of it, the first
2**20 samples over all channels, so the choice depends neither on block sizes nor on what surrounds a segment.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmmos.audio import limits

Samples = NDArray[np.float32]

# Energies: of the mean against the mean over channels (-40 dB), and of silence (-80 dB of full scale).
CANCELLED = 1e-4
SILENCE = 1e-8


def mono(samples: Samples) -> Samples:
    """Mean over channels: ``(samples, channels)`` to ``(samples,)``; summed in float64, so that nothing overflows."""
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    total = samples[:, 0].astype(np.float64)
    for channel in range(1, samples.shape[1]):
        total += samples[:, channel]
    total /= samples.shape[1]
    return total.astype(np.float32)


def cancels(beginning: Samples) -> bool:
    """Whether the mean over channels of ``(samples, channels)``, of one sample at least, loses nearly all energy."""
    energy = np.square(beginning, dtype=np.float64).mean()
    return bool(energy > SILENCE and np.square(mono(beginning), dtype=np.float64).mean() < CANCELLED * energy)


class Downmix:
    """Mixes blocks ``(samples, channels)``; ``cancel`` is 1 where the first channel stands for all."""

    def __init__(self, channels: int) -> None:
        self.cancel = False
        self._wanted = limits.BEGINNING // channels if channels > 1 else 0

    def signals(self, blocks: Iterator[Samples]) -> Iterator[Samples]:
        """Mono blocks ``(samples,)``; nothing comes before the beginning has decided."""
        held: list[Samples] = []
        for block in blocks:
            if self._wanted:
                held.append(block)
                if sum(map(len, held)) < self._wanted:
                    continue
                yield from self._decided(held)
            else:
                yield self._mixed(block)
        yield from self._decided(held)

    def _decided(self, held: list[Samples]) -> Iterator[Samples]:
        if held:
            self.cancel = cancels(np.concatenate(held)[: self._wanted])
            self._wanted = 0
            while held:
                yield self._mixed(held.pop(0))

    def _mixed(self, block: Samples) -> Samples:
        return np.ascontiguousarray(block[:, 0]) if self.cancel else mono(block)
