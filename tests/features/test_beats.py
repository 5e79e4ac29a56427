"""BEATs: the reference's hidden states, its variants, and a sentence instead of another model."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmos.errors import MmmosError, SetupError, UsageError
from mmmos.features.encoders import base
from mmmos.features.encoders.beats import Network, load, open_checkpoint, read_settings
from mmmos.features.encoders.catalogue import BEATS, BEATS_ITER3_PLUS, BEATS_ITER3_PLUS_FT

TINY = Path(__file__).parents[1] / "data" / "beats_tiny"
FILE = TINY / "BEATs_tiny.pt"
FULL = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "encoders" / "BEATs_tiny_ref.npz"

# Of the largest state. From a spectrum only the network's arithmetic differs; from a wave the front end's quiet bins do
# too, which hold the rounding of a Fourier transform (MKL's on Intel, where the references are from, is not AMD's).
CLOSE, FROM_WAVES = 2e-6, 2e-5


@pytest.fixture(scope="module")
def beats():
    return load(BEATS, str(FILE), "", "cpu")


@pytest.fixture(scope="module")
def reference():
    return np.load(TINY / "reference.npz")


@pytest.fixture
def found():
    """The tiny checkpoint, to spoil."""
    return torch.load(FILE, weights_only=True)


@pytest.fixture
def reload(tmp_path):
    """Writes a checkpoint and loads it."""

    def write_and_load(found, **options):
        torch.save(found, tmp_path / "model.pt")
        return load(BEATS, str(tmp_path / "model.pt"), "", "cpu", **options)

    return write_and_load


def noise(samples=8000, rows=1, seed=0):
    return torch.rand(rows, samples, generator=torch.Generator().manual_seed(seed)) - 0.5


def distance(found, wanted):
    """Largest difference, relative to the largest number."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def states_of(spectrum, padding=None):
    network, _ = open_checkpoint(FILE)
    with base.exact():
        return torch.stack(network(network.tokens(torch.from_numpy(spectrum)), padding))


def test_states_of_a_spectrum_are_those_of_the_reference(reference):
    assert distance(states_of(reference["fbank_3s"]), reference["hidden_3s"]) <= CLOSE


def test_states_of_a_wave_are_those_of_the_reference(beats, reference):
    states = beats.encode(torch.from_numpy(reference["wav_3s"]))
    assert states.dtype == torch.float32 and states.shape == (1, 4, 144, 48)
    assert distance(states.transpose(0, 1), reference["hidden_3s"]) <= FROM_WAVES


def test_padded_states_are_those_of_the_reference(beats, reference):
    wave, padding = torch.from_numpy(reference["wav_masked"]), torch.from_numpy(reference["pad_mask"])
    wanted = reference["hidden_masked"].transpose(1, 0, 2, 3)
    assert distance(beats.encode(wave, padding), wanted) <= FROM_WAVES
    assert distance(beats.encode(wave), wanted) > 0.01
    # In a batch as alone, whatever the padding of the others.
    both = beats.encode(wave.repeat(2, 1), torch.cat([torch.zeros_like(padding), padding]))
    assert distance(both[1:], wanted) <= FROM_WAVES


@pytest.mark.skipif(not FULL.exists(), reason="the full set of references is not here")
def test_states_of_the_full_reference(beats):
    full = np.load(FULL)
    assert distance(states_of(full["fbank_12s"]), full["hidden_12s"]) <= CLOSE
    for wave, wanted, padding in [
        ("wav_12s", "hidden_12s", None),
        ("wav_masked", "hidden_masked", torch.from_numpy(full["pad_mask"])),
    ]:
        states = beats.encode(torch.from_numpy(full[wave]), padding).transpose(0, 1)
        assert distance(states, full[wanted]) <= FROM_WAVES


def test_the_spec_says_what_the_checkpoint_is(beats):
    spec = beats.spec
    assert (spec.rate, spec.layers, spec.dim, spec.hop, spec.minimum) == (16_000, 4, 48, 0.02, 2800)
    assert spec.names() == ("0", "1", "2", "3") and spec.maximum == 0
    assert "fbank" in spec.front and spec.config and spec.sha256


