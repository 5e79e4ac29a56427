"""WavLM: the reference's hidden states, and a sentence instead of another model."""

import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmmos.errors import MmmosError, SetupError, UnknownName, UsageError
from mmmos.features.encoders import encoder
from mmmos.features.encoders.unilm import Shape, even_padding
from mmmos.features.encoders.wavlm_layouts import parse_convolutions
from mmmos.features.encoders.wavlm_model import Settings, conv_padding, normalised
from mmmos.testing import check_encoder

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "encoders"
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


def renamed_key(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layers.1.attention.q_projj.bias"] = tensors.pop("encoder.layers.1.attention.q_proj.bias")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_a_renamed_key_is_named_with_the_one_that_it_may_be_meant_for(folder):
    renamed_key(folder)
    with pytest.raises(SetupError) as caught:
        encoder("wavlm", weights=str(folder), device="cpu")
    assert "Missing keys: encoder.layers.1.attention.q_proj.bias." in str(caught.value)
    assert "Is encoder.layers.1.attention.q_projj.bias meant for encoder.layers.1.attention.q_proj.bias?" in str(
        caught.value
    )


def tiny_config(**changes):
    from transformers import WavLMConfig

    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    front = {"conv_dim": [32] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    return WavLMConfig(**sizes | front | changes)


LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize(
    "changes",
    [{}, LARGE, {"num_conv_pos_embeddings": 15, "num_buckets": 64, "max_bucket_distance": 100}, {"hidden_act": "relu"}],
)
def test_models_of_any_kind_and_size_agree_with_transformers(tmp_path, changes):
    from transformers import WavLMModel

    torch.manual_seed(0)
    model = WavLMModel(tiny_config(**changes)).eval()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    loaded = encoder("wavlm", weights=str(tmp_path), device="cpu")
    wave = 0.3 * torch.randn(2, 9_000)
    # The last of transformers' states is before or behind the norm, as its version will have it.
    outputs = []
    model.encoder.layers[-1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.inference_mode():
        reference = model(wave, output_hidden_states=True)
    raw = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    states = loaded.encode(wave)
    scale = float(states.abs().max())
    for index, wanted in enumerate([*reference.hidden_states[:-1], raw]):
        torch.testing.assert_close(states[:, index], wanted, atol=2e-6 * scale, rtol=0)
    torch.testing.assert_close(states[:, -1], reference.last_hidden_state, atol=2e-6 * scale, rtol=0)
    assert loaded.spec.names() == ("0", "1", "2", "3", *(["final"] if changes == LARGE else []))
    padding = torch.zeros(2, 9_000, dtype=torch.bool)
    padding[1, 5_000:] = True
    with torch.inference_mode():
        reference = model(wave.masked_fill(padding, 0), attention_mask=(~padding).long())
    masked = loaded.encode(wave.masked_fill(padding, 0), padding)[:, -1]
    torch.testing.assert_close(masked, reference.last_hidden_state, atol=2e-6 * scale, rtol=0)


def test_a_model_with_a_task_head_is_loaded_without_it(tmp_path, folder, wavlm):
    state = {f"wavlm.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file(state | {"classifier.weight": torch.zeros(2, 2)}, folder / "model.safetensors", {"format": "pt"})
    wave = torch.rand(1, 4000) - 0.5
    assert torch.equal(encoder("wavlm", weights=str(folder), device="cpu").encode(wave), wavlm.encode(wave))


# The table of the two layouts' names, written out for a base model.
UNILM = {
    r"masked_spec_embed": "mask_emb",
    r"feature_projection\.layer_norm\.(.*)": r"layer_norm.\1",
    r"feature_projection\.projection\.(.*)": r"post_extract_proj.\1",
    r"feature_extractor\.conv_layers\.(\d)\.conv\.(.*)": r"feature_extractor.conv_layers.\1.0.\2",
    r"feature_extractor\.conv_layers\.0\.layer_norm\.(.*)": r"feature_extractor.conv_layers.0.2.\1",
    r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0": "encoder.pos_conv.0.weight_g",
    r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1": "encoder.pos_conv.0.weight_v",
    r"encoder\.pos_conv_embed\.conv\.bias": "encoder.pos_conv.0.bias",
    r"(encoder\.layers\.\d)\.attention\.gru_rel_pos_linear\.(.*)": r"\1.self_attn.grep_linear.\2",
    r"(encoder\.layers\.\d)\.attention\.gru_rel_pos_const": r"\1.self_attn.grep_a",
    r"(encoder\.layers\.\d)\.attention\.rel_attn_embed\.(.*)": r"\1.self_attn.relative_attention_bias.\2",
    r"(encoder\.layers\.\d)\.attention\.(.*)": r"\1.self_attn.\2",
    r"(encoder\.layers\.\d)\.layer_norm\.(.*)": r"\1.self_attn_layer_norm.\2",
    r"(encoder\.layers\.\d)\.feed_forward\.intermediate_dense\.(.*)": r"\1.fc1.\2",
    r"(encoder\.layers\.\d)\.feed_forward\.output_dense\.(.*)": r"\1.fc2.\2",
    r"(.*)": r"\1",
}

CFG = {
    "encoder_layers": 3,
    "encoder_embed_dim": 48,
    "encoder_attention_heads": 4,
    "encoder_ffn_embed_dim": 96,
    "conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2",
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "num_buckets": 320,
    "max_distance": 800,
}


@pytest.fixture
def unilm(tmp_path):
    """The tiny checkpoint as microsoft/unilm publishes it; ``unilm(cfg changes)`` gives the path of its .pt file."""

    def make(**changes):
        state = {}
        for key, value in load_file(TINY / "model.safetensors").items():
            pattern = next(pattern for pattern in UNILM if re.fullmatch(pattern, key))
            state[re.sub(f"^{pattern}$", UNILM[pattern], key)] = value
        torch.save({"cfg": CFG | changes, "model": state}, tmp_path / "WavLM.pt")
        return str(tmp_path / "WavLM.pt")

    return make


def test_the_unilm_layout_gives_the_same_bits(unilm, wavlm):
    loaded, wave = encoder("wavlm", weights=unilm(), device="cpu"), torch.rand(2, 8_000) - 0.5
    assert torch.equal(loaded.encode(wave), wavlm.encode(wave))
    assert loaded.spec.config == wavlm.spec.config and loaded.spec.sha256 != wavlm.spec.sha256


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conv_feature_layers": "[(32,10,5)] + __import__('os').system('true')"}, "cannot be read"),
        ({"conv_feature_layers": "[(32,10,5)] * 2"}, "Missing keys: feature_extractor.conv_layers.1.0|Unexpected keys"),
        ({"conv_feature_layers": 3}, "need conv_feature_layers = a value of type str"),
        ({"encoder_layers": 4}, "Missing keys: encoder.layers.3.self_attn.grep_a"),
        ({"encoder_layers": True}, "need encoder_layers = a value of type int; got True"),
        ({"conv_pos_groups": 0}, "describe no model"),
    ],
)
def test_a_unilm_file_with_other_settings_is_refused(unilm, changes, said):
    with pytest.raises(MmmosError, match=said):
        encoder("wavlm", weights=unilm(**changes), device="cpu")


def test_a_file_of_no_known_layout_is_refused(tmp_path):
    file = tmp_path / "w.pt"
    for content, said in (
        ({"a": torch.zeros(1)}, r"w.pt is no WavLM that can be told: it needs the entries 'cfg' and 'model'"),
        ({"cfg": 3, "model": {}}, r"The entry 'cfg' of .*w.pt is no dictionary but int"),
    ):
        torch.save(content, file)
        with pytest.raises(SetupError, match=said):
            encoder("wavlm", weights=str(file), device="cpu")


def test_waves_are_normalised_over_their_own_samples():
    waves = torch.randn(2, 400, generator=torch.Generator().manual_seed(0)) * 3 + 1
    padding = torch.arange(400) >= torch.tensor([[400], [150]])
    found = normalised(waves, padding)
    assert torch.equal(found[:1], normalised(waves[:1])) and torch.equal(found[1:, :150], normalised(waves[1:, :150]))
    assert not found[1, 150:].any() and abs(float(found[0].mean())) < 1e-6


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2", [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2),
        ("[ (8, 4, 2), (8, 2, 2) ]+2*[(16,3,1),(4,2,1)]", [(8, 4, 2), (8, 2, 2)] + 2 * [(16, 3, 1), (4, 2, 1)]),
    ],
)
def test_the_text_of_the_convolutions_is_parsed(text, wanted):
    assert list(parse_convolutions(text, TINY)) == wanted


