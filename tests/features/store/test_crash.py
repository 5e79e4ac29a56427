"""The store, killed or failed at every call that it makes: what was acknowledged is served, nothing wrong ever is."""

import errno
import hashlib
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from mmmos import files
from mmmos.errors import SetupError, StoreError
from mmmos.features.store import FeatureSet, writing
from mmmos.features.store.compaction import compact
from mmmos.features.store.hashes import Hashes, sign
from mmmos.features.store.index import Index
from mmmos.features.store.upkeep import verify

sys.path.append(str(Path(__file__).parent))
from faults import ERRNOS, SOAK, Calls, count_calls, failing, halve, kill, killed, tear
from stores import FRAMES, SPEC, assert_sound, key, rows

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
REASON = ("too_short", "x", "clip.wav")


# Calls whose failing may cost nothing: of what is only looked at, tidied up or done once more.
MAY_FAIL = (None, "io.open", "read", "readinto", "readall", "unlink", "stat", "close")


def now():
    return Path(__file__).stat()


class Job:
    """Something done to a store: ``clips`` are the parts of those that it may serve, ``rejected`` may be rejected."""

    spec = SPEC
    clips: ClassVar[dict[int, int]]
    rejected: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()

    def begin(self, root):
        """What is there before."""

    def run(self, root, acknowledge):
        raise NotImplementedError

    def part(self, number, part=0):
        parts = self.clips[number]
        return rows(number, part=part, last=part == parts - 1, frames=bool(self.spec.frames))

    def whole(self, number):
        return [self.part(number, part) for part in range(self.clips[number])]


class OneShard(Job):
    spec = FRAMES
    clips: ClassVar = {1: 1, 2: 3}
    rejected = (9,)

    def run(self, root, acknowledge):
        writing.write(root, self.spec, self.whole(1) + self.whole(2), {key(9): REASON})
        for number in (1, 2):
            acknowledge(number)


class ThreeShards(Job):
    clips: ClassVar = {1: 1, 2: 1, 3: 2}

    def run(self, root, acknowledge):
        found = FeatureSet(root, self.spec)
        found.prepare()
        for number in self.clips:
            found.write(self.whole(number))
            acknowledge(number)


class Compaction(Job):
    spec = FRAMES
    clips: ClassVar = {1: 1, 2: 1, 3: 3, 4: 1, 8: 2}
    rejected = (8, 9)
    stored = (1, 2, 3, 4)

    def begin(self, root):
        write = FeatureSet(root, self.spec).write
        write([self.part(1), self.part(3, 0)])
        write([self.part(3, 2), self.part(1)])
        write([self.part(2), self.part(3, 1), self.part(8, 0)], {key(9): REASON})
        write([self.part(4)], {key(8): REASON})

    def run(self, root, acknowledge):
        compact(writing.folder_of(root, self.spec), self.spec.fingerprint)


JOBS = [OneShard, ThreeShards, Compaction]
# A kill between two changes leaves what one before the second leaves.
CHANGES = () if SOAK > 1 else ("open", "write", "replace", "rename", "unlink", "mkdir", "rmdir")
each_kill = pytest.mark.parametrize(
    ("fault", "only"), [(kill, CHANGES), (tear, ("write",))], ids=["before any change", "in a write"]
)
each_job = pytest.mark.parametrize("job", [job() for job in JOBS], ids=[job.__name__ for job in JOBS])


def begun(job, folder):
    """A root and a store in it as it is before the job."""
    folder.mkdir()
    root = folder / "store"
    job.begin(root)
    return root


def check(job, root, acknowledged):
    """After whatever befell: what is served is right, and the job can be finished by the next process."""
    left = [path for path in root.rglob("*") if path.name.endswith(files.TEMPORARY)]
    found = FeatureSet(root, job.spec)
    done = assert_sound(found, job.clips, {*job.stored, *acknowledged}, job.rejected)
    for path in left:
        os.utime(path, (0, 0))
    folder = found.folder
    assert set(left) == set(files.leftovers(folder)) if folder.exists() else not left
    assert not list(root.rglob("*.damaged")) and not found.index.damaged
    if folder.exists():
        assert not [problem for problem in verify(root, full=True) if "spec.json" not in problem]
    found.prepare()
    for number in job.clips:
        if number not in done and number not in job.rejected:
            found.write(job.whole(number))
    compact(folder, job.spec.fingerprint)
    found = FeatureSet(root, job.spec)
    wanted = [number for number in job.clips if number not in job.rejected]
    assert assert_sound(found, job.clips, wanted, job.rejected) == wanted
    assert verify(root, full=True) == []
    assert len(found.index.shards) == 1


