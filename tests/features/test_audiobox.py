"""Audiobox-Aesthetics: the published scores from either layout, and the layer means behind them."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmmos.errors import MmmosError, UsageError
from mmmos.features.encoders import encoder
from mmmos.features.encoders.audiobox import WINDOW
from mmmos.features.encoders.unilm import Shape, even_padding
from mmmos.features.encoders.wavlm_model import Network, Settings, frame_count
from mmmos.testing import check_encoder

TINY = Path(__file__).parents[1] / "data" / "audiobox_tiny"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "encoders"


@pytest.fixture(scope="module")
def reference():
    return np.load(TINY / "reference.npz")


@pytest.fixture(scope="module")
def tiny():
    return encoder("audiobox", weights=str(TINY), device="cpu")


@pytest.fixture
def folder(tmp_path):
    """A copy of the checkpoint to spoil."""
    copy = tmp_path / "audiobox"
    shutil.copytree(TINY, copy, ignore=shutil.ignore_patterns("*.npz"))
    return copy


def agree(scores, reference, row):
    """Scores by axis are the reference's, whose columns have an order of their own."""
    wanted = dict(zip(reference["axes"].tolist(), reference["scores"][row], strict=True))
    assert set(scores) == set(wanted) == {"PQ", "PC", "CE", "CU"}
    for axis, value in wanted.items():
        assert scores[axis] == pytest.approx(value, abs=1e-5), axis


def test_scores_of_mono_audio_are_the_published_ones(tiny, reference):
    agree(tiny.score(reference["wav_0"][0], 16_000), reference, 0)


def test_scores_of_two_channels_at_another_rate_are_the_published_ones(tiny, reference):
    agree(tiny.score(reference["wav_4"].T, int(reference["sr_4"])), reference, 1)


def test_windows_count_by_the_samples_that_they_hold(tiny):
    wave = np.random.default_rng(0).standard_normal(WINDOW + 48_000).astype(np.float32) * 0.1
    first, second, both = tiny.score(wave[:WINDOW], 16_000), tiny.score(wave[WINDOW:], 16_000), tiny.score(wave, 16_000)
    for axis in both:
        assert both[axis] == pytest.approx((first[axis] * WINDOW + second[axis] * 48_000) / len(wave), abs=1e-5)


def test_states_are_those_of_the_frames_that_hold_audio(tiny):
    wave = torch.randn(1, WINDOW, generator=torch.Generator().manual_seed(0)) * 0.1
    assert tiny.encode(wave).shape == (1, 4, 499, 48)
    assert [tiny.encode(wave[:, :samples]).shape[2] for samples in (1, 320, 321, 48_000)] == [1, 1, 2, 150]
    padded = torch.nn.functional.pad(wave[:, :48_000], (0, WINDOW - 48_000))
    # Zeros that are audio are another clip than zeros that are padding.
    assert (tiny.encode(padded)[:, -1, :150] - tiny.encode(wave[:, :48_000])[:, -1]).abs().max() > 0.01


def padded_and_masked(network, waves):
    """States as they are defined: zeros behind the waves up to 10 s, and all frames but those with audio masked."""
    padding = (torch.arange(WINDOW) >= waves.shape[1]).expand(len(waves), -1)
    frames = even_padding(padding, 499)
    with torch.inference_mode():
        states = network(torch.nn.functional.pad(waves, (0, WINDOW - waves.shape[1])), frames)
    return torch.stack(states, 1)[:, :, : int((~frames[0]).sum())]


@pytest.fixture(scope="module")
def exact_network(tiny):
    """The network in float64."""
    return copy.deepcopy(tiny._network).double()


LENGTHS = [1, 9, 10, 319, 320, 321, 399, 400, 401, 641, 5003, 16_000, 48_000, 48_001, 79_999, 80_000, 112_345]
LENGTHS += [159_359, 159_361, 159_680, 159_681, 159_760, 159_761, 159_991, 159_999, 160_000]


@pytest.mark.parametrize("samples", LENGTHS)
def test_states_are_those_of_the_padded_and_masked_window(tiny, exact_network, samples):
    waves = torch.randn(1, samples, generator=torch.Generator().manual_seed(samples)) * 0.3
    wanted = padded_and_masked(exact_network, waves.double())
    with torch.inference_mode():
        exact = torch.stack(exact_network.beginning(waves.double(), wanted.shape[2], WINDOW), 1)
    assert (exact - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    states = tiny.encode(waves)
    assert states.shape == wanted.shape
    assert (states - wanted).abs().max() <= 3e-6 * wanted.abs().max()


def test_waves_of_a_batch_have_statistics_of_their_own(tiny):
    waves = torch.randn(3, 33_000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.3], [1e-3], [10.0]])
    together, alone = tiny.encode(waves), torch.cat([tiny.encode(wave[None]) for wave in waves])
    assert (together - alone).abs().max() <= 2e-6 * alone.abs().max()


@pytest.mark.parametrize("kind", ["silence", "a constant", "a click", "too loud", "hardly any"])
def test_any_audio_before_the_silence_keeps_its_digits(tiny, exact_network, kind):
    noise = torch.randn(1, 30_000, generator=torch.Generator().manual_seed(0))
    click = torch.zeros(1, 30_000)
    click[0, 1234] = 1.0
    kinds = {"silence": 0 * noise, "a constant": 0 * noise + 0.5, "a click": click, "too loud": noise * 1000}
    wave = (kinds | {"hardly any": noise * 1e-6})[kind]
    wanted = padded_and_masked(exact_network, wave.double())
    assert (tiny.encode(wave) - wanted).abs().max() <= 3e-6 * wanted.abs().max()


