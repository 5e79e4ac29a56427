"""Clips made on the spot, and one reading of them in this process and in another."""

import numpy as np
import pytest
import soundfile

from mmmos import audio
from mmmos.errors import Rejected


@pytest.fixture(scope="session")
def noise():
    def make(seconds=1.0, rate=16_000, channels=1, seed=0):
        return np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * rate), channels)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def put(noise):
    def write(path, samples=None, rate=16_000, subtype=None, format=None):
        samples = noise() if samples is None else samples
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        with soundfile.SoundFile(path, "w", rate, channels, subtype, format=format) as file:
            # libsndfile's Vorbis crashes where much is written at once.
            for first in range(0, len(samples), 100_000):
                file.write(samples[first : first + 100_000])
        return path

    return write


@pytest.fixture(scope="session")
def take():
    """Samples, rate and measures by name of a clip, the same from either way of decoding; a rejection is raised."""

    def once(stream, path, segment):
        try:
            with stream(path, *segment) as clip:
                samples = np.concatenate(list(clip.blocks))
                return samples, clip.rate, clip.channels, clip.seconds, clip.measures()
        except Rejected as error:
            return error

    def both(path, *segment):
        here, there = once(audio.stream, path, segment), once(audio.isolated.stream, path, segment)
        if isinstance(here, Rejected):
            assert (here.reason, here.detail) == (there.reason, there.detail)
            raise here
        for one, other in zip(here, there, strict=True):
            np.testing.assert_array_equal(one, other)
        assert here[0].dtype == there[0].dtype == np.float32 and here[0].ndim == 1
        return here[0], here[1], dict(zip(audio.MEASURES, here[4].tolist(), strict=True))

    return both


@pytest.fixture(scope="session")
def reason(take):
    """The code of the rejection of a clip, whose detail is a sentence for people."""

    def code(path, *segment):
        with pytest.raises(Rejected) as caught:
            take(path, *segment)
        assert caught.value.reason in audio.REASONS
        assert len(caught.value.detail) > 10 and "<_io" not in caught.value.detail
        return caught.value.reason

    return code


@pytest.fixture(scope="session")
def flagged(take):
    """The names of a clip's flags, for an encoder of 16 kHz and 400 samples."""

    def names(path, *segment, rate=16_000, minimum=400):
        measures = np.array([list(take(path, *segment)[2].values())])
        found = audio.flags(measures, rate=rate, minimum=minimum)
        return {name for name, column in found.items() if column[0]}

    return names
