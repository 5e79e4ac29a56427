"""Resampling in a stream: the same samples come out whatever the blocks that go in.

Two kernels: ``soxr-hq`` (stop band below -130 dB) for everything, and ``sinc-hann``, a windowed sinc of six zero
crossings, for published scores that were made with it (torchaudio's default).
"""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmmos.errors import UnknownName

Samples = NDArray[np.float32]

KERNELS = ("soxr-hq", "sinc-hann")
_CROSSINGS, _ROLLOFF = 6, 0.99


class Resampler(Protocol):
    """Takes a mono signal block by block."""

    def push(self, block: Samples, last: bool = False) -> Samples:
        """The samples ``(samples,)`` that are certain by now; with ``last`` all that are left."""
        ...


def resampler(kernel: str, rate: int, target: int) -> Resampler:
    """A resampler from ``rate`` to ``target`` Hz, fresh for one signal. Raises ``UnknownName``."""
    if kernel not in KERNELS:
        raise UnknownName("resampler", kernel, KERNELS)
    if rate == target:
        return _Same()
    return _Soxr(rate, target) if kernel == "soxr-hq" else _SincHann(rate, target)


def resample(signal: Samples, rate: int, target: int, kernel: str = "soxr-hq") -> Samples:
    """A whole mono signal ``(samples,)`` from ``rate`` to ``target`` Hz; the same array when these agree.

    It becomes samples × target / rate samples, rounded (``sinc-hann``: up). Raises ``UnknownName``.
    """
    return signal if rate == target else resampler(kernel, rate, target).push(signal, last=True)


class _Same:
    def push(self, block: Samples, last: bool = False) -> Samples:
        return block


class _Soxr:
    def __init__(self, rate: int, target: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")

    def push(self, block: Samples, last: bool = False) -> Samples:
        out: Samples = self._stream.resample_chunk(np.ascontiguousarray(block), last=last)
        return out


class _SincHann:
    """y[m] = Σ x[i] h(i / rate − m / target): h(t) = sinc(s) cos²(π s / 12) base / rate for s = t · base in [−6, 6].

    ``base`` = 0.99 × the lower rate, both rates divided by their common divisor; float64 inside.
    """

    def __init__(self, rate: int, target: int) -> None:
        divisor = math.gcd(rate, target)
        self._down, self._up = rate // divisor, target // divisor
        base = min(self._down, self._up) * _ROLLOFF
        # Taps lie on the grid of the common multiple of both rates; a whole number of steps down makes outputs align.
        steps = math.ceil(_CROSSINGS * self._up / base)
        self._lead = math.ceil(steps / self._up) * self._down
        s = np.arange(-steps * self._down, steps * self._down + 1) / (self._up * self._down) * base
        s = np.clip(s, -_CROSSINGS, _CROSSINGS)
        self._taps = np.sinc(s) * np.cos(math.pi * s / (2 * _CROSSINGS)) ** 2 * base / self._down
        self._skip = steps
        self._held = np.zeros(self._lead)
        self._taken = self._given = 0

    def push(self, block: Samples, last: bool = False) -> Samples:
        from scipy.signal import upfirdn

        self._taken += len(block)
        behind = [np.zeros(2 * self._lead + self._down)] if last else []
        self._held = np.concatenate([self._held, block.astype(np.float64), *behind])
        # Of what is held, the lead on either side is context; the rest is used in whole steps of ``down`` samples.
        groups = max((len(self._held) - 2 * self._lead) // self._down, 0)
        wanted = groups * self._up
        if last:
            wanted = min(wanted, math.ceil(self._up * self._taken / self._down) - self._given)
        if not wanted:
            return np.zeros(0, np.float32)
        first = self._skip + self._lead // self._down * self._up
        out = upfirdn(self._taps, self._held, self._up, self._down)[first : first + wanted]
        self._held = self._held[groups * self._down :]
        self._given += wanted
        return out.astype(np.float32)
