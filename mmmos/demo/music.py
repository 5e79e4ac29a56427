"""Music-like sounds: a song's key, tempo and chords, its parts as notes, and instruments that play them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from mmmos.demo.signals import Array, add_at, band, decay, noise, play, table, unit

Instrument = Callable[[Generator, float, int, int], Array]
"""(rng, frequency, samples, rate) -> the wave of one note."""

SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))
PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 0, 4), (1, 4, 0, 0))
PARTS = ("chords", "melody", "bass", "drums", "pad")


@dataclass(frozen=True)
class Song:
    """Key note in Hz, scale in semitones, beat in s, and the scale degree of each bar's chord."""

    root: float
    scale: tuple[int, ...]
    beat: float
    chords: tuple[int, ...]

    def pitch(self, degree: int, octave: int = 0) -> float:
        """Frequency of a scale degree; 7 degrees are an octave."""
        up, step = divmod(degree, 7)
        return self.root * 2 ** (octave + up + self.scale[step] / 12)


@dataclass(frozen=True)
class Note:
    """A note: start and length in s, frequency in Hz, loudness."""

    start: float
    seconds: float
    freq: float
    loud: float


def compose(who: Generator) -> Song:
    """The song that ``who`` describes."""
    root = 110 * 2 ** (who.integers(-3, 9) / 12)
    scale, chords = SCALES[who.integers(2)], PROGRESSIONS[who.integers(len(PROGRESSIONS))]
    return Song(root, scale, who.uniform(0.28, 0.5), chords)


def write_part(rng: Generator, song: Song, part: str, seconds: float, *, loose: float = 0.012) -> list[Note]:
    """Notes of one part; ``loose``: standard deviation of the starts around the beat in s."""
    notes = []
    for beat in range(int(seconds / song.beat) + 1):
        chord, start = song.chords[beat // 2 % len(song.chords)], beat * song.beat
        if part == "melody":
            for half in (0, 0.5) if rng.uniform() < 0.6 else (0,):
                degree = chord + int(rng.choice([0, 2, 4, 1, 7], p=[0.3, 0.25, 0.25, 0.1, 0.1]))
                length = song.beat * rng.choice([0.5, 0.9])
                notes.append(Note(start + half * song.beat, length, song.pitch(degree, 1), rng.uniform(0.6, 1)))
        elif part == "bass":
            notes.append(Note(start, 0.8 * song.beat, song.pitch(chord, -1), rng.uniform(0.8, 1)))
        elif beat % 2 == 0:
            length = song.beat * (2.0 if part == "pad" else 1.6)
            notes += [Note(start, length, song.pitch(chord + step), rng.uniform(0.5, 0.8)) for step in (0, 2, 4)]
    return [Note(max(0.0, note.start + rng.normal(0, loose)), note.seconds, note.freq, note.loud) for note in notes]


def perform(rng: Generator, notes: Sequence[Note], instrument: Instrument, n: int, rate: int) -> Array:
    """Notes played by one instrument, as a wave of unit level."""
    wave = np.zeros(n)
    for note in notes:
        start = int(note.start * rate)
        if start < n:
            add_at(wave, start, note.loud * instrument(rng, note.freq, int(note.seconds * rate), rate))
    return unit(wave)


def strings(rng: Generator, freq: float, n: int, rate: int) -> Array:
    """Additive tone with a slow attack, vibrato and a bright beginning."""
    time = np.arange(n) / rate
    phase = freq * time + 0.0025 * freq / 5.5 * np.sin(2 * np.pi * (5.5 * time + rng.uniform()))
    harmonics = np.arange(1.0, 25.0)
    dark, bright = (table(freq, rate, harmonics**-slope) for slope in (2.2, 1.1))
    fade = decay(n, rate, 1.2, 0.05)
    return decay(n, rate, 3.0, 0.06) * (play(dark, phase) + fade * play(bright, phase))


def keys(rng: Generator, freq: float, n: int, rate: int) -> Array:
    """Frequency-modulated tone of an electric piano."""
    time = np.arange(n) / rate
    ratio = float(rng.choice([1.0, 2.0, 14.0])) if freq * 14 < 0.4 * rate else 1.0
    index = (1.6 if ratio < 3 else 0.3) * np.exp(-4 * time)
    tone = np.sin(2 * np.pi * freq * time + index * np.sin(2 * np.pi * ratio * freq * time))
    return decay(n, rate, 1.6) * tone


def plucked(rng: Generator, freq: float, n: int, rate: int) -> Array:
    """Plucked string after Karplus and Strong: every period is the one before it, averaged with its neighbour."""
    period = max(2, round(rate / freq))
    spectrum = np.fft.rfft(rng.uniform(-1, 1, period))
    spectrum[0] = 0
    loss = 0.997 * np.cos(np.pi * np.arange(len(spectrum)) / period)
    rounds = np.arange(n // period + 1)[:, None]
    return np.fft.irfft(spectrum * loss**rounds, period).ravel()[:n] * decay(n, rate, 4.0, 0.001)


def drums(rng: Generator, song: Song, n: int, rate: int, *, loose: float = 0.006) -> Array:
    """Kick, snare and hi-hat in eighth notes, as a wave of unit level."""
    wave, size = np.zeros(n + rate), int(0.25 * rate)
    time = np.arange(size) / rate
    kick = decay(size, rate, 0.3, 0.001) * np.sin(2 * np.pi * (48 * time - 6 * np.exp(-30 * time)))
    snare = decay(size, rate, 0.2, 0.001) * (noise(rng, size, rate, lambda f: band(f, 800, 7000)) * 0.3)
    hat = decay(size, rate, 0.08, 0.001) * (noise(rng, size, rate, lambda f: band(f, 6500, 16000, 3)) * 0.15)
    for eighth in range(int(2 * n / rate / song.beat) + 1):
        start = max(0, int((eighth * song.beat / 2 + rng.normal(0, loose)) * rate))
        add_at(wave, start, hat * rng.uniform(0.5, 1))
        if eighth % 4 == 0 or rng.uniform() < 0.1:
            add_at(wave, start, kick)
        elif eighth % 4 == 2:
            add_at(wave, start, snare * rng.uniform(0.8, 1))
    return unit(wave[:n])


def band_of(
    rng: Generator, who: Generator, k: int, n: int, rate: int, instruments: Sequence[Instrument], loose: float = 0.012
) -> Array:
    """k parts of one song ``(k, n)``; each part but the drums is played by one of the instruments."""
    song = compose(who)
    first = [PARTS[i] for i in who.permutation(2)]
    parts = [*first, *(PARTS[i] for i in 2 + who.permutation(3))][:k]
    waves = []
    for part in parts:
        instrument = instruments[int(who.integers(len(instruments)))]
        notes = write_part(rng, song, part, n / rate, loose=loose)
        waves.append(drums(rng, song, n, rate) if part == "drums" else perform(rng, notes, instrument, n, rate))
    return np.stack(waves)


def ensemble(rng: Generator, who: Generator, k: int, n: int, rate: int) -> Array:
    """k parts of a song ``(k, n)`` on strings, electric piano and plucked strings, played by hand."""
    return band_of(rng, who, k, n, rate, (strings, keys, plucked))
