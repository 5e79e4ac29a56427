"""Audio: any file is decoded by content, or refused with one reason."""

import os
import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmos import audio
from mmmos.errors import Rejected


def noise(seconds=1.0, rate=16_000, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * rate), channels)).astype(np.float32)


def put(path, samples=None, rate=16_000, subtype=None, format=None):
    soundfile.write(path, noise() if samples is None else samples, rate, subtype=subtype, format=format)
    return path


def reason(path, *segment):
    with pytest.raises(Rejected) as caught:
        audio.read(path, *segment)
    assert caught.value.reason in audio.REASONS
    assert len(caught.value.detail) > 10 and "<_io" not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize(
    ("subtype", "error"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-23), ("FLOAT", 0), ("DOUBLE", 0)],
)
def test_every_sample_width_decodes_within_its_quantisation(tmp_path, subtype, error):
    samples, rate = audio.read(put(tmp_path / "a.wav", subtype=subtype))
    assert (samples.dtype, rate) == (np.float32, 16_000)
    np.testing.assert_allclose(samples, noise(), rtol=0, atol=error)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_rates_and_channels_are_read_as_they_are(tmp_path, rate, channels):
    wanted = noise(0.2, rate, channels)
    samples, got = audio.read(put(tmp_path / "a.wav", wanted, rate, "FLOAT"))
    assert got == rate
    np.testing.assert_array_equal(samples, wanted)
    np.testing.assert_allclose(audio.mono(samples), wanted.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("name", ["clip.wav", "clip.mp3", "clip.raw", "clip", "-clip.txt"])
def test_the_content_decides_and_not_the_name(tmp_path, kind, name):
    plain = put(tmp_path / f"plain.{kind}", format=kind.upper())
    renamed = shutil.copy(plain, tmp_path / name)
    samples, _ = audio.read(renamed)
    np.testing.assert_array_equal(samples, audio.read(plain)[0])
    np.testing.assert_allclose(samples, soundfile.read(plain, always_2d=True)[0], rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_a_segment_equals_a_slice_of_the_whole(tmp_path, kind, monkeypatch):
    path = put(tmp_path / f"a.{kind}", noise(3, 16_000, 2), format=kind.upper())
    monkeypatch.setattr(audio, "BLOCK", 10_000)
    whole, rate = audio.read(path)
    for start, end in [(0, 1), (0.5, 1.25), (1.00003, 2), (2.5, None), (None, 0.7), (0, None)]:
        part, _ = audio.read(path, start, end)
        stop = len(whole) if end is None else round(end * rate)
        np.testing.assert_array_equal(part, whole[round((start or 0) * rate) : stop])


BYTES = {
    "empty": (b"", "empty_file"),
    "one byte": (b"R", "not_audio"),
    "20 bytes": (b"RIFF\x00\x00\x00\x00WAVEfmt \x00\x00\x00\x00", "not_audio"),
    "html": (b"<!DOCTYPE html><html>" + b"x" * 99, "not_audio"),
    "text": (b"hello world " * 20, "not_audio"),
    "zeros": (bytes(5000), "not_audio"),
    "m4a": (b"\x00\x00\x00\x20ftypM4A " + bytes(500), "needs_ffmpeg"),
    "webm": (b"\x1aE\xdf\xa3" + bytes(500), "needs_ffmpeg"),
    "aac": (b"\xff\xf1\x50\x80" + bytes(500), "needs_ffmpeg"),
}


@pytest.mark.parametrize(("content", "code"), BYTES.values(), ids=BYTES.keys())
def test_content_that_is_no_audio_is_named(tmp_path, content, code):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert reason(path) == code


def test_paths_that_are_no_files_are_named_and_never_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nothing")
    assert reason(tmp_path) == "not_a_file"
    assert reason(tmp_path / "pipe.wav") == "not_a_file"
    assert reason(tmp_path / "nothing.wav") == "missing"
    assert reason(tmp_path / "dangling.wav") == "missing"
    assert reason(tmp_path / "loop.wav") == "unreadable"
    assert reason(tmp_path / "a\0b.wav") == "unreadable"
    assert reason(tmp_path / ("x" * 300)) == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_unreadable(tmp_path):
    put(tmp_path / "a.wav").chmod(0)
    assert reason(tmp_path / "a.wav") == "unreadable"


def test_a_disk_that_fails_while_reading_costs_the_clip_and_not_the_run(tmp_path, monkeypatch):
    class Failing:
        def __init__(self, *_):
            pass

        def update(self, _):
            raise OSError(5, "Input/output error")

    path = put(tmp_path / "a.wav")
    monkeypatch.setattr(audio.hashlib, "blake2b", lambda **_: Failing())
    with pytest.raises(Rejected, match="Input/output error"):
        audio.content_hash(path)


@pytest.mark.parametrize(
    ("samples", "code"),
    [
        (np.zeros((0, 1)), "no_samples"),
        (noise(0.05), "too_short"),
        (np.where(np.arange(16_000) == 8_000, np.nan, 0.1), "non_finite"),
        (np.where(np.arange(16_000) == 8_000, np.inf, 0.1), "non_finite"),
    ],
)
def test_samples_that_cannot_be_used_are_named(tmp_path, samples, code):
    assert reason(put(tmp_path / "a.wav", samples, subtype="FLOAT")) == code


def test_a_cut_flac_is_refused(tmp_path):
    whole = put(tmp_path / "a.flac", noise(5)).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / "cut.flac") == "decode_error"


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path):
    content = bytearray(put(tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4  # 2**36 - 1 samples
    (tmp_path / "huge.flac").write_bytes(content)
    assert soundfile.info(tmp_path / "huge.flac").frames > 2**35
    assert reason(tmp_path / "huge.flac") == "decode_error"


def test_absurd_rates_and_channels_are_refused(tmp_path):
    content = put(tmp_path / "a.wav").read_bytes()
    for name, place, value, code in [
        ("rate", slice(24, 28), (2**31 - 1).to_bytes(4, "little"), "bad_rate"),
        ("channels", slice(22, 24), b"\xff\xff", "decode_error"),
        ("none", slice(22, 24), b"\0\0", "decode_error"),
    ]:
        changed = bytearray(content)
        changed[place] = value
        (tmp_path / name).write_bytes(changed)
        assert reason(tmp_path / name) == code


def test_more_than_the_allowed_length_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "MAX_SECONDS", 0.5)
    path = put(tmp_path / "a.wav")
    assert reason(path) == "too_long"
    assert reason(path, 0.25, 0.9) == "too_long"
    assert len(audio.read(path, 0.25, 0.75)[0]) == 8_000


@pytest.mark.parametrize("kind", ["wav", "mp3"])
@pytest.mark.parametrize(
    "segment", [(5, 6), (1.5, None), (0.5, 3), (0.6, 0.5), (-1, 0.5), (float("nan"), 1), (0, float("nan"))]
)
def test_a_segment_outside_the_audio_is_refused(tmp_path, kind, segment):
    assert reason(put(tmp_path / f"a.{kind}"), *segment) == "bad_segment"


def test_a_rounded_end_is_taken_as_the_end(tmp_path):
    assert len(audio.read(put(tmp_path / "a.wav"), 0.5, 1.05)[0]) == 8_000


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 100), st.integers(1, 100), st.integers(1, 60), st.integers(1, 500))
def test_windows_cover_every_sample_but_a_short_tail(samples, window, hop, minimum, block):
    hop, minimum = min(hop, window), min(minimum, window)
    signal = np.arange(samples, dtype=np.float32)
    cutter, found = audio.Windows(window, hop, minimum), []
    for first in range(0, samples, block):
        found += cutter.push(signal[first : first + block])
    found += cutter.push(signal[:0], last=True)
    covered = np.zeros(samples, bool)
    for start, wave in found:
        assert start % hop == 0 and 0 < len(wave) <= window
        np.testing.assert_array_equal(wave, signal[start : start + len(wave)])
        covered[start : start + len(wave)] = True
    tail = samples - covered.sum()
    assert tail < minimum and covered[: samples - tail].all()
    assert all(len(wave) >= minimum for _, wave in found[1:])
    whole = list(audio.Windows(window, hop, minimum).push(signal, last=True))
    assert [(start, wave.tolist()) for start, wave in whole] == [(start, wave.tolist()) for start, wave in found]


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_a_stream_gives_what_reading_at_once_gives(tmp_path, kind, monkeypatch):
    path = put(tmp_path / f"a.{kind}", noise(2, 16_000))
    whole, rate = audio.read(path)
    with audio.stream(path) as file:
        assert (file.rate, round(file.seconds, 1)) == (rate, 2.0)
        np.testing.assert_array_equal(np.concatenate(list(file.blocks)), whole)


def test_the_content_hash_knows_the_bytes_and_neither_name_nor_time(tmp_path):
    path = put(tmp_path / "a.wav")
    moved = shutil.copy(path, tmp_path / "other name.flac")
    os.utime(moved, (1, 1))
    assert audio.content_hash(path) == audio.content_hash(moved)
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(changed)
    os.utime(moved, (1, 1))
    assert audio.content_hash(path) != audio.content_hash(moved)


def test_padding_only_fills_what_is_missing():
    np.testing.assert_array_equal(audio.pad(np.ones(2, np.float32), 3), [1, 1, 0])
    np.testing.assert_array_equal(audio.pad(np.ones(3, np.float32), 2), [1, 1, 1])
