"""Channels become one signal that people would hear."""

import numpy as np
import pytest

from mmmos import audio
from mmmos.audio import downmix, limits


def channels(noise, *gains, seconds=1.0, seed=0):
    return noise(seconds, seed=seed) * np.array(gains, np.float32)


@pytest.mark.parametrize("gains", [(1, -1), (1, -0.999), (1, -1, 1, -1), (0.5, 0.5, -1)])
def test_channels_that_cancel_give_the_first_one(put, take, flagged, noise, tmp_path, gains):
    wave = channels(noise, *gains)
    path = put(tmp_path / "a.wav", wave, subtype="FLOAT")
    samples, _, measures = take(path)
    np.testing.assert_array_equal(samples, wave[:, 0])
    assert measures["cancel"] == 1 and flagged(path) == {"phase_cancel"}


@pytest.mark.parametrize("gains", [(1, 1), (1, 0), (1, -0.9), (0, 0), (1e-5, -1e-5), (1,), (-1,)])
def test_other_channels_give_their_mean(put, take, flagged, noise, tmp_path, gains):
    wave = channels(noise, *gains)
    path = put(tmp_path / "a.wav", wave, subtype="FLOAT")
    samples, _, measures = take(path)
    np.testing.assert_allclose(samples, wave.mean(axis=1), atol=1e-7)
    assert measures["cancel"] == 0 and "phase_cancel" not in flagged(path)


def test_the_beginning_decides_for_all_of_the_clip(put, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BEGINNING", 16_000)
    opposed, alike = channels(noise, 1, -1, seconds=0.5), channels(noise, 1, 1, seconds=0.5, seed=1)
    first = np.concatenate([opposed, alike])
    np.testing.assert_array_equal(audio.read(put(tmp_path / "a.wav", first, subtype="FLOAT"))[0], first[:, 0])
    first = np.concatenate([alike, opposed])
    samples = audio.read(put(tmp_path / "a.wav", first, subtype="FLOAT"))[0]
    np.testing.assert_array_equal(samples, np.concatenate([alike[:, 0], np.zeros(8_000)]))


@pytest.mark.parametrize("block", [1_000, 30_001, 1 << 20])
def test_a_segment_is_mixed_as_a_file_of_just_that_segment(put, noise, tmp_path, monkeypatch, block):
    monkeypatch.setattr(limits, "BLOCK", block)
    monkeypatch.setattr(limits, "BEGINNING", 20_000)
    wave = np.concatenate([channels(noise, 1, 1), channels(noise, 1, -1, seed=1), channels(noise, 1, 0.5, seed=2)])
    path = put(tmp_path / "a.wav", wave, subtype="FLOAT")
    for start, end in [(0, 3), (1, 2), (1, 3), (0.9, 2), (2, None), (1.5, 2.5)]:
        stop = 48_000 if end is None else round(end * 16_000)
        alone = put(tmp_path / "b.wav", wave[round(start * 16_000) : stop], subtype="FLOAT")
        np.testing.assert_array_equal(audio.read(path, start, end)[0], audio.read(alone)[0])


def test_the_mean_is_rounded_once(noise):
    wave = noise(1, channels=5)
    np.testing.assert_array_equal(audio.mono(wave), wave.astype(np.float64).mean(axis=1).astype(np.float32))
    assert np.isfinite(audio.mono(np.full((4, 2), 3e38, np.float32))).all()
    assert not downmix.cancels(wave)
