"""M2D: the reference's states, every published layout of checkpoints, and a sentence instead of another model."""

import os
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmos.errors import SetupError
from mmmos.features.encoders import Encoder, cards
from mmmos.features.encoders.catalogue import M2D, M2D_25HZ, M2D_AS_FT_32K, M2D_CLAP_AS_FT
from mmmos.features.encoders.m2d import VisionTransformer, load
from mmmos.features.encoders.m2d_layouts import PUBLISHED, Layout, read_layout

NAME = "m2d_clap_vit_base-80x1001p16x16-240128_AS-FT_enconly"
TINY = Path(__file__).parents[1] / "data" / NAME
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "encoders"
LARGEST = 5e-5


def open_m2d(path=TINY, **options):
    return load(M2D, str(path), "", "cpu", **options)


@pytest.fixture(scope="module")
def m2d():
    return open_m2d()


@pytest.fixture(scope="module")
def reference():
    return np.load(TINY / "reference.npz")


@pytest.fixture
def file(tmp_path):
    """A copy of the checkpoint to spoil."""
    folder = tmp_path / NAME
    folder.mkdir()
    return Path(shutil.copy(TINY / "weights.pth", folder))


def noise(samples, batch=1):
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


def random_state(layout, norm_stats=(-6.5, 4.0)):
    """Weights of one narrow block, by their own names."""
    model, generator = VisionTransformer(layout, 64, 1, 32), torch.Generator().manual_seed(0)
    state = {key: 0.1 * torch.randn(value.shape, generator=generator) for key, value in model.state_dict().items()}
    return state | {"norm_stats": torch.tensor(norm_stats)}


def bare(state):
    return state


def pretrained(state):
    training = ("decoder_embed.weight", "decoder_blocks.0.norm1.weight", "mask_token", "target_blocks.0.norm1.bias")
    training += (
        "target_norm.weight",
        "offline_predictor.weight",
        "logit_scale",
        "audio_proj.sem_blocks.0.mlp.fc1.bias",
    )
    training += ("audio_proj.0.weight", "text_proj.weight", "text_encoder.model.pooler.dense.bias")
    model = state | {key: torch.zeros(1) for key in training}
    return {"model": model, "args": Namespace(lr=3e-4, name="x"), "epoch": 300, "optimizer": {"state": {}}}


def of_runtime(state):
    around = {
        "to_spec.mel_basis": torch.zeros(1),
        "head.weight": torch.zeros(1),
        "head_norm.running_mean": torch.zeros(1),
    }
    return {f"backbone.{key}": value for key, value in state.items()} | around


def fine_tuned(state):
    around = {"module.head.norm.running_mean": torch.zeros(1), "module.head.mlp.mlp.0.weight": torch.zeros(1)}
    return {f"module.ar.runtime.backbone.{key}": value for key, value in state.items()} | around


def written(folder, content):
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "checkpoint-300.pth")
    return folder


def test_states_are_those_of_the_reference(m2d, reference):
    wave = torch.from_numpy(reference["wave"])
    states = m2d.encode(wave)
    assert states.shape == (1, 1, 19, 640) and states.dtype == torch.float32
    assert (states[:, 0] - torch.from_numpy(reference["states"])).abs().max() <= LARGEST
    assert (m2d.logmel(wave) - torch.from_numpy(reference["logmel"])).abs().max() <= 1e-5


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full references are not here")
@pytest.mark.parametrize("length", ["3s", "12s", "0.1s", "10.0s", "10.02s", "25s"])
def test_states_are_those_of_the_full_reference(m2d, length):
    shared = np.load(SHARED / f"{NAME}_ref.npz")
    states = open_m2d(SHARED / NAME).encode(torch.from_numpy(shared[f"wav_{length}"]))[:, 0]
    wanted = torch.from_numpy(shared[f"emb_{length}"])
    assert states.shape == wanted.shape
    assert (states - wanted).abs().max() <= LARGEST


def test_chunks_are_encoded_apart_and_the_last_is_filled_with_zeros(m2d):
    with torch.inference_mode():
        logmel = m2d.logmel(noise(192_000))
        tail = torch.nn.functional.pad(logmel[..., 1001:], (0, 8))
        assert tail.shape[-1] == 13 * 16
        apart = torch.cat([m2d.states(logmel[..., :1001]), m2d.states(tail)], dim=2)
        assert torch.equal(m2d.states(logmel), apart)
        # 993 frames are one more than 62 patches, and less than a chunk.
        assert m2d.states(logmel[..., :993]).shape[2] == 62


SECONDS = (3, 12, 0.1, 10, 10.02, 25)
FRAMES = {
    "80x1001p16x16": (19, 75, 1, 62, 63, 156),
    "80x1001p16x16p32k": (19, 75, 1, 62, 63, 156),
    "80x608p16x16": (19, 76, 1, 63, 63, 157),
    "80x200p16x4": (76, 301, 3, 251, 251, 626),
    "80x608p80x2": (151, 601, 6, 501, 502, 1251),
}