@pytest.mark.parametrize(("samples", "tokens"), [(2800, 8), (5359, 8), (5360, 16), (48_000, 144)])
def test_a_time_of_16_frames_gives_8_tokens(beats, samples, tokens):
    assert beats.encode(noise(samples)).shape == (1, 4, tokens, 48)


def test_tokens_are_ordered_by_time_then_frequency():
    network, _ = open_checkpoint(FILE)
    spectrum = torch.zeros(1, 48, 128)
    silent = network.tokens(spectrum)
    spectrum[:, 16:32, 96:112] = 1
    changed = (network.tokens(spectrum) != silent).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [1 * 8 + 6]


def test_a_batch_is_its_waves(beats):
    waves = noise(8000, 3)
    alone = torch.cat([beats.encode(wave[None]) for wave in waves])
    assert distance(beats.encode(waves), alone) <= CLOSE


def test_bfloat16_is_near_and_named(beats):
    other = load(BEATS, str(FILE), "", "cpu", precision="bfloat16")
    wanted, states = beats.encode(noise()), other.encode(noise())
    assert other.spec.precision == "bfloat16" and states.dtype == torch.float32
    gap = float((states - wanted).square().mean().sqrt() / wanted.std())
    assert 1e-4 < gap < 0.05
    with pytest.raises(UsageError, match="no precision 'float16'"):
        load(BEATS, str(FILE), "", "cpu", precision="float16")


def test_silence_is_encoded(beats):
    assert beats.encode(torch.zeros(1, 16_000)).isfinite().all()


def test_a_fine_tuned_checkpoint_gives_states_not_classes(beats, found, reload):
    found["cfg"] |= {"finetuned_model": True, "predictor_class": 5, "predictor_dropout": 0.1}
    found["model"] |= {"predictor.weight": torch.zeros(5, 48), "predictor.bias": torch.zeros(5)}
    found["label_dict"] = {0: "/m/09x0r", 1: "/m/05zppz"}
    tuned = reload(found)
    assert torch.equal(tuned.encode(noise()), beats.encode(noise()))
    assert tuned.spec.config == beats.spec.config and tuned.spec.sha256 != beats.spec.sha256


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_weights_of_another_kind_are_brought_to_float32(beats, found, reload, kind):
    found["model"] = {key: value.to(kind) for key, value in found["model"].items()}
    assert distance(reload(found).encode(noise()), beats.encode(noise())) <= (2e-2 if kind == torch.float16 else 0)


def random_checkpoint(found, **cfg):
    """Random weights for changed settings, in the published layout."""
    cfg = found["cfg"] | cfg
    network = Network(read_settings(cfg, FILE))
    generator = torch.Generator().manual_seed(0)
    state = {key: 0.2 * torch.randn(value.shape, generator=generator) for key, value in network.state_dict().items()}
    kernel = state.pop("encoder.pos_conv.weight")
    size = torch.linalg.vector_norm(kernel, dim=(0, 1), keepdim=True)
    state |= {"encoder.pos_conv.0.weight_g": size, "encoder.pos_conv.0.weight_v": 3 * kernel}
    state["encoder.pos_conv.0.bias"] = state.pop("encoder.pos_conv.bias")
    table = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
    state |= {table.format(i): state[table.format(0)] for i in range(1, cfg["encoder_layers"])}
    return {"cfg": cfg, "model": state}


PRE_NORM = {"layer_norm_first": True, "deep_norm": False}


