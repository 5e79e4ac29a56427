"""A file of scores goes on after a kill: no row is lost, none is of something else, and the end is always the same."""

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mmmos.axes import AXES
from mmmos.errors import SetupError, UsageError
from mmmos.scoring import journal as journals
from mmmos.scoring import resume
from mmmos.scoring.inputs import Clip
from mmmos.scoring.journal import Settings
from mmmos.scoring.score import Score

SETTINGS = Settings("first", "0" * 64, AXES, "jsonl")
CSV = replace(SETTINGS, format="csv")


class Stopped(Exception):
    """What interrupts a run in these tests."""


class FakeScorer:
    """Scores clips by the size of their files, and remembers which; clips named in ``reasons`` have one."""

    def __init__(self, reasons=None, stop=None):
        self.reasons, self.stop, self.asked = reasons or {}, stop, []

    def stream(self, clips):
        for number, clip in enumerate(clips):
            if number == self.stop:
                raise Stopped
            self.asked.append(clip.id)
            if reason := self.reasons.get(clip.id):
                yield Score(clip.id, clip.path, clip.start, clip.end, reason=reason, detail=f"it is {reason}")
            else:
                value = os.stat(clip.path).st_size / 7  # noqa: PTH116
                yield Score(clip.id, clip.path, clip.start, clip.end, 1.0, dict.fromkeys(AXES, value))


@pytest.fixture
def clips(tmp_path):
    """Six clips of files of different sizes, older than any run."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.wav").write_bytes(b"x" * (10 + number))
    wait()
    return [Clip(f"{number}", str(folder / f"{number}.wav")) for number in range(6)]


def wait():
    """Until a file that is written now is later than any written before, whatever the clock's ticks."""
    time.sleep(0.02)


def run(to, clips, settings=SETTINGS, *, overwrite=False, **options):
    """What was asked of the scorer, and what the file then holds; None when nothing was to be done."""
    scorer = FakeScorer(**options)
    with resume.opened(to, settings, clips, overwrite=overwrite) as journal:
        if journal.finished is not None:
            return None
        try:
            rows = [row for row, _ in journal.rows(scorer.stream(journal.missing))]
        except Stopped:
            return scorer.asked
        reasons = [row["reason"] for row in rows if row["reason"]]
        journal.finish({reason: reasons.count(reason) for reason in reasons})
    return scorer.asked


def ids(path):
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def beside(path):
    return sorted(each.name.removeprefix(path.name) for each in path.parent.glob(f"*{path.name}*") if each != path)


@pytest.fixture
def whole(clips, tmp_path):
    """What an undisturbed run leaves."""
    (tmp_path / "undisturbed").mkdir()
    path = tmp_path / "undisturbed" / "scores.jsonl"
    assert run(path, clips) == [clip.id for clip in clips]
    assert beside(path) == [".about.json"]
    return path.read_bytes()


# Going on.


@pytest.mark.parametrize("stop", range(7))
def test_a_run_goes_on_where_it_stopped(clips, whole, tmp_path, stop):
    to = tmp_path / "scores.jsonl"
    run(to, clips, stop=stop)
    assert ids(to) == [clip.id for clip in clips[:stop]]
    assert run(to, clips) == ([clip.id for clip in clips[stop:]] if stop < 6 else None)
    assert to.read_bytes() == whole and beside(to) == [".about.json"]


def test_a_cut_last_line_is_made_again(clips, whole, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips, stop=4)
    for cut in (1, 30):
        to.write_bytes(to.read_bytes()[:-cut])
        assert len(run(to, clips, stop=1)) == 1
    assert run(to, clips) and to.read_bytes() == whole


def test_a_broken_line_costs_its_row_alone(clips, whole, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips, stop=5)
    lines = to.read_bytes().splitlines(keepends=True)
    to.write_bytes(b"".join([lines[0], b"\0" * 50 + b"\n", *lines[2:4], b'["id"]\n']))
    assert run(to, clips) == ["1", "4", "5"] and to.read_bytes() == whole


