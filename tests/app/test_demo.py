"""The demo bundle."""

import shutil

import pytest

import mmmos.demo
from mmmos.app import demo
from mmmos.ensembles.bundle import read_bundle


@pytest.fixture
def quick(tiny_workspace, monkeypatch):
    """The corpus is there already, with its features and heads. Counts how often it is asked for."""
    asked = []

    def make_corpus(folder, **_):
        asked.append(folder)
        shutil.copytree(tiny_workspace, folder, dirs_exist_ok=True)
        return folder / "challenge.toml"

    monkeypatch.setattr(mmmos.demo, "make_corpus", make_corpus)
    return asked


def test_it_is_made_once(quick, tmp_path, capsys):
    path = demo.demo_bundle(tmp_path)
    assert demo.demo_bundle(tmp_path) == path
    assert len(quick) == 1
    assert capsys.readouterr().err.count("synthesized") == 1
    about = read_bundle(path).about
    assert about.name == "demo"
    assert set(about.reference[""]) == set(about.axes)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_it_is_whole_or_absent(tmp_path, monkeypatch):
    def fails(workspace):
        (workspace / "half").write_text("")
        raise OSError("disk full")

    monkeypatch.setattr(demo, "_make", fails)
    with pytest.raises(OSError, match="disk full"):
        demo.demo_bundle(tmp_path)
    assert not list(tmp_path.iterdir())


def test_who_comes_second_takes_what_is_there(tmp_path, monkeypatch):
    def beaten(workspace):
        place = tmp_path / demo._version()
        place.mkdir()
        (place / "theirs").write_text("")
        own = workspace / "bundle"
        own.mkdir()
        return own

    monkeypatch.setattr(demo, "_make", beaten)
    assert [each.name for each in demo.demo_bundle(tmp_path).iterdir()] == ["theirs"]
