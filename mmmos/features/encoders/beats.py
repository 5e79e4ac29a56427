"""BEATs (Chen et al., arXiv 2212.09058): patches of a log-mel spectrum, then a transformer encoder with deep norm.

States: index 0 is the input of the first block, index L the raw output of block L; a pre-norm model has the output of
its last norm as one more layer, "final". Checkpoints are files of microsoft/unilm, pre-trained or fine-tuned; of a
fine-tuned one the classifier is left out.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmmos.errors import SetupError
from mmmos.features import checkpoint
from mmmos.features.checkpoint import entry
from mmmos.features.encoders.base import EncoderCard, dtype_of, exact, located
from mmmos.features.encoders.kaldi import Fbank
from mmmos.features.encoders.unilm import Shape, TransformerEncoder, even_padding, folded
from mmmos.features.spec import EncoderSpec
from mmmos.features.weights import weights_file
from mmmos.files import key_of

RATE, BINS = 16_000, 128
# Mean and twice the standard deviation of the log energies that BEATs was trained on.
MEAN, SPREAD = 15.41663, 2 * 6.55582

# What a checkpoint's cfg leaves out, as in microsoft/unilm.
_DEFAULTS = {
    "embed_dim": 512,
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": False,
    "num_buckets": 320,
    "max_distance": 1280,
    "gru_rel_pos": False,
}


@dataclass(frozen=True)
class Settings:
    """What shapes a BEATs besides its weights: ``patch`` frames × ``patch`` bins make a token of ``width`` numbers."""

    patch: int
    width: int
    patch_bias: bool
    encoder: Shape


class Network(nn.Module):
    """Normalised log energies to states, with the parameter names of microsoft/unilm."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        patch, width, dim = settings.patch, settings.width, settings.encoder.dim
        self.patch_embedding = nn.Conv2d(1, width, patch, stride=patch, bias=settings.patch_bias)
        self.layer_norm = nn.LayerNorm(width)
        self.post_extract_proj = nn.Linear(width, dim) if width != dim else nn.Identity()
        self.encoder = TransformerEncoder(settings.encoder)

    def tokens(self, spectrum: Tensor) -> Tensor:
        """Patches (batch, tokens, width) of (batch, frames, bins); all frequencies of a time follow each other."""
        patches: Tensor = self.patch_embedding(spectrum[:, None])
        return patches.flatten(2).transpose(1, 2)

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> list[Tensor]:
        """States (batch, tokens, dim) of patches; ``padding`` (batch, tokens) is True where a token is padding."""
        states: list[Tensor] = self.encoder(self.post_extract_proj(self.layer_norm(tokens)), padding)
        return states


class BEATs:
    """A frozen BEATs; ``encode`` gives all hidden states of 16 kHz audio."""

    def __init__(self, network: Network, settings: Settings, spec: EncoderSpec, device: str) -> None:
        self._fbank = Fbank(RATE, BINS).to(device)
        self._network = network.to(device, dtype_of(spec.precision))
        self._device = device
        self.spec = specified(spec, settings, self._fbank)

    def encode(self, waves: Tensor, padding: Tensor | None = None) -> Tensor:
        """States (batch, layers, tokens, dim) float32 of waves (batch, samples).

        With patches of 16 × 16, token 8 t + f is of the time from t × 160 ms on and of the f-th eighth of the bins: the
        hop of 20 ms is 160 ms shared by 8 tokens. ``padding`` (batch, samples), True where a sample is padding, gives
        the states of a padded batch by microsoft/unilm's rule: for comparison only.
        """
        with exact():
            spectrum = (self._fbank(waves.to(self._device, torch.float32)) - MEAN) / SPREAD
            tokens = self._network.tokens(spectrum.to(dtype_of(self.spec.precision)))
            if padding is not None:
                for parts in (spectrum.shape[1], tokens.shape[1]):
                    padding = even_padding(padding.to(self._device), parts)
            return torch.stack(self._network(tokens, padding), dim=1).float()