@pytest.mark.parametrize("wrapped", [bare, pretrained, of_runtime, fine_tuned], ids=lambda function: function.__name__)
@pytest.mark.parametrize("layout", FRAMES)
def test_every_layout_of_names_and_keys_is_read(tmp_path, layout, wrapped):
    content = wrapped(random_state(read_layout(layout)))
    m2d = open_m2d(written(tmp_path / f"m2d_vit_base-{layout}-230529", content))
    spec = m2d.spec
    assert spec.rate == (32_000 if "32k" in layout else 16_000)
    assert spec.dim == (64 if "p80x2" in layout else 320)
    assert m2d.encode(noise(spec.minimum)).shape == (1, 1, 1, spec.dim)
    lengths = zip(SECONDS, FRAMES[layout], strict=True) if wrapped is bare else [(0.1, FRAMES[layout][2])]
    for seconds, frames in lengths:
        assert m2d.encode(noise(round(seconds * spec.rate))).shape == (1, 1, frames, spec.dim), seconds
        assert spec.hop * frames == pytest.approx(seconds, abs=0.2)


def test_the_same_weights_are_the_same_model_in_every_layout_of_keys(tmp_path):
    state = random_state(read_layout("80x608p16x16"))
    folders = [
        written(tmp_path / f"{function.__name__}-80x608p16x16", function(state))
        for function in (bare, pretrained, of_runtime, fine_tuned)
    ]
    first, *others = (open_m2d(folder).encode(noise(8000)) for folder in folders)
    assert all(torch.equal(first, other) for other in others)


def test_models_without_norm_stats_have_those_of_2022(tmp_path):
    state = random_state(read_layout("80x608p16x16"), norm_stats=(-7.1, 4.2))
    said = open_m2d(written(tmp_path / "said-80x608p16x16", state)).encode(noise(8000))
    del state["norm_stats"]
    assumed = open_m2d(written(tmp_path / "assumed-80x608p16x16", state)).encode(noise(8000))
    torch.testing.assert_close(assumed, said)


def test_the_spec_says_what_the_checkpoint_is(m2d):
    spec = m2d.spec
    assert isinstance(m2d, Encoder)
    assert (spec.rate, spec.layers, spec.dim, spec.hop, spec.minimum) == (16_000, 1, 640, 0.16, 201)
    assert spec.names() == ("final",)
    assert "non-commercial" in spec.licence


def test_equal_lengths_in_a_batch_are_as_alone(m2d):
    waves = noise(40_000, batch=3)
    alone = torch.cat([m2d.encode(wave[None]) for wave in waves])
    torch.testing.assert_close(m2d.encode(waves), alone, atol=2e-6 * float(alone.abs().max()), rtol=0)


def test_a_wave_gives_the_same_bits_again(m2d):
    assert torch.equal(m2d.encode(noise(40_000)), open_m2d().encode(noise(40_000)))


@pytest.mark.parametrize("level", [0, 1, 1000])
def test_states_are_finite_at_any_level(m2d, level):
    assert torch.isfinite(m2d.encode(level * noise(4000))).all()


def test_bfloat16_is_close(m2d):
    half = open_m2d(precision="bfloat16")
    exact, rounded = m2d.encode(noise(24_000)), half.encode(noise(24_000))
    assert half.spec.precision == "bfloat16" and rounded.dtype == torch.float32
    assert torch.equal(half.logmel(noise(24_000)), m2d.logmel(noise(24_000)))
    error = (rounded - exact).square().mean().sqrt() / exact.std()
    assert 1e-4 < error < 0.03


def test_a_layout_given_counts_more_than_the_name_of_the_folder(m2d, file):
    named = m2d.encode(noise(8000))
    assert torch.equal(open_m2d(file).encode(noise(8000)), named)
    other = file.parent.rename(file.parent.parent / "m2d_vit_base-80x608p16x16-1")
    given = open_m2d(other, layout="80x1001p16x16")
    assert torch.equal(given.encode(noise(8000)), named)
    assert given.spec == replace(m2d.spec, weights=str(other))


def test_the_sample_rate_is_part_of_the_spec(m2d, file):
    wide = open_m2d(file, layout="80x1001p16x16p32k").spec
    assert (wide.rate, wide.hop, wide.minimum) == (32_000, 0.16, 401)
    assert wide.config != m2d.spec.config


def test_a_published_checkpoint_may_lie_in_any_folder(m2d, file):
    other = file.parent.rename(file.parent.parent / "weights")
    with pytest.raises(
        SetupError, match=r"folder 'weights' does not say the layout .* layout = such as '80x608p16x16'"
    ):
        open_m2d(other)
    assert load(M2D_CLAP_AS_FT, str(other), "", "cpu").spec.config == m2d.spec.config


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("80x1001p16x16", Layout(1001, 16, 16, 16_000)),
        ("80x608p16x16p16k", Layout(608, 16, 16, 16_000)),
        ("80x608p16x16p32k", Layout(608, 16, 16, 32_000)),
        ("80x608p80x2", Layout(608, 80, 2, 16_000)),
        ("80x1001p16x16p16kpN", Layout(1001, 16, 16, 16_000)),
        ("80x608p16x16p16kpBpTI", Layout(608, 16, 16, 16_000)),
    ],
)
def test_layouts_are_read(text, layout):
    assert read_layout(text) == layout


