"""A decoding process that crashes, hangs or eats memory costs one clip; it outlives nobody and is shared by nobody."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmmos import audio
from mmmos.audio import child, isolated, worker
from mmmos.errors import Rejected, SetupError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(autouse=True)
def fresh():
    isolated.close()
    yield
    isolated.close()


@pytest.fixture(scope="module")
def clip(put, noise, tmp_path_factory):
    """A file of several blocks."""
    return put(tmp_path_factory.mktemp("clip") / "long.wav", noise(200), subtype="PCM_16")


def decoded(path):
    with isolated.stream(path) as clip:
        return np.concatenate(list(clip.blocks))


def pids():
    return {each.pid for each in isolated._all}


def gone(pid, seconds=5.0):
    """Whether a process ends in time; one that nobody has waited for has ended, too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.02)
    return False


def script(code, *arguments, **options):
    command = [sys.executable, "-c", "from mmmos import audio\nfrom mmmos.audio import isolated\n" + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_one_process_serves_one_clip_after_the_other(put, clip, tmp_path):
    (tmp_path / "bad.wav").write_bytes(bytes(100))
    decoded(clip)
    first = pids()
    for _ in range(3):
        np.testing.assert_array_equal(decoded(clip), audio.read(clip)[0])
        with pytest.raises(Rejected, match="not_audio"):
            decoded(tmp_path / "bad.wav")
    assert pids() == first and len(first) == 1


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT", "SIGTERM"])
def test_a_crash_costs_one_clip_and_is_named(clip, name):
    with pytest.raises(Rejected) as caught, isolated.stream(clip) as opened:
        for _ in opened.blocks:
            os.kill(*pids(), getattr(signal, name))
    assert caught.value.reason == "decoder_crashed" and name in caught.value.detail
    assert not pids()
    np.testing.assert_array_equal(decoded(clip), audio.read(clip)[0])


def test_a_process_killed_between_clips_costs_none(clip):
    decoded(clip)
    (pid,) = pids()
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    np.testing.assert_array_equal(decoded(clip), audio.read(clip)[0])


def test_a_process_killed_at_any_time_costs_at_most_its_clip(clip):
    wanted, random, outcomes = audio.read(clip)[0], np.random.default_rng(0), []
    for _ in range(10):
        decoded(clip)
        (pid,) = pids()
        killer = subprocess.Popen(["sh", "-c", f"sleep {random.uniform(0, 0.02):.4f}; kill -9 {pid}"])
        try:
            np.testing.assert_array_equal(decoded(clip), wanted)
            outcomes.append("whole")
        except Rejected as error:
            outcomes.append(error.reason)
        killer.wait()
    assert set(outcomes) <= {"whole", "decoder_crashed"}


def test_silence_of_the_process_ends_it(clip, monkeypatch):
    decoded(clip)
    monkeypatch.setattr(child, "TIMEOUT", 0.2)
    (pid,) = pids()
    began = time.monotonic()
    with pytest.raises(Rejected) as caught, isolated.stream(clip) as opened:
        for _ in opened.blocks:
            os.kill(pid, signal.SIGSTOP)
    assert caught.value.reason == "decode_timeout" and time.monotonic() - began < 5
    assert gone(pid)
    monkeypatch.undo()
    assert len(decoded(clip)) == 3_200_000


def test_a_slow_reader_is_no_silence(clip, monkeypatch):
    decoded(clip)
    monkeypatch.setattr(child, "TIMEOUT", 0.2)
    with isolated.stream(clip) as opened:
        for _ in opened.blocks:
            time.sleep(0.25)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_clip_that_takes_too_much_memory_is_named(put, clip, monkeypatch):
    monkeypatch.setattr(child, "MEMORY", 2 << 20)
    with pytest.raises(Rejected) as caught:
        decoded(clip)
    assert caught.value.reason == "out_of_memory"
    monkeypatch.undo()
    isolated.close()
    assert len(decoded(clip)) == 3_200_000


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are read from /proc")
def test_the_process_writes_no_files_and_takes_no_keyboard_interrupt(clip):
    decoded(clip)
    (pid,) = pids()
    table = Path(f"/proc/{pid}/limits").read_text().splitlines()
    limits = {line[:25].strip(): line[26:46].strip() for line in table}
    assert limits["Max file size"] == limits["Max core file size"] == "0"
    assert int(limits["Max address space"]) > child.MEMORY
    assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)} == {os.devnull}
    assert os.getpgid(pid) == pid != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    assert len(decoded(clip)) == 3_200_000 and pids() == {pid}


