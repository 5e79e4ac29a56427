"""Environmental sounds: weather, water, birds, machines and steps, alone or several at once."""

from functools import partial

import numpy as np
from numpy.random import Generator

from mmmos.demo.signals import Array, add_at, band, curve, decay, noise, play, table, unit


def rain(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """A bright hiss with single drops."""
    low, drops = who.uniform(600, 1800), who.uniform(40, 150)
    hiss = noise(rng, n, rate, lambda f: band(f, low, 14000, 1)) * curve(rng, n, rate, 1, 0.8, 1.0)
    hits = np.where(rng.uniform(size=n) < drops / rate, rng.exponential(1, n), 0)
    size = int(0.02 * rate)
    drop = decay(size, rate, 0.02, 0.0005) * rng.standard_normal(size)
    return unit(hiss + 1.6 * np.convolve(hits, drop)[:n])


def wind(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Gusts: three bands of low noise that rise and fall on their own."""
    centre, wave = who.uniform(150, 500), np.zeros(n)
    for place in (centre / 2, centre, centre * 2.2):
        air = noise(rng, n, rate, partial(band, low=place / 1.6, high=place * 1.6))
        wave += air * curve(rng, n, rate, 1.2, 0.05, 1) ** 2 / place**0.4
    return unit(wave)


def surf(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Waves on a beach: a rumble, and a hiss that swells."""
    swell = curve(rng, n, rate, who.uniform(0.6, 1.1), 0.03, 1.0) ** 2
    rumble = noise(rng, n, rate, lambda f: band(f, 60, 400, 1.5))
    hiss = noise(rng, n, rate, lambda f: band(f, 700, 6000, 1))
    return unit(rumble * (0.3 + swell) + 0.8 * hiss * swell)


def birds(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Calls of chirps over a faint background."""
    wave = 0.01 * noise(rng, n, rate, lambda f: band(f, 200, 4000, 1))
    top = 0.42 * rate
    centre, sweep, trill = min(who.uniform(2200, 5500), top / 1.5), who.uniform(-0.35, 0.35), who.uniform(0.07, 0.16)
    start = rng.uniform(0, 0.2)
    while start < n / rate:
        for chirp in range(rng.integers(2, 7)):
            size = int(trill * rng.uniform(0.5, 0.9) * rate)
            place = np.arange(size) / size
            freq = np.minimum(centre * rng.uniform(0.92, 1.08) * (1 + sweep * place), top)
            tone = np.sin(2 * np.pi * np.cumsum(freq) / rate) * np.sin(np.pi * place) ** 2
            at = int((start + chirp * trill) * rate)
            if at < n:
                add_at(wave, at, 0.3 * rng.uniform(0.4, 1) * tone)
        start += rng.uniform(0.3, 0.9)
    return unit(wave)


def engine(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Hum of a motor: firing harmonics with unsteady speed, and noise in their rhythm."""
    speed = who.uniform(28, 85)
    amplitudes = who.uniform(0.2, 1, 40) / np.arange(1, 41) ** who.uniform(0.6, 1.1)
    phase = np.cumsum(speed * curve(rng, n, rate, 3, 0.97, 1.03)) / rate
    hum = unit(play(table(speed, rate, amplitudes), phase))
    air = noise(rng, n, rate, lambda f: band(f, 200, 3000, 1)) * (1 + np.sin(2 * np.pi * phase)) / 2
    return unit(hum + 0.3 * air)


def steps(rng: Generator, who: Generator, n: int, rate: int) -> Array:
    """Footsteps: a dull thump and a crunch, twice per step, in a quiet room."""
    wave, size = 0.02 * noise(rng, n, rate, lambda f: band(f, 80, 2000, 1)), int(0.2 * rate)
    pace, tone, crunch = who.uniform(0.35, 0.6), who.uniform(60, 140), who.uniform(900, 3500)
    at = rng.uniform(0, 0.25)
    while at < n / rate:
        for delay, loud in ((0, 1.0), (0.06, 0.6)):
            thump = np.sin(2 * np.pi * tone * np.arange(size) / rate) * decay(size, rate, 0.15)
            grit = noise(rng, size, rate, lambda f: band(f, crunch / 2, crunch * 2)) * decay(size, rate, 0.12)
            start = int((at + delay) * rate)
            if start < n:
                add_at(wave, start, loud * rng.uniform(0.7, 1) * (0.5 * thump + 0.5 * grit))
        at += pace * rng.uniform(0.9, 1.1)
    return unit(wave)


SCENES = (rain, wind, surf, birds, engine, steps)


def soundscape(rng: Generator, who: Generator, k: int, n: int, rate: int) -> Array:
    """k different environmental sounds at once ``(k, n)``; the scene decides which come first."""
    order = who.permutation(len(SCENES))[:k]
    return np.stack([SCENES[i](rng, who, n, rate) for i in order])
