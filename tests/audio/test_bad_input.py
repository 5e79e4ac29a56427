"""The catalogue of bad input: every row ends as samples, with flags, or as one rejection; in either process alike."""

import os

import numpy as np
import pytest
import soundfile

from mmmos import audio
from mmmos.audio import limits, opening
from mmmos.errors import Rejected

BYTES = {
    "empty": (b"", "empty_file"),
    "one byte": (b"R", "not_audio"),
    "20 bytes": (b"RIFF\x00\x00\x00\x00WAVEfmt \x00\x00\x00\x00", "not_audio"),
    "html": (b"<!DOCTYPE html><html>" + b"x" * 99, "not_audio"),
    "text": (b"hello world " * 20, "not_audio"),
    "zeros": (bytes(5000), "not_audio"),
    "riff of something else": (b"RIFF\x24\x00\x00\x00AVIX" + bytes(100), "decode_error"),
    "wav without chunks": (b"RIFF\x24\x00\x00\x00WAVE" + bytes(100), "decode_error"),
    "id3 without audio": (b"ID3\x04\0\0\0\0\0\x0a" + bytes(100), "decode_error"),
    "id3 that claims 256 MB": (b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(100), "decode_error"),
    "ogg of nothing": (b"OggS\0\x02" + bytes(200), "decode_error"),
    "flac of nothing": (b"fLaC\0\0\0\x22" + bytes(200), "bad_rate"),
}


@pytest.mark.parametrize(("content", "code"), BYTES.values(), ids=BYTES.keys())
def test_content_that_is_no_audio_is_named(reason, tmp_path, content, code):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert reason(path) == code


def test_the_first_bytes_tell_what_a_file_is(tmp_path):
    (tmp_path / "page.wav").write_bytes(b"<!DOCTYPE html><html>" + b"x" * 99)
    with pytest.raises(Rejected, match="failed download"):
        audio.read(tmp_path / "page.wav")
    (tmp_path / "short.mp3").write_bytes(b"\xff\xfb" + bytes(18))
    with pytest.raises(Rejected, match="20 bytes are too short"):
        audio.read(tmp_path / "short.mp3")