def test_a_complete_file_is_left_as_it_is(clips, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips, reasons={"2": "not_audio"})
    before = to.stat(), journals.beside(to, "about.json").stat()
    with resume.opened(to, SETTINGS, clips) as journal:
        assert journal.finished["reasons"] == {"not_audio": 1} and journal.finished["rows"] == 6
    after = to.stat(), journals.beside(to, "about.json").stat()
    assert [s.st_mtime_ns for s in before] == [s.st_mtime_ns for s in after]


def test_what_is_left_of_a_run_that_was_killed_at_its_end(clips, whole, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips, stop=6)
    assert run(to, clips) in ([], None) and to.read_bytes() == whole
    assert run(to, clips) is None


def test_inputs_may_be_added_removed_and_reordered(clips, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips[:4], stop=3)
    order = [clips[5], clips[2], clips[0], clips[3]]
    assert run(to, order) == ["5", "3"] and ids(to) == ["5", "2", "0", "3"]
    assert run(to, clips) == ["1", "4"] and ids(to) == list("012345")
    assert run(to, clips[:2]) == [] and ids(to) == ["0", "1"]


def test_rows_of_inputs_that_are_absent_once_are_kept_while_a_run_goes_on(clips, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips, stop=4)
    assert run(to, [clips[5]], stop=0) == []
    assert run(to, clips) == ["4", "5"]


def test_what_may_turn_out_otherwise_is_tried_again_and_what_holds_is_not(clips, whole, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips, reasons={"1": "missing", "3": "encoder_failed", "4": "not_audio"})
    assert run(to, clips) == ["1", "3"]
    assert json.loads(to.read_text().splitlines()[4])["reason"] == "not_audio"
    assert to.read_bytes().splitlines()[:4] == whole.splitlines()[:4]


@pytest.mark.parametrize("how", ["written", "replaced by an older one", "removed"])
def test_a_changed_file_is_scored_again(clips, tmp_path, how):
    to = tmp_path / "scores.jsonl"
    run(to, clips)
    path = Path(clips[2].path)
    if how == "written":
        path.write_bytes(b"x" * 70)
    elif how == "removed":
        path.unlink()
    else:
        (tmp_path / "other").write_bytes(b"x" * 70)
        os.utime(tmp_path / "other", (1, 1))
        (tmp_path / "other").replace(path)
    wait()
    reasons = {"2": "missing"} if how == "removed" else {}
    assert run(to, clips, reasons=reasons) == ["2"]
    row = json.loads(to.read_text().splitlines()[2])
    assert row["PQ"] == (None if reasons else 10.0)
    assert run(to, clips, reasons=reasons) == (["2"] if reasons else None)


def test_a_file_that_changes_between_two_runs_is_never_taken_over_later(clips, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips)
    Path(clips[4].path).write_bytes(b"x" * 70)
    wait()
    assert run(to, clips, stop=0) == []
    assert run(to, clips) == ["4"]


def test_other_times_and_domains_are_other_inputs(clips, tmp_path):
    to = tmp_path / "scores.jsonl"
    same = clips[0]
    first = [same, replace(same, id="a", start=0.5), replace(same, id="b", domain="music"), replace(same, id="c")]
    run(to, first)
    others = [same, replace(same, id="a", start=0.25), replace(same, id="b", domain="speech"), replace(same, id="d")]
    assert run(to, others) == ["a", "b", "d"]


# Other formats.


def test_another_format_is_made_at_the_end_of_a_journal_beside_it(clips, tmp_path):
    to, undisturbed = tmp_path / "scores.csv", tmp_path / "other.csv"
    run(undisturbed, clips, CSV)
    run(to, clips, CSV, stop=3)
    assert not to.exists() and beside(to) == [".about.json", ".partial.jsonl"]
    assert run(to, clips, CSV) == ["3", "4", "5"]
    assert to.read_bytes() == undisturbed.read_bytes() and beside(to) == [".about.json"]
    assert run(to, clips, CSV) is None


