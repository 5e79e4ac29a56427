"""Progress: silent unless shown, on stderr, and never in the way of the items."""

import itertools
import sys

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
