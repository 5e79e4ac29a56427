"""Numbers about the audio itself, measured while it passes by: cheap, and as good as independent of block sizes."""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmmos.audio.header import CONTAINERS

Samples = NDArray[np.float32]

# In the order of the columns.
#   seconds    decoded length of the clip or segment, s
#   declared   length that the container declares, s; NaN where it declares none, and for segments
#   rate       sample rate of the file, Hz
#   channels   channels of the file
#   container  number in CONTAINERS
#   peak       largest magnitude over all channels; full scale is 1
#   rms        root mean square of the mono signal
#   clipped    fraction of samples over all channels at or above full scale, 0 to 1
#   dc         mean of the mono signal
#   cancel     1 where channels cancel and the first one was used, else 0
#   bandwidth  highest frequency whose mean power lies within 80 dB of the strongest, Hz; NaN where nothing sounds
#   cut        1 where the file ends before its container does and the clip was to reach its end, else 0
MEASURES = (
    *("seconds", "declared", "rate", "channels", "container", "peak", "rms", "clipped", "dc", "cancel"),
    *("bandwidth", "cut"),
)

# The largest positive sample of 16 bits.
FULL_SCALE = 1 - 2.0**-15

# Samples of a spectrum, of the distance between the first ones, and how many come before the distance doubles.
_FRAME, _HOP, _BEFORE_DOUBLING = 2048, 4096, 16
_FLOOR = 1e-8
_INAUDIBLE = 1e-7
_CHUNK = 1 << 15


class Meter:
    """Listens to one clip: ``channels`` to what was decoded, ``signal`` to the mono mix of it."""

    def __init__(self) -> None:
        self._peak, self._clipped, self._values = 0.0, 0, 0
        self._sum, self._squares, self._samples = 0.0, 0.0, 0
        self._spectrum = _Spectrum()

    def channels(self, blocks: Iterator[Samples]) -> Iterator[Samples]:
        """Pass on blocks ``(samples, channels)``."""
        for block in blocks:
            peak = max(float(block.max()), -float(block.min()))
            self._peak, self._values = max(self._peak, peak), self._values + block.size
            if peak >= FULL_SCALE:
                self._clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
            yield block

    def signal(self, blocks: Iterator[Samples]) -> Iterator[Samples]:
        """Pass on mono blocks ``(samples,)``."""
        for block in blocks:
            for first in range(0, len(block), _CHUNK):
                chunk = block[first : first + _CHUNK].astype(np.float64)
                self._sum += float(chunk.sum())
                self._squares += float(np.square(chunk, out=chunk).sum())
            self._spectrum.add(block, self._samples)
            self._samples += len(block)
            yield block

    def measures(
        self, *, declared: float, rate: int, channels: int, container: str, cancel: bool, cut: bool
    ) -> NDArray[np.float64]:
        """All numbers in the order of ``MEASURES``."""
        count = max(self._samples, 1)
        found = {
            "seconds": self._samples / rate,
            "declared": declared,
            "rate": rate,
            "channels": channels,
            "container": CONTAINERS.index(container),
            "peak": self._peak,
            "rms": math.sqrt(self._squares / count),
            "clipped": self._clipped / max(self._values, 1),
            "dc": self._sum / count,
            "cancel": cancel,
            "bandwidth": self._spectrum.bandwidth(rate),
            "cut": cut,
        }
        return np.array([found[name] for name in MEASURES], np.float64)


class _Spectrum:
    """The mean power spectrum of frames that lie ever wider apart, so that their number grows with the logarithm.

    Window: Blackman-Harris of four terms, whose side lobes lie at -92 dB.
    """

    def __init__(self) -> None:
        self._power = np.zeros(_FRAME // 2 + 1)
        self._frames, self._next, self._hop = 0, 0, _HOP
        self._held: list[Samples] = []
        self._whole: list[Samples] = []

    def add(self, block: Samples, position: int) -> None:
        """Take a block whose first sample has the number ``position``."""
        end = position + len(block)
        while self._next < end:
            held = sum(map(len, self._held))
            begin = max(self._next + held, position)
            self._held.append(block[begin - position : self._next + _FRAME - position].copy())
            if held + len(self._held[-1]) < _FRAME:
                return
            self._take()

    def _take(self) -> None:
        self._whole.append(np.concatenate(self._held))
        self._held.clear()
        self._frames += 1
        self._next += self._hop
        if self._frames % _BEFORE_DOUBLING == 0:
            self._hop *= 2
            self._analyse()

    def _analyse(self) -> None:
        if self._whole:
            frames = np.stack(self._whole).astype(np.float64)
            frames -= frames.mean(axis=1, keepdims=True)
            window = _window(frames.shape[1])
            spectra = np.fft.rfft(frames * window, _FRAME) / window.sum()
            self._power += (np.square(spectra.real) + np.square(spectra.imag)).sum(axis=0)
            self._whole.clear()

    def bandwidth(self, rate: int) -> float:
        """Hz; of a clip shorter than a frame the spectrum of all of it."""
        if not self._frames and self._held:
            self._take()
        self._analyse()
        strongest = float(self._power.max())
        if strongest <= _INAUDIBLE**2 * max(self._frames, 1):
            return math.nan
        return float(np.flatnonzero(self._power >= _FLOOR * strongest)[-1]) * rate / _FRAME


@lru_cache(maxsize=8)
def _window(length: int) -> NDArray[np.float64]:
    phase = 2 * np.pi * np.arange(length) / length
    terms = (0.35875, -0.48829, 0.14128, -0.01168)
    return np.asarray(sum(weight * np.cos(k * phase) for k, weight in enumerate(terms)))
