"""Doctor: what is there, what is absent, what is broken, and never a traceback."""

import importlib

import pytest
import soundfile

from mmmos import doctor, registry
from mmmos.errors import SetupError


@pytest.fixture
def broken(monkeypatch):
    """Make the import of a module fail."""
    original = importlib.import_module

    def breaks(name, error):
        def load(module, *rest):
            if module == name:
                raise error
            return original(module, *rest)

        monkeypatch.setattr(importlib, "import_module", load)

    return breaks


def findings():
    table = doctor.examine()
    assert set(table["state"]) <= {"ok", "absent", "broken"}
    assert table["what"].is_unique
    return table.set_index("what")


def test_a_working_machine_is_all_well():
    table = findings()
    wanted = ["python", *doctor.PACKAGES, "device", "decoder", *registry.KINDS, "hub"]
    assert (table.loc[wanted, "state"] == "ok").all()
    assert "melstats" in table.at["encoders", "detail"]
    assert "mp3" in table.at["decoder", "detail"]


@pytest.mark.parametrize("error", [ImportError("undefined symbol\nmore"), OSError("no library"), AttributeError()])
def test_a_broken_package_is_shown_with_its_reason(broken, error):
    broken("sklearn", error)
    row = findings().loc["scikit-learn"]
    assert row["state"] == "broken"
    assert (str(error).splitlines() or ["AttributeError"])[0] in row["detail"]
    assert "\n" not in row["detail"]


def test_a_package_that_breaks_others_is_named(broken, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: name == "torchaudio" or None)
    broken("torchaudio", OSError("libcudart.so.12: cannot open shared object file"))
    row = findings().loc["torchaudio"]
    assert row["state"] == "broken"
    assert "breaks transformers: libcudart" in row["detail"]


def test_checks_that_cannot_be_carried_out_are_findings(monkeypatch):
    def fail(*_):
        raise SetupError("Two packages register the loss 'mse'.")

    monkeypatch.setattr(registry, "names", fail)
    monkeypatch.setattr("mmmos.features.encoders.find_device", fail)
    table = findings()
    assert (table.loc[["device", *registry.KINDS], "state"] == "broken").all()


def test_formats_that_the_decoder_lacks_are_named(monkeypatch):
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "FLAC": "", "OGG": "", "AIFF": ""})
    row = findings().loc["decoder"]
    assert row["state"] == "broken" and row["detail"].startswith("libsndfile lacks MP3; install")


def test_ffmpeg_may_be_absent_and_the_network_off(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    table = findings()
    assert table.at["ffmpeg", "state"] == "absent"
    assert table.at["hub", "detail"].startswith("offline")


def test_weights_that_are_here_are_hashed_and_others_named(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    monkeypatch.setattr(
        doctor.weights,
        "is_here",
        lambda weights, revision: tmp_path if weights.endswith(("wavlm-base", "-plus")) else None,
    )
    table = findings()
    row = table.loc["weights of wavlm-base"]
    assert row["state"] == "ok" and row["detail"] == f"{tmp_path}, SHA-256 ba7816bf8f01"
    row = table.loc["weights of wavlm-base-plus"]
    assert row["state"] == "broken" and "a damaged or another file" in row["detail"]
    assert "muq-large-msd-iter" in table.at["weights", "detail"] and table.at["weights", "state"] == "absent"
