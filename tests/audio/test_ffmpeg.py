"""What libsndfile does not open goes through the ffmpeg command: a real one where it is, a stand-in elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from mmmos import audio
from mmmos.audio import ffmpeg, limits
from mmmos.audio.header import Header
from mmmos.errors import Rejected

M4A = b"\x00\x00\x00\x20ftypM4A " + bytes(500)
real = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in is a script")


def convert(source, target, *options):
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", f"file:{source}", *options, f"file:{target}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this ffmpeg cannot: {done.stderr[-200:]}")
    return target


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a script in the place of ffmpeg, for both ways of decoding."""

    def install(body):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        script = folder / "ffmpeg"
        head = "import json, os, pathlib, struct, sys, time\nout = sys.stdout.buffer\n"
        head += f"pathlib.Path({str(tmp_path / 'arguments')!r}).write_text(json.dumps(sys.argv))\n"
        script.write_text(f"#!{sys.executable}\n{head}{body}")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        audio.isolated.close()
        return tmp_path / "arguments"

    yield install
    audio.isolated.close()


@pytest.mark.parametrize("content", [M4A, b"\x1aE\xdf\xa3" + bytes(500), b"\xff\xf1\x50\x80" + bytes(500)])
def test_without_ffmpeg_the_way_to_install_it_is_named(reason, tmp_path, monkeypatch, content):
    (tmp_path / "a.wav").write_bytes(content)
    monkeypatch.setenv("PATH", str(tmp_path))
    audio.isolated.close()
    assert reason(tmp_path / "a.wav") == "needs_ffmpeg"
    with pytest.raises(Rejected, match=r"apt install ffmpeg.*brew install ffmpeg.*winget install ffmpeg"):
        audio.read(tmp_path / "a.wav")
    audio.isolated.close()


@real
@pytest.mark.parametrize(
    ("name", "container", "options"),
    [
        ("a.m4a", "mp4", ()),
        ("a.m4a", "mp4", ("-c:a", "alac")),
        ("a.aac", "aac", ()),
        ("a.webm", "matroska", ("-c:a", "libopus")),
        ("a.mkv", "matroska", ("-c:a", "flac")),
        ("a.wma", "asf", ()),
        ("a.avi", "avi", ("-c:a", "pcm_s16le")),
        ("a.wv", "wavpack", ()),
    ],
)
def test_other_formats_are_decoded_at_their_rate_and_channels(put, take, noise, tmp_path, name, container, options):
    wave = put(tmp_path / "plain.wav", noise(2, 48_000, 2), 48_000)
    path = convert(wave, tmp_path / name, *options).rename(tmp_path / "-no name %d.txt")
    samples, rate, measures = take(path)
    assert (rate, measures["channels"], audio.CONTAINERS[int(measures["container"])]) == (48_000, 2, container)
    assert len(samples) == pytest.approx(96_000, abs=5_000)
    assert np.isnan(measures["declared"])
    np.testing.assert_array_equal(take(path, 0.5, 1.25)[0], samples[24_000:60_000])
    with pytest.raises(Rejected, match="bad_segment"):
        take(path, 0.5, 9)
    if options[-1:] in [("alac",), ("flac",), ("pcm_s16le",)] or container == "wavpack":
        np.testing.assert_array_equal(samples, audio.read(wave)[0])


@real
def test_a_cut_m4a_is_refused_with_the_word_of_ffmpeg(put, take, noise, tmp_path):
    path = convert(put(tmp_path / "a.wav", noise(5)), tmp_path / "a.m4a")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Rejected, match="decode_error: ffmpeg: moov atom not found"):
        take(path)


@real
def test_rubbish_behind_a_known_beginning_is_refused(reason, tmp_path):
    for number, magic in enumerate([M4A[:16], b"\x1aE\xdf\xa3", b"OggS", b"wvpk", b"0&\xb2u\x8ef\xcf\x11"]):
        (tmp_path / "a").write_bytes(magic + np.random.default_rng(number).bytes(2_000))
        assert reason(tmp_path / "a") in ("decode_error", "bad_codec", "bad_rate", "no_samples", "too_short")