def test_its_journal_stays_while_something_may_turn_out_otherwise(clips, tmp_path):
    to = tmp_path / "scores.csv"
    run(to, clips, CSV, reasons={"1": "missing"})
    assert to.read_text().splitlines()[2].endswith("it is missing") and ".partial.jsonl" in beside(to)
    assert run(to, clips, CSV) == ["1"] and beside(to) == [".about.json"]
    assert not to.read_text().splitlines()[2].endswith("it is missing")


def test_a_finished_one_is_not_gone_on_with(clips, tmp_path):
    to = tmp_path / "scores.csv"
    run(to, clips[:4], CSV)
    before = to.read_bytes()
    with pytest.raises(UsageError, match=r"other inputs.*--overwrite"):
        run(to, clips, CSV)
    Path(clips[1].path).write_bytes(b"x")
    wait()
    with pytest.raises(UsageError, match="have changed since"):
        run(to, clips[:4], CSV)
    assert to.read_bytes() == before
    assert len(run(to, clips, CSV, overwrite=True)) == 6


def test_one_that_was_removed_is_made_anew(clips, tmp_path):
    to = tmp_path / "scores.csv"
    run(to, clips, CSV)
    to.unlink()
    assert len(run(to, clips[:2], CSV)) == 2


# What is refused.


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"bundle": "second", "digest": "1" * 64}, "the bundle first instead of second"),
        ({"digest": "1" * 64}, "the bundle first as it was before it changed"),
        ({"segments": 10.0, "hop": 5.0}, "segments none instead of 10.0, hop none instead of 5.0"),
        ({"strict": True}, "strict off instead of on"),
        ({"mmmos": "99"}, "mmmos .* instead of 99"),
        ({"format": "aes"}, "format jsonl instead of aes"),
    ],
)
def test_other_settings_are_refused_and_named(clips, whole, tmp_path, other, words):
    to = tmp_path / "scores.jsonl"
    run(to, clips)
    with pytest.raises(UsageError, match=f"{words}.*--overwrite"):
        run(to, clips, replace(SETTINGS, **other))
    assert to.read_bytes() == whole


def test_a_bundle_under_another_name_is_the_same(clips, tmp_path):
    run(tmp_path / "scores.jsonl", clips)
    assert run(tmp_path / "scores.jsonl", clips, replace(SETTINGS, bundle="copy")) is None


@pytest.mark.parametrize("about", [None, "", "[]", '{"settings": 1, "begun": "x"}'])
@pytest.mark.parametrize("settings", [SETTINGS, CSV])
def test_a_file_of_unknown_making_is_never_overwritten_unasked(clips, tmp_path, about, settings):
    to = tmp_path / "mine"
    to.write_text("mine")
    if about is not None:
        journals.beside(to, "about.json").write_text(about)
    with pytest.raises(UsageError, match="nothing beside it says"):
        run(to, clips, settings)
    assert to.read_text() == "mine"
    assert len(run(to, clips, settings, overwrite=True)) == 6 and to.read_text() != "mine"


def test_overwriting_begins_anew_but_goes_on_where_it_was_interrupted(clips, whole, tmp_path):
    to = tmp_path / "scores.jsonl"
    run(to, clips, replace(SETTINGS, digest="1" * 64), reasons=dict.fromkeys("012345", "not_audio"))
    assert run(to, clips, overwrite=True, stop=2) == ["0", "1"]
    assert run(to, clips, overwrite=True) == ["2", "3", "4", "5"] and to.read_bytes() == whole
    assert run(to, clips, overwrite=True) == list("012345")


def test_places_where_no_file_can_be(clips, tmp_path):
    for to, words in ((tmp_path, "is a folder"), (tmp_path / "a" / "b", "no folder"), (Path(os.devnull), "regular")):
        with pytest.raises(UsageError, match=words):
            run(to, clips)


