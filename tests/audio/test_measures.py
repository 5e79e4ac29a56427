"""Measures agree with plain formulas over the whole clip, and flags follow from them."""

import numpy as np
import pytest

from mmmos import audio
from mmmos.audio import limits
from mmmos.audio.flags import FLAGS


def tone(frequency, rate=16_000, seconds=1.0, level=0.5):
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def test_measures_are_those_of_the_whole_clip(put, take, noise, tmp_path, monkeypatch):
    wave = noise(3, 16_000, 2) + np.float32(0.05)
    wave[100:200, 1] = 1
    path = put(tmp_path / "a.wav", wave, subtype="FLOAT")
    samples, _, measures = take(path)
    signal = samples.astype(np.float64)
    assert measures["seconds"] == measures["declared"] == 3
    assert (measures["rate"], measures["channels"], measures["peak"]) == (16_000, 2, 1)
    assert measures["clipped"] == 100 / wave.size
    assert measures["rms"] == pytest.approx(np.sqrt(np.mean(signal**2)), rel=1e-12)
    assert measures["dc"] == pytest.approx(signal.mean(), rel=1e-12)
    for block in (1_001, 30_000):
        monkeypatch.setattr(limits, "BLOCK", block)
        with audio.stream(path) as clip:
            list(clip.blocks)
            np.testing.assert_allclose(clip.measures(), list(measures.values()), rtol=1e-12)


@pytest.mark.parametrize("seconds", [0.1, 0.12, 1, 20])
def test_the_bandwidth_is_the_highest_frequency_that_sounds(put, take, tmp_path, seconds):
    wave = tone(1_000, 44_100, seconds) + tone(9_000, 44_100, seconds, 0.001)
    bandwidth = take(put(tmp_path / "a.wav", wave, 44_100, "FLOAT"))[2]["bandwidth"]
    assert bandwidth == pytest.approx(9_000, abs=100)


def test_noise_has_all_of_the_band_and_silence_has_none(put, take, noise, tmp_path):
    assert take(put(tmp_path / "a.wav"))[2]["bandwidth"] > 7_900
    assert np.isnan(take(put(tmp_path / "a.wav", np.zeros(16_000)))[2]["bandwidth"])
    assert np.isnan(take(put(tmp_path / "a.wav", np.full(16_000, 0.3), subtype="FLOAT"))[2]["bandwidth"])


def test_what_sounds_late_is_heard(put, take, tmp_path):
    wave = np.concatenate([tone(1_000, seconds=50), tone(6_000, seconds=10)])
    assert take(put(tmp_path / "a.wav", wave))[2]["bandwidth"] > 5_900


FLAGGED = {
    "clipped": lambda: np.clip(3 * tone(440), -1, 1),
    "silent": lambda: 1e-5 * tone(440),
    "dc": lambda: 0.3 * tone(440) + 0.2,
    "out_of_scale": lambda: 1e6 * tone(440),
    "narrowband": lambda: tone(440),
}


@pytest.mark.parametrize("name", FLAGGED)
def test_a_clip_has_the_flag_that_it_deserves(put, flagged, noise, tmp_path, name):
    path = put(tmp_path / "a.wav", FLAGGED[name](), subtype="FLOAT")
    assert flagged(path) - {"narrowband"} == {name} - {"narrowband"}
    assert ("narrowband" in flagged(path)) == (name != "clipped")


def test_noise_has_no_flag(put, flagged, noise, tmp_path):
    assert flagged(put(tmp_path / "a.wav", noise(2, 16_000, 2))) == set()


def test_16_bit_clipping_is_seen(put, flagged, noise, tmp_path):
    loud = np.clip(noise() * 2.1, -1, 1)
    assert flagged(put(tmp_path / "a.wav", loud)) == {"clipped"}
    assert flagged(put(tmp_path / "a.wav", loud * 0.99)) == set()


def test_flags_that_depend_on_the_encoder(put, flagged, noise, tmp_path):
    path = put(tmp_path / "a.wav", noise(0.2, 8_000), 8_000)
    assert flagged(path, rate=8_000) == set()
    assert flagged(path, rate=16_000) == {"upsampled"}
    assert flagged(path, rate=8_000, minimum=1_600) == set()
    assert flagged(path, rate=8_000, minimum=1_601) == {"too_short"}


def test_narrowband_is_judged_within_what_the_encoder_hears(put, flagged, tmp_path):
    wave = np.concatenate([tone(f, 48_000, 0.2) for f in range(500, 8_000, 500)])
    path = put(tmp_path / "a.wav", wave, 48_000)
    assert flagged(path, rate=16_000) == set()
    assert flagged(path, rate=48_000) == {"narrowband"}


def test_every_flag_has_a_sentence_and_the_unknown_is_none(put, take, noise, tmp_path):
    unknown = audio.flags(np.full((3, len(audio.MEASURES)), np.nan), rate=16_000, minimum=400)
    assert set(unknown) == set(FLAGS) - {"extension_mismatch"}
    for column in unknown.values():
        assert column.dtype == bool and column.shape == (3,) and not column.any()
    assert audio.flags(np.zeros((0, len(audio.MEASURES))), rate=16_000, minimum=400)["dc"].shape == (0,)
