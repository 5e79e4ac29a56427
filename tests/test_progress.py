"""Progress: silent unless shown, on stderr, and never in the way of the items."""

import itertools
import json
import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from mmmos import cli, progress
from mmmos.errors import UnknownName


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setattr(progress, "_shown", True)
    monkeypatch.setattr(progress, "_form", "bar")
    monkeypatch.setattr(progress, "_DELAY", 0.0)


@pytest.fixture
def json_lines(shown, monkeypatch, capsys):
    """Called, it gives the objects that were written to stderr since the last call."""
    monkeypatch.setattr(progress, "_form", "json")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_the_library_says_nothing(capsys):
    assert list(progress.track(range(3), 3, "work")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_quick_work_says_nothing(capsys):
    progress.show(True)
    try:
        assert list(progress.track(range(3), 3, "work")) == [0, 1, 2]
    finally:
        progress.show(False)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_a_line_comes_every_ten_seconds(shown, capsys, monkeypatch):
    clock = itertools.count(step=4)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track(iter("abcdefgh"), 8, "work")) == list("abcdefgh")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "work: 1 of 8, 15/min, 28 s left"
    assert 1 < len(err.splitlines()) < 5


def test_in_a_terminal_there_is_a_bar_on_stderr(shown, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.track(iter("abc"), 3, "work")) == list("abc")
    assert capsys.readouterr().out == ""


def test_a_bar_inside_another_one_joins_it(shown, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    pairs = [(one, two) for one in progress.track("ab", 2, "outer") for two in progress.track("xy", 2, "inner")]
    assert pairs == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    assert progress._bars is None and capsys.readouterr().out == ""


def test_lines_may_be_asked_for_in_a_terminal(shown, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    monkeypatch.setattr(progress, "_form", "lines")
    assert list(progress.track("ab", 2, "work")) == ["a", "b"]
    assert capsys.readouterr().err == "work: 1 of 2\nwork: 2 of 2\n"


def test_what_is_saved_is_the_last_thing_said():
    assert progress.what_is_saved() == ""
    progress.saved("1 of 3 clips is stored.")
    progress.saved("2 of 3 clips are stored.")
    try:
        assert progress.what_is_saved() == "2 of 3 clips are stored."
    finally:
        progress.saved("")
    assert progress.what_is_saved() == ""


def test_a_bar_that_is_cleared_stays_away(shown, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress.clear()
    for letter in progress.track("abc", 3, "work"):
        if letter == "b":
            progress.clear()
            capsys.readouterr()
    assert letter == "c" and capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize("where", ["silent", "lines", "json", "bar"])
def test_closed_early_it_closes_the_items(shown, monkeypatch, where):
    monkeypatch.setattr(progress, "_shown", where != "silent")
    monkeypatch.setattr(progress, "_form", "json" if where == "json" else "bar")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: where == "bar", raising=False)
    closed = []

    def items():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    with closing(progress.track(items(), 9, "work")) as tracked:
        next(tracked)
    assert closed == [True]


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "words"),
    [
        (12, 300, 3.9, "12 of 300, 3.1/s, 1 min 34 s left"),
        (2000, 100_000, 1.0, "2000 of 100000, 2,000/s, 49 s left"),
        (1, 7201, 1.0, "1 of 7201, 1.0/s, 2 h left"),
        (1, 100, 1800.0, "1 of 100, 2.0/h, 2 d 1 h left"),
        (3, 4, 0.5, "3 of 4"),
        (4, 4, 2.0, "4 of 4, 2.0/s"),
        (5, 0, 2.0, "5, 2.5/s"),
    ],
)
def test_a_line_has_the_rate_and_what_is_left(done, total, elapsed, words):
    assert progress._words(done, total, elapsed) == words


def test_json_lines_begin_end_and_come_every_ten_seconds(json_lines, monkeypatch):
    clock = itertools.count(step=4)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track(iter("abcdefgh"), 8, "work")) == list("abcdefgh")
    lines = json_lines()
    assert [(line["event"], line["done"], line["elapsed_s"]) for line in lines] == [
        ("begin", 0, 0.0),
        *[("progress", done, 4.0 * done) for done in (3, 6)],
        ("end", 8, 36.0),
    ]
    assert {(line["label"], line["total"]) for line in lines} == {("work", 8)}
    assert [line.get("eta_s") for line in lines] == [None, 20.0, 8.0, 0.0]
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert all(abs(datetime.now(UTC) - time) < timedelta(minutes=1) for time in times)


