"""The head of Audiobox-Aesthetics: its formula, and the scores of a checkpoint from stored layers."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from mmmos.axes import AXES
from mmmos.ensembles.heads.inputs import pooled
from mmmos.ensembles.heads.layersum import LayerSum, from_audiobox
from mmmos.ensembles.heads.neural import Batch
from mmmos.ensembles.heads.stack import Chance
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import SetupError
from mmmos.features.encoders import encoder
from mmmos.features.encoders.audiobox import Heads, HeadSettings
from mmmos.features.extraction.extract import extract
from mmmos.features.pooling import split
from mmmos.features.spec import FeatureRecipe

TINY = Path(__file__).parents[1] / "data" / "audiobox_tiny"
RATE = 16_000


def noise(samples, seed=0):
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) * np.float32(0.1)


# --- scores of a checkpoint -------------------------------------------------------------------------------------------


def from_pooled_layers(weights, wave, store=lambda raw: raw):
    """Scores by axis of a wave of at most 10 s by the copied head."""
    head, (mean, deviation) = from_audiobox(str(weights))
    states = encoder("audiobox", str(weights), device="cpu").encode(torch.from_numpy(wave)[None])
    layers = store(states.mean(2).numpy())
    return dict(zip(AXES, head.predict([layers])[0] * deviation + mean, strict=True))


def close(found, wanted, tolerance):
    assert set(found) == set(wanted) == set(AXES)
    for axis in AXES:
        assert found[axis] == pytest.approx(wanted[axis], abs=tolerance), axis


@pytest.mark.parametrize("samples", [1, 3 * RATE, 10 * RATE])
def test_a_copied_head_gives_the_published_scores_from_pooled_layers(samples):
    wave = noise(samples)
    wanted = encoder("audiobox", str(TINY), device="cpu").score(wave, RATE)
    close(from_pooled_layers(TINY, wave), wanted, 1e-5)

    def stored(raw):
        unit, norm = split(raw, "float16")
        return unit.astype(np.float32) * norm[..., None]

    close(from_pooled_layers(TINY, wave, stored), wanted, 5e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 5e-3)])
def test_a_copied_head_gives_the_published_scores_of_long_clips_from_the_store(dtype, tolerance, tmp_path):
    waves = {"short": noise(2 * RATE, 1), "long": noise(23 * RATE + 777, 2), "whole": noise(20 * RATE, 3)}
    for name, wave in waves.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE, subtype="FLOAT")
    clips = pd.DataFrame({"path": [str(tmp_path / f"{name}.wav") for name in waves]}, index=pd.Index(waves, name="id"))
    recipe = FeatureRecipe.model_validate(
        {"encoders": [{"encoder": "audiobox", "weights": str(TINY), "name": "abx"}], "dtype": dtype}
    )
    features = extract(clips, recipe, store=tmp_path / "features", device="cpu")
    spec = HeadSpec(head="layersum", features=("abx",), normalise="raw", samples="windows")
    windows = pooled(spec, features)
    assert len(windows.blocks[0]) == 6
    head, (mean, deviation) = from_audiobox(str(TINY))
    scores = windows.means(head.predict(windows.blocks)) * deviation + mean
    published = encoder("audiobox", str(TINY), device="cpu")
    for row, name in enumerate(features.ids):
        close(dict(zip(AXES, scores[row], strict=True)), published.score(waves[name], RATE), tolerance)


def spoiled(folder, settings, keys):
    """A copy of the checkpoint with other settings and other heads."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.npz"))
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in state.items() if name.startswith("wavlm_model.")}
    save_file(kept | keys, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("depth", "norm", "activation", "unit"),
    [(1, True, "gelu", True), (2, False, "relu", True), (3, True, "tanh", False), (3, False, "swish", True)],
)
def test_every_kind_of_published_head_is_copied(depth, norm, activation, unit, tmp_path):
    scales = (("CE", 5.0, 2.0), ("CU", 6.0, 1.5), ("PC", 3.0, 1.8), ("PQ", 6.5, 1.4))
    heads = Heads(HeadSettings(depth, 4, norm, activation, False, unit, scales), 48)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    settings = {
        "proj_num_layer": depth,
        "proj_ln": norm,
        "proj_act_fn": activation,
        "normalize_embed": unit,
        "target_transform": {axis: {"mean": mean, "std": deviation} for axis, mean, deviation in scales},
    }
    weights = spoiled(tmp_path / "other", settings, heads.state_dict())
    wave = noise(2 * RATE, 4)
    published = encoder("audiobox", str(weights), device="cpu").score(wave, RATE)
    assert len({round(value, 3) for value in published.values()}) == 4
    close(from_pooled_layers(weights, wave), published, 1e-5)


def test_means_and_deviations_go_by_the_names_of_axes():
    transform = json.loads((TINY / "config.json").read_text())["target_transform"]
    _, scale = from_audiobox(str(TINY))
    assert scale.tolist() == [[transform[axis][part] for axis in AXES] for part in ("mean", "std")]


def test_a_checkpoint_of_other_axes_is_refused(tmp_path):
    scales = (("CE", 5.0, 2.0), ("MOS", 3.0, 1.0))
    heads = Heads(HeadSettings(1, 4, True, "gelu", False, True, scales), 48)
    transform = {axis: {"mean": mean, "std": deviation} for axis, mean, deviation in scales}
    weights = spoiled(
        tmp_path / "other", {"proj_num_layer": 1, "target_transform": transform}, dict(heads.state_dict())
    )
    with pytest.raises(SetupError, match="scores CE, MOS; needed are PQ, PC, CE, CU"):
        from_audiobox(str(weights))


# --- the formula ------------------------------------------------------------------------------------------------------


