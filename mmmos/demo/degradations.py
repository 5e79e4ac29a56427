"""Known degradations, each with a ladder of five strengths and the share of quality that every step costs.

A chain is a text such as ``noise:12+lp:2500``: names and strengths in the order of application, or ``none``.
Waves have shape ``(samples, channels)``.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import soundfile
from numpy.random import Generator
from scipy.signal import butter, fftconvolve, resample_poly, sosfiltfilt

from mmmos.demo.signals import Array, level, noise
from mmmos.errors import UnknownName

Apply = Callable[[Generator, Array, int, float], Array]

MP3_DELAY = 1105
"""Samples before the sound in an MP3 file whose frames have no room to say so; such files are also longer."""

LEVELS = 5
"""Steps of every ladder, from 1 = just noticed to 5 = severe."""


@dataclass(frozen=True)
class Degradation:
    """One kind of damage: a ladder of strengths in ``unit``, and the quality left at its first and last step."""

    name: str
    unit: str
    ladder: tuple[float, ...]
    best: float
    worst: float
    apply: Apply

    def quality(self, step: int) -> float:
        """Share of the quality that is left at a step from 1 to 5; falls with the step."""
        return self.best + (self.worst - self.best) * (step - 1) / (LEVELS - 1)


def resample(wave: Array, rate: int, to: int) -> Array:
    """The wave at another rate."""
    if rate == to:
        return wave
    common = gcd(rate, to)
    return resample_poly(wave, to // common, rate // common, axis=0)


def fit(wave: Array, n: int) -> Array:
    """The wave cut or filled with silence to n samples."""
    return np.pad(wave[:n], ((0, max(0, n - len(wave))), (0, 0)))


def lowpass(rng: Generator, wave: Array, rate: int, cutoff: float) -> Array:
    """Nothing above the cutoff in Hz."""
    return sosfiltfilt(butter(6, min(cutoff, 0.45 * rate), fs=rate, output="sos"), wave, axis=0)


def add_noise(rng: Generator, wave: Array, rate: int, snr: float) -> Array:
    """Hiss, white or pink, at a signal-to-noise ratio in dB."""
    tilt = rng.choice([0.0, 0.5])
    hiss = noise(rng, len(wave), rate, lambda f: np.maximum(f, 50) ** -tilt)
    return wave + hiss[:, None] * level(wave) * 10 ** (-snr / 20)


def clip(rng: Generator, wave: Array, rate: int, depth: float) -> Array:
    """Peaks cut off ``depth`` dB below the highest, at the same level as before."""
    limit = np.abs(wave).max() * 10 ** (-depth / 20)
    cut = np.clip(wave, -limit, limit)
    return cut * (level(wave) / level(cut))


def quantise(rng: Generator, wave: Array, rate: int, bits: float) -> Array:
    """Values rounded to ``bits`` bits of the highest peak."""
    step = np.abs(wave).max() * 2 ** (1 - bits) + 1e-12
    return np.round(wave / step) * step


def mulaw(rng: Generator, wave: Array, rate: int, bits: float) -> Array:
    """Telephone: 8 kHz, and mu-law coding in ``bits`` bits of the highest peak."""
    narrow = resample(wave, rate, 8000)
    peak = np.abs(narrow).max() + 1e-12
    coded = np.sign(narrow) * np.log1p(255 * np.abs(narrow) / peak) / np.log(256)
    steps = 2 ** (bits - 1)
    coded = np.round(coded * steps) / steps
    return fit(resample(np.sign(coded) * np.expm1(np.abs(coded) * np.log(256)) / 255 * peak, 8000, rate), len(wave))


def dropouts(rng: Generator, wave: Array, rate: int, share: float) -> Array:
    """Gaps of 20 to 60 ms that take this share of the time."""
    gaps = max(1, round(share * len(wave) / rate / 0.04))
    kept = np.ones(len(wave))
    for start in rng.integers(0, len(wave), gaps):
        kept[start : start + int(rng.uniform(0.02, 0.06) * rate)] = 0
    return wave * kept[:, None]


def hum(rng: Generator, wave: Array, rate: int, snr: float) -> Array:
    """Mains hum of 50 or 60 Hz with harmonics, at a signal-to-hum ratio in dB."""
    phase = rng.choice([50, 60]) * np.arange(len(wave)) / rate
    buzz = sum(np.sin(2 * np.pi * h * phase) / h**0.7 for h in (1, 2, 3, 5, 7, 9))
    return wave + buzz[:, None] * (level(wave) / level(buzz) * 10 ** (-snr / 20))


def reverb(rng: Generator, wave: Array, rate: int, seconds: float) -> Array:
    """A hard room far from the microphone: noise that decays by 60 dB in ``seconds`` s."""
    n = int(min(seconds, 1.5) * rate)
    tail = rng.standard_normal((n, wave.shape[1])) * np.exp(-6.9 * np.arange(n) / (seconds * rate))[:, None]
    wet = fftconvolve(wave, tail, axes=0)[: len(wave)]
    share = min(0.85, 0.35 + 0.25 * seconds)
    return (1 - share) * wave + share * wet * (level(wave) / level(wet))


def alias(rng: Generator, wave: Array, rate: int, to: float) -> Array:
    """Sampled again at ``to`` Hz without a filter and held: what lies above folds back."""
    held = (np.floor(np.arange(len(wave)) * (to / rate)) * (rate / to)).astype(int)
    return wave[held]


def low_bitrate(rng: Generator, wave: Array, rate: int, kbits: float) -> Array:
    """MP3 at 16 kHz and ``kbits`` kbit/s per channel, decoded again."""
    narrow, gain = resample(wave, rate, 16000), 0.5 / (np.abs(wave).max() + 1e-12)
    coding = {
        "bitrate_mode": "CONSTANT",
        "compression_level": min((160 - kbits) / 152, 0.999),
    }  # 0 is 160 kbit/s, 1 is 8
    channels = []
    for channel in narrow.T * gain:
        file = io.BytesIO()
        soundfile.write(file, channel, 16000, format="MP3", **coding)
        decoded = soundfile.read(io.BytesIO(file.getvalue()))[0]
        channels.append(decoded[MP3_DELAY if len(decoded) > len(channel) else 0 :])
    return fit(resample(np.stack(channels, axis=1) / gain, 16000, rate), len(wave))


DEGRADATIONS = {
    item.name: item
    for item in (
        Degradation("reverb", "s", (0.4, 0.7, 1.1, 1.7, 2.5), 0.92, 0.45, reverb),
        Degradation("noise", "dB", (30, 24, 18, 12, 6), 0.88, 0.3, add_noise),
        Degradation("hum", "dB", (30, 24, 18, 12, 6), 0.9, 0.4, hum),
        Degradation("clip", "dB", (6, 10, 15, 20, 26), 0.9, 0.3, clip),
        Degradation("lp", "Hz", (7000, 5000, 3500, 2500, 1500), 0.9, 0.35, lowpass),
        Degradation("alias", "Hz", (14000, 11000, 8500, 6500, 4500), 0.85, 0.3, alias),
        Degradation("bits", "bit", (9, 8, 7, 6, 5), 0.9, 0.35, quantise),
        Degradation("drop", "share", (0.02, 0.05, 0.1, 0.2, 0.3), 0.8, 0.25, dropouts),
        Degradation("mulaw", "bit", (8, 7, 6, 5, 4), 0.62, 0.2, mulaw),
        Degradation("mp3", "kbit/s", (48, 32, 24, 16, 8), 0.88, 0.3, low_bitrate),
    )
}
"""All degradations by name, in the order in which a chain applies them."""


def chain_of(steps: dict[str, int]) -> str:
    """The chain of these steps (1 to 5) by degradation, as text."""
    unknown = next((name for name in steps if name not in DEGRADATIONS), None)
    if unknown is not None:
        raise UnknownName("degradation", unknown, DEGRADATIONS)
    links = [f"{name}:{d.ladder[steps[name] - 1]:g}" for name, d in DEGRADATIONS.items() if name in steps]
    return "+".join(links) or "none"


def quality_left(steps: dict[str, int]) -> float:
    """Share of the quality that is left after these steps, in (0, 1]."""
    return float(np.prod([DEGRADATIONS[name].quality(step) for name, step in steps.items()]))


def degrade(rng: Generator, wave: Array, rate: int, chain: str) -> Array:
    """The wave after a chain, of the same shape."""
    links: Sequence[str] = [] if chain == "none" else chain.split("+")
    for link in links:
        name, strength = link.split(":")
        if name not in DEGRADATIONS:
            raise UnknownName("degradation", name, DEGRADATIONS)
        wave = DEGRADATIONS[name].apply(rng, wave, rate, float(strength))
    return wave