@pytest.mark.parametrize(
    ("cfg", "shape", "minimum"),
    [
        ({"deep_norm": False}, (4, 24, 48), 2800),
        (PRE_NORM, (5, 24, 48), 2800),
        ({"conv_bias": True}, (4, 24, 48), 2800),
        ({"embed_dim": 48}, (4, 24, 48), 2800),
        ({"input_patch_size": 32}, (4, 4, 48), 5360),
        ({"input_patch_size": 24}, (4, 10, 48), 4080),
        ({"encoder_layers": 5, "encoder_embed_dim": 64, "encoder_attention_heads": 8}, (6, 24, 64), 2800),
        ({"conv_pos": 15, "num_buckets": 64, "max_distance": 100, "activation_fn": "relu"}, (4, 24, 48), 2800),
    ],
)
def test_other_shapes_load(found, reload, cfg, shape, minimum):
    other = reload(random_checkpoint(found, **cfg))
    spec, states = other.spec, other.encode(noise())
    assert states.shape[1:] == shape == (spec.layers, states.shape[2], spec.dim) and states.isfinite().all()
    assert spec.minimum == minimum
    patch = (found["cfg"] | cfg)["input_patch_size"]
    assert other.encode(noise(minimum)).shape[2] == 128 // patch
    assert spec.hop == pytest.approx(patch * 0.01 / (128 // patch))
    with pytest.raises(RuntimeError):
        other.encode(noise(minimum - 1))


def test_a_pre_norm_model_has_its_last_norm_as_one_more_layer(found, reload):
    checkpoint = random_checkpoint(found, **PRE_NORM)
    other = reload(checkpoint)
    assert other.spec.names() == ("0", "1", "2", "3", "final")
    states = other.encode(noise())
    weight, bias = (checkpoint["model"][f"encoder.layer_norm.{part}"] for part in ("weight", "bias"))
    wanted = torch.nn.functional.layer_norm(states[:, 3], (48,), weight, bias)
    torch.testing.assert_close(states[:, 4], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "cfg", [{"deep_norm": False}, {"max_distance": 500}, {"activation_fn": "relu"}, {"encoder_attention_heads": 4}]
)
def test_what_changes_numbers_changes_the_spec(beats, found, reload, cfg):
    same = found["cfg"] | cfg == found["cfg"]
    found["cfg"] |= cfg
    other = reload(found)
    assert (other.spec.config == beats.spec.config) == same
    assert torch.equal(other.encode(noise(48_000)), beats.encode(noise(48_000))) == same


def test_what_changes_no_number_does_not_change_the_spec(beats, found, reload):
    found["cfg"] |= {"dropout": 0.3, "encoder_layerdrop": 0.5, "note": "x"}
    assert reload(found).spec.config == beats.spec.config


def test_what_cfg_leaves_out_is_as_in_unilm(beats, found, reload):
    del found["cfg"]["conv_bias"], found["cfg"]["activation_fn"], found["cfg"]["layer_norm_first"]
    assert reload(found).spec.config == beats.spec.config
    del found["cfg"]["deep_norm"]
    assert reload(found).spec.config != beats.spec.config


def renamed(found):
    found["model"]["encoder.layers.1.fc9.weight"] = found["model"].pop("encoder.layers.1.fc1.weight")


def with_another_table(found):
    found["model"]["encoder.layers.2.self_attn.relative_attention_bias.weight"] = torch.zeros(320, 4)


def without_the_first_table(found):
    del found["model"]["encoder.layers.0.self_attn.relative_attention_bias.weight"]


def model(**tensors):
    return lambda found: found["model"].update({name.replace("__", "."): value for name, value in tensors.items()})


def cfg(**entries):
    return lambda found: found["cfg"].update(entries)


def without(part, name):
    return lambda found: found[part].pop(name)


NO_MODEL = "describe no model"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (renamed, r"Missing keys: encoder\.layers\.1\.fc1\.weight\. Unexpected keys: encoder\.layers\.1\.fc9\.weight"),
        (without("model", "layer_norm.bias"), r"Missing keys: layer_norm\.bias"),
        (without("model", "encoder.pos_conv.0.weight_g"), r"Missing keys: encoder\.pos_conv\.0\.weight\."),
        (model(surplus=torch.zeros(1)), "Unexpected keys: surplus"),
        (model(layer_norm__bias=torch.zeros(7)), r"Wrong shapes: layer_norm\.bias is \(7,\), by the settings \(32,\)"),
        (model(encoder__pos_conv__0__weight_g=torch.zeros(3)), r"Missing keys: encoder\.pos_conv\.0\.weight"),
        (model(encoder__pos_conv__0__weight_v=torch.zeros(4)), r"Missing keys: encoder\.pos_conv\.0\.weight"),
        (model(layer_norm__bias="x"), r"entries that are no tensors: layer_norm\.bias"),
        (lambda found: found["model"].update({3: torch.zeros(1)}), "Unexpected keys: 3"),
        (with_another_table, r"differ from the first block's.*layers\.2\.self_attn"),
        (without_the_first_table, r"Missing keys: encoder\.layers\.0\.self_attn\.relative_attention_bias"),
        (lambda found: found.pop("cfg"), "is no BEATs of microsoft/unilm"),
        (lambda found: found.pop("model"), "is no BEATs of microsoft/unilm"),
        (lambda found: found.update(cfg=[1]), "is no BEATs of microsoft/unilm"),
        (lambda found: found.update(model=torch.zeros(9)), "is no BEATs of microsoft/unilm"),
        (lambda found: found["model"].clear(), "Missing keys: .* and .* more"),
        (lambda found: found["cfg"].clear(), "without gated relative positions"),
        (without("cfg", "input_patch_size"), "need input_patch_size = a value of type int; got None"),
        (without("cfg", "encoder_layers"), r"Missing keys: encoder\.layers\.3"),
        (without("cfg", "gru_rel_pos"), "without gated relative positions"),
        (cfg(relative_position_embedding=False), "without gated relative positions"),
        (cfg(layer_norm_first=True), "exclude each other"),
        (cfg(deep_norm="yes"), "need deep_norm = a value of type bool or int; got 'yes'"),
        (cfg(encoder_layers="3"), "need encoder_layers = a value of type int; got '3'"),
        (cfg(encoder_layers=True), "need encoder_layers = a value of type int; got True"),
        (cfg(encoder_embed_dim=48.0), "need encoder_embed_dim"),
        (cfg(num_buckets=None), "need num_buckets"),
        (cfg(activation_fn=["gelu"]), "need activation_fn = a value of type str"),
        (cfg(activation_fn="glu"), "no activation 'glu'"),
        (cfg(input_patch_size=0), "input_patch_size = 0"),
        (cfg(input_patch_size=129), "input_patch_size = 129"),
        (cfg(input_patch_size=8), r"Wrong shapes: patch_embedding\.weight"),
        (cfg(embed_dim=0), "embed_dim = 0"),
        (cfg(encoder_layers=0), NO_MODEL),
        (cfg(encoder_layers=-1), NO_MODEL),
        (cfg(encoder_layers=2), r"Unexpected keys: encoder\.layers\.2"),
        (cfg(encoder_attention_heads=0), NO_MODEL),
        (cfg(encoder_attention_heads=5), NO_MODEL),
        (cfg(encoder_attention_heads=6), "Wrong shapes"),
        (cfg(conv_pos_groups=0), NO_MODEL),
        (cfg(num_buckets=0), NO_MODEL),
        (cfg(max_distance=0), NO_MODEL),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_with_the_reason(found, reload, spoil, said):
    spoil(found)
    with pytest.raises(MmmosError, match=said) as caught:
        reload(found)
    assert "\n" not in str(caught.value)


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(found, reload, tmp_path):
    canary = tmp_path / "canary"
    found["model"]["layer_norm.bias"] = Bomb(canary)
    with pytest.raises(SetupError, match=r"is refused: it holds .*, which is code and not a tensor"):
        reload(found)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(SetupError):
        load(BEATS, str(tmp_path / "plain.pt"), "", "cpu")
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100, FILE.read_bytes()[:-1000], FILE.read_bytes()[:20_000]])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(SetupError, match=r"model\.pt cannot be loaded"):
        load(BEATS, str(tmp_path / "model.pt"), "", "cpu")


def test_a_folder_with_one_file_will_do(beats, tmp_path):
    (tmp_path / "BEATs.pt").write_bytes(FILE.read_bytes())
    assert replace(load(BEATS, str(tmp_path), "", "cpu").spec, weights="") == replace(beats.spec, weights="")


def test_published_cards_say_their_size_and_licence():
    for card in (BEATS_ITER3_PLUS, BEATS_ITER3_PLUS_FT):
        assert (card.layers, card.dim, card.hop, card.minimum) == (13, 768, 0.02, 2800) and card.commercial
    assert BEATS.licence == "MIT (weights unverified)"
