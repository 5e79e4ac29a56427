"""WavLM (Chen et al., arXiv 2110.13900): strided convolutions over the waveform, then a transformer encoder.

States: index 0 is the input of the first block, index L the raw output of block L; models with a norm behind the last
block (large) have its output as one more layer, "final".
Zeros change every frame of the base models (group norm over time), so a batch holds waves of equal length only.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmos.features.encoders.base import EncoderCard, dtype_of, exact, located
from mmmos.features.encoders.unilm import Shape, TransformerEncoder
from mmmos.features.spec import EncoderSpec
from mmmos.files import key_of

RATE = 16_000


@dataclass(frozen=True)
class Settings:
    """What shapes a WavLM besides its weights.

    ``convolutions``: (channels, kernel, stride) of each; ``group_norm``: one group norm behind the first convolution
    (base), else a layer norm behind each (large); ``projected``: a linear layer leads to the encoder's width;
    ``normalise``: the waveform is brought to zero mean and unit variance first.
    """

    convolutions: tuple[tuple[int, int, int], ...]
    conv_bias: bool
    group_norm: bool
    projected: bool
    normalise: bool
    encoder: Shape

    @property
    def hop(self) -> int:
        """Samples between frames."""
        hop = 1
        for _, _, stride in self.convolutions:
            hop *= stride
        return hop

    @property
    def minimum(self) -> int:
        """The least number of samples that gives a frame."""
        samples = 1
        for _, kernel, stride in reversed(self.convolutions):
            samples = (samples - 1) * stride + kernel
        return samples


class Network(nn.Module):
    """Waves (batch, samples) to states, with the parameter names of microsoft/unilm."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.convolutions[-1][0]
        self.feature_extractor = nn.ModuleDict({"conv_layers": nn.ModuleList(_convolutions(settings))})
        self.layer_norm = nn.LayerNorm(width, eps=settings.encoder.eps)
        self.post_extract_proj = nn.Linear(width, settings.encoder.dim) if settings.projected else nn.Identity()
        self.encoder = TransformerEncoder(settings.encoder)

    def forward(self, waves: Tensor, frame_padding: Tensor | None = None) -> list[Tensor]:
        """States (batch, frames, dim); ``frame_padding`` (batch, frames) is True where a frame is padding."""
        x = waves[:, None]
        convolutions: Any = self.feature_extractor["conv_layers"]
        for layer in convolutions:
            x = layer(x)
        states: list[Tensor] = self.encoder(self.post_extract_proj(self.layer_norm(x.transpose(1, 2))), frame_padding)
        return states


class _ChannelNorm(nn.Sequential):
    """Layer norm over the channels of (batch, channels, frames); its parameters are those of place 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Identity(), nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self[1](x.transpose(1, 2))
        return normed.transpose(1, 2)


def _convolutions(settings: Settings) -> list[nn.Sequential]:
    """Convolution, dropout (nothing, in use), norm, GELU."""
    layers, before = [], 1
    for index, (channels, kernel, stride) in enumerate(settings.convolutions):
        norm: list[nn.Module] = [_ChannelNorm(channels)]
        if settings.group_norm:
            norm = [nn.GroupNorm(channels, channels)] if index == 0 else []
        convolution = nn.Conv1d(before, channels, kernel, stride, bias=settings.conv_bias)
        layers.append(nn.Sequential(convolution, nn.Identity(), *norm, nn.GELU()))
        before = channels
    return layers


class WavLM:
    """A frozen WavLM; ``encode`` gives all hidden states of raw 16 kHz audio."""

    def __init__(self, network: Network, settings: Settings, spec: EncoderSpec, device: str) -> None:
        self._network = network.to(device, dtype_of(spec.precision))
        self._settings, self._device = settings, device
        self.spec = specified(spec, settings)

    def encode(self, waves: Tensor, padding: Tensor | None = None) -> Tensor:
        """States (batch, layers, frames, dim) float32 of waves (batch, samples); frame i begins at i × 20 ms.

        ``padding`` (batch, samples), True where a sample is padding, gives the states of a padded batch as
        transformers counts its frames: for comparison, since padding changes the states of the base models.
        """
        with exact():
            waves = waves.to(self._device, torch.float32)
            if self._settings.normalise:
                waves = normalised(waves, padding)
            frames = None if padding is None else conv_padding(padding.to(self._device), self._settings)
            states = self._network(waves.to(dtype_of(self.spec.precision)), frames)
            return torch.stack(states, dim=1).float()


def specified(spec: EncoderSpec, settings: Settings) -> EncoderSpec:
    """A spec with the facts of a WavLM filled in."""
    layers = settings.encoder.layers + 1
    names = [*map(str, range(layers)), *(["final"] if settings.encoder.pre_norm else [])]
    return replace(
        spec,
        layers=len(names),
        layer_names=tuple(names),
        dim=settings.encoder.dim,
        hop=settings.hop / RATE,
        minimum=settings.minimum,
        front="zero mean, unit variance" if settings.normalise else "",
        config=key_of(asdict(settings)),
        code="2",
    )


def normalised(waves: Tensor, padding: Tensor | None = None) -> Tensor:
    """Waves of zero mean and unit variance over their own samples; padding is 0."""
    if padding is None:
        mean, variance = waves.mean(1, keepdim=True), waves.var(1, keepdim=True, unbiased=False)
        return (waves - mean) / torch.sqrt(variance + 1e-7)
    rows = [
        F.pad(normalised(wave[~pad][None])[0], (0, int(pad.sum()))) for wave, pad in zip(waves, padding, strict=True)
    ]
    return torch.stack(rows)


def conv_padding(padding: Tensor, settings: Settings) -> Tensor:
    """Padded frames (batch, frames) as transformers counts them: valid frames are what the valid samples alone give."""
    valid = frame_count((~padding).sum(1), settings)
    frames = frame_count(torch.tensor(padding.shape[1]), settings)
    return torch.arange(int(frames), device=padding.device) >= valid[:, None]


def frame_count(samples: Tensor, settings: Settings) -> Tensor:
    """Frames that so many samples give."""
    for _, kernel, stride in settings.convolutions:
        samples = (samples - kernel) // stride + 1
    return samples


def load(card: EncoderCard, weights: str, revision: str, device: str, *, precision: str = "float32") -> WavLM:
    """Load a WavLM: a hub id or folder in the layout of transformers, or a .pt file of microsoft/unilm."""
    from mmmos.features.encoders.wavlm_layouts import open_checkpoint

    path, spec = located(card, weights, revision, precision)
    network, settings = open_checkpoint(Path(path))
    return WavLM(network, settings, spec, device)


WAVLM = EncoderCard("wavlm", "wavlm", load, "see the weights", rate=RATE, hop=0.02, minimum=400)

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
