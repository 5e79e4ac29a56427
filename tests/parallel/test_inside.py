"""Inside a worker: what it is told, and the log that it keeps."""

import logging
import os
import re
import socket
from dataclasses import dataclass
from operator import call, methodcaller
from pathlib import Path

import pytest

import mmmos
from mmmos import parallel, progress
from mmmos.parallel import inside
from mmmos.parallel.inside import Context

log = logging.getLogger("mmmos")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "


@pytest.fixture(autouse=True)
def outside():
    """Every test begins and ends outside of any context."""
    before = log.level, list(log.handlers), progress.form()
    yield
    inside.enter(Context())
    assert (log.level, log.handlers, progress.form()) == before


@dataclass(frozen=True)
class Labelled:
    label: str


def warn(task):
    logging.getLogger("mmmos.features").warning("about %s", task.label)
    log.info("a detail")


def fail(task):
    raise ValueError(f"{task}\nin two lines")


def only_log(folder):
    """The lines of the one log in a folder, without their times."""
    (path,) = folder.iterdir()
    assert path.name == f"{socket.gethostname()}-{os.getpid()}.log"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(re.match(TIME, line) for line in lines)
    return [re.sub(rf"^{TIME}|\d+\.\d+ s", "", line) for line in lines]


def test_a_log_says_who_the_worker_is_and_what_became_of_each_task(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    told = Context(logs=str(tmp_path / "new" / "logs"))
    inside.perform(told, warn, 3, Labelled("32 clips, first a.wav"))
    with pytest.raises(ValueError, match="in two lines"):
        inside.perform(told, fail, 4, 7)
    head, *lines = only_log(tmp_path / "new" / "logs")
    assert f"process {os.getpid()}, mmmos {mmmos.__version__}, Python 3." in head
    assert socket.gethostname() in head and "CUDA_VISIBLE_DEVICES=1" in head
    assert lines == [
        "INFO task 3 begins: 32 clips, first a.wav",
        "WARNING about 32 clips, first a.wav",
        "INFO task 3 ends after ",
        "INFO task 4 begins",
        r"INFO task 4 fails after : ValueError: 7\nin two lines",
    ]


def test_warnings_go_where_they_went_before_too(tmp_path, monkeypatch, capsys, caplog):
    inside.perform(Context(logs=str(tmp_path)), warn, 0, Labelled("x"))
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["about x"] and capsys.readouterr().err == ""
    # As in a worker, where nobody has configured logging.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    inside.perform(Context(logs=str(tmp_path)), warn, 1, Labelled("y"))
    assert capsys.readouterr().err == "about y\n"
    assert [line for line in only_log(tmp_path) if "about" in line] == ["WARNING about x", "WARNING about y"]


def test_each_call_has_its_own_folder_and_later_ones_none(tmp_path):
    for name in ("one", "two", "two"):
        inside.perform(Context(logs=str(tmp_path / name)), call, 0, str)
    inside.perform(Context(), call, 0, str)
    assert [len(only_log(tmp_path / name)) for name in ("one", "two")] == [3, 5]


def test_what_a_context_changes_is_as_it_was_after_it(monkeypatch):
    monkeypatch.setenv("HF_HUB_VERBOSITY", "info")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    read = methodcaller("get", "HF_HUB_OFFLINE")
    told = Context((("HF_HUB_OFFLINE", "1"), ("HF_HUB_VERBOSITY", "error")), progress="json")
    assert inside.perform(told, read, 0, os.environ) == "1"
    assert (progress.form(), os.environ["HF_HUB_VERBOSITY"]) == ("json", "error")
    assert inside.perform(Context(progress="lines"), read, 0, os.environ) is None
    assert (progress.form(), os.environ["HF_HUB_VERBOSITY"]) == ("lines", "info")


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    assert [inside.context(str(tmp_path / "file" / "logs")).logs for _ in range(3)] == [""] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].message.startswith("No logs of the workers are written to ")
    usable = inside.context(str(tmp_path / "logs")).logs
    assert usable == str(tmp_path / "logs") and not list((tmp_path / "logs").iterdir())


def test_a_worker_that_cannot_write_its_log_works_without(tmp_path, caplog):
    (tmp_path / "file").touch()
    told = Context(logs=str(tmp_path / "file"))
    assert [inside.perform(told, abs, number, -1) for number in range(3)] == [1, 1, 1]
    assert len(caplog.records) == 1 and "writes no log" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_log_on_a_full_disk_is_given_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    (tmp_path / f"{socket.gethostname()}-{os.getpid()}.log").symlink_to("/dev/full")
    for number in range(3):
        inside.perform(Context(logs=str(tmp_path)), warn, number, Labelled("x"))
    first, *others = capsys.readouterr().err.splitlines()
    assert first.endswith(".log cannot be written any more.") and others == ["about x"] * 3


@pytest.mark.parametrize(("here", "there"), [("bar", "lines"), ("lines", "lines"), ("json", "json"), ("none", "none")])
def test_workers_are_told_how_to_show_progress(here, there):
    try:
        progress.show(here)
        told = list(parallel.map(call, [progress.form] * 3, jobs=2))
    finally:
        progress.show(False)
    assert told == [there] * 3


def test_each_process_keeps_a_log_of_its_own(tmp_path):
    pids = set(parallel.map(call, [os.getpid] * 8, jobs=parallel.Workers(jobs=2, logs=str(tmp_path))))
    logs = {int(path.stem.rpartition("-")[2]): path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert set(logs) == pids
    assert sorted(re.findall(r"task (\d) begins", "".join(logs.values()))) == sorted("01234567")