@real
def test_a_video_without_sound_is_refused(reason, tmp_path):
    path = tmp_path / "a.mkv"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=1:s=64x64", "-c:v", "mpeg4", str(path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this ffmpeg cannot")
    assert reason(path) == "decode_error"


AU = "out.write(struct.pack('>4s5I', b'.snd', 32, 0xFFFFFFFF, 6, {rate}, {channels}) + bytes(8))\n"


@posix
def test_the_command_names_the_file_as_a_file_and_forces_the_container(tmp_path, stand_in):
    said = stand_in(AU.format(rate=8_000, channels=2) + "out.write(struct.pack('>2f', 0.5, 0.25) * 8_000)")
    path = tmp_path / "-i http:%d|x;$(y).wav"
    path.write_bytes(M4A)
    samples, rate = audio.read(path)
    assert rate == 8_000
    np.testing.assert_array_equal(samples, np.full(8_000, 0.375, np.float32))
    arguments = json.loads(said.read_text())[1:]
    assert arguments[arguments.index("-i") + 1] == f"file:{path}"
    assert arguments[arguments.index("-f") + 1] == "mov" and arguments.index("-f") < arguments.index("-i")
    assert arguments[arguments.index("-protocol_whitelist") + 1] == "file,pipe"
    assert "-nostdin" in arguments and arguments[-1] == "pipe:1"


@posix
def test_a_failure_in_the_middle_is_refused_with_its_place(tmp_path, stand_in):
    body = "out.write(struct.pack('>f', 0.5) * 8_000)\nout.flush()\n"
    body += "sys.stderr.write('x' * 70_000 + '\\n[aac @ 0x5555] it broke.\\n')\nsys.exit(3)"
    stand_in(AU.format(rate=8_000, channels=1) + body)
    (tmp_path / "a").write_bytes(M4A)
    with pytest.raises(Rejected, match=r"decode_error: ffmpeg: it broke, after 1\.000 s"):
        audio.read(tmp_path / "a")


@posix
@pytest.mark.parametrize(("rate", "channels", "code"), [(0, 1, "bad_rate"), (8_000, 33, "bad_channels")])
def test_what_ffmpeg_says_is_checked_too(tmp_path, stand_in, rate, channels, code):
    stand_in(AU.format(rate=rate, channels=channels))
    (tmp_path / "a").write_bytes(M4A)
    with pytest.raises(Rejected, match=code):
        audio.read(tmp_path / "a")


@posix
def test_no_more_blocks_are_decoded_than_are_wanted(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(limits, "BLOCK", 1_000)
    stand_in(AU.format(rate=8_000, channels=1) + "out.write(bytes(4 * 4_000))")
    (tmp_path / "a").write_bytes(M4A)
    for last, blocks in [(2_500, 3), (9_000, 4)]:
        with ffmpeg.opened(tmp_path / "a", Header("mp4")) as source:
            found = list(source.blocks(0, last))
        assert [(at, len(block)) for at, block in found] == [(1_000 * at, 1_000) for at in range(blocks)]


@posix
def test_endless_audio_passes_in_blocks_and_ends_with_the_context(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(limits, "BLOCK", 1_000)
    stand_in(AU.format(rate=8_000, channels=1) + "while True: out.write(bytes(4_000))")
    (tmp_path / "a").write_bytes(M4A)
    started = []
    popen = ffmpeg.subprocess.Popen
    monkeypatch.setattr(ffmpeg.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with audio.stream(tmp_path / "a") as clip:
        assert [len(next(clip.blocks)) for _ in range(50)] == [1_000] * 50
    assert started[0].returncode is not None


@posix
def test_ffmpeg_ends_when_the_process_that_all_works_for_is_killed(tmp_path):
    (tmp_path / "a").write_bytes(M4A)
    os.mkfifo(tmp_path / "pid")
    (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 60\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    code = f"""
import os, signal, threading
from mmmos import audio

def end():
    os.write(1, open({str(tmp_path / "pid")!r}, "rb").read())
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=end).start()
with audio.isolated.stream({str(tmp_path / "a")!r}) as clip:
    list(clip.blocks)
"""
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", code], timeout=30, env=environment, capture_output=True, text=True)
    deadline = time.monotonic() + 5
    while alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int(done.stdout))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
