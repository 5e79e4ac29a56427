"""Cards of the packaged encoders: what is known of their weights, without any network's code.

A card without weights is of a family: it takes any checkpoint of its kind, whose licence is the checkpoint's.
"""

from dataclasses import replace

from mmmos.features.encoders import m2d_layouts as m2d
from mmmos.features.encoders import melstats
from mmmos.features.encoders.base import Deferred, EncoderCard


def _network(module: str) -> Deferred:
    return Deferred(f"mmmos.features.encoders.{module}:load")


AUDIOBOX = EncoderCard("audiobox", "audiobox", _network("audiobox"), "see the weights", 16_000, hop=0.02)

AUDIOBOX_AESTHETICS = replace(
    AUDIOBOX,
    name="audiobox-aesthetics",
    licence="CC-BY-4.0",
    layers=13,
    dim=768,
    weights="facebook/audiobox-aesthetics",
    revision="9b1dd8e5df9af7216e836a98974fe3b82c56ded6",
    sha256="a5a3c2412649cc2384ec525ffd5180ce6c4778f43bed6108e0a1303de04d014e",
)

BEATS = EncoderCard("beats", "beats", _network("beats"), "MIT (weights unverified)", 16_000, hop=0.02, minimum=2800)

# Microsoft publishes links that are often dead; these are mirrors of the same bytes, by SHA-256.
BEATS_ITER3 = replace(
    BEATS,
    name="beats-iter3",
    layers=13,
    dim=768,
    weights="hf://lpepino/beats_ckpts/BEATs_iter3.pt",
    revision="5b53b0404df452a3a607d7e67687227730e5bad1",
    sha256="8d1b234032a9ccff353612dc6c20982346dc2968b205b79d97303eb5e77bfb34",
)

BEATS_ITER3_PLUS = replace(
    BEATS_ITER3,
    name="beats-iter3-plus",
    weights="hf://lpepino/beats_ckpts/BEATs_iter3_plus_AS2M.pt",
    sha256="d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
)

BEATS_ITER3_PLUS_FT = replace(
    BEATS_ITER3,
    name="beats-iter3-plus-ft",
    weights="hf://WeiChihChen/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
    revision="172e4071a2912392d9151c70750b9a12f55fc54e",
    sha256="e5815275a04b6885e7b8af63d120b29bffae2cd2225cf4915e1ec6d819d3022c",
)

M2D = EncoderCard("m2d", "m2d", _network("m2d"), m2d.LICENCE, 16_000, layers=1, minimum=201, commercial=False)


def _m2d(name: str) -> EncoderCard:
    """Card of a published checkpoint, a ViT-Base."""
    folder = m2d.PUBLISHED[name]
    layout = m2d.read_layout(m2d.in_name(folder))
    hop = layout.patch_frames * layout.hop / layout.rate
    dim, minimum = 768 * layout.grid[0], layout.fft // 2 + 1
    weights = f"{m2d.RELEASES}/download/{folder}.zip"
    return replace(M2D, name=name, rate=layout.rate, dim=dim, hop=hop, minimum=minimum, weights=weights)


M2D_CLAP_AS_FT = _m2d("m2d-clap-as-ft")
M2D_AS_FT = _m2d("m2d-as-ft")
M2D_AS_FT_32K = _m2d("m2d-as-ft-32k")
M2D_FT = _m2d("m2d-ft")
M2D_CLAP = _m2d("m2d-clap")
M2D_25HZ = _m2d("m2d-25hz")
M2D_SPEECH = _m2d("m2d-speech")

MELSTATS = EncoderCard(
    "melstats",
    "melstats",
    _network("melstats"),
    "MIT",
    melstats.RATE,
    layers=len(melstats.LAYERS),
    dim=melstats.BANDS,
    hop=melstats.HOP / melstats.RATE,
    minimum=melstats.FFT,
)

MUQ = EncoderCard("muq", "muq", _network("muq"), "CC-BY-NC-4.0", 24_000, hop=0.04, minimum=1025, commercial=False)

