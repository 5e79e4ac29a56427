"""From the command to a page: what is loaded, what is said, what is left behind."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmmos import app, scoring
from mmmos.app import page
from mmmos.app.subjects import subject_of
from mmmos.ensembles.bundle import read_bundle
from mmmos.errors import SetupError
from mmmos.features.encoders import encoder
from mmmos.features.spec import FeatureSpec

BUNDLE = next((Path(__file__).parents[1] / "data" / "bundles").glob("*/bundle"))


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(BUNDLE)


def test_without_gradio_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'mmmos\[app\]'"):
        app.launch()


def test_the_browser_is_opened_at_the_page_whose_files_are_removed_at_its_end(monkeypatch, capsys):
    opened, folders = [], []

    def start(bundle, port, weights, device, folder):
        folders.append(folder)
        (folder / "upload.wav").touch()
        return f"http://127.0.0.1:{port}/"

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(app, "find_spec", lambda name: True)
    monkeypatch.setattr(app, "_start", start)
    monkeypatch.setattr(app.webbrowser, "open", opened.append)
    monkeypatch.setattr(app.threading, "Event", lambda: SimpleNamespace(wait=interrupted))
    with pytest.raises(KeyboardInterrupt):
        app.launch("mine", port=0)
    app.progress.saved("")
    assert opened[0].startswith("http://127.0.0.1:") and f"The page: {opened[0]}" in capsys.readouterr().err
    assert not folders[0].exists()


def test_a_bundle_of_ones_own_is_served_without_a_notice(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(page, "serve", lambda scorer, subject, **_: subject)
    subject = app._start(BUNDLE, 7860, {}, "cpu", tmp_path)
    assert subject.name == scoring.load(BUNDLE, device="cpu").model.name
    assert subject.warnings == () and capsys.readouterr().err == ""


def test_weights_that_may_not_be_used_commercially_are_named(bundle):
    encoders = [each.model_copy(update={"commercial": False}) for each in bundle.about.encoders]
    about = bundle.about.model_copy(update={"encoders": encoders})
    subject = subject_of(SimpleNamespace(name="x", axes=bundle.axes, about=about), notice="Only a demo.")
    licence = encoders[0].facts.licence
    name = encoders[0].facts.name
    warning = f"Not for commercial use: the weights of {name} are under the licence {licence}."
    assert subject.warnings == ("Only a demo.", warning)


def test_a_published_system_is_its_encoder_and_has_no_reference():
    spec = FeatureSpec("audiobox", encoder("melstats", device="cpu").spec)
    subject = subject_of(SimpleNamespace(name="audiobox", axes=("PQ",), spec=spec))
    assert subject.facts == ("The published melstats (licence: MIT).",) and subject.domains == []
    assert subject_of(SimpleNamespace(name="x", axes=("PQ",))).facts == ()
