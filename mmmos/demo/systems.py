"""Synthetic systems: each a generator of its own with its own artefacts, quality, habitual degradation and ratings.

The systems of the proxy set ("pam") and of the test set share no generator with each other or with natural sounds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.random import Generator

from mmmos.demo.music import band_of, ensemble, plucked
from mmmos.demo.scenes import SCENES, soundscape
from mmmos.demo.signals import Array, Maker, band, curve, decay, noise, play, smear, table, unit
from mmmos.demo.speech import articulate, samples_of, speak


@dataclass(frozen=True)
class System:
    """A synthetic system.

    ``quality``: the best q that its clips reach; ``habit``: degradation steps that all its clips have;
    ``layers``: the numbers of sources k that it makes, each as likely as it is frequent here.
    """

    name: str
    set: str
    domain: str
    make: Maker
    quality: float
    habit: dict[str, int] = field(default_factory=dict)
    layers: tuple[int, ...] = (1,)


def _each(voice: Callable[[Generator, Generator, int, int], Array]) -> Maker:
    """A maker of k independent sources by one function of (rng, who, samples, rate)."""
    return lambda rng, who, k, n, rate: np.stack([voice(rng, who, n, rate) for _ in range(k)])


def _robot(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Monotone speech with sudden steps between sounds."""
    return speak(rng, articulate(rng, who, n, rate, glide=0.004, melody=0.0), n, rate)