@each_job
@each_kill
def test_a_kill_loses_nothing_that_was_acknowledged(job, fault, only, tmp_path):
    at, finished = 0, False
    while not finished:
        at += 1
        root = begun(job, tmp_path / str(at))
        acknowledged, finished = killed(lambda say, root=root: job.run(root, say), root.parent, at, fault, only)
        check(job, root, acknowledged)
        shutil.rmtree(root.parent)
    assert at > (8 if fault is tear else 20) and acknowledged == [
        number for number in job.clips if number not in job.stored + job.rejected
    ]


def fail_at(job, root, at, fault, only=()):
    """Run a job whose ``at``-th call fails.

    Returns what it had acknowledged, its error and the name of the call, None where it came to its end before.
    """
    acknowledged, error = [], None
    with Calls(root.parent, at, fault, only).watched() as calls:
        try:
            job.run(root, acknowledged.append)
        except (SetupError, StoreError) as caught:
            error = caught
    return acknowledged, error, calls.names[at - 1] if calls.count >= at else None


@each_job
def test_any_call_that_fails_is_a_sentence_and_leaves_the_store_whole(job, tmp_path, caplog):
    """Every call fails with every error under soak, with one of them after the other otherwise."""
    caplog.set_level(logging.ERROR)
    at, call = 0, ""
    while call is not None:
        at += 1
        for number in ERRNOS if SOAK > 1 else [ERRNOS[at % len(ERRNOS)]]:
            root = begun(job, tmp_path / f"{at}-{number}")
            acknowledged, error, call = fail_at(job, root, at, failing(number))
            if error is None:
                assert call in MAY_FAIL, call
            else:
                assert os.strerror(number) in str(error) and str(error).endswith(".")
            check(job, root, acknowledged)
            shutil.rmtree(root.parent)


@each_job
def test_writes_and_reads_that_do_half_are_gone_on_with(job, tmp_path):
    at, call = 0, ""
    while call is not None:
        at += 1
        root = begun(job, tmp_path / str(at))
        acknowledged, error, call = fail_at(job, root, at, halve, ("write", "read", "readinto"))
        assert error is None and set(acknowledged) == set(job.clips) - set(job.stored) - set(job.rejected)
        check(job, root, acknowledged)
        shutil.rmtree(root.parent)


@pytest.mark.parametrize("spec", [SPEC, FRAMES], ids=["windows", "frames"])
@pytest.mark.parametrize("number", [*ERRNOS, errno.ENOMEM])
def test_reads_that_fail_are_no_damage_and_nothing_is_missing(spec, number, tmp_path):
    frames = bool(spec.frames)
    for each in (1, 2):
        FeatureSet(tmp_path / "w", spec).write([rows(each, frames=frames)])

    def read():
        found = FeatureSet(tmp_path / "w", spec)
        assert_sound(found, {1: 1, 2: 1, 3: 1}, [1, 2])

    total = count_calls(tmp_path / "w", read)
    assert total >= 12
    for at in range(1, total + 1):
        with Calls(tmp_path / "w", at, failing(number)).watched() as calls:
            try:
                read()
            except (SetupError, StoreError) as error:
                assert f"cannot be read: {os.strerror(number)}." in str(error)
            else:
                assert calls.names[at - 1] in ("close", "stat")
    read()
    assert not list(tmp_path.rglob("*.damaged")) and verify(tmp_path / "w", full=True) == []