@pytest.mark.parametrize("blocks", [0, 1])
def test_leaving_early_leaves_no_process_at_work(clip, blocks):
    with isolated.stream(clip) as opened:
        for _ in range(blocks):
            next(opened.blocks)
        (pid,) = pids()
    assert gone(pid) and not pids()
    np.testing.assert_array_equal(decoded(clip), audio.read(clip)[0])


@pytest.mark.parametrize("kind", ["mp3", "ogg", "wav"])
def test_the_way_to_a_late_segment_is_no_silence(put, take, noise, tmp_path, kind):
    path, skipped = put(tmp_path / f"a.{kind}", noise(150), format=kind.upper()), []
    with audio.stream(path, 140, 141, skipped=lambda: skipped.append(1)) as clip:
        wanted = np.concatenate(list(clip.blocks))
    assert len(wanted) == 16_000 and len(skipped) == (1 if kind == "wav" else 2)
    np.testing.assert_array_equal(take(path, 140, 141)[0], wanted)


def test_streams_in_several_threads_have_a_process_each(put, noise, tmp_path):
    paths = [put(tmp_path / f"{number}.wav", noise(70 + number, seed=number)) for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for path, samples in zip(paths, pool.map(decoded, paths), strict=True):
            np.testing.assert_array_equal(samples, audio.read(path)[0])
    assert 1 <= len(pids()) <= 4
    with isolated.stream(paths[0]) as one, isolated.stream(paths[1]) as other:
        for mine, yours in zip(one.blocks, other.blocks, strict=True):
            assert not np.array_equal(mine[:1000], yours[:1000])


def test_a_process_ends_with_the_one_that_it_works_for(clip):
    code = (
        "import os, signal, sys\nwith isolated.stream(sys.argv[1]) as clip:\n    if sys.argv[2] == 'idle':\n"
        "        list(clip.blocks)\n    os.write(1, str(*(each.pid for each in isolated._all)).encode())\n"
        "    if sys.argv[3] == 'kill':\n        os.kill(os.getpid(), signal.SIGKILL)\n    sys.exit()\n"
    )
    for state, way in [("idle", "kill"), ("busy", "kill"), ("idle", "exit"), ("busy", "exit")]:
        done = script(code, str(clip), state, way)
        assert gone(int(done.stdout)), (state, way)
        assert done.stderr == ""


def test_a_fork_has_processes_of_its_own(clip):
    code = """
import os, sys
import numpy as np
def run():
    with isolated.stream(sys.argv[1]) as clip:
        return sum(map(len, clip.blocks)), {each.pid for each in isolated._all}
count, mine = run()
with isolated.stream(sys.argv[1]) as clip:
    first = next(clip.blocks)
    pid = os.fork()
    if not pid:
        assert not isolated._all and not isolated._idle
        again, theirs = run()
        assert again == count and not theirs & mine
        isolated.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(first) + sum(map(len, clip.blocks)) == count
assert run() == (count, mine)
pid = os.fork()
if not pid:
    import time; os.close(1); os.close(2); time.sleep(30); os._exit(0)
print(*mine, pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = script(code, str(clip))
    assert done.stderr == ""
    child_pid, fork = map(int, done.stdout.split())
    try:
        assert gone(child_pid)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_it_works_inside_workers_of_joblib(put, tmp_path):
    paths = [str(put(tmp_path / f"{number}.wav")) for number in range(4)]
    code = """
import sys
from joblib import Parallel, delayed
def run(path):
    with isolated.stream(path) as clip:
        return sum(map(len, clip.blocks))
print(sum(Parallel(2)(delayed(run)(path) for path in sys.argv[1:])))
"""
    done = script(code, *paths)
    assert done.stdout.strip() == "64000", done.stderr


def test_a_process_that_cannot_start_is_no_fault_of_the_clip(clip, monkeypatch):
    monkeypatch.setattr(child, "_START", "raise SystemExit('no numpy here') # {}")
    with pytest.raises(SetupError, match="no numpy here"):
        decoded(clip)
    monkeypatch.setattr(child.sys, "executable", "/nowhere/python")
    with pytest.raises(SetupError, match="cannot start"):
        decoded(clip)
    monkeypatch.undo()
    assert len(decoded(clip)) == 3_200_000


def test_nonsense_from_the_process_is_not_believed(clip, monkeypatch):
    for said in ("b'x' * 9", "b'\\x02' + b'\\xff' * 8", "bytes(9)"):
        monkeypatch.setattr(child, "_START", f"import os; os.write(1, {said}); os.read(0, 1) # {{}}")
        with pytest.raises(Rejected, match="decoder_crashed"):
            decoded(clip)
    assert not pids()


def test_a_process_that_ends_before_it_is_asked_is_named(clip):
    decoded(clip)
    (one,) = isolated._all
    os.kill(one.pid, signal.SIGKILL)
    assert gone(one.pid)
    with pytest.raises(Rejected, match=r"decoder_crashed.*SIGKILL"):
        one.ask(clip, None, None)


def test_closing_ends_clips_at_work(clip):
    with isolated.stream(clip) as opened:
        next(opened.blocks)
        (pid,) = pids()
        isolated.close()
        assert gone(pid)
        with pytest.raises(Rejected, match="decoder_crashed"):
            list(opened.blocks)


def test_another_process_s_child_is_left_alone(clip):
    decoded(clip)
    (one,) = isolated._all
    one._owner += 1
    one.end()
    assert one.is_alive() and decoded(clip).shape == (3_200_000,)
    one._owner -= 1


def test_a_system_that_starts_no_more_processes_costs_the_clip(clip, monkeypatch):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(child.subprocess, "Popen", refuse)
    with pytest.raises(Rejected, match=r"decoder_crashed: the decoding process cannot start: Cannot allocate memory"):
        decoded(clip)


def test_in_a_working_folder_that_is_gone_no_other_file_is_taken(clip, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert decoded(clip).shape == (3_200_000,)
    with pytest.raises(Rejected, match="No such file or directory"):
        decoded(clip.name)


def served(path, *segment):
    """What a process answers to one request, the samples joined."""
    ear, mouth = os.pipe()
    waiting = object.__new__(child.Child)
    waiting._poll, waiting._answers = None, os.fdopen(ear, "rb", buffering=0)
    with waiting._answers:
        worker._serve(mouth, str(path), *(segment or (None, None)), str(Path.cwd()))
        os.close(mouth)
        header = waiting.header()
        return header, np.concatenate(list(waiting.blocks())), waiting.measures()


def test_the_answers_to_a_request_are_the_clip(put, tmp_path, monkeypatch):
    path = put(tmp_path / "a.wav")
    with audio.stream(path, 0.25, 0.75) as clip:
        wanted = np.concatenate(list(clip.blocks))
        measures = clip.measures()
    monkeypatch.chdir(tmp_path)
    for name in (path, "a.wav"):
        header, samples, measured = served(name, 0.25, 0.75)
        assert header == (16_000, 1, 0.5)
        np.testing.assert_array_equal(samples, wanted)
        np.testing.assert_array_equal(measured, measures)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "missing: there is no file"),
        (MemoryError(), "out_of_memory: .* takes more memory to decode than a decoder is given"),
        (KeyError("surprise"), "decoder_crashed: the decoder failed: KeyError: 'surprise'"),
    ],
)
def test_what_befalls_a_clip_is_the_answer(tmp_path, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    if error:
        monkeypatch.setattr(worker.streaming, "stream", fail)
    with pytest.raises(Rejected, match=words):
        served(tmp_path / "a.wav")


def test_a_decoder_that_is_long_on_its_way_to_a_segment_is_heard_out():
    """More signs of life than functions may be nested."""
    ear, mouth = os.pipe()
    waiting = object.__new__(child.Child)
    waiting._poll, waiting._answers = None, os.fdopen(ear, "rb", buffering=0)
    alive, header = (worker.MESSAGE.pack(kind, size) for kind, size in ((worker.ALIVE, 0), (worker.HEADER, 24)))
    with waiting._answers, os.fdopen(mouth, "wb") as answers:
        answers.write(alive * 3000 + header + worker.FORMAT.pack(16_000, 2, 1.5))
        answers.flush()
        assert waiting.header() == (16_000, 2, 1.5)


def test_the_process_that_decodes_may_write_no_file(tmp_path):
    code = "from mmmos.audio import worker\nworker._limit(1 << 30)\nopen('out', 'wb', buffering=0).write(b'x')"
    done = script(f"import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{code}", cwd=tmp_path)
    assert done.returncode == 1 and "File too large" in done.stderr
    assert (tmp_path / "out").stat().st_size == 0
