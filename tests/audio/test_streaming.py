"""Sound files decode to the same samples whatever their name, block sizes and process."""

import shutil

import numpy as np
import pytest
import soundfile

from mmmos import audio
from mmmos.audio import decode, limits, opening
from mmmos.audio.header import Header
from mmmos.errors import Rejected

KINDS = ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64", "rf64"]


@pytest.mark.parametrize(
    ("subtype", "error"),
    [
        ("PCM_U8", 2**-7),
        ("PCM_16", 2**-15),
        ("PCM_24", 2**-23),
        ("PCM_32", 2**-23),
        ("FLOAT", 0),
        ("DOUBLE", 0),
        ("ULAW", 0.02),
        ("ALAW", 0.02),
    ],
)
def test_every_sample_format_decodes_within_its_quantisation(put, take, noise, tmp_path, subtype, error):
    samples, rate, _ = take(put(tmp_path / "a.wav", subtype=subtype))
    assert rate == 16_000
    np.testing.assert_allclose(samples, noise()[:, 0], rtol=0, atol=error)


@pytest.mark.parametrize(
    ("format", "subtype", "error"),
    [
        ("CAF", "ALAC_16", 2**-15),
        ("AIFF", "FLOAT", 0),
        ("AU", "DOUBLE", 0),
        ("NIST", "PCM_16", 2**-15),
        ("OGG", "OPUS", 2),
        ("OGG", "VORBIS", 2),
        ("FLAC", "PCM_24", 2**-23),
        ("WAVEX", "FLOAT", 0),
    ],
)
def test_allowed_codecs_decode_in_any_container(put, take, noise, tmp_path, format, subtype, error):
    path = put(tmp_path / "a", noise(1, 48_000), 48_000, subtype, format)
    samples, rate, _ = take(path)
    assert (len(samples), rate) == (48_000, 48_000)
    np.testing.assert_allclose(samples, noise(1, 48_000)[:, 0], rtol=0, atol=error)


@pytest.mark.parametrize("rate", [1_000, 8_000, 44_100, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_rates_are_kept_and_channels_are_averaged(put, take, noise, tmp_path, rate, channels):
    wanted = noise(0.2, rate, channels)
    samples, got, measures = take(put(tmp_path / "a.wav", wanted, rate, "FLOAT"))
    assert (got, measures["rate"], measures["channels"]) == (rate, rate, channels)
    np.testing.assert_allclose(samples, wanted.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("name", ["clip.wav", "clip.mp3", "clip.raw", "clip", "-clip.txt", "né 🎧 %d\n'\".wav"])
def test_the_content_decides_and_not_the_name(put, take, tmp_path, kind, name):
    plain = put(tmp_path / f"plain.{kind}", format=kind.upper())
    renamed = shutil.copy(plain, tmp_path / name)
    samples, _, _ = take(renamed)
    np.testing.assert_array_equal(samples, audio.read(plain)[0])
    np.testing.assert_allclose(samples, soundfile.read(plain)[0], rtol=0, atol=1e-6)


def test_a_relative_name_is_found_from_the_working_folder(put, take, noise, tmp_path, monkeypatch):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "-a.wav", noise(seed=len(name)), subtype="FLOAT")
    for name in ("one", "other", "one"):
        monkeypatch.chdir(tmp_path / name)
        np.testing.assert_array_equal(take("-a.wav")[0], noise(seed=len(name))[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_segment_equals_a_slice_of_the_whole(put, noise, tmp_path, kind, monkeypatch):
    path = put(tmp_path / f"a.{kind}", noise(3, 16_000, 2), format=kind.upper())
    monkeypatch.setattr(limits, "BLOCK", 10_000)
    whole, rate = audio.read(path)
    for start, end in [(0, 1), (0.5, 1.25), (1.00003, 2), (2.5, None), (None, 0.7), (0, None)]:
        part, _ = audio.read(path, start, end)
        stop = len(whole) if end is None else round(end * rate)
        np.testing.assert_array_equal(part, whole[round((start or 0) * rate) : stop])


@pytest.mark.parametrize("kind", KINDS)
def test_segments_are_the_same_from_another_process(put, take, noise, tmp_path, kind):
    path = put(tmp_path / f"a.{kind}", noise(2, 16_000, 2), format=kind.upper())
    samples, rate, measures = take(path, 0.5, 1.25)
    assert len(samples) / rate == measures["seconds"] == 0.75
    assert np.isnan(measures["declared"])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_block_sizes(put, noise, tmp_path, kind, monkeypatch):
    path = put(tmp_path / f"a.{kind}", noise(2, 16_000, 2), format=kind.upper())
    whole, _ = audio.read(path)
    for block in (999, 4_096, 10_000):
        monkeypatch.setattr(limits, "BLOCK", block)
        np.testing.assert_array_equal(audio.read(path)[0], whole)


@pytest.mark.parametrize("stream", [audio.stream, audio.isolated.stream])
def test_a_stream_tells_its_length_first_and_its_measures_last(put, tmp_path, stream):
    with stream(put(tmp_path / "a.wav"), 0.25) as clip:
        assert (clip.rate, clip.channels, clip.seconds) == (16_000, 1, 0.75)
        with pytest.raises(RuntimeError, match="last block"):
            clip.measures()
        assert sum(map(len, clip.blocks)) == 12_000
        assert clip.measures().shape == (len(audio.MEASURES),)


@pytest.mark.parametrize("stream", [audio.stream, audio.isolated.stream])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyError("mine"), Rejected("bad_segment", "x")]
)
def test_errors_of_the_caller_pass_unchanged(put, tmp_path, stream, error):
    with pytest.raises(type(error)) as caught, stream(put(tmp_path / "a.wav")):
        raise error
    assert caught.value is error


def test_the_content_hash_knows_the_bytes_and_neither_name_nor_time(put, tmp_path):
    path = put(tmp_path / "a.wav")
    moved = shutil.copy(path, tmp_path / "other name.flac")
    assert audio.content_hash(path) == audio.content_hash(moved)
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(changed)
    assert audio.content_hash(path) != audio.content_hash(moved)


def test_the_policy_names_what_changes_numbers():
    assert audio.POLICY["audio"] == "2" and "mean" in audio.POLICY["mono"] and "ffmpeg" in audio.POLICY["decoder"]


def test_failed_reasons_are_transient_and_all_reasons_have_a_sentence():
    assert audio.FAILED < audio.TRANSIENT < set(audio.REASONS)
    assert all(len(sentence) > 10 for sentence in audio.REASONS.values())


def test_no_more_blocks_are_decoded_than_are_wanted(put, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BLOCK", 1_000)
    path = put(tmp_path / "a.wav", noise(1))
    with opening.regular(path) as file, decode.opened(path, file, Header("wav")) as source:
        assert [(at, len(block)) for at, block in source.blocks(0, 2_500)] == [(0, 1_000), (1_000, 1_000), (2_000, 500)]
