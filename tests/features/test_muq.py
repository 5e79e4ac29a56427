"""MuQ: the reference's hidden states, and a sentence instead of another model."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmmos.errors import SetupError
from mmmos.features.encoders import Encoder
from mmmos.features.encoders.catalogue import MUQ, MUQ_LARGE_MSD_ITER
from mmmos.features.encoders.muq import load

TINY = Path(__file__).parents[1] / "data" / "muq_tiny"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "encoders"
LARGEST = 2e-5


def open_muq(folder=TINY, **options):
    return load(MUQ, str(folder), "", "cpu", **options)


@pytest.fixture(scope="module")
def muq():
    return open_muq()


@pytest.fixture(scope="module")
def reference():
    return np.load(TINY / "reference.npz")


@pytest.fixture
def folder(tmp_path):
    """A copy of the checkpoint to spoil."""
    copy = tmp_path / "muq"
    shutil.copytree(TINY, copy, ignore=shutil.ignore_patterns("*.npz"))
    return copy


def noise(samples, batch=1):
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


def off(states, hidden):
    """Largest distance from a reference whose last state is the one behind the final layer norm."""
    wanted = torch.from_numpy(hidden).transpose(0, 1)
    assert states.shape[1] == wanted.shape[1] + 1 and states.dtype == torch.float32
    return float((states[:, [0, 1, 2, 4]] - wanted).abs().max())


def test_hidden_states_are_those_of_the_reference(muq, reference):
    states = muq.encode(torch.from_numpy(reference["wave"]))
    assert states.shape == (1, 5, 75, 48)
    assert off(states, reference["hidden"]) <= LARGEST


def test_the_last_but_one_state_is_the_raw_output_of_the_last_block(muq, reference):
    states = muq.encode(torch.from_numpy(reference["wave"]))
    tensors = load_file(TINY / "model.safetensors")
    weight, bias = (tensors[f"model.conformer.layer_norm.{name}"] for name in ("weight", "bias"))
    normed = torch.nn.functional.layer_norm(states[:, 3], (48,), weight, bias)
    torch.testing.assert_close(normed, states[:, 4])
    assert not torch.allclose(states[:, 3], states[:, 4], atol=0.1)


def test_the_model_alone_is_exact_and_the_mel_spectrogram_close(muq, reference):
    mel = torch.from_numpy(reference["mel"])
    with torch.inference_mode():
        # The reference itself is rounded to float32: it is 4e-7 of the largest value away from float64.
        assert off(muq.states(mel), reference["hidden"]) <= 6e-7 * np.abs(reference["hidden"]).max()
        assert (muq.mel(torch.from_numpy(reference["wave"])) - mel).abs().max() <= 1e-3


def test_padding_masks_as_the_reference_does(muq, reference):
    wave = torch.from_numpy(reference["wave_padded"])
    padding = torch.arange(wave.shape[1])[None] >= int(reference["valid"])
    assert off(muq.encode(wave, padding), reference["hidden_padded"]) <= LARGEST
    assert off(muq.encode(wave), reference["hidden_padded"]) > 0.1


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full references are not here")
@pytest.mark.parametrize("length", ["3s", "12s"])
def test_hidden_states_are_those_of_the_full_reference(length):
    shared = np.load(SHARED / "MuQ-tiny_ref.npz")
    states = open_muq(SHARED / "MuQ-tiny").encode(torch.from_numpy(shared[f"wav_{length}"]))
    assert off(states, shared[f"hidden_{length}"]) <= LARGEST


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full references are not here")
def test_a_padded_batch_is_that_of_the_full_reference():
    shared = np.load(SHARED / "MuQ-tiny_ref.npz")
    padding = ~torch.from_numpy(shared["attention_mask"])
    states = open_muq(SHARED / "MuQ-tiny").encode(torch.from_numpy(shared["wav_masked"]), padding)
    assert off(states, shared["hidden_masked"]) <= LARGEST


def test_the_spec_says_what_the_checkpoint_is(muq):
    spec = muq.spec
    assert isinstance(muq, Encoder)
    assert (spec.rate, spec.layers, spec.dim, spec.hop, spec.minimum) == (24_000, 5, 48, 0.04, 1025)
    assert spec.names() == ("0", "1", "2", "3", "final")


@pytest.mark.parametrize(("samples", "frames"), [(1025, 1), (1200, 2), (2048, 2), (23999, 25), (24123, 25)])
def test_frames_follow_the_length(muq, samples, frames):
    assert muq.encode(noise(samples)).shape == (1, 5, frames, 48)


def test_a_label_rate_of_50_gives_twice_the_frames(muq, folder):
    change(folder, label_rate=50)
    finer = open_muq(folder)
    assert finer.spec.hop == 0.02 and finer.spec.config != muq.spec.config
    assert finer.encode(noise(24_000)).shape[2] == 50
    assert finer.encode(noise(finer.spec.minimum)).shape[2] == 2


def test_equal_lengths_in_a_batch_are_as_alone(muq):
    waves = noise(9000, batch=3)
    alone = torch.cat([muq.encode(wave[None]) for wave in waves])
    torch.testing.assert_close(muq.encode(waves), alone, atol=2e-6 * float(alone.abs().max()), rtol=0)


def test_a_wave_gives_the_same_bits_again(muq):
    assert torch.equal(muq.encode(noise(9000)), open_muq().encode(noise(9000)))


@pytest.mark.parametrize("level", [0, 1, 1000])
def test_states_are_finite_at_any_level(muq, level):
    assert torch.isfinite(muq.encode(level * noise(4000))).all()


def test_bfloat16_is_close_and_leaves_the_front_end_alone(muq):
    half = open_muq(precision="bfloat16")
    exact, rounded = muq.encode(noise(24_000)), half.encode(noise(24_000))
    assert half.spec.precision == "bfloat16" and rounded.dtype == torch.float32
    assert torch.equal(rounded[:, 0], exact[:, 0])
    error = (rounded - exact).square().mean().sqrt() / exact.std()
    assert 1e-4 < error < 0.03


def test_a_file_of_torch_holds_the_same_model(muq, folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert torch.equal(open_muq(folder).encode(noise(4000)), muq.encode(noise(4000)))
    assert torch.equal(open_muq(folder / "pytorch_model.bin").encode(noise(4000)), muq.encode(noise(4000)))


def test_what_only_training_needs_may_be_absent(muq, folder):
    tensors = load_file(folder / "model.safetensors")
    used = {key: tensors[key] for key in tensors if key.startswith(("model.conv.", "model.conformer."))}
    used = {key: tensor for key, tensor in used.items() if "pos_conv_embed" not in key}
    assert len(used) < len(tensors)
    save_file(used, folder / "model.safetensors")
    assert torch.equal(open_muq(folder).encode(noise(4000)), muq.encode(noise(4000)))


def test_settings_that_change_numbers_are_in_the_spec_and_others_are_not(muq, folder):
    change(folder, mask_prob=0.1, is_flash=True)
    assert open_muq(folder).spec == replace(muq.spec, weights=str(folder))
    change(folder, stat={"melspec_2048_mean": 6.0, "melspec_2048_std": 18})
    assert open_muq(folder).spec.config != muq.spec.config


def test_cards_say_what_may_not_be_sold():
    assert not MUQ.commercial and not MUQ_LARGE_MSD_ITER.commercial
    assert MUQ_LARGE_MSD_ITER.licence == "CC-BY-NC-4.0"
    assert len(MUQ_LARGE_MSD_ITER.revision) == 40


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_conformer(folder, **entries):
    change(folder, w2v2_config=json.loads((folder / "config.json").read_text())["w2v2_config"] | entries)


def tensors_changed(change):
    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return spoil


def renamed(tensors):
    tensors["model.conv.linaer.weight"] = tensors.pop("model.conv.linear.weight")


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def bomb(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"model.cls_token": Bomb(folder / "canary")}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            tensors_changed(renamed),
            r"Missing keys: model.conv.linear.weight. Unexpected keys: model.conv.linaer.weight",
        ),
        (tensors_changed(lambda t: t.pop("model.conformer.embed_positions.inv_freq")), "Missing keys: model.conformer"),
        (tensors_changed(lambda t: t.update(surplus=torch.zeros(1))), "Unexpected keys: model.surplus"),
        (tensors_changed(lambda t: t.update({"model.conv.linear.bias": torch.zeros(2)})), r"Wrong shapes.* is \(2,\)"),
        (cut, "cannot be loaded"),
        (bomb, "is refused: it holds"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds none of model.safetensors"),
        (lambda folder: change(folder, encoder_depth=2), "Unexpected keys: model.conformer.layers.2"),
        (lambda folder: change(folder, encoder_depth=4), "Missing keys: model.conformer.layers.3"),
        (lambda folder: change(folder, encoder_depth=0), "layers = 0 must lie from 1"),
        (lambda folder: change(folder, encoder_dim=64), "Wrong shapes"),
        (lambda folder: change(folder, encoder_dim=50), "must be an even multiple of heads = 4"),
        (lambda folder: change(folder, encoder_dim="48"), "encoder_dim = a value of type int"),
        (lambda folder: change(folder, encoder_dim=10**12), "must lie from 1 to 16383"),
        (lambda folder: change(folder, conv_dim=[512, 512]), "conv_dim = a value of type int"),
        (lambda folder: change(folder, n_mels=64), "Wrong shapes: model.conv.linear.weight"),
        (lambda folder: change(folder, hop_length=0), "hop_length = 0"),
        (lambda folder: change(folder, label_rate=75), "label_rate = 75 must be 25 or 50"),
        (lambda folder: change(folder, stat={}), "melspec_2048_mean"),
        (lambda folder: change(folder, stat={"melspec_2048_mean": 1, "melspec_2048_std": 0}), "normalise nothing"),
        (lambda folder: change(folder, w2v2_config=None), "w2v2_config = a value of type dict"),
        (lambda folder: change_conformer(folder, num_attention_heads=0), "heads = 0"),
        (lambda folder: change_conformer(folder, num_attention_heads=True), "num_attention_heads"),
        (lambda folder: change_conformer(folder, conv_depthwise_kernel_size=30), "must be odd"),
        (lambda folder: change_conformer(folder, hidden_act="mish"), "'mish' must be one of gelu"),
        (lambda folder: change_conformer(folder, layer_norm_eps=0), "eps of 0.0 must be positive"),
        (lambda folder: change_conformer(folder, position_embeddings_type="relative"), "'relative', not 'rotary'"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_with_the_reason(folder, spoil, said):
    spoil(folder)
    with pytest.raises(SetupError, match=said) as caught:
        open_muq(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "canary").exists()


def test_the_family_has_no_weights_of_its_own():
    with pytest.raises(SetupError, match="needs weights"):
        load(MUQ, "", "", "cpu")
