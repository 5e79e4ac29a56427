"""Elements that all demo sounds are made of: seeds, noise, slow curves, wavetables, spectral filters.

Conventions: a wave is a float64 array ``(samples,)``; ``rate`` is in Hz; frequencies are in Hz and times in s.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal.windows import hann

Array = NDArray[np.float64]
Maker = Callable[[Generator, Generator, int, int, int], Array]
"""A sound generator: (rng of the clip, rng of the source's character, k, samples, rate) -> sources ``(k, samples)``."""


def seed_of(*key: object) -> int:
    """Seed in [0, 2**63) that depends on the text of the key alone."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded(*key: object) -> Generator:
    """Random generator that depends on the text of the key alone."""
    return np.random.default_rng(seed_of(*key))


def level(wave: Array) -> float:
    """Root mean square of a wave of any shape; never zero."""
    return float(np.sqrt(np.mean(np.square(wave))) + 1e-12)


def unit(wave: Array) -> Array:
    """The wave at a root mean square of 1; silence stays silence."""
    return wave / level(wave) if np.any(wave) else wave


def band(freqs: Array, low: float, high: float, steepness: float = 2.0) -> Array:
    """Amplitude of a smooth band-pass from ``low`` to ``high`` Hz; 6 dB per octave and unit of steepness."""
    safe = np.maximum(freqs, 1.0)
    return 1 / np.sqrt((1 + (low / safe) ** (2 * steepness)) * (1 + (safe / high) ** (2 * steepness)))


def noise(rng: Generator, n: int, rate: int, shape: Callable[[Array], Array]) -> Array:
    """Gaussian noise of unit level whose spectrum follows ``shape(freqs)``."""
    size = next_fast_len(n, real=True)
    spectrum = rfft(rng.standard_normal(size)) * shape(rfftfreq(size, 1 / rate))
    return unit(irfft(spectrum, size)[:n])


def curve(rng: Generator, n: int, rate: int, per_second: float, low: float, high: float) -> Array:
    """Smooth random curve in [low, high] that changes direction about ``per_second`` times per second."""
    place = np.arange(n) * (per_second / rate) + rng.uniform()
    knots = rng.uniform(low, high, int(place[-1]) + 2)
    index = place.astype(int)
    blend = (1 - np.cos(np.pi * (place - index))) / 2
    return knots[index] * (1 - blend) + knots[index + 1] * blend


def table(freq: float, rate: int, amplitudes: Array) -> Array:
    """One period, 4096 values, of a tone with these amplitudes of harmonics 1, 2, …; none above 0.45 × rate."""
    spectrum = np.zeros(2049, complex)
    count = max(1, min(len(amplitudes), int(0.45 * rate / freq), 2000))
    spectrum[1 : count + 1] = -0.5j * 4096 * amplitudes[:count]
    return irfft(spectrum, 4096)


def play(period: Array, phase: Array) -> Array:
    """A period of 4096 values read at a phase in cycles."""
    return period[(phase * 4096).astype(np.int64) & 4095]


def decay(n: int, rate: int, seconds: float, attack: float = 0.004) -> Array:
    """Envelope that rises within ``attack`` s, falls by 60 dB per ``seconds`` s and ends at zero."""
    time = np.arange(n) / rate
    end = np.clip((n - np.arange(n)) / (0.01 * rate), 0, 1)
    return np.minimum(time / attack, 1) * np.exp(-6.9 * time / seconds) * end


def add_at(wave: Array, start: int, event: Array) -> None:
    """Add an event to a wave in place, from sample ``start`` >= 0; what lies beyond the end is cut."""
    room = wave[start : start + len(event)]
    room += event[: len(room)]


def frames_of(wave: Array, size: int) -> tuple[NDArray[np.complex128], Array]:
    """Spectra ``(frames, size / 2 + 1)`` of frames a quarter apart, and the frames' centres in samples; Hann window."""
    padded = np.pad(wave, size)
    frames = sliding_window_view(padded, size)[:: size // 4]
    centres = np.arange(len(frames), dtype=float) * (size // 4) - size / 2
    return rfft(frames * hann(size, sym=False), axis=1), centres


def wave_of(spectra: NDArray[np.complex128], n: int) -> Array:
    """The n samples of which ``frames_of`` gives these spectra, by weighted overlap and add."""
    size = 2 * (spectra.shape[1] - 1)
    hop, count = size // 4, len(spectra)
    quarters = (irfft(spectra, size, axis=1) * hann(size, sym=False) / 1.5).reshape(count, 4, hop)
    total = np.zeros((count + 3, hop))
    for quarter in range(4):
        total[quarter : quarter + count] += quarters[:, quarter]
    return total.ravel()[size : size + n]


def frame_size(seconds: float, rate: int) -> int:
    """Number of samples, a multiple of 4 and quick to transform, of a frame of about this length."""
    return 4 * next_fast_len(max(16, round(seconds * rate / 4)), real=True)


def smear(rng: Generator, wave: Array, rate: int, window: float, amount: float) -> Array:
    """The wave with the phases of its spectra, frames of ``window`` s, turned at random by up to ``amount`` × 180°."""
    spectra, _ = frames_of(wave, frame_size(window, rate))
    return wave_of(spectra * np.exp(1j * np.pi * amount * rng.uniform(-1, 1, spectra.shape)), len(wave))