def test_frames_of_a_padded_batch_are_counted_in_two_ways():
    """transformers: what the valid samples alone would give; unilm: a frame is padding when all its samples are."""
    settings = Settings(
        ((1, 10, 5), *[(1, 3, 2)] * 4, *[(1, 2, 2)] * 2), False, True, True, False, Shape(1, 4, 1, 4, 3, 1)
    )
    padding = torch.arange(160_000) >= torch.tensor([[48_000], [159_999], [1], [400]])
    assert (~conv_padding(padding, settings)).sum(1).tolist() == [149, 499, 0, 1]
    assert (~even_padding(padding, 499)).sum(1).tolist() == [150, 499, 1, 2]


def test_bfloat16_is_near_and_another_feature_set(wavlm):
    half, wave = encoder("wavlm", weights=str(TINY), device="cpu", precision="bfloat16"), torch.rand(1, 16_000) - 0.5
    exact, rough = wavlm.encode(wave).mean(2), half.encode(wave).mean(2)
    assert rough.dtype == torch.float32 and half.spec.precision == "bfloat16"
    assert 0 < float((exact - rough).norm() / exact.norm()) < 0.02
    with pytest.raises(UsageError, match="There is no precision 'fp16'; allowed are float32 and bfloat16"):
        encoder("wavlm", weights=str(TINY), device="cpu", precision="fp16")
    with pytest.raises(UnknownName, match="Did you mean 'precision'"):
        encoder("wavlm", weights=str(TINY), device="cpu", precison="bfloat16")