def _vocoded(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Speech through a vocoder of ten bands on a buzzing carrier."""
    return speak(rng, articulate(rng, who, n, rate, melody=0.3), n, rate, bands=10)


def _whispered(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Speech without a voice."""
    return speak(rng, articulate(rng, who, n, rate), n, rate, whisper=True)


def _sine_wave(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Three sines that follow the formants."""
    utterance = articulate(rng, who, n, rate)
    wave = np.zeros(n)
    for formant, loud in zip(utterance.formants.T[:3], (1.0, 0.5, 0.3), strict=True):
        wave += loud * np.sin(2 * np.pi * np.cumsum(samples_of(formant, n, rate)) / rate)
    return unit(wave * samples_of(utterance.voiced, n, rate) + 0.001 * rng.standard_normal(n))


def _smeared_speech(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Lively speech with slightly random phases, as a spectrogram inverted carelessly."""
    return smear(rng, speak(rng, articulate(rng, who, n, rate, melody=1.2), n, rate), rate, 0.032, 0.35)


def _square(rng: Generator, freq: float, n: int, rate: int) -> Array:
    """Square wave of a game console."""
    harmonics = np.arange(1, 60)
    return play(table(freq, rate, (harmonics % 2) / harmonics), freq * np.arange(n) / rate) * decay(n, rate, 9.0, 0.001)


def _organ(rng: Generator, freq: float, n: int, rate: int) -> Array:
    """Steady tone of octaves and fifths."""
    drawbars = np.array([1, 0.8, 0.5, 0.6, 0, 0.3, 0, 0.4])
    return play(table(freq, rate, drawbars), freq * np.arange(n) / rate) * decay(n, rate, 30.0, 0.01)


def _metal(rng: Generator, freq: float, n: int, rate: int) -> Array:
    """Inharmonic frequency modulation with a high index."""
    time = np.arange(n) / rate
    index = rng.uniform(2, 5) * np.exp(-2 * time)
    return decay(n, rate, 2.0) * np.sin(2 * np.pi * freq * time + index * np.sin(2 * np.pi * 1.414 * freq * time))


def _sine(rng: Generator, freq: float, n: int, rate: int) -> Array:
    """Plain sine tone."""
    return decay(n, rate, 3.0, 0.02) * np.sin(2 * np.pi * freq * np.arange(n) / rate)


def _smeared(maker: Maker, window: float, amount: float) -> Maker:
    """The sources of another maker with random phases."""
    return lambda rng, who, k, n, rate: np.stack(
        [unit(smear(rng, wave, rate, window, amount)) for wave in maker(rng, who, k, n, rate)]
    )


def _loop(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """A short piece of coloured noise, repeated with an audible seam."""
    size, centre = int(rng.uniform(0.12, 0.4) * rate), float(np.exp(rng.uniform(np.log(200), np.log(4000))))
    piece = noise(rng, size, rate, lambda f: band(f, centre / 2, centre * 2, 1)) * np.linspace(1, 0.3, size)
    return unit(np.tile(piece, n // size + 1)[:n])


def _pulsing(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """A band of noise that is switched on and off at a steady rate."""
    centre, beat = float(np.exp(rng.uniform(np.log(300), np.log(5000)))), rng.uniform(2, 9)
    gate = np.sin(2 * np.pi * beat * np.arange(n) / rate) > rng.uniform(-0.6, 0.6)
    return unit(noise(rng, n, rate, lambda f: band(f, centre / 1.5, centre * 1.5)) * (0.1 + 0.9 * gate))


def _sweeps(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Sines that sweep up and down over several octaves."""
    freq = np.exp(curve(rng, n, rate, rng.uniform(1, 5), np.log(200), np.log(min(6000, 0.4 * rate))))
    return unit(np.sin(2 * np.pi * np.cumsum(freq) / rate) * curve(rng, n, rate, 4, 0.1, 1))


def _comb(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Noise in a metal tube: narrow resonances at the multiples of one frequency."""
    pitch, sharp = rng.uniform(80, 400), rng.uniform(4, 12)
    tube = noise(rng, n, rate, lambda f: np.abs(np.cos(np.pi * f / pitch)) ** sharp * band(f, 100, 9000, 1))
    return unit(tube * curve(rng, n, rate, 2, 0.3, 1))


def _stutter(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Grains of one natural scene in random order."""
    scene = SCENES[rng.integers(len(SCENES))](rng, who, n, rate)
    size = int(0.08 * rate)
    starts = rng.integers(0, n - size, n // size + 1)
    return unit((scene[starts[:, None] + np.arange(size)] * np.hanning(size)).ravel()[:n])


def _mechanical(*instruments: Callable[[Generator, float, int, int], Array]) -> Maker:
    """Songs on these instruments, exactly in time."""
    return partial(band_of, instruments=instruments, loose=0.0)


FEW, SOME, MANY = (1, 1, 1, 2), (1, 2, 2, 3), (2, 3, 4, 5)

SYSTEMS = (
    System("robot", "pam", "speech", _each(_robot), 0.66, {"alias": 1}, FEW),
    System("chip", "pam", "music", _mechanical(_square), 0.8, {}, SOME),
    System("noise-loop", "pam", "sound", _each(_loop), 0.62, {"mp3": 2}, (1, 1, 2, 3)),
    System("organ", "pam", "music", _mechanical(_organ), 0.9, {"lp": 2}, MANY),
    System("pulsing-bands", "pam", "sound", _each(_pulsing), 0.75, {"clip": 2}, (1, 2, 3, 4)),
    System("vocoded", "test", "speech", _each(_vocoded), 0.72, {"lp": 2}, FEW),
    System("metal", "test", "music", _mechanical(_metal), 0.82, {"noise": 2}, MANY),
    System("sweeps", "test", "sound", _each(_sweeps), 0.66, {"bits": 3}, (1, 1, 2, 3)),
    System("smeared-speech", "test", "speech", _each(_smeared_speech), 0.92, {}, FEW),
    System("pluck", "test", "music", _mechanical(plucked), 0.95, {}, SOME),
    System("smeared-scene", "test", "sound", _smeared(soundscape, 0.25, 1.0), 0.85, {}, (1, 2, 3, 4)),
    System("whispered", "test", "speech", _each(_whispered), 0.8, {}, (1,)),
    System("sine-wave-speech", "test", "speech", _each(_sine_wave), 0.6, {"mp3": 4}, (1, 1, 2)),
    System("sines", "test", "music", _mechanical(_sine), 0.75, {"lp": 3}, (1, 1, 2)),
    System("smeared-music", "test", "music", _smeared(ensemble, 0.12, 1.0), 0.7, {"mp3": 2}, MANY),
    System("comb", "test", "sound", _each(_comb), 0.7, {"clip": 4}, (1, 2, 2)),
    System("stutter", "test", "sound", _each(_stutter), 0.75, {"drop": 1}, SOME),
)
"""All synthetic systems; a smaller corpus takes the first ones of each set."""
