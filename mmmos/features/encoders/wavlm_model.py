"""The network of WavLM (Chen et al., arXiv 2110.13900): strided convolutions over the waveform, then a transformer.

Parameter names are those of microsoft/unilm.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmos.features.encoders.unilm import Shape, TransformerEncoder

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