def test_the_promises_of_every_encoder_hold():
    check_encoder("wavlm", str(TINY), device="cpu", long=60.0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full fixtures are not here")
@pytest.mark.parametrize("weights", ["wavlm_base_tiny_hf", "wavlm_base_tiny_unilm.pt"])
def test_all_lengths_and_masks_of_the_reference(weights):
    reference = np.load(SHARED / "wavlm_base_tiny_ref.npz")
    loaded = encoder("wavlm", weights=str(SHARED / weights), device="cpu")
    for case in ("3s", "12s"):
        wanted = reference[f"hidden_{case}"].transpose(1, 0, 2, 3)
        states = loaded.encode(torch.from_numpy(reference[f"wav_{case}"])).numpy()
        assert np.abs(states - wanted).max() <= 2e-6 * np.abs(wanted).max()
    masked = loaded.encode(*(torch.from_numpy(reference[name]) for name in ("wav_masked", "pad_mask"))).numpy()
    wanted = reference["hidden_masked"].transpose(1, 0, 2, 3)
    assert np.abs(masked - wanted).max() <= 2e-6 * np.abs(wanted).max()


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
        (without_a_tensor, "Missing keys: encoder.layer_norm.weight"),
        (with_another_tensor, "Unexpected keys: encoder.surplus"),
        (cut, "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds none of model.safetensors, pytorch_model.bin"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds no JSON object"),
        (lambda folder: change(folder, model_type="hubert"), "is not of a WavLM"),
        (lambda folder: change(folder, hidden_size=64), "Wrong shapes: .*encoder.layer_norm.weight is"),
        (lambda folder: change(folder, hidden_size="64"), "need hidden_size = a value of type int; got '64'"),
        (lambda folder: change(folder, num_attention_heads=5), "describe no model"),
        (lambda folder: change(folder, conv_stride=[5, 2]), "describes no convolutions"),
        (lambda folder: change(folder, hidden_act="gelo"), "There is no activation 'gelo'. Did you mean 'gelu'"),
        (lambda folder: change(folder, add_adapter=True), "add_adapter is not supported"),
        (lambda folder: change(folder, num_hidden_layers=2), "Unexpected keys: encoder.layers.2.attention"),
        (lambda folder: change(folder, num_hidden_layers=4), "Missing keys: encoder.layers.3.attention"),
        (lambda folder: change(folder, conv_stride="x"), "need conv_stride = a value of type list; got 'x'"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_with_the_reason(folder, spoil, said):
    spoil(folder)
    with pytest.raises(MmmosError, match=said) as caught:
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
    with pytest.raises(SetupError, match="needs weights = a hub id, a file or a folder"):
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
