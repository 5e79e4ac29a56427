"""The sound of a planned clip: sources made, mixed, set to a level, and degraded."""

import numpy as np
from numpy.random import Generator

from mmmos.demo.degradations import degrade, fit, resample
from mmmos.demo.music import ensemble
from mmmos.demo.plan import Clip
from mmmos.demo.scenes import soundscape
from mmmos.demo.signals import Array, Maker, level, noise
from mmmos.demo.speech import voices
from mmmos.demo.systems import SYSTEMS

NATURAL: dict[str, Maker] = {"speech": voices, "music": ensemble, "sound": soundscape}
SYNTHETIC: dict[str, Maker] = {system.name: system.make for system in SYSTEMS}

LOUDNESS = (-28.0, -14.0)
"""Range of a clip's level before degradation in dB relative to full scale."""

ROOM = (-60.0, -45.0)
"""Range of the background noise of natural recordings in dB relative to the clip's level."""

CEILING = 0.89
"""Highest absolute sample, -1 dB, which leaves room for what MP3 adds."""


def render_clip(clip: Clip) -> Array:
    """The clip's samples ``(samples, channels)`` at its rate, within ±0.89."""
    rng, who = np.random.default_rng(clip.seed), np.random.default_rng(clip.source_seed)
    rate = max(clip.rate, 16000)
    n = round(clip.seconds * rate)
    make = SYNTHETIC[clip.generator] if clip.system else NATURAL[clip.domain]
    wave = mix(rng, make(rng, who, clip.k, n, rate), clip.channels)
    if not clip.system:
        room = noise(rng, n, rate, lambda f: 1 / np.sqrt(np.maximum(f, 50)))
        wave += room[:, None] * (level(wave) * 10 ** (rng.uniform(*ROOM) / 20))
    wave = below_ceiling(wave * (10 ** (rng.uniform(*LOUDNESS) / 20) / level(wave)))
    wave = resample(degrade(rng, wave, rate, clip.chain), rate, clip.rate)
    return below_ceiling(fit(wave, round(clip.seconds * clip.rate)))


def mix(rng: Generator, sources: Array, channels: int) -> Array:
    """Sources ``(k, samples)`` as ``(samples, channels)``: the first is the loudest, each has its place in stereo."""
    fall = rng.uniform(1, 6, len(sources))
    fall[0] = 0
    gains = 10 ** (-fall / 20)[:, None]
    if channels == 2:
        angle = np.pi / 4 * (1 + rng.uniform(-0.7, 0.7, len(sources)))
        gains = gains * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return sources.T @ gains


def below_ceiling(wave: Array) -> Array:
    """The wave, turned down where its highest peak passes the ceiling."""
    return wave * min(1.0, CEILING / (float(np.abs(wave).max()) + 1e-12))