def learned(shapes, axes=2, seed=3, **options):
    """A head whose parameters are all random, as if it had been trained."""
    head = LayerSum(options=options)
    module = head.build(shapes, axes, [torch.Generator().manual_seed(seed)])
    generator = torch.Generator().manual_seed(seed)
    parameters = {n: p[0].detach() + torch.randn(p[0].shape, generator=generator) for n, p in module.named_parameters()}
    return head.learned(shapes, axes, parameters)


def transcribed(state, blocks, depth, axis):
    """Audiobox's head with loops: softmax over layers, sum, unit length, (linear, layer norm, GELU)*, linear."""
    state = {name: array.astype(np.float64) for name, array in state.items()}
    unit = []
    for number, block in enumerate(blocks):
        logits = state[f"mix.weights.{number}"][axis]
        weights = np.exp(logits) / np.exp(logits).sum()
        mixed = sum(w * block[:, layer].astype(np.float64) for layer, w in enumerate(weights))
        unit.append(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
    x = np.concatenate(unit, axis=1)
    for layer in range(depth - 1):
        x = x @ state[f"hidden.{layer}.weight"][axis] + state[f"hidden.{layer}.bias"][axis]
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        x = x * state[f"norms.{layer}.weight"][axis] + state[f"norms.{layer}.bias"][axis]
        x = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x @ state["last.weight"][axis] + state["last.bias"][axis]


@pytest.mark.parametrize("hidden", [0, 6])
def test_layersum_is_the_formula_with_several_feature_sets(hidden):
    blocks = [noise(40 * 3 * 5).reshape(40, 3, 5) * 90, noise(40 * 2 * 4, 1).reshape(40, 2, 4)]
    head = learned([(3, 5), (2, 4)], depth=3, hidden=hidden)
    assert head.state()["hidden.1.weight"].shape == (2, hidden or 9, hidden or 9)
    expected = [transcribed(head.state(), blocks, 3, axis)[:, 0] for axis in range(2)]
    assert head.predict(blocks) == pytest.approx(np.stack(expected, axis=1), abs=2e-5)


def test_the_published_sizes_are_the_defaults():
    module = LayerSum(options={}).build([(13, 24)], 4, [torch.Generator()])
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    assert shapes["mix.weights.0"] == (1, 4, 13) and shapes["last.weight"] == (1, 4, 24, 1)
    assert [shapes[f"hidden.{layer}.weight"] for layer in range(4)] == [(1, 4, 24, 24)] * 4
    assert [shapes[f"norms.{layer}.weight"] for layer in range(4)] == [(1, 4, 24)] * 4
    assert not any(name.startswith(("hidden.4", "norms.4")) for name in shapes)


def test_a_restored_head_predicts_the_same_bits():
    blocks = [noise(9 * 3 * 5).reshape(9, 3, 5)]
    head = learned([(3, 5)], depth=3, hidden=7, norm=False)
    state = {name: array.copy() for name, array in head.state().items()}
    again = LayerSum(options={"depth": 3, "hidden": 7, "norm": False}).restore(state)
    assert again.predict(blocks).tobytes() == head.predict(blocks).tobytes()


def test_axes_do_not_touch_each_other():
    head = LayerSum(options={"depth": 2})
    module = head.build([(3, 5)], 3, [torch.Generator().manual_seed(0)])
    module(Batch([torch.from_numpy(noise(60)).view(1, 4, 3, 5)])).outputs[..., 1].sum().backward()
    for name, parameter in module.named_parameters():
        other = [float(parameter.grad[0, axis].abs().sum()) for axis in (0, 2)]
        assert other == [0, 0] and ("mix" in name or float(parameter.grad[0, 1].abs().sum()) > 0), name


def test_outputs_of_a_loss_with_several_numbers_stand_together_by_axis():
    head = LayerSum(options={"depth": 1}, loss="gaussian_nll")
    module = head.build([(2, 4)], 3, [torch.Generator().manual_seed(0)])
    with torch.no_grad():
        module.last.weight.zero_()
        module.last.bias.copy_(torch.arange(6.0).view(1, 3, 2))
    outputs = module(Batch([torch.ones(1, 5, 2, 4)])).outputs
    assert outputs.shape == (1, 5, 6) and outputs[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert head.criterion().scores(outputs)[0, 0].tolist() == [0, 2, 4]


def test_dropout_is_of_training_alone():
    head = LayerSum(options={"depth": 3, "dropout": 0.5})
    module = head.build([(2, 16)], 2, [torch.Generator().manual_seed(0)])
    blocks = [torch.from_numpy(noise(8 * 32)).view(1, 8, 2, 16)]
    quiet = module(Batch(blocks)).outputs
    first, again, other = (module(Batch(blocks, chance=Chance(torch.tensor([1]), step))).outputs for step in (0, 0, 1))
    assert torch.equal(quiet, module(Batch(blocks)).outputs) and torch.equal(first, again)
    assert not torch.equal(first, quiet) and not torch.equal(first, other)


def test_layer_weights_find_the_layer_that_matters():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(1, 400, 4, 6)).astype(np.float32))
    y = x[:, :, 2] @ torch.from_numpy(rng.normal(size=(6, 2)).astype(np.float32))
    head = LayerSum(options={"depth": 2, "hidden": 32})
    module = head.build([(4, 6)], 2, [torch.Generator().manual_seed(0)])
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        head.criterion()(module(Batch([x])).outputs, y).sum().backward()
        optimiser.step()
    assert module.mix.weights[0][0].argmax(-1).tolist() == [2, 2]
    assert float(head.criterion()(module(Batch([x])).outputs.detach(), y)) < 0.5 * float(y.var())
