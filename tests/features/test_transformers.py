"""The generic adapter of transformers: the library's own states in every kind of model, and a sentence for the rest."""

import json
import logging
import os
import pickle
import shutil
import socket
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmmos.errors import SetupError, UsageError
from mmmos.features.encoders import cards, transformers_model
from mmmos.features.encoders import transformers as transformers_encoder
from mmmos.features.encoders.catalogue import AST_AUDIOSET, CLAP_HTSAT_UNFUSED, HUBERT_BASE, TRANSFORMERS
from mmmos.features.encoders.transformers import load
from mmmos.features.encoders.transformers_model import open_config
from mmmos.testing import check_encoder

WAVE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
CONV = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3}
POSITIONS = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
SEQ2SEQ = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}
SEQ2SEQ |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 48, "vocab_size": 64}
SEQ2SEQ |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
WINDOW = {"chunk_length": 2, "feature_size": 8}
CLAP_AUDIO = {"spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4}
CLAP_AUDIO |= {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 2], "num_attention_heads": [2, 2]}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 16}

# Configuration, model, feature extractor: classes of transformers and what they are made with.
KINDS = {
    "hubert": ("HubertConfig", WAVE | CONV | POSITIONS, "HubertModel", "Wav2Vec2FeatureExtractor", {}),
    "wav2vec2": ("Wav2Vec2Config", WAVE | CONV | POSITIONS, "Wav2Vec2Model", "Wav2Vec2FeatureExtractor", {}),
    "wav2vec2-large": (
        "Wav2Vec2Config",
        WAVE | CONV | POSITIONS | LAYER_NORM,
        "Wav2Vec2Model",
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "data2vec-audio": (
        "Data2VecAudioConfig",
        WAVE | CONV | {"num_conv_pos_embeddings": 2, "num_conv_pos_embedding_groups": 2, "conv_pos_kernel_size": 3},
        "Data2VecAudioModel",
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "unispeech": ("UniSpeechConfig", WAVE | CONV | POSITIONS, "UniSpeechModel", "Wav2Vec2FeatureExtractor", {}),
    "unispeech-sat": (
        "UniSpeechSatConfig",
        WAVE | CONV | POSITIONS | LAYER_NORM,
        "UniSpeechSatModel",
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "sew": (
        "SEWConfig",
        WAVE | CONV | POSITIONS | {"squeeze_factor": 2},
        "SEWModel",
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "wav2vec2-conformer": (
        "Wav2Vec2ConformerConfig",
        WAVE | CONV | POSITIONS | {"position_embeddings_type": "relative"},
        "Wav2Vec2ConformerModel",
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "moonshine": (
        "MoonshineConfig",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "encoder_num_hidden_layers": 2,
            "decoder_num_hidden_layers": 1,
            "encoder_num_attention_heads": 2,
            "decoder_num_attention_heads": 2,
            "vocab_size": 64,
            "pad_token_id": 0,
        },
        "MoonshineModel",
        "Wav2Vec2FeatureExtractor",
        {"do_normalize": False},
    ),
    "wav2vec2-bert": (
        "Wav2Vec2BertConfig",
        WAVE | {"feature_projection_input_dim": 32, "num_hidden_layers": 2},
        "Wav2Vec2BertModel",
        "SeamlessM4TFeatureExtractor",
        {"feature_size": 16, "num_mel_bins": 16},
    ),
    "parakeet": (
        "ParakeetEncoderConfig",
        WAVE | {"num_mel_bins": 16, "subsampling_conv_channels": 8},
        "ParakeetEncoder",
        "ParakeetFeatureExtractor",
        {"feature_size": 16},
    ),
    "whisper": (
        "WhisperConfig",
        SEQ2SEQ | {"num_mel_bins": 8, "max_source_positions": 100, "max_target_positions": 8},
        "WhisperForConditionalGeneration",
        "WhisperFeatureExtractor",
        WINDOW,
    ),
    "ast": (
        "ASTConfig",
        WAVE | {"num_mel_bins": 36, "max_length": 206},
        "ASTForAudioClassification",
        "ASTFeatureExtractor",
        {"num_mel_bins": 36, "max_length": 206},
    ),
    "clap": (
        "ClapConfig",
        {"audio_config": CLAP_AUDIO, "text_config": TEXT | {"max_position_embeddings": 8}, "projection_dim": 8},
        "ClapModel",
        "ClapFeatureExtractor",
        {"feature_size": 16, "max_length_s": 2, "sampling_rate": 16000, "hop_length": 160, "fft_window_size": 512}
        | {"frequency_max": 8000, "truncation": "rand_trunc"},
    ),
}
ANY_LENGTH = [kind for kind in KINDS if kind not in ("whisper", "ast", "clap")]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folders of tiny random models by kind, made once."""
    import transformers

    root, found = tmp_path_factory.mktemp("transformers"), {}

    def make(kind):
        if kind not in found:
            config, settings, model, extractor, options = KINDS[kind]
            torch.manual_seed(0)
            built = getattr(transformers, model)(getattr(transformers, config)(**settings)).eval()
            for name, value in built.state_dict().items():
                if value.is_floating_point():
                    # Away from the initial zeros and ones, which hide what is missing.
                    value += 0.1 * torch.randn_like(value) if "running_var" not in name else 0.1
            found[kind] = root / kind
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                built.save_pretrained(found[kind])
            getattr(transformers, extractor)(**options).save_pretrained(found[kind])
        return found[kind]

    return make


@pytest.fixture
def copied(made, tmp_path):
    """A copy of a folder, to spoil."""

    def copy(kind):
        return shutil.copytree(made(kind), tmp_path / kind)

    return copy


def opened(folder, **options):
    return load(TRANSFORMERS, str(folder), "", "cpu", **options)


def library(kind, folder):
    """The library's own model and feature extractor."""
    import transformers

    extractor = getattr(transformers, KINDS[kind][3]).from_pretrained(folder)
    return getattr(transformers, KINDS[kind][2]).from_pretrained(folder).eval(), extractor


def noise(samples=16_000, count=1, seed=0):
    return 0.1 * torch.randn(count, samples, generator=torch.Generator().manual_seed(seed))


def close(got, wanted, tolerance=2e-6):
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


@pytest.mark.parametrize("kind", ANY_LENGTH)
@torch.inference_mode()
def test_states_are_those_of_the_library(made, kind):
    wave, encoder = noise(), opened(made(kind))
    model, extractor = library(kind, made(kind))
    inputs = extractor(wave[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    model = model.encoder if hasattr(model, "decoder") else model
    output = model(**inputs, output_hidden_states=True)
    states = encoder.encode(wave)
    frames = states.shape[2]
    assert encoder.spec.layers == states.shape[1] == (4 if "final" in encoder.spec.names() else 3)
    for index in range(2):
        close(states[:, index], output.hidden_states[index][:, :frames])
    if kind == "sew":  # the library's last state is brought back to the rate of its convolutions
        return
    close(states[:, -1], output.last_hidden_state[:, :frames])


@pytest.mark.parametrize(
    ("kind", "norm"),
    [("wav2vec2-large", "encoder.layer_norm"), ("unispeech-sat", "encoder.layer_norm"), ("moonshine", "layer_norm")],
)
@torch.inference_mode()
def test_the_last_numbered_layer_is_raw_and_its_norm_is_called_final(made, kind, norm):
    encoder = opened(made(kind))
    assert encoder.spec.names() == ("0", "1", "2", "final")
    states, (model, _) = encoder.encode(noise()), library(kind, made(kind))
    model = model.encoder if hasattr(model, "decoder") else model
    close(model.get_submodule(norm)(states[:, 2]), states[:, 3])
    assert not torch.allclose(states[:, 2], states[:, 3], atol=1e-2)


@torch.inference_mode()
def test_whisper_is_cut_to_the_audio_in_its_window(made):
    encoder = opened(made("whisper"))
    model, extractor = library("whisper", made("whisper"))
    spec = encoder.spec
    assert (spec.rate, spec.hop, spec.minimum, spec.maximum, spec.dim) == (16_000, 0.02, 320, 32_000, 32)
    assert spec.names() == ("0", "1", "2", "final")
    for samples in (1, 320, 321, 5000, 32_000):
        wave = noise(samples)
        features = extractor(wave[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_features
        output = model.model.encoder(features, output_hidden_states=True)
        states, frames = encoder.encode(wave), -(-samples // 320)
        assert output.last_hidden_state.shape[1] == 100 and states.shape[2] == frames
        for index in range(2):
            close(states[:, index], output.hidden_states[index][:, :frames])
        close(model.model.encoder.layer_norm(states[:, 2]), output.last_hidden_state[:, :frames])
        close(states[:, 3], output.last_hidden_state[:, :frames])
    with pytest.raises(UsageError, match=r"longer than this model's window of 2 s; choose a shorter window"):
        encoder.encode(noise(32_001))


@torch.inference_mode()
def test_patches_of_ast_are_columns_in_order_of_time(made):
    encoder = opened(made("ast"))
    model, extractor = library("ast", made("ast"))
    assert (encoder.spec.hop, encoder.spec.minimum, encoder.spec.maximum) == (0.1, 1600, 205 * 160 + 400)
    assert encoder.spec.names() == ("0", "1", "2", "final")
    for samples, columns in ((encoder.spec.maximum, 20), (16_000, 10), (16_001, 11), (1600, 1)):
        wave = noise(samples)
        features = extractor(wave[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        output = model.audio_spectrogram_transformer(features).last_hidden_state
        # 36 bands in patches of 16 every 10 are 3 rows.
        grid = output[:, 2:].reshape(1, 3, 20, 32).mean(1)
        states = encoder.encode(wave)
        assert states.shape == (1, 4, columns, 32)
        close(states[:, -1], grid[:, :columns])


@torch.inference_mode()
def test_clap_gives_the_layers_of_its_last_width(made):
    encoder = opened(made("clap"))
    model, extractor = library("clap", made("clap"))
    assert encoder.spec.names() == ("1", "2", "final")
    assert (encoder.spec.rate, encoder.spec.dim, encoder.spec.maximum) == (16_000, 16, 32_000)
    for samples in (32_000, 12_000, 1000):
        wave = noise(samples)
        features = extractor(wave[0].double().numpy(), sampling_rate=16_000, return_tensors="pt")
        output = model.audio_model(features.input_features.float(), output_hidden_states=True)
        # (batch, dim, bands, time)
        wanted = output.last_hidden_state.mean(2).transpose(1, 2)
        states = encoder.encode(wave)
        frames = -(-samples * wanted.shape[1] // 32_000)
        assert encoder.spec.hop == 2 / wanted.shape[1] and states.shape[2] == frames
        close(states[:, 2], wanted[:, :frames], 5e-6)
    # Time goes from left to right: what changes late in the window changes late columns most.
    late = noise(32_000)
    late[:, 28_000:] *= 100
    change = (encoder.encode(late) - encoder.encode(noise(32_000))).abs().mean((0, 1, 3))
    assert change[-2:].mean() > 2 * change[:16].mean()


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2-bert", "whisper", "ast", "clap"])
def test_the_promises_of_an_encoder_are_kept(made, kind):
    check_encoder(lambda: opened(made(kind)), device="cpu", long=6.0)


@pytest.mark.parametrize("kind", ANY_LENGTH)
def test_hop_and_minimum_are_the_models_own(made, kind):
    encoder = opened(made(kind))
    spec = encoder.spec
    assert spec.maximum == 0 and encoder.encode(noise(spec.minimum)).shape[2] == 1
    step = round(spec.hop * spec.rate)
    wanted = {"moonshine": 384, "wav2vec2-bert": 320, "parakeet": 1280, "sew": 40}
    assert spec.hop * spec.rate == step == wanted.get(kind, 20)
    first, later = (encoder.encode(noise(spec.minimum + extra)).shape[2] for extra in (20 * step, 30 * step))
    assert later - first == 10
    if spec.minimum > 1:
        with pytest.raises(Exception):  # noqa: B017, PT011 (the library's own, whatever it is)
            assert encoder.encode(noise(spec.minimum - 1)).isfinite().all()
            assert encoder.encode(noise(spec.minimum - 1)).shape[2] >= 1


def test_waves_are_normalised_when_the_extractor_says_so(copied):
    folder = copied("hubert")
    normalising, wave = opened(folder), noise() * 3 + 0.5
    change(folder, "preprocessor_config.json", do_normalize=False)
    plain = opened(folder)
    assert normalising.spec.front == "zero mean, unit variance" and not plain.spec.front
    assert normalising.spec.config != plain.spec.config
    normal = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-7)
    close(plain.encode(normal), normalising.encode(wave))


def test_the_rate_is_the_extractors(copied):
    folder = copied("hubert")
    change(folder, "preprocessor_config.json", sampling_rate=24_000)
    spec = opened(folder).spec
    assert (spec.rate, spec.hop) == (24_000, 20 / 24_000)


def test_without_an_extractor_waves_have_a_default_and_spectrograms_none(copied, made):
    for kind, normalised in (("hubert", False), ("wav2vec2-large", True)):
        folder = copied(kind)
        (folder / "preprocessor_config.json").unlink()
        spec = opened(folder).spec
        assert spec.rate == 16_000 and bool(spec.front) == normalised
    for kind in ("whisper", "ast", "clap", "wav2vec2-bert"):
        folder = copied(kind)
        (folder / "preprocessor_config.json").unlink()
        with pytest.raises(SetupError, match=r"preprocessor_config\.json"):
            opened(folder)


def test_an_extractor_within_a_processor_is_found(copied):
    folder = copied("whisper")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
    assert opened(folder).spec.maximum == 32_000


def test_nothing_that_changes_numbers_is_missing_from_the_spec(made, copied):
    folder, spec = copied("hubert"), opened(made("hubert")).spec
    assert replace(opened(folder).spec, weights=spec.weights) == spec
    change(folder, "config.json", transformers_version="4.0", torch_dtype="float16", _name_or_path="x")
    assert opened(folder).spec.config == spec.config
    change(folder, "config.json", layer_norm_eps=1e-2)
    assert opened(folder).spec.config != spec.config


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2-large", "wav2vec2-bert", "whisper", "ast", "clap"])
def test_bfloat16_is_near(made, kind):
    wave, encoder = noise(8000), opened(made(kind), precision="bfloat16")
    exact, rough = opened(made(kind)).encode(wave), encoder.encode(wave)
    assert encoder.spec.precision == "bfloat16" and rough.dtype == torch.float32 and rough.isfinite().all()
    assert 1e-6 < float((rough - exact).abs().mean() / exact.abs().mean()) < 0.05


def test_dither_is_off(copied):
    folder = copied("whisper")
    change(folder, "preprocessor_config.json", dither=0.1)
    encoder = opened(folder)
    assert torch.equal(encoder.encode(noise()), encoder.encode(noise()))


def test_fused_clap_is_the_same_each_time(copied):
    import transformers

    folder = copied("clap")
    settings = dict(KINDS["clap"][1], audio_config=CLAP_AUDIO | {"enable_fusion": True})
    transformers.ClapModel(transformers.ClapConfig(**settings)).save_pretrained(folder)
    change(folder, "preprocessor_config.json", truncation="fusion")
    encoder = opened(folder)
    waves = noise(20_000, count=3)
    close(encoder.encode(waves)[1:2], encoder.encode(waves[1:2]), 1e-5)


def change(folder, file="config.json", **entries):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def rewrite(folder, change):
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def renamed(old, new):
    return lambda folder: rewrite(folder, lambda found: {k.replace(old, new): v for k, v in found.items()})


def added(name):
    return lambda folder: rewrite(folder, lambda found: found | {name: torch.zeros(1)})


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


@pytest.mark.parametrize("name", ["lm_head.weight", "quantizer.codevectors", "masked_spec_embed_2"])
def test_what_is_of_a_head_is_left_alone(copied, name):
    folder = copied("hubert")
    before = opened(folder).encode(noise())
    added(name)(folder)
    rewrite(folder, lambda found: {k: v for k, v in found.items() if k != "masked_spec_embed"})
    assert torch.equal(opened(folder).encode(noise()), before)


def test_the_encoder_alone_must_be_whole(copied):
    whisper = copied("whisper")
    before = opened(whisper).encode(noise())
    rewrite(whisper, lambda found: {k: v for k, v in found.items() if ".decoder." not in k})
    assert torch.equal(opened(whisper).encode(noise()), before)


def test_checkpoints_of_tasks_and_old_names_fit(made, tmp_path):
    import transformers

    base = opened(made("hubert"))
    model = transformers.HubertForCTC(transformers.HubertConfig(**KINDS["hubert"][1]))
    model.hubert.load_state_dict(library("hubert", made("hubert"))[0].state_dict())
    model.save_pretrained(tmp_path)
    shutil.copy(made("hubert") / "preprocessor_config.json", tmp_path)
    assert torch.equal(opened(tmp_path).encode(noise()), base.encode(noise()))
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        renamed(new, old)(tmp_path)
    assert torch.equal(opened(tmp_path).encode(noise()), base.encode(noise()))


def test_weights_in_shards_and_in_torch_files_fit(made, tmp_path):
    base, (model, extractor) = opened(made("hubert")), library("hubert", made("hubert"))
    for name in ("shards", "torch"):
        extractor.save_pretrained(tmp_path / name)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    model.config.save_pretrained(tmp_path / "torch")
    torch.save(model.state_dict(), tmp_path / "torch" / "pytorch_model.bin")
    for name in ("shards", "torch"):
        assert torch.equal(opened(tmp_path / name).encode(noise()), base.encode(noise()))


@pytest.mark.parametrize(
    ("kind", "spoil", "said"),
    [
        ("hubert", renamed("layers.1.attention.k_proj.bias", "x.bias"), r"Missing keys: encoder\.layers\.1\.attention"),
        ("hubert", added("encoder.surplus"), r"Unexpected keys: encoder\.surplus"),
        ("hubert", lambda f: change(f, num_hidden_layers=1), r"Unexpected keys: encoder\.layers\.1"),
        ("hubert", lambda f: change(f, num_hidden_layers=3), r"Missing keys: encoder\.layers\.2"),
        ("hubert", lambda f: change(f, hidden_size=64), r"Wrong shapes: .* by the settings"),
        ("hubert", lambda f: change(f, hidden_size=33), "."),
        ("hubert", lambda f: change(f, conv_stride="x"), "."),
        ("hubert", lambda f: change(f, conv_stride=[0, 2, 2]), "."),
        ("hubert", lambda f: change(f, num_hidden_layers=0), "."),
        ("hubert", lambda f: change(f, hidden_act="nonsense"), "."),
        ("hubert", lambda f: change(f, model_type=3), "model_type = a value of type str"),
        (
            "hubert",
            lambda f: change(f, model_type="mert"),
            "has no model 'mert'.* code that comes with weights is not run",
        ),
        ("hubert", lambda f: change(f, auto_map={"AutoModel": "evil.Model"}), r"auto_map.* is not run here"),
        ("hubert", lambda f: change(f, "preprocessor_config.json", auto_map={"A": "b.C"}), "auto_map"),
        ("hubert", lambda f: change(f, "preprocessor_config.json", sampling_rate=0), "sampling_rate must be"),
        ("hubert", lambda f: change(f, "preprocessor_config.json", sampling_rate="x"), "sampling_rate must be"),
        ("hubert", lambda f: (f / "preprocessor_config.json").write_text("{"), "cannot be read"),
        ("hubert", lambda f: (f / "config.json").unlink(), r"holds no config\.json"),
        ("hubert", lambda f: (f / "model.safetensors").unlink(), r"holds none of model\.safetensors"),
        ("hubert", lambda f: (f / "adapter_config.json").write_text("{}"), "an adapter of another model"),
        ("hubert", cut, "cannot be loaded"),
        (
            "whisper",
            renamed("encoder.layers.0.fc1", "encoder.layers.0.fc3"),
            r"Missing keys: .*encoder\.layers\.0\.fc1",
        ),
        ("whisper", lambda f: change(f, encoder_layers=1), r"Unexpected keys: .*encoder\.layers\.1"),
        (
            "whisper",
            lambda f: change(f, "preprocessor_config.json", feature_size=9),
            "does not run on what its feature",
        ),
        (
            "whisper",
            lambda f: change(f, "preprocessor_config.json", chunk_length=3),
            "does not run on what its feature",
        ),
        ("whisper", lambda f: change(f, "preprocessor_config.json", hop_length=0), "cannot be made"),
        ("whisper", lambda f: change(f, "preprocessor_config.json", sampling_rate=-1), "."),
        ("clap", renamed("batch_norm.weight", "batch_norm.w"), "Missing keys: .*batch_norm"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_with_the_reason(copied, kind, spoil, said):
    folder = copied(kind)
    spoil(folder)
    with pytest.raises(SetupError, match=said) as caught:
        opened(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("config", "extractor"),
    [
        ({"model_type": "encodec"}, {"feature_extractor_type": "EncodecFeatureExtractor"}),
        ({"model_type": "dac"}, {}),
        ({"model_type": "bert"}, {}),
        ({"model_type": "vit"}, {"image_processor_type": "ViTImageProcessor"}),
    ],
)
def test_codecs_text_and_images_are_refused(copied, config, extractor):
    folder = copied("hubert")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    with pytest.raises(SetupError, match=r"allowed are models with one of Wav2Vec2FeatureExtractor.*not codecs"):
        opened(folder)


def test_a_part_of_a_model_and_a_model_without_an_audio_encoder_are_refused(copied):
    import transformers

    folder = copied("hubert")
    (folder / "config.json").write_text(json.dumps({"model_type": "clap_audio_model"}))
    with pytest.raises(
        SetupError, match=r"is of a part of a model \('clap_audio_model'\)|has no model 'clap_audio_model'"
    ):
        open_config(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=4, **sizes))
    with pytest.raises(SetupError, match=r"\(BertModel\) has no encoder of audio that stands by itself"):
        transformers_model._find(bert, folder)
    with pytest.raises(SetupError, match=r"Linear has no repeated blocks; allowed are transformer encoders of audio"):
        transformers_encoder._blocks(torch.nn.Linear(2, 2))


def test_a_model_that_gives_too_few_frames_is_refused(made, monkeypatch):
    found = opened(made("hubert"))
    monkeypatch.setattr(found, "_count", lambda samples: 1)
    with pytest.raises(SetupError, match=r"gives fewer than 2 frames for \d+ samples"):
        found._first(2, 400)
    with pytest.raises(UsageError, match="longer than this model's window of 2 s"):
        opened(made("whisper"))._trial(40 * 16_000)


def test_bars_that_were_off_stay_off():
    from transformers.utils import logging as reports

    before = reports.is_progress_bar_enabled()
    for shown, switch in ((False, reports.disable_progress_bar), (True, reports.enable_progress_bar)):
        switch()
        with transformers_model.quiet():
            assert not reports.is_progress_bar_enabled()
        assert reports.is_progress_bar_enabled() is shown
    (reports.enable_progress_bar if before else reports.disable_progress_bar)()


def test_a_file_and_no_weights_are_refused(made):
    with pytest.raises(SetupError, match="is a file; name the folder"):
        opened(made("hubert") / "model.safetensors")
    with pytest.raises(SetupError, match="needs weights"):
        opened("")
    with pytest.raises(UsageError, match="There is no precision 'half'"):
        opened(made("hubert"), precision="half")


class _Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_a_pickle_that_runs_code_is_refused(copied, tmp_path):
    folder, canary = copied("hubert"), tmp_path / "canary"
    (folder / "model.safetensors").unlink()
    torch.save({"encoder.layer_norm.weight": _Bomb(canary)}, folder / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(SetupError, match=r"is refused: it holds .*mkdir, which is code"):
        opened(folder)
    assert not canary.exists()


def test_code_beside_the_weights_is_not_run(copied, tmp_path):
    folder, canary = copied("hubert"), tmp_path / "canary"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    change(folder, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    with pytest.raises(SetupError, match="auto_map"):
        opened(folder)
    assert not canary.exists()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.parametrize("kind", ["hubert", "whisper", "clap"])
def test_local_weights_open_no_socket_and_loading_says_nothing(copied, kind, no_network, capfd, caplog, monkeypatch):
    folder = copied(kind)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    # Kernels named by a hub id would be fetched.
    change(folder, attn_implementation="somebody/kernels", _attn_implementation="somebody/kernels")
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    opened(folder)
    renamed("norm", "nrom")(folder)
    with pytest.raises(SetupError):
        opened(folder)
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_what_the_cards_say_is_what_their_models_are():
    """Layers and width of published models, by the configurations that the library has for them."""
    import transformers

    family = [card for card in cards() if card.family == "transformers"]
    assert len(family) == 7
    assert all(not card.weights or len(card.revision) == 40 for card in family)
    hubert, ast, clap = transformers.HubertConfig(), transformers.ASTConfig(), transformers.ClapAudioConfig()
    assert (HUBERT_BASE.layers, HUBERT_BASE.dim) == (hubert.num_hidden_layers + 1, hubert.hidden_size)
    assert np.prod(hubert.conv_stride) / 16_000 == HUBERT_BASE.hop
    assert (AST_AUDIOSET.layers, AST_AUDIOSET.dim) == (ast.num_hidden_layers + 2, ast.hidden_size)
    assert CLAP_HTSAT_UNFUSED.dim == clap.patch_embeds_hidden_size * 2 ** (len(clap.depths) - 1)