def test_one_set_that_failed_to_read_serves_when_the_disk_is_back(tmp_path):
    FeatureSet(tmp_path / "w", SPEC).write([rows(1)])
    found = FeatureSet(tmp_path / "w", SPEC)
    FeatureSet(tmp_path / "w", SPEC).write([rows(2)])
    with Calls(tmp_path / "w").watched() as calls:
        FeatureSet(tmp_path / "w", SPEC)
    for at in range(1, calls.count + 1):
        with Calls(tmp_path / "w", at, failing(errno.EIO)).watched():
            try:
                found.refresh()
            except StoreError as error:
                assert "Input/output error" in str(error)
        assert_sound(found, {1: 1, 2: 1}, [1])
    found.refresh()
    assert_sound(found, {1: 1, 2: 1}, [1, 2])


MARKS = {number: sign(f"/{number}", now()) for number in range(40)}


def contents(number):
    return hashlib.sha256(b"%d" % number).hexdigest()


def remember(folder, numbers):
    """Save the hashes of some files, each in a file of its own, so that in the end they are joined."""
    for number in numbers:
        memory = Hashes(folder)
        memory.add(MARKS[number], now(), contents(number), time.time() + 10)
        memory.save()


def recalled(folder):
    """What is remembered; it is right."""
    found = dict(enumerate(Hashes(folder).look_up(list(MARKS.values()))))
    assert all(content is None or content == contents(number) for number, content in found.items())
    return {number for number, content in found.items() if content is not None}


@each_kill
def test_a_kill_while_hashes_are_saved_loses_no_older_ones(fault, only, tmp_path):
    remember(tmp_path / "before", range(16))
    at, finished = 0, False
    while not finished:
        at += 1
        root = tmp_path / str(at) / "store"
        shutil.copytree(tmp_path / "before", root)

        def job(say, root=root):
            remember(root, [16])
            say(16)

        acknowledged, finished = killed(job, root.parent, at, fault, only)
        assert {*range(16), *acknowledged} <= recalled(root)
        remember(root, [20, 21])
        assert {*range(16), 20, 21} <= recalled(root)
        shutil.rmtree(root.parent)


def test_hashes_that_cannot_be_saved_or_read_are_no_harm(tmp_path):
    """Every call fails with every error under soak, with one of them after the other otherwise."""
    remember(tmp_path / "before", range(16))
    shutil.copytree(tmp_path / "before", tmp_path / "sample" / "store")
    total = count_calls(tmp_path / "sample", lambda: remember(tmp_path / "sample" / "store", [16]))
    for at in range(1, total + 1):
        for number in ERRNOS if SOAK > 1 else [ERRNOS[at % len(ERRNOS)]]:
            root = tmp_path / f"{at}-{number}" / "store"
            shutil.copytree(tmp_path / "before", root)
            with Calls(root.parent, at, failing(number)).watched():
                remember(root, [16])
            recalled(root)
            shutil.rmtree(root.parent)


def mount(folder, size):
    """A file system of some bytes; the test is skipped where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")


@pytest.mark.parametrize("size", [64 << 10, 256 << 10, 1 << 20, 4 << 20][: 3 if SOAK == 1 else None])
@pytest.mark.parametrize("windows", [5, 200])
def test_a_full_disk_is_a_sentence_and_the_job_completes_when_there_is_room(size, windows, tmp_path):
    disk = tmp_path / "disk"
    mount(disk, size)
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (size // 2))
        found, done, error = FeatureSet(disk / "store", SPEC), [], None
        while error is None:
            try:
                found.write([rows(len(done), windows=windows)])
                done.append(len(done))
            except SetupError as caught:
                error = caught
        assert "No space left on device." in str(error) and "MB were to be written" in str(error)
        again = FeatureSet(disk / "store", SPEC)
        assert [key(n) in again for n in (*done, len(done))] == [True] * len(done) + [False]
        if done:
            again.gather([key(number) for number in done])
        assert not list((disk / "store").rglob(f".*{files.TEMPORARY}"))
        with pytest.raises(SetupError, match=r"No space left on device\. It needs room for a second copy\. Nothing is"):
            while True:
                compact(again.folder, SPEC.fingerprint)
                again.write([rows(len(done), windows=windows)])
                done.append(len(done))
        ballast.unlink()
        again.write([rows(len(done), windows=windows)])
        assert verify(disk / "store", full=True) == []
        assert FeatureSet(disk / "store", SPEC).missing([key(number) for number in range(len(done) + 1)]) == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def writer(root, say, numbers):
    """Write clips, one to a shard, and acknowledge each; now and then compact."""
    found = FeatureSet(root, SPEC)
    missing = found.missing([key(number) for number in numbers])
    for number in (next(each for each in numbers if key(each) == wanted) for wanted in missing):
        found.write([rows(number)])
        say(number)
        if number % 7 == 6:
            compact(found.folder, SPEC.fingerprint)


def test_a_writer_killed_at_random_again_and_again_comes_to_its_end(tmp_path):
    """About 25 kills of a writer that goes on where the last one was, times the soak."""
    chance, acknowledged, kills = random.Random(0), set(), 0
    while kills < 25 * SOAK:
        numbers = range(kills, kills + 40)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                writer(tmp_path, lambda number, pipe=writing: os.write(pipe, b"%d\n" % number), numbers)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = [pipe.readline() for _ in range(chance.randrange(3))]
            time.sleep(chance.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            acknowledged |= {int(line) for line in [*said, *pipe] if line}
        kills += 1
        found = FeatureSet(tmp_path, SPEC)
        assert_sound(found, dict.fromkeys(range(kills + 40), 1), acknowledged)
    assert verify(tmp_path, full=True) == [] and len(acknowledged) > 20


EXTRACT = """
import os, sys
import pandas as pd
from mmmos.features.extraction import extract as extraction
from mmmos.features.extraction import settle
from mmmos.features.spec import FeatureRecipe

