"""Audiobox as a model: the published scores of files, arrays, tensors and its own entries, and what the model says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from mmmos.axes import AXES
from mmmos.errors import SetupError, UsageError
from mmmos.features.encoders.catalogue import AUDIOBOX_AESTHETICS
from mmmos.resampling import resample
from mmmos.scoring.audiobox import audiobox_model
from mmmos.scoring.inputs import Clip
from mmmos.scoring.scorer import Scorer

TINY = Path(__file__).parents[1] / "data" / "audiobox_tiny"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "encoders"


@pytest.fixture(scope="module")
def scorer():
    return Scorer(audiobox_model(TINY), device="cpu")


@pytest.fixture(scope="module")
def fixture():
    """Samples (samples, channels), rate in Hz and scores by axis: 3 s of mono at 16 kHz, 4.2 s of stereo at 44.1."""
    found = np.load(TINY / "reference.npz")
    scores = [dict(zip(found["axes"].tolist(), row, strict=True)) for row in found["scores"]]
    return [(found["wav_0"].T, 16_000, scores[0]), (found["wav_4"].T, int(found["sr_4"]), scores[1])]


def agree(row, wanted):
    assert row["reason"] is None, row["detail"]
    for axis in AXES:
        assert row[axis] == pytest.approx(wanted[axis], abs=1e-5), axis


def test_scores_are_the_published_ones_whatever_form_the_audio_has(scorer, fixture, tmp_path):
    for number, (samples, rate, wanted) in enumerate(fixture):
        path = str(tmp_path / f"{number}.wav")
        soundfile.write(path, samples, rate, subtype="FLOAT")
        agree(scorer(path), wanted)
        agree(scorer(samples, rate), wanted)
        agree(scorer(torch.from_numpy(samples.T), rate), wanted)
        agree(scorer({"path": path}), wanted)
        agree(scorer({"path": torch.from_numpy(samples.T), "sample_rate": rate}), wanted)


def test_a_clip_of_a_file_is_scored_as_if_it_were_alone(scorer, tmp_path):
    samples = np.random.default_rng(0).standard_normal((16_000 * 14, 2)).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "long.wav", samples, 16_000, subtype="FLOAT")
    entry = {"path": str(tmp_path / "long.wav"), "start_time": 2.5, "end_time": 14}
    cut, alone = scorer(entry), scorer(samples[40_000:], 16_000)
    assert [cut[axis] for axis in AXES] == [alone[axis] for axis in AXES]


def test_windows_count_by_the_seconds_that_they_hold(scorer):
    wave = np.random.default_rng(0).standard_normal(16_000 * 23).astype(np.float32) * 0.1
    whole, *parts = (scorer(part, 16_000) for part in (wave, wave[:160_000], wave[160_000:320_000], wave[320_000:]))
    for axis in AXES:
        wanted = sum(part[axis] * seconds for part, seconds in zip(parts, (10, 10, 3), strict=True)) / 23
        assert whole[axis] == pytest.approx(wanted, abs=2e-6)


def test_mixing_before_resampling_is_what_resampling_each_channel_gives(scorer):
    samples = np.random.default_rng(0).standard_normal((44_100 * 3, 2)).astype(np.float32) * 0.1
    channels = [resample(np.ascontiguousarray(one), 44_100, 16_000, "sinc-hann") for one in samples.T]
    one, other = scorer(samples, 44_100), scorer(np.mean(channels, axis=0), 16_000)
    for axis in AXES:
        assert one[axis] == pytest.approx(other[axis], abs=5e-6)


def test_the_model_says_what_it_is(scorer, tmp_path):
    model = scorer.model
    assert (model.name, model.axes) == ("audiobox_tiny", AXES)
    (loaded,) = model.encoders("cpu")
    assert (loaded.spec.window, loaded.spec.hop, loaded.spec.dtype) == (10, 10, "float32")
    assert loaded.spec.encoder == loaded.encoder.spec
    assert len(model.digest) == 64
    row = scorer(np.random.default_rng(0).standard_normal(16_000), 16_000)
    assert [row[f"{axis}_spread"] for axis in AXES] == [None] * 4


def test_another_head_is_another_model(scorer, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(TINY, copy, ignore=shutil.ignore_patterns("*.npz"))
    assert audiobox_model(copy).digest == scorer.model.digest
    config = json.loads((copy / "config.json").read_text())
    config["target_transform"]["PQ"]["mean"] += 1
    (copy / "config.json").write_text(json.dumps(config))
    assert audiobox_model(copy).digest != scorer.model.digest
    state = load_file(TINY / "model.safetensors")
    for changed in ("layer_weights.PQ", "wavlm_model.layer_norm.bias"):
        save_file(state | {changed: state[changed] + 1}, copy / "model.safetensors")
        shutil.copy(TINY / "config.json", copy)
        assert audiobox_model(copy).digest != scorer.model.digest


def test_axes_are_addressed_by_name_not_by_place_in_the_checkpoint(scorer, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(TINY, copy, ignore=shutil.ignore_patterns("*.npz"))
    config = json.loads((copy / "config.json").read_text())
    config["target_transform"] = dict(reversed(config["target_transform"].items()))
    (copy / "config.json").write_text(json.dumps(config))
    wave = np.random.default_rng(0).standard_normal(16_000)
    assert Scorer(audiobox_model(copy), device="cpu")(wave, 16_000).equals(scorer(wave, 16_000))
    state = load_file(copy / "model.safetensors")
    save_file({key.replace(".PQ", ".XY"): value for key, value in state.items()}, copy / "model.safetensors")
    config["target_transform"]["XY"] = config["target_transform"].pop("PQ")
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(SetupError, match=r"copy scores CE, CU, PC, XY; needed are PQ, PC, CE, CU\.$"):
        audiobox_model(copy)


def test_clips_do_not_depend_on_each_other(scorer):
    random = np.random.default_rng(0)
    clips = [
        Clip(str(n), samples=random.standard_normal(round(16_000 * s)) * 0.1, rate=16_000)
        for n, s in enumerate((0.3, 12, 3, 3, 21))
    ]
    alone = {clip.id: next(iter(scorer.stream([clip]))).scores for clip in clips}
    for order in (clips, clips[::-1]):
        assert {score.id: score.scores for score in scorer.stream(order)} == alone


def test_what_the_original_does_otherwise(scorer):
    wave = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
    assert scorer(wave[:1599], 16_000)["reason"] == "too_short"
    against, first = scorer(np.stack([wave, -wave], axis=1), 16_000), scorer(wave, 16_000)
    assert "phase_cancel" in against["flags"]
    assert [against[axis] for axis in AXES] == [first[axis] for axis in AXES]
    assert scorer(wave * np.nan, 16_000)["reason"] == "non_finite"


def test_weights_that_are_not_here_name_the_repository_and_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for weights in (None, "facebook/audiobox-aesthetics"):
        with pytest.raises(SetupError) as caught:
            audiobox_model(weights)
        assert "'facebook/audiobox-aesthetics' are not on this machine" in str(caught.value)
        assert f"mmmos features fetch {AUDIOBOX_AESTHETICS.weights} --revision 9b1dd8e5" in str(caught.value)
    with pytest.raises(UsageError, match="no weights at"):
        audiobox_model(tmp_path / "nothing.pt")


def test_the_published_weights_are_checked(monkeypatch):
    """The hub's name alone means the pinned revision, whose SHA-256 is known."""
    monkeypatch.setattr("mmmos.features.weights.find", lambda weights, revision: TINY)
    with pytest.raises(SetupError, match="the published file has a5a3c241"):
        audiobox_model("facebook/audiobox-aesthetics")
    with pytest.raises(SetupError, match="the published file has a5a3c241"):
        audiobox_model()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_scores_and_leaves_the_heads_alone(scorer, fixture):
    on_gpu = Scorer(audiobox_model(TINY), device="cuda")
    for samples, rate, wanted in fixture:
        agree(on_gpu(samples, rate), wanted)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full fixtures are not here")
@pytest.mark.parametrize("weights", ["hf", "checkpoint.pt"])
def test_all_fixtures_as_files(weights, tmp_path):
    found = np.load(SHARED / "audiobox_tiny_ref.npz")
    scorer, paths = Scorer(audiobox_model(SHARED / "audiobox_tiny" / weights), device="cpu"), []
    for row in range(5):
        paths.append(str(tmp_path / f"{row}.wav"))
        soundfile.write(paths[-1], found[f"wav_{row}"].T, int(found[f"sr_{row}"]), subtype="FLOAT")
    table = scorer(paths)
    wanted = found["scores"][:, [found["axes"].tolist().index(axis) for axis in AXES]]
    assert np.abs(table[list(AXES)].to_numpy(float) - wanted).max() <= 1e-5