def specified(spec: EncoderSpec, settings: Settings, fbank: Fbank) -> EncoderSpec:
    """A spec with the facts of a BEATs filled in."""
    names = [*map(str, range(settings.encoder.layers + 1)), *(["final"] if settings.encoder.pre_norm else [])]
    return replace(
        spec,
        layers=len(names),
        layer_names=tuple(names),
        dim=settings.encoder.dim,
        hop=settings.patch * fbank.hop / (BINS // settings.patch) / RATE,
        minimum=fbank.samples(settings.patch),
        front=f"kaldi fbank {BINS}, mean {MEAN}, spread {SPREAD}",
        config=key_of(asdict(settings)),
    )


def open_checkpoint(file: Path) -> tuple[Network, Settings]:
    """The frozen network of a file of microsoft/unilm, and its settings. Raises ``SetupError``."""
    found = checkpoint.read(file)
    cfg, model = found.get("cfg"), found.get("model")
    if not isinstance(cfg, dict) or not isinstance(model, dict):
        raise SetupError(f"{file} is no BEATs of microsoft/unilm: that is two dictionaries, 'cfg' and 'model'.")
    settings = read_settings(_DEFAULTS | cfg, file)
    state = folded(_untied(checkpoint.tensors(model, file), file))
    state = {key: value for key, value in state.items() if not key.startswith("predictor.")}
    network = checkpoint.empty(lambda: Network(settings))
    used = {key.replace("encoder.pos_conv.0.", "encoder.pos_conv."): value for key, value in state.items()}
    checkpoint.fill(network, used, file, _published)
    return network, settings


def read_settings(cfg: Mapping[str, Any], source: Path) -> Settings:
    """Settings from a checkpoint's whole ``cfg``. Raises ``SetupError`` for what is no model, or none of this code."""

    def flag(name: str) -> bool:
        return bool(entry(cfg, name, source, (bool, int)))

    if not flag("relative_position_embedding") or not flag("gru_rel_pos"):
        raise SetupError(
            f"{source} is of a model without gated relative positions, which is not supported: its cfg must have"
            " relative_position_embedding and gru_rel_pos true."
        )
    if flag("deep_norm") and flag("layer_norm_first"):
        raise SetupError(f"The settings of {source} have deep_norm and layer_norm_first, which exclude each other.")
    patch, width, layers = (entry(cfg, name, source) for name in ("input_patch_size", "embed_dim", "encoder_layers"))
    if not 1 <= patch <= BINS or width < 1:
        raise SetupError(
            f"The settings of {source} describe no patches: input_patch_size = {patch} (1 to {BINS} is possible),"
            f" embed_dim = {width}."
        )
    shape = Shape(
        layers=layers,
        dim=entry(cfg, "encoder_embed_dim", source),
        heads=entry(cfg, "encoder_attention_heads", source),
        ffn=entry(cfg, "encoder_ffn_embed_dim", source),
        pos_kernel=entry(cfg, "conv_pos", source),
        pos_groups=entry(cfg, "conv_pos_groups", source),
        buckets=entry(cfg, "num_buckets", source),
        max_distance=entry(cfg, "max_distance", source),
        pre_norm=flag("layer_norm_first"),
        residual=(2 * max(layers, 0)) ** 0.25 if flag("deep_norm") else 1.0,
        gate_on_query=True,
        activation=entry(cfg, "activation_fn", source, str),
    )
    return Settings(patch, width, flag("conv_bias"), shape.check(source))


def _untied(state: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """A state dict with the first block's table of positions alone. Raises ``SetupError`` when another's differs."""
    table = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
    first = state.get(table.format(0))
    if first is None:
        return state
    copies = [key for key in state if re.fullmatch(table.replace(".", r"\.").format("[1-9][0-9]*"), key)]
    if other := [key for key in copies if not torch.equal(state[key], first)]:
        raise SetupError(
            f"{source} holds tables of positions that differ from the first block's, whose copies they must be:"
            f" {checkpoint.listed(other)}."
        )
    return {key: value for key, value in state.items() if key not in copies}


def _published(name: str) -> str:
    """The checkpoint's name of a tensor of the network."""
    return name.replace("encoder.pos_conv.", "encoder.pos_conv.0.")


def load(card: EncoderCard, weights: str, revision: str, device: str, *, precision: str = "float32") -> BEATs:
    """Load a BEATs from a .pt file of microsoft/unilm."""
    path, spec = located(card, weights, revision, precision)
    network, settings = open_checkpoint(weights_file(path))
    return BEATs(network, settings, spec, device)
