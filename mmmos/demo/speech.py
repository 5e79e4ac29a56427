"""Speech-like sounds: control curves of an utterance, and a formant synthesizer that speaks them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter1d

from mmmos.demo.signals import Array, curve, frame_size, frames_of, play, unit, wave_of

FRAME_RATE = 200
"""Values of a control curve per second."""

VOWELS = np.array([
    (730, 1090, 2440, 3400), (270, 2290, 3010, 3600), (300, 870, 2240, 3300), (530, 1840, 2480, 3500),
    (570, 840, 2410, 3300), (660, 1720, 2410, 3500), (640, 1190, 2390, 3400), (490, 1350, 1690, 3200),
], float)  # fmt: skip
"""Formants 1 to 4 in Hz of eight vowels of a man's voice."""

BANDWIDTHS = np.array([70.0, 100.0, 140.0, 220.0])
STRENGTHS = np.array([1.0, 0.6, 0.35, 0.2])


@dataclass(frozen=True)
class Utterance:
    """Control curves ``(frames,)`` of one utterance; formants ``(frames, 4)``."""

    f0: Array
    voiced: Array
    breath: Array
    hiss: Array
    formants: Array


def articulate(
    rng: Generator, who: Generator, n: int, rate: int, *, glide: float = 0.022, melody: float = 1.0
) -> Utterance:
    """Control curves of random syllables, n samples long, by the speaker that ``who`` describes.

    ``glide``: smoothing of articulation in s; ``melody``: size of pitch movements, 1 = lively, 0 = monotone.
    """
    base = float(np.exp(who.uniform(np.log(88), np.log(235))))
    size = 1 + 0.2 * np.log2(base / 130) + who.normal(0, 0.04)
    tempo = who.uniform(0.85, 1.25)
    frames = n * FRAME_RATE // rate + 2
    segments = _segments(rng, frames, tempo)
    voiced, breath, hiss, accent, vowel = np.repeat(segments[:, 1:], segments[:, 0].astype(int), axis=0)[:frames].T
    sigma = max(glide * FRAME_RATE, 1e-3)
    formants = gaussian_filter1d(VOWELS[vowel.astype(int)] * size, sigma, axis=0, mode="nearest")
    fall = np.linspace(2, -3, frames)
    tune = gaussian_filter1d(accent, 3 * sigma, mode="nearest") + fall + curve(rng, frames, FRAME_RATE, 2, -1.5, 1.5)
    jitter = gaussian_filter1d(rng.normal(0, 0.012, frames), 1.0)
    f0 = base * 2 ** (melody * tune / 12) * (1 + melody * jitter)
    loud = sigma / 2
    return Utterance(f0, gaussian_filter1d(voiced, loud), gaussian_filter1d(breath, loud), hiss * size, formants)


def _segments(rng: Generator, frames: int, tempo: float) -> Array:
    """Segments ``(segments, 6)``: frames, voiced and breath amplitude, hiss in Hz, accent in semitones, vowel."""
    rows: list[tuple[Any, ...]] = [(rng.integers(4, 16), 0, 0, 4000, 0, 6)]
    total = rows[0][0]
    while total < frames:
        vowel, accent = rng.integers(len(VOWELS)), rng.normal(0, 2.5)
        syllable: list[tuple[Any, ...]] = []
        match rng.integers(4):
            case 0:
                syllable.append((rng.integers(12, 24), 0, rng.uniform(0.15, 0.4), rng.uniform(3000, 7000), 0, vowel))
            case 1:
                syllable.append((rng.integers(8, 14), 0, 0, 3000, 0, vowel))
                syllable.append((3, 0, rng.uniform(0.4, 0.8), rng.uniform(1500, 4500), 0, vowel))
            case 2:
                syllable.append((rng.integers(9, 16), 0.3, 0, 3000, accent, 2))
        syllable.append((rng.integers(18, 44), rng.uniform(0.7, 1), 0.01, 3000, accent, vowel))
        if rng.uniform() < 0.14:
            syllable.append((rng.integers(25, 70), 0, 0, 3000, 0, 6))
        rows += [(max(2, round(row[0] / tempo)), *row[1:]) for row in syllable]
        total = sum(row[0] for row in rows)
    return np.array(rows, float)


def glottal_flow(phase: Array) -> Array:
    """Change of glottal flow at a phase in cycles: a slow opening, a sharp closing, then rest."""
    place = np.arange(4096) / 4096
    opening = 0.5 * (1 - np.cos(np.pi * place / 0.42))
    closing = np.cos(np.pi / 2 * np.clip((place - 0.42) / 0.16, 0, 1))
    flow = np.where(place < 0.42, opening, closing)
    return play(np.gradient(flow) * 100, phase)


def envelope(utterance: Utterance, times: Array, freqs: Array) -> tuple[Array, Array]:
    """Amplitudes ``(times, freqs)`` of the vocal tract for voice and for hiss."""
    at = np.clip(times * FRAME_RATE, 0, len(utterance.f0) - 1)
    frame = at.astype(int)
    tract = np.zeros((len(times), len(freqs)))
    for formant, width, strength in zip(utterance.formants[frame].T, BANDWIDTHS, STRENGTHS, strict=True):
        tract += strength / np.sqrt(1 + np.square((freqs - formant[:, None]) * (2 / width)))
    octaves = np.log2(np.maximum(freqs, 50) / utterance.hiss[frame, None])
    return tract, np.exp(-0.5 * np.square(octaves / 0.6))


def samples_of(values: Array, n: int, rate: int) -> Array:
    """A control curve read at every sample."""
    return np.interp(np.arange(n) * (FRAME_RATE / rate), np.arange(len(values)), values)


def speak(rng: Generator, utterance: Utterance, n: int, rate: int, *, whisper: bool = False, bands: int = 0) -> Array:
    """The utterance as a wave of unit level.

    ``whisper``: noise instead of the voice; ``bands`` > 0: the spectral envelope in that many steps, as in a vocoder.
    """
    breath = rng.standard_normal(n)
    phase = np.cumsum(samples_of(utterance.f0, n, rate)) / rate
    voice = 0.7 * breath if whisper else unit(glottal_flow(phase)) + 0.02 * breath
    size = frame_size(0.024, rate)
    voice_spectra, centres = frames_of(voice * samples_of(utterance.voiced, n, rate), size)
    hiss_spectra, _ = frames_of(breath * samples_of(utterance.breath, n, rate), size)
    freqs = np.arange(size // 2 + 1, dtype=float) * (rate / size)
    if bands:
        octaves = np.log2(np.maximum(freqs, 100) / 100)
        step = octaves[-1] / bands
        freqs = 100 * 2 ** (np.round(octaves / step) * step)
    tract, hiss = envelope(utterance, centres / rate, freqs)
    return unit(wave_of(voice_spectra * tract + 0.5 * hiss_spectra * hiss, n))


def voices(rng: Generator, who: Generator, k: int, n: int, rate: int) -> Array:
    """k people speaking at once ``(k, n)``, each with a voice of its own."""
    return np.stack([speak(rng, articulate(rng, who, n, rate), n, rate) for _ in range(k)])