def test_json_lines_say_how_far_a_stage_came_that_was_left(json_lines):
    with pytest.raises(RuntimeError), closing(progress.track(iter("abc"), 0, "work")) as letters:
        for letter in letters:
            if letter == "b":
                raise RuntimeError
    begin, end = json_lines()
    assert (end["event"], end["done"], end["total"]) == ("end", 1, None) and "eta_s" not in begin | end


def test_json_lines_say_nothing_of_a_stage_without_items(json_lines):
    assert [*progress.track([], 0, "work")] == [] and json_lines() == []


def test_other_events_are_told_in_json_lines_alone(json_lines, monkeypatch, capsys):
    progress.tell("throughput", clips=np.int64(3), rate=float("nan"), nested=[{"real_time": np.float32("inf")}])
    (told,) = json_lines()
    del told["time"]
    assert told == {"event": "throughput", "clips": 3, "rate": None, "nested": [{"real_time": None}]}
    monkeypatch.setattr(progress, "_form", "lines")
    progress.tell("throughput", clips=3)
    assert capsys.readouterr() == ("", "")


def test_a_text_is_itself_or_an_object(json_lines, monkeypatch):
    odd = "two\nlines, a bell \a and half a character \udc80"
    line = progress.as_line(odd, "warning")
    assert line.isascii() and "\n" not in line
    assert {"event": "warning", "text": odd}.items() < json.loads(line).items()
    monkeypatch.setattr(progress, "_form", "bar")
    assert progress.as_line(odd, "warning") == odd


@pytest.mark.parametrize("form", ["lines", "json"])
def test_a_reader_who_has_gone_does_not_stop_the_work(form):
    code = f"from mmmos import progress; progress._DELAY = progress._EVERY = 0.0; progress.show({form!r});"
    code += "print(len(list(progress.track('abc', 3, 'work')))); progress.show(False)"
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writer, text=True)
    os.close(writer)
    assert process.stdout == "3\n"


def test_the_form_is_one_of_four():
    assert progress.form() == "none"
    try:
        for form in progress.FORMS:
            progress.show(form)
            assert (progress.form(), progress.is_shown()) == (form, form != "none")
    finally:
        progress.show(False)
    with pytest.raises(UnknownName, match="Did you mean 'json'"):
        progress.show("jsn")


@pytest.mark.parametrize(
    ("line", "form", "rest"),
    [
        ("run", "bar", "run"),
        ("run --quiet", "none", "run"),
        ("-q run --progress none", "none", "run"),
        ("run --progress json --jobs 1", "json", "run --jobs 1"),
        ("--progress=lines run", "lines", "run"),
        ("score --progress json -- --progress lines", "json", "score -- --progress lines"),
        ("score -- --progress=jsn", "bar", "score -- --progress=jsn"),
    ],
)
def test_the_command_line_takes_the_form_wherever_it_stands(line, form, rest):
    arguments = line.split()
    assert (cli._progress(arguments), arguments) == (form, rest.split())


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "run --progress jsn",
            "There is no form of progress 'jsn'. Did you mean 'json'? Known: bar, lines, json, none.",
        ),
        ("run --progress", "There is no form of progress ''. Known: bar, lines, json, none."),
        ("run --progress -- json", "There is no form of progress ''. Known: bar, lines, json, none."),
        ("run -q --progress json", "--quiet shows no progress, --progress json does; give one of them."),
    ],
)
def test_a_form_that_is_none_ends_the_command(line, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert (ended.value.code, *capsys.readouterr()) == (2, "", sentence + "\n")


SPEAKING = """
import logging, os, signal, sys, time, warnings
from mmmos import cli, parallel, progress
def command(*_, **__):
    logging.getLogger("mmmos.part").warning("one clip\\nis short")
    warnings.warn("by another library")
    time.sleep({seconds})
    raise OSError(2, "No such file", "a.wav")
cli.build = lambda: command
progress.saved("3 of 9 are stored.")
if {seconds}:
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
cli.main(["run", "--progress", "json", "--debug"])
"""


@pytest.mark.parametrize("interrupted", [False, True])
def test_with_json_lines_every_line_of_a_command_is_an_object(interrupted):
    code = SPEAKING.format(seconds=60 if interrupted else 0)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    events = {line["event"]: line["text"] for line in said}
    assert said[0]["event"] == said[1]["event"] == "warning"
    assert said[0]["text"] == "one clip\nis short" and "by another library" in said[1]["text"]
    if interrupted:
        assert done.returncode == 143 and events["signal"].startswith("3 of 9 are stored. The same command goes on")
    else:
        assert done.returncode == 5 and events["error"] == "No such file: a.wav."
        assert events["traceback"].startswith("Traceback")