MUQ_LARGE_MSD_ITER = replace(
    MUQ,
    name="muq-large-msd-iter",
    layers=14,
    dim=1024,
    weights="OpenMuQ/MuQ-large-msd-iter",
    revision="0562a57814f6f8bbd9fdea0a25921a2fce1a841a",
    sha256="273febab2be02872c37d2c37e48a9d6c52c1c9392f3eeeabd498efa281ccb7a6",
)

TRANSFORMERS = EncoderCard("transformers", "transformers", _network("transformers"), "see the weights", 16_000)

HUBERT_BASE = replace(
    TRANSFORMERS,
    name="hubert-base",
    licence="Apache-2.0",
    layers=13,
    dim=768,
    hop=0.02,
    minimum=400,
    weights="facebook/hubert-base-ls960",
    revision="dba3bb02fda4248b6e082697eee756de8fe8aa8a",
)

WAV2VEC2_BASE = replace(
    HUBERT_BASE,
    name="wav2vec2-base",
    weights="facebook/wav2vec2-base",
    revision="0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
)

WHISPER_SMALL = replace(
    TRANSFORMERS,
    name="whisper-small",
    licence="Apache-2.0",
    layers=14,
    dim=768,
    hop=0.02,
    minimum=320,
    weights="openai/whisper-small",
    revision="973afd24965f72e36ca33b3055d56a652f456b4d",
    sha256="1d7734884874f1a1513ed9aa760a4f8e97aaa02fd6d93a3a85d27b2ae9ca596b",
)

WHISPER_LARGE_V3 = replace(
    WHISPER_SMALL,
    name="whisper-large-v3",
    layers=34,
    dim=1280,
    weights="openai/whisper-large-v3",
    revision="06f233fe06e710322aca913c1bc4249a0d71fce1",
    sha256="a8e94b85976e5864ba3e9525c7e6c83b2a1eca42d4b797a0c7c24d778e40fd95",
)

AST_AUDIOSET = replace(
    TRANSFORMERS,
    name="ast-audioset",
    licence="BSD-3-Clause",
    layers=14,
    dim=768,
    hop=0.1,
    minimum=1600,
    weights="MIT/ast-finetuned-audioset-10-10-0.4593",
    revision="f826b80d28226b62986cc218e5cec390b1096902",
    sha256="ae0c1e2ad4e1381d851fa9bf298ba13ebc9c5a914cdee2dbe427a6583869924d",
)

CLAP_HTSAT_UNFUSED = replace(
    TRANSFORMERS,
    name="clap-htsat-unfused",
    licence="Apache-2.0",
    rate=48_000,
    layers=3,
    dim=768,
    hop=0.3125,
    minimum=15_000,
    weights="laion/clap-htsat-unfused",
    revision="8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
)

WAVLM = EncoderCard("wavlm", "wavlm", _network("wavlm"), "see the weights", 16_000, hop=0.02, minimum=400)

WAVLM_BASE = replace(
    WAVLM,
    name="wavlm-base",
    licence="CC-BY-SA-3.0 (unverified)",
    layers=13,
    dim=768,
    weights="microsoft/wavlm-base",
    revision="efa81aae7ff777e464159e0f877d54eac5b84f81",
)

WAVLM_BASE_PLUS = replace(
    WAVLM_BASE,
    name="wavlm-base-plus",
    weights="microsoft/wavlm-base-plus",
    revision="4c66d4806a428f2e922ccfa1a962776e232d487b",
    sha256="3bb273a6ace99408b50cfc81afdbb7ef2de02da2eab0234e18db608ce692fe51",
)

WAVLM_LARGE = replace(
    WAVLM_BASE,
    name="wavlm-large",
    layers=26,
    dim=1024,
    weights="microsoft/wavlm-large",
    revision="c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c",
    sha256="fdee460e529396ddb2f8c8e8ce0ad74cfb747b726bc6f612e666c7c1e1963c9d",
)