manifest, encoder = sys.argv[1:]
settle.CHUNK = 2
clips, recipe = pd.read_csv(manifest, index_col=0), FeatureRecipe(encoders=[encoder], dtype="float32")
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            extraction.extract(clips, recipe, store=line.strip(), device="cpu")
        finally:
            os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture
def extractor(fake, make_clips, tmp_path):
    """A process that runs extractions, each in a process of its own, to stores that are named to it."""
    manifest = tmp_path / "clips.csv"
    make_clips(40).to_csv(manifest)
    command = [sys.executable, "-W", "ignore", "-c", EXTRACT, str(manifest), fake.name]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


def test_a_killed_extraction_is_finished_by_the_same_command(extractor, fake, make_clips, tmp_path, monkeypatch):
    """Three kills of an extraction, times the soak; the last run computes exactly what is missing."""
    # Here, as forks of a process with torch in it take their time.
    from mmmos.features.extraction import extract as extraction
    from mmmos.features.extraction import settle
    from mmmos.features.spec import FeatureRecipe

    clips, recipe = make_clips(40), FeatureRecipe(encoders=[fake.name], dtype="float32")
    monkeypatch.setattr(settle, "CHUNK", 2)
    wanted = extraction.extract(clips, recipe, store=tmp_path / "undisturbed", device="cpu")
    fake.calls()
    chance, partly = random.Random(0), 0
    for trial in range(SOAK):
        root = tmp_path / f"store{trial}"
        stored = set()
        for _ in range(3):
            extractor.stdin.write(f"{root}\n")
            extractor.stdin.flush()
            child = int(extractor.stdout.readline())
            end, goal = time.monotonic() + 20, len(stored) + chance.randint(1, 12)
            while time.monotonic() < end and len(stored_keys(root, wanted)) < min(goal, 40):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.01))
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            assert extractor.stdout.readline() == "ended\n"
            now_stored = stored_keys(root, wanted)
            assert stored <= now_stored
            stored = now_stored
        partly += 0 < len(stored) < 40
        fake.calls()
        resumed = extraction.extract(clips, recipe, store=root, device="cpu")
        assert fake.calls() == 40 - len(stored)
        assert resumed.keys == wanted.keys and resumed["FAKE"].raw.tobytes() == wanted["FAKE"].raw.tobytes()
        assert (resumed.status["status"] == "done").all() and verify(root, full=True) == []
        shutil.rmtree(root)
    assert partly


def stored_keys(root, wanted):
    """The keys of the clips that a store has under the one feature set in it."""
    for folder in root.glob("*-*"):
        index = Index(folder, wanted["FAKE"].fingerprint)
        return {each for each, done in zip(wanted.keys, index.done(wanted.keys).tolist(), strict=True) if done}
    return set()