@pytest.mark.parametrize(
    "text",
    [
        "80x608",
        "80x608p16",
        "80x608p16x16p48k",
        "64x608p16x16",
        "80x608p0x16",
        "80x8p16x16",
        "80x608p81x16",
        "80x608p16x16x",
        80,
    ],
)
def test_an_unknown_layout_is_refused(file, text):
    with pytest.raises(SetupError, match="There is no M2D layout"):
        open_m2d(file, layout=text)


@pytest.mark.parametrize("text", ["80x608p16x16", "80x200p16x4", "80x1001p80x2", "80x1001p20x16"])
def test_a_layout_that_the_weights_contradict_is_refused(file, text):
    with pytest.raises(SetupError, match="have 310 positions and patches of 16 x 16, by the layout"):
        open_m2d(file.parent.rename(file.parent.parent / f"m2d-{text}-1"))


def test_a_folder_with_an_unknown_layout_is_refused(file):
    with pytest.raises(SetupError, match="no M2D layout '80x608p16x16p48k'"):
        open_m2d(file.parent.rename(file.parent.parent / "m2d_vit_base-80x608p16x16p48k-230529"))


def test_weights_that_no_hub_holds_are_said_where_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    release = f"https://github.com/nttcslab/m2d/releases/download/v0.3.0/{NAME}.zip"
    assert M2D_CLAP_AS_FT.weights == release
    with pytest.raises(SetupError, match=f"mmmos features fetch {release}; or give your own copy with weights = the"):
        load(M2D_CLAP_AS_FT, release, "", "cpu")
    shutil.copytree(TINY, tmp_path / "mmmos" / NAME)
    assert load(M2D_CLAP_AS_FT, release, "", "cpu").spec.rate == 16_000


def test_cards_are_of_the_published_checkpoints():
    family = [card for card in cards() if card.family == "m2d"]
    assert {card.name for card in family} == {"m2d", *PUBLISHED}
    assert not any(card.commercial for card in family)
    assert (M2D_CLAP_AS_FT.rate, M2D_CLAP_AS_FT.layers, M2D_CLAP_AS_FT.dim, M2D_CLAP_AS_FT.hop) == (
        16_000,
        1,
        3840,
        0.16,
    )
    assert (M2D_AS_FT_32K.rate, M2D_AS_FT_32K.minimum) == (32_000, 401)
    assert M2D_25HZ.hop == 0.04


PREFIX = "module.ar.runtime.backbone."


def changed(change):
    def spoil(file):
        state = torch.load(file, weights_only=True)
        torch.save(change(state) or state, file)

    return spoil


def renamed(state):
    state[f"{PREFIX}blocks.0.atn.qkv.weight"] = state.pop(f"{PREFIX}blocks.0.attn.qkv.weight")


def narrowed(state):
    return {key: value[..., :96] if key.endswith("pos_embed") else value for key, value in state.items()}


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def bomb(file):
    torch.save({"model": {}, "args": Bomb(file.parent / "canary")}, file)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            changed(renamed),
            rf"Missing keys: {PREFIX}blocks.0.attn.qkv.weight. Unexpected keys: {PREFIX}blocks.0.atn.qkv.weight",
        ),
        (changed(lambda state: state.update({"surplus": torch.zeros(1)})), "Unexpected keys: surplus"),
        (
            changed(lambda state: state.update({f"{PREFIX}surplus": torch.zeros(1)})),
            "Unexpected keys: module.ar.*surplus",
        ),
        (
            changed(lambda state: state.update({f"{PREFIX}norm.bias": torch.zeros(3)})),
            r"Wrong shapes: .*norm.bias is \(3,\)",
        ),
        (changed(lambda state: state.update({f"{PREFIX}norm.bias": "x"})), "no tensors: norm.bias"),
        (changed(lambda state: state.update({f"{PREFIX}norm_stats": torch.tensor([-7.0, 0.0])})), "positive deviation"),
        (changed(lambda state: state.update({f"{PREFIX}norm_stats": torch.tensor(1.0)})), "norm_stats in"),
        (changed(lambda state: [1]), "holds no dictionary of tensors but list"),
        (changed(lambda state: {"model": [1]}), "need model = a value of type dict"),
        (changed(lambda state: {"model": {}}), "of no M2D. Missing keys: pos_embed"),
        (changed(lambda state: {1: torch.zeros(1)}), "of no M2D. Missing keys: pos_embed"),
        (changed(narrowed), "are 96 wide"),
        (cut, "cannot be loaded"),
        (bomb, "is refused: it holds"),
        (lambda file: file.unlink(), "holds none of"),
        (lambda file: shutil.copy(file, file.with_name("more.pth")), "several files of weights"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_with_the_reason(file, spoil, said):
    spoil(file)
    with pytest.raises(SetupError, match=said) as caught:
        open_m2d(file.parent)
    assert "\n" not in str(caught.value)
    assert not (file.parent / "canary").exists()
