"""What containers declare, and how far it is believed."""

import io
import shutil
import struct

import numpy as np
import pytest
import soundfile

from mmmos import audio
from mmmos.audio import containers, opening

STREAMED = [0, 0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFF000, 0x7FFFFFFF, 0x80000000]


def shortened(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    return path


@pytest.mark.parametrize("size", STREAMED)
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, None])
@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64"])
def test_a_streamed_wav_is_read_to_its_end(put, take, noise, tmp_path, size, riff, format):
    path = put(tmp_path / "a.wav", noise(1, 16_000, 2), subtype="FLOAT", format=format)
    content = bytearray(path.read_bytes())
    at = content.find(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    if riff is not None:
        content[4:8] = struct.pack("<I", riff)
    if format == "RF64":
        content[20:44] = bytes(24)
    path.write_bytes(content)
    samples, _, measures = take(path)
    np.testing.assert_array_equal(samples, noise(1, 16_000, 2).mean(axis=1))
    assert np.isnan(measures["declared"]) and not measures["cut"]
    np.testing.assert_array_equal(take(path, 0.25, 0.75)[0], samples[4_000:12_000])


def test_a_big_endian_wav_is_read_streamed_or_not(put, take, noise, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(), 16_000, subtype="FLOAT", endian="BIG")
    whole = take(tmp_path / "a.wav")[0]
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.find(b"data") + 4
    content[at : at + 4] = bytes(4)
    (tmp_path / "a.wav").write_bytes(content)
    np.testing.assert_array_equal(take(tmp_path / "a.wav")[0], whole)


def test_an_empty_wav_with_chunks_behind_has_no_samples(put, reason, tmp_path):
    path = put(tmp_path / "a.wav", np.zeros((0, 1)), subtype="PCM_16")
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 40_000) + bytes(40_000))
    assert reason(path) == "no_samples"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_streamed_wav_beyond_4_gb_is_read_to_its_end(put, tmp_path, size):
    path = put(tmp_path / "a.wav", np.zeros((8, 1)), subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.find(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate((5 << 30) + at + 4)
        file.seek((5 << 30) + at + 2)
        file.write(struct.pack("<h", 1 << 14))
    with opening.regular(path) as file:
        header = containers.examine(file)
        with soundfile.SoundFile(opening.View(file, header.prefix, header.offset)) as sound:
            assert sound.frames == 5 << 29
            sound.seek(sound.frames - 1)
            assert sound.read()[0] == 0.5


@pytest.mark.parametrize("kind", ["wav", "rf64", "w64", "aiff", "au", "caf", "mp3", "ogg"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_file_is_decoded_as_far_as_it_goes_and_flagged(put, take, flagged, noise, tmp_path, kind, share):
    path = put(tmp_path / f"a.{kind}", noise(5), format=kind.upper())
    assert not flagged(path)
    whole = audio.read(path)[0]
    samples, _, measures = take(shortened(path, share))
    assert 0.6 * share * 80_000 < len(samples) < 1.1 * share * 80_000
    assert measures["cut"] and "truncated" in flagged(path)
    np.testing.assert_array_equal(samples[: len(samples) * 9 // 10], whole[: len(samples) * 9 // 10])
    if kind != "ogg":
        assert measures["declared"] == pytest.approx(5) and "frames_mismatch" in flagged(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "DOUBLE", "ULAW"])
def test_a_cut_is_seen_to_the_frame(put, take, noise, tmp_path, subtype):
    whole = put(tmp_path / "a.wav", noise(1, 16_000, 2), subtype=subtype).read_bytes()
    width = {"PCM_U8": 1, "PCM_24": 3, "DOUBLE": 8, "ULAW": 1}[subtype]
    assert not take(tmp_path / "a.wav")[2]["cut"]
    (tmp_path / "a.wav").write_bytes(whole[: -2 * width])
    assert take(tmp_path / "a.wav")[2]["cut"] or soundfile.info(tmp_path / "a.wav").frames == 16_000


def test_a_segment_before_the_cut_is_whole(put, take, flagged, noise, tmp_path):
    path = shortened(put(tmp_path / "a.wav", noise(5)))
    assert "truncated" not in flagged(path, 0, 1)
    assert "truncated" in flagged(path, 1, None)


@pytest.mark.parametrize("kind", ["ogg", "mp3"])
def test_damage_inside_is_flagged_where_samples_are_lost(put, flagged, noise, tmp_path, kind):
    path = put(tmp_path / f"a.{kind}", noise(5), format=kind.upper())
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 900] = np.random.default_rng(1).bytes(900)
    path.write_bytes(content)
    assert "frames_mismatch" in flagged(path)


def test_only_a_tag_declares_the_length_of_an_mp3(put, take, noise, tmp_path):
    path = put(tmp_path / "a.mp3", noise(5))
    assert take(path)[2]["declared"] == pytest.approx(5)
    content = path.read_bytes()
    tagged = b"ID3\x04\0\0" + bytes([0, 0, 16, 0]) + bytes(2048) + content
    (tmp_path / "tagged.mp3").write_bytes(tagged)
    assert take(tmp_path / "tagged.mp3")[2]["declared"] == pytest.approx(5)
    assert not take(tmp_path / "tagged.mp3")[2]["cut"]
    bare = bytearray(content)
    at = max(bare.find(b"Xing"), bare.find(b"Info"))
    bare[at : at + 4] = bytes(4)
    (tmp_path / "bare.mp3").write_bytes(bare)
    measures = take(tmp_path / "bare.mp3")[2]
    assert np.isnan(measures["declared"]) and not measures["cut"]


def test_a_flac_of_unknown_length_is_read_to_its_end(put, take, noise, tmp_path):
    path = put(tmp_path / "a.flac", noise(2))
    whole = audio.read(path)[0]
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    samples, _, measures = take(path)
    np.testing.assert_array_equal(samples, whole)
    assert np.isnan(measures["declared"])
    np.testing.assert_array_equal(take(path, 0.5, 1.5)[0], whole[8_000:24_000])


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64", "rf64"])
def test_the_container_is_measured_and_a_wrong_name_is_seen(put, take, tmp_path, kind):
    path = put(tmp_path / f"a.{kind}", format=kind.upper())
    number = take(path)[2]["container"]
    assert audio.CONTAINERS[int(number)] == kind
    assert not audio.extension_mismatch(path, number)
    assert not audio.extension_mismatch(path, kind)
    for name, wrong in [
        ("a.WAV", kind not in ("wav", "rf64", "w64")),
        ("a.mp3", kind != "mp3"),
        ("a.Flac", kind != "flac"),
        ("a.opus", kind != "ogg"),
        ("a.m4a", True),
        ("a.txt", False),
        ("a", False),
        (".wav", False),
    ]:
        (tmp_path / "other").mkdir(exist_ok=True)
        renamed = shutil.copy(path, tmp_path / "other" / name)
        assert audio.extension_mismatch(renamed, take(renamed)[2]["container"]) == wrong, name
    assert not audio.extension_mismatch("a.mp3", float("nan"))


def test_an_ogg_that_ends_within_the_header_of_a_page_is_cut(put, flagged, noise, tmp_path):
    path = put(tmp_path / "a.ogg", noise(5), format="OGG")
    content = path.read_bytes()
    path.write_bytes(content[: content.rfind(b"OggS") + 10])
    assert "truncated" in flagged(path)


def test_chunks_that_nobody_knows_are_passed_over(put, tmp_path):
    content = put(tmp_path / "a.w64", format="W64").read_bytes()
    strange = b"LIST" + bytes(12) + struct.pack("<Q", 29) + bytes(8)
    header = examined(content[:40] + strange + content[40:])
    assert (header.container, header.seconds, header.cut) == ("w64", 1, False)


VBRI = b"\xff\xfb\x90\x00" + bytes(32) + b"VBRI" + bytes(6) + struct.pack(">2I", 10_000, 40) + bytes(200)


def test_a_vbri_tag_declares_the_length_of_an_mp3(tmp_path):
    header = examined(VBRI)
    assert header.seconds is None and header.cut
    header = examined(VBRI + bytes(10_000))
    assert header.seconds is None and not header.cut


@pytest.mark.parametrize(
    ("content", "container", "seconds"),
    [
        (b"fLaC" + bytes(4), "flac", None),
        (b"OggS" + bytes(20), "ogg", None),
        (b"riff\x2e\x91\xcf\x11" + bytes(60), "w64", None),
        (b"riff\x2e\x91\xcf\x11" + bytes(32) + b"fmt " + bytes(12) + struct.pack("<Q", 1 << 62), "w64", None),
        (b"riff\x2e\x91\xcf\x11" + bytes(32) + (b"junk" + bytes(12) + struct.pack("<Q", 24)) * 10_001, "w64", None),
        (b"FORM\0\0\0\0AIFF" + bytes(40), "aiff", None),
        (b"caff\0\1\0\0" + bytes(60), "caf", None),
        (b".snd" + struct.pack(">5I", 24, 0xFFFFFFFF, 3, 16_000, 1) + bytes(40), "au", np.nan),
    ],
    ids=["flac", "ogg", "w64", "w64 of a huge chunk", "w64 of many chunks", "aiff", "caf", "au"],
)
def test_a_header_without_samples_declares_nothing(content, container, seconds):
    header = examined(content)
    assert header.container == container and not header.cut
    np.testing.assert_equal(header.seconds, seconds)


def examined(content):
    """The header of a file of this content, by the reader of its container."""
    file, size = io.BytesIO(content), len(content)
    return containers._examined(file, content[:16], 0, size)


def test_an_aiff_of_a_rate_below_zero_and_speex_are_refused(put, reason, tmp_path):
    content = bytearray(put(tmp_path / "a.aiff", format="AIFF").read_bytes())
    content[content.find(b"COMM") + 16] |= 0x80
    (tmp_path / "a.aiff").write_bytes(content)
    assert reason(tmp_path / "a.aiff") == "bad_rate"
    (tmp_path / "a.spx").write_bytes(b"OggS" + bytes(22) + b"\1\x50Speex   1.2" + bytes(80))
    assert reason(tmp_path / "a.spx") == "bad_codec"


def test_a_streamed_wav_with_a_huge_header_is_left_to_the_decoder(put, tmp_path):
    content = put(tmp_path / "a.wav", subtype="PCM_16").read_bytes()
    at = content.find(b"data")
    large = b"junk" + struct.pack("<I", 1 << 20) + bytes(1 << 20)
    header = examined(content[:at] + large + b"data\xff\xff\xff\xff" + content[at + 8 :])
    assert header.prefix == content[:at] + large + b"data\xff\xff\xff\xff" and np.isnan(header.seconds)


def test_numbers_of_containers_never_change():
    assert audio.CONTAINERS[:10] == ("other", "wav", "rf64", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3")


def test_headers_of_endless_chunks_end(put, reason, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 200_000)
    assert reason(tmp_path / "a.wav") == "decode_error"
    (tmp_path / "b.mp3").write_bytes(b"ID3\x04\0\0\0\0\0\0" * 200_000)
    assert reason(tmp_path / "b.mp3") in ("decode_error", "not_audio")
