"""WavLM: the reference's hidden states, and a sentence instead of another model."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmmos.errors import SetupError
from mmmos.features.encoders import encoder

TINY = Path(__file__).parents[1] / "data" / "wavlm_tiny"


@pytest.fixture(scope="module")
def reference():
    return np.load(TINY / "reference.npz")


@pytest.fixture
def folder(tmp_path):
    """A copy of the checkpoint to spoil."""
    copy = tmp_path / "wavlm"
    shutil.copytree(TINY, copy, ignore=shutil.ignore_patterns("*.npz"))
    return copy


def test_hidden_states_are_those_of_the_reference(wavlm, reference):
    states = wavlm.encode(torch.from_numpy(reference["wave"])).numpy()
    wanted = reference["hidden"].transpose(1, 0, 2, 3)
    assert states.shape == wanted.shape == (1, 4, 149, 48)
    assert np.abs(states - wanted).max() <= 2e-6 * np.abs(wanted).max()


def test_the_spec_says_what_the_checkpoint_is(wavlm):
    spec = wavlm.spec
    assert (spec.rate, spec.layers, spec.dim, spec.hop, spec.minimum) == (16_000, 4, 48, 0.02, 400)
    assert spec.names() == ("0", "1", "2", "3")
    assert wavlm.encode(torch.zeros(1, spec.minimum) + 0.1).shape[2] == 1


def test_equal_lengths_in_a_batch_are_as_alone(wavlm):
    waves = torch.rand(3, 8000, generator=torch.Generator().manual_seed(0)) - 0.5
    alone = torch.cat([wavlm.encode(wave[None]) for wave in waves])
    torch.testing.assert_close(wavlm.encode(waves), alone, atol=2e-6 * float(alone.abs().max()), rtol=0)


def test_input_is_normalised_when_the_checkpoint_says_so(wavlm, folder):
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"do_normalize": True}))
    normalising = encoder("wavlm", weights=str(folder), device="cpu")
    assert normalising.spec.front and not wavlm.spec.front
    wave = torch.rand(1, 4000, generator=torch.Generator().manual_seed(0))
    plain = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-7)
    torch.testing.assert_close(normalising.encode(wave), wavlm.encode(plain))


def test_nothing_that_changes_numbers_is_missing_from_the_spec(wavlm, folder):
    assert encoder("wavlm", weights=str(folder), device="cpu").spec.sha256 == wavlm.spec.sha256
    change(folder, transformers_version="9.9")
    assert encoder("wavlm", weights=str(folder), device="cpu").spec.config == wavlm.spec.config
    change(folder, layer_norm_eps=1e-3)
    assert encoder("wavlm", weights=str(folder), device="cpu").spec.config != wavlm.spec.config


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def without_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer_norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def with_another_tensor(folder):
    tensors = load_file(folder / "model.safetensors") | {"encoder.surplus": torch.zeros(1)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_a_tensor, "missing keys: encoder.layer_norm.weight"),
        (with_another_tensor, "unexpected keys: encoder.surplus"),
        (cut, "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds none of model.safetensors, pytorch_model.bin"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds no JSON object"),
        (lambda folder: change(folder, model_type="hubert"), "is not of a WavLM"),
        (lambda folder: change(folder, hidden_size=64), "cannot be loaded|do not fit"),
        (lambda folder: change(folder, num_hidden_layers=2), "unexpected keys"),
        (lambda folder: change(folder, num_hidden_layers=4), "missing keys"),
        (lambda folder: change(folder, conv_stride="x"), "cannot be loaded"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_with_the_reason(folder, spoil, said):
    spoil(folder)
    with pytest.raises(SetupError, match=said) as caught:
        encoder("wavlm", weights=str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_local_weights_open_no_socket(folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    encoder("wavlm", weights=str(folder), device="cpu")


def test_the_family_has_no_weights_of_its_own():
    with pytest.raises(SetupError, match="needs weights = a hub id or a folder"):
        encoder("wavlm", device="cpu")


def test_published_weights_are_checked_against_their_sha256(folder, monkeypatch):
    from dataclasses import replace

    from mmmos import registry

    card = registry.load("encoders", "wavlm-base-plus")
    loads = {"encoders": replace(card, weights=str(folder))}
    monkeypatch.setattr(registry, "load", lambda kind, _: loads[kind])
    with pytest.raises(SetupError, match="a damaged or another file"):
        encoder("wavlm-base-plus", device="cpu")
    assert encoder("wavlm-base-plus", revision="another one", device="cpu").spec.layers == 4
    loads["encoders"] = replace(card, weights=str(folder), sha256=encoder("x", str(TINY), device="cpu").spec.sha256)
    assert encoder("wavlm-base-plus", device="cpu").spec.licence.startswith("CC-BY-SA-3.0")
    assert encoder("wavlm-base-plus", weights=str(TINY), device="cpu").spec.licence == "see the weights"