@pytest.mark.parametrize("group_norm", [True, False])
def test_a_frame_of_silence_is_the_bias_of_the_convolution(group_norm):
    convolutions = ((8, 10, 5), (8, 3, 2))
    settings = Settings(convolutions, True, group_norm, True, False, Shape(1, 16, 2, 16, pos_kernel=4, pos_groups=2))
    torch.manual_seed(0)
    network = Network(settings).eval()
    convolution = network.feature_extractor["conv_layers"][0][0]
    wave, frames = torch.randn(1, 600), 60
    with torch.inference_mode():
        convolution.bias += 3
        padding = torch.arange(int(frame_count(torch.tensor(4000), settings)))[None] >= frames
        wanted = torch.stack(network(torch.nn.functional.pad(wave, (0, 3400)), padding))[:, :, :frames]
        got = torch.stack(network.beginning(wave, frames, 4000))
    assert (got - wanted).abs().max() <= 2e-6 * wanted.abs().max()


def test_the_price_is_that_of_the_audio(tiny, monkeypatch):
    seen = []
    convolve = torch.nn.functional.conv1d

    def watched(input, *rest, **more):
        seen.append(input.shape[-1])
        return convolve(input, *rest, **more)

    monkeypatch.setattr(torch.nn.functional, "conv1d", watched)
    tiny.encode(torch.zeros(1, 32_000))
    assert seen[0] == 32_080
    assert max(seen[1:]) == 6_415


def test_the_spec_says_what_its_windows_are(tiny):
    spec = tiny.spec
    assert (spec.rate, spec.layers, spec.dim, spec.minimum, spec.maximum) == (16_000, 4, 48, 1, WINDOW)
    assert (spec.resampler, spec.front) == ("sinc-hann", "zeros to 10 s, masked")
    with pytest.raises(UsageError, match="takes windows of 160000 samples at most; got 160001"):
        tiny.encode(torch.zeros(1, WINDOW + 1))


def test_the_layout_of_one_file_gives_the_same_scores(tiny, tmp_path):
    config = json.loads((TINY / "config.json").read_text())
    state = {f"model.{key}": value for key, value in load_file(TINY / "model.safetensors").items()}
    transform = config.pop("target_transform")
    torch.save({"state_dict": state, "model_cfg": config, "target_transform": transform}, tmp_path / "checkpoint.pt")
    wave = np.random.default_rng(0).standard_normal(20_000).astype(np.float32) * 0.1
    for weights in (tmp_path, tmp_path / "checkpoint.pt"):
        assert encoder("audiobox", weights=str(weights), device="cpu").score(wave, 16_000) == tiny.score(wave, 16_000)


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def rename(old, new):
    def spoil(folder):
        state = load_file(folder / "model.safetensors")
        save_file({new if key == old else key: value for key, value in state.items()}, folder / "model.safetensors")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            rename("layer_weights.CE", "layer_weights.CX"),
            "Missing keys: layer_weights.CE. Unexpected keys: layer_weigh",
        ),
        (rename("proj_layer.PQ.12.bias", "proj_layer.PQ.13.bias"), "Missing keys: proj_layer.PQ.12.bias"),
        (rename("wavlm_model.layer_norm.bias", "wavlm_model.norm.bias"), "Unexpected keys: norm.bias"),
        (rename("wavlm_model.encoder.pos_conv.0.weight_v", "x"), "no WavLM that can be told from its weights"),
        (lambda folder: change(folder, proj_num_layer=4), "Unexpected keys: proj_layer.CE.10.bias"),
        (lambda folder: change(folder, proj_num_layer="5"), "need proj_num_layer = a value of type int; got '5'"),
        (lambda folder: change(folder, proj_ln=False), "Missing keys|Unexpected keys"),
        (lambda folder: change(folder, proj_act_fn="gelo"), "There is no activation 'gelo'. Did you mean 'gelu'"),
        (lambda folder: change(folder, nth_layer=3), "only heads over the weighted sum of all 4 states"),
        (lambda folder: change(folder, use_weighted_layer_sum=False), "only heads over the weighted sum"),
        (lambda folder: change(folder, target_transform={"CE": {"mean": 5}}), "need std = a value of type"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_with_the_reason(folder, spoil, said):
    spoil(folder)
    with pytest.raises(MmmosError, match=said) as caught:
        encoder("audiobox", weights=str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_on_another_device_it_is_another_with_the_same_scores(tiny):
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (1, 16_000)).astype(np.float32))
    there = tiny.on("cpu:0")
    assert tiny.on("cpu") is tiny and there is not tiny and there.spec == tiny.spec
    assert torch.equal(there.encode(wave), tiny.encode(wave))


def test_the_promises_of_every_encoder_hold():
    check_encoder("audiobox", str(TINY), device="cpu", long=20.0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full fixtures are not here")
@pytest.mark.parametrize("weights", ["hf", "checkpoint.pt"])
def test_all_scores_of_the_reference(weights):
    reference = np.load(SHARED / "audiobox_tiny_ref.npz")
    loaded = encoder("audiobox", weights=str(SHARED / "audiobox_tiny" / weights), device="cpu")
    for row in range(5):
        agree(loaded.score(reference[f"wav_{row}"].T, int(reference[f"sr_{row}"])), reference, row)
    states = loaded.encode(torch.from_numpy(reference["wav_0"])).numpy()[0]
    wanted = reference["win0_hidden"][:150, 0].transpose(2, 0, 1)
    assert np.abs(states - wanted).max() <= 2e-6 * np.abs(wanted).max()