def test_one_file_is_written_by_one_process(clips, tmp_path):
    to = tmp_path / "scores.jsonl"
    other = f"import mmmos.scoring.journal as j, pathlib\nwith j.locked(pathlib.Path({str(to)!r})): print('held')"
    with journals.locked(to):
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
        assert "Another process is writing" in done.stderr and not done.stdout
    assert not beside(to)
    done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
    assert done.stdout == "held\n", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_a_lock_that_is_removed_while_it_is_waited_for_is_taken_again(tmp_path, monkeypatch):
    import fcntl

    taken, real = [], fcntl.flock

    def flock(descriptor, how):
        real(descriptor, how)
        taken.append(descriptor)
        if len(taken) == 1:
            (tmp_path / "scores.jsonl.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with journals.locked(tmp_path / "scores.jsonl") as lock:
        assert lock.exists() and len(taken) == 2
    assert not lock.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    import fcntl

    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with journals.locked(tmp_path / "scores.jsonl") as lock:
        assert lock.exists()


# Failures.


class Ended(BaseException):
    """Stands for a kill: nothing that a program catches."""


def calls_that_matter(monkeypatch, fail):
    """Call ``fail`` before every call of the system that changes a file, and after it with half of a write done."""
    names = ("write", "fsync", "open", "replace", "unlink", "truncate", "ftruncate", "utime")
    for name in names:
        real = getattr(os, name)

        def call(*arguments, _real=real, _name=name, **options):
            fail(_name, arguments)
            return _real(*arguments, **options)

        monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("settings", [SETTINGS, CSV], ids=["jsonl", "csv"])
def test_a_kill_at_any_call_loses_no_row_and_changes_no_byte(clips, tmp_path, settings):
    """A first run that stops at four of five, then one with the inputs in another order, killed before call n."""
    undisturbed = tmp_path / "undisturbed"
    order = [clips[5], clips[2], clips[0], clips[3], clips[1]]
    run(undisturbed, order, settings)
    for n in range(200):
        folder = tmp_path / f"{n}"
        folder.mkdir()
        to = folder / "scores"
        run(to, clips, settings, stop=4)
        asked: list[str] = []
        if not killed_at(n, lambda to=to, asked=asked: asked.extend(run(to, order, settings))):
            break
        again = run(to, order, settings) or []
        assert len(again) <= 1 and to.read_bytes() == undisturbed.read_bytes(), (n, again)
        assert not set(beside(to)) & {".before", ".partial.jsonl", ".lock"}, n
    assert n > 15


def killed_at(n, work):
    """Whether the work was ended before its n-th call of the system that changes a file."""
    count = 0

    def fail(name, arguments):
        nonlocal count
        count += 1
        if count > n:
            if name == "write" and count == n + 1:
                REAL_WRITE(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            raise Ended

    with pytest.MonkeyPatch.context() as patch:
        calls_that_matter(patch, fail)
        # A kill also keeps what comes later from being tidied up.
        try:
            work()
        except Ended:
            return True
    return False


REAL_WRITE = os.write


@pytest.mark.parametrize("settings", [SETTINGS, CSV], ids=["jsonl", "csv"])
def test_a_full_disk_is_a_sentence_and_costs_nothing(clips, tmp_path, monkeypatch, settings):
    to = tmp_path / "scores"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume.os, "write", full_after(5))
        with pytest.raises(SetupError, match=r"scores cannot be written: No space left on device\. The rows so far"):
            run(to, clips, settings)
    rows = to if settings is SETTINGS else journals.beside(to, "partial.jsonl")
    assert rows.read_bytes().endswith(b"}\n")
    assert 1 <= len(run(to, clips, settings)) < 6


def full_after(n):
    """``os.write`` to a disk that takes n pieces and half of another one."""
    left = n

    def write(descriptor, data):
        nonlocal left
        left -= 1
        if left < -1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return REAL_WRITE(descriptor, bytes(data)[: len(data) // 2] if left == -1 else data)

    return write