def test_paths_that_are_no_files_are_named_and_never_block(reason, tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.wav")
        assert reason(tmp_path / "pipe.wav") == "not_a_file"
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nothing")
    assert reason(tmp_path) == "not_a_file"
    assert reason(os.devnull) == "not_a_file"
    assert reason(tmp_path / "nothing.wav") == "missing"
    assert reason(tmp_path / "dangling.wav") == "missing"
    assert reason(tmp_path / "loop.wav") == "unreadable"
    assert reason(tmp_path / "a\0b.wav") == "unreadable"
    assert reason(tmp_path / ("x" * 300)) == "unreadable"
    assert audio.stamp(tmp_path / "a\0b.wav") == audio.stamp(tmp_path / "nothing.wav") == (0, 0)


@pytest.mark.skipif(os.name != "posix", reason="bytes in names")
def test_a_name_that_is_no_text_is_read(put, take, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    put(tmp_path / "a.wav").rename(path)
    assert len(take(path)[0]) == 16_000


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_unreadable(put, reason, tmp_path):
    put(tmp_path / "a.wav").chmod(0)
    assert reason(tmp_path / "a.wav") == "unreadable"


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_disk_that_fails_is_no_end_of_the_file(put, noise, tmp_path, monkeypatch, kind, share):
    path = put(tmp_path / f"a.{kind}", noise(20), format=kind.upper())
    failing = path.stat().st_size * share
    plain = opening.View._file_bytes

    def broken(self, count, at):
        if at + count > failing:
            raise OSError(5, "Input/output error")
        return plain(self, count, at)

    monkeypatch.setattr(opening.View, "_file_bytes", broken)
    with pytest.raises(Rejected, match=r"unreadable.*Input/output error"):
        audio.read(path)


def test_a_disk_that_fails_while_hashing_costs_the_clip_and_not_the_run(put, tmp_path, monkeypatch):
    class Failing:
        def __init__(self, *_):
            pass

        def update(self, _):
            raise OSError(5, "Input/output error")

    path = put(tmp_path / "a.wav")
    monkeypatch.setattr(opening.hashlib, "blake2b", lambda **_: Failing())
    with pytest.raises(Rejected, match="Input/output error"):
        audio.content_hash(path)


def test_a_file_that_goes_before_it_is_opened_is_missing(put, tmp_path, monkeypatch):
    def gone(*_):
        raise FileNotFoundError(2, "No such file or directory")

    path = put(tmp_path / "a.wav")
    monkeypatch.setattr(os, "open", gone)
    with pytest.raises(Rejected, match="missing: there is no file"):
        audio.read(path)


@pytest.mark.parametrize("reason", ["malloc() failed", "System error : Cannot allocate memory."])
def test_the_decoder_s_want_of_memory_is_not_the_file_s_fault(put, tmp_path, monkeypatch, reason):
    def fail(*_, **__):
        raise soundfile.LibsndfileError(0, f"{reason} ")

    path = put(tmp_path / "a.wav")
    monkeypatch.setattr(soundfile.LibsndfileError, "error_string", reason)
    for call in ("read", "__init__"):
        with monkeypatch.context() as patch, pytest.raises(MemoryError, match=r"memory|malloc"):
            patch.setattr(soundfile.SoundFile, call, fail)
            audio.read(path)


def test_samples_that_cannot_be_used_are_named(put, noise, reason, tmp_path):
    spoiled = noise(1, 16_000, 2)
    spoiled[8_000, 1] = np.nan
    for samples, code in [
        (np.zeros((0, 1)), "no_samples"),
        (noise(0.05), "too_short"),
        (noise()[:1], "too_short"),
        (spoiled, "non_finite"),
        (np.where(np.arange(16_000) == 8_000, np.inf, 0.1), "non_finite"),
        (np.where(np.arange(16_000) == 8_000, -np.inf, 0.1), "non_finite"),
    ]:
        assert reason(put(tmp_path / "a.wav", samples, subtype="FLOAT")) == code
    with pytest.raises(Rejected, match=r"0\.500 s"):
        audio.read(put(tmp_path / "a.wav", spoiled, subtype="FLOAT"))


def test_samples_of_any_finite_size_are_decoded(put, take, tmp_path):
    huge = np.full((16_000, 2), 3e38, np.float32)
    samples, _, measures = take(put(tmp_path / "a.wav", huge, subtype="FLOAT"))
    assert np.isfinite(samples).all() and np.isfinite(list(measures.values())[:-2]).all()


def test_a_cut_flac_is_refused_with_its_place(put, noise, reason, tmp_path):
    whole = put(tmp_path / "a.flac", noise(5)).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / "cut.flac") == "decode_error"
    with pytest.raises(Rejected, match=r"lost sync, after 2\.\d+ s"):
        audio.read(tmp_path / "cut.flac")


def test_a_flac_with_damage_inside_is_refused(put, noise, reason, tmp_path):
    content = bytearray(put(tmp_path / "a.flac", noise(5)).read_bytes())
    content[len(content) // 2 :][:200] = bytes(200)
    content[len(content) // 2 : len(content) // 2 + 200] = np.random.default_rng(0).bytes(200)
    (tmp_path / "a.flac").write_bytes(content)
    assert reason(tmp_path / "a.flac") == "decode_error"


def test_a_header_that_claims_too_much_allocates_nothing(put, take, flagged, tmp_path):
    content = bytearray(put(tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4  # 2**36 - 1 samples
    (tmp_path / "huge.flac").write_bytes(content)
    assert soundfile.info(tmp_path / "huge.flac").frames > 2**35
    assert len(take(tmp_path / "huge.flac")[0]) == 16_000
    assert "frames_mismatch" in flagged(tmp_path / "huge.flac")


def test_a_file_that_decodes_to_a_thousand_times_its_size_passes_in_blocks(put, tmp_path):
    path = put(tmp_path / "a.flac", np.zeros(16_000 * 600, np.int16))
    assert path.stat().st_size * 400 < 16_000 * 600 * 4
    with audio.isolated.stream(path) as clip:
        sizes = [len(block) for block in clip.blocks]
    assert sum(sizes) == 16_000 * 600 and max(sizes) <= limits.BLOCK


def test_absurd_rates_and_channels_are_refused(put, reason, tmp_path):
    content = put(tmp_path / "a.wav").read_bytes()
    for place, value, code in [
        (slice(24, 28), (2**31 - 1).to_bytes(4, "little"), "bad_rate"),
        (slice(24, 28), bytes(4), "bad_rate"),
        (slice(24, 28), (999).to_bytes(4, "little"), "bad_rate"),
        (slice(22, 24), b"\xff\xff", "bad_channels"),
        (slice(22, 24), b"\0\0", "bad_channels"),
        (slice(22, 24), b"\x21\0", "bad_channels"),
    ]:
        changed = bytearray(content)
        changed[place] = value
        (tmp_path / "changed.wav").write_bytes(changed)
        assert reason(tmp_path / "changed.wav") == code


@pytest.mark.parametrize("kind", ["aiff", "au", "flac", "ogg", "caf"])
def test_a_rate_of_zero_is_refused_in_every_container(put, reason, tmp_path, kind):
    content = bytearray(put(tmp_path / "a", format=kind.upper()).read_bytes())
    at = {
        "aiff": content.find(b"COMM") + 16,
        "au": 16,
        "flac": 18,
        "ogg": content.find(b"vorbis") + 11,
        "caf": content.find(b"desc") + 12,
    }[kind]
    width = {"aiff": 10, "au": 4, "flac": 2, "ogg": 4, "caf": 8}[kind]
    content[at : at + width] = bytes(width)
    if kind == "flac":
        content[20] &= 0x0F
    (tmp_path / "b").write_bytes(content)
    assert reason(tmp_path / "b") == "bad_rate"


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "IMA_ADPCM"),
        ("WAV", "MS_ADPCM"),
        ("WAV", "GSM610"),
        ("WAV", "G721_32"),
        ("WAV", "NMS_ADPCM_16"),
        ("W64", "IMA_ADPCM"),
        ("AIFF", "DWVW_16"),
        ("AIFF", "IMA_ADPCM"),
        ("AIFF", "GSM610"),
        ("AU", "G721_32"),
        ("XI", "DPCM_16"),
    ],
)
def test_rare_codecs_are_refused_with_the_way_out(put, noise, reason, tmp_path, format, subtype):
    path = put(tmp_path / "a", noise(1, 44_100), 44_100, subtype, format)
    assert reason(path) == "bad_codec"
    with pytest.raises(Rejected, match=r"ffmpeg -i IN OUT\.flac"):
        audio.read(path)


def test_more_than_the_allowed_length_is_refused(put, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SECONDS", 0.5)
    path = put(tmp_path / "a.wav")
    for segment in [(), (0.25, 0.9)]:
        with pytest.raises(Rejected, match="too_long"):
            audio.read(path, *segment)
    assert len(audio.read(path, 0.25, 0.75)[0]) == 8_000


@pytest.mark.parametrize("kind", ["wav", "mp3"])
def test_a_segment_outside_the_audio_is_refused(put, reason, tmp_path, kind):
    path, nan, inf = put(tmp_path / f"a.{kind}"), float("nan"), float("inf")
    for segment in [(5, 6), (1.5, None), (0.5, 3), (0.6, 0.5), (-1, 0.5), (nan, 1), (0, nan), (inf, inf), (inf, None)]:
        assert reason(path, *segment) == "bad_segment"


def test_a_rounded_end_is_taken_as_the_end(put, take, tmp_path):
    assert len(take(put(tmp_path / "a.wav"), 0.5, 1.05)[0]) == 8_000
