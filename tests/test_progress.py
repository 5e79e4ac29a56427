"""Progress: silent unless shown, on stderr, and never in the way of the items."""

import itertools
import sys
from contextlib import closing

import pytest

from mmmos import progress


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setattr(progress, "_shown", True)
    monkeypatch.setattr(progress, "_DELAY", 0.0)


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
    assert err.splitlines()[0] == "work: 1 of 8"
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
    monkeypatch.setattr(progress, "_in_lines", True)
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


@pytest.mark.parametrize("where", ["silent", "lines", "bar"])
def test_closed_early_it_closes_the_items(shown, monkeypatch, where):
    monkeypatch.setattr(progress, "_shown", where != "silent")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: where == "bar", raising=False)
    closed = []

    def items():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    with closing(progress.track(items(), 9, "work")) as shown:
        next(shown)
    assert closed == [True]
