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
        self.settings = settings
        width = settings.convolutions[-1][0]
        self.feature_extractor = nn.ModuleDict({"conv_layers": nn.ModuleList(_convolution_layers(settings))})
        self.layer_norm = nn.LayerNorm(width, eps=settings.encoder.eps)
        self.post_extract_proj = nn.Linear(width, settings.encoder.dim) if settings.projected else nn.Identity()
        self.encoder = TransformerEncoder(settings.encoder)

    def forward(self, waves: Tensor, frame_padding: Tensor | None = None) -> list[Tensor]:
        """States (batch, frames, dim); ``frame_padding`` (batch, frames) is True where a frame is padding."""
        first, *_ = self._convolutions
        return self._states(first(waves[:, None]), frame_padding)

    def beginning(self, waves: Tensor, frames: int, padded_to: int) -> list[Tensor]:
        """States (batch, frames, dim) of the first ``frames`` of waves with zeros behind them up to ``padded_to``
        samples, all later frames masked. To rounding the same as ``forward``, at the price of these frames alone.

        Masked frames weigh nothing, and the positional convolution sees zeros in their place, as behind the end. They
        are felt in the group norm alone: there a frame of zeros is the convolution's bias, and can be counted.
        """
        settings = self.settings
        (_, kernel, stride), *_ = settings.convolutions
        # The zeros that these frames see, and that the first convolution sees together with samples.
        needed = max((frames - 1) * settings.hop + settings.minimum, waves.shape[1] + kernel - 1)
        waves = F.pad(waves, (0, min(needed, padded_to) - waves.shape[1]))
        first, *_ = self._convolutions
        convolution, _, *norm, activation = first
        x = convolution(waves[:, None])
        if settings.group_norm:
            silence = 0.0 if convolution.bias is None else convolution.bias[:, None]
            x = _with_silence(norm.pop(), x, silence, (padded_to - kernel) // stride + 1 - x.shape[2])
        for part in [*norm, activation]:
            x = part(x)
        return self._states(x, None, frames)

    def _states(self, x: Tensor, frame_padding: Tensor | None, frames: int | None = None) -> list[Tensor]:
        """States of what the first convolution gave, of its first ``frames`` where they are told."""
        for layer in self._convolutions[1:]:
            x = layer(x)
        x = x.transpose(1, 2)[:, :frames]
        states: list[Tensor] = self.encoder(self.post_extract_proj(self.layer_norm(x)), frame_padding)
        return states

    @property
    def _convolutions(self) -> Any:
        return self.feature_extractor["conv_layers"]


def _with_silence(norm: nn.GroupNorm, x: Tensor, silence: Tensor | float, frames: int) -> Tensor:
    """Group norm, each channel a group, of (batch, channels, frames) followed by so many frames of the constant
    ``silence`` (channels, 1), which are counted and not given back.
    """
    if not frames:
        return norm(x)
    batch, channels, count = x.shape
    y, mean, scale = torch.native_group_norm(x, None, None, batch, channels, count, channels, norm.eps)
    wide = torch.promote_types(x.dtype, torch.float32)
    mean, scale = mean[..., None].to(wide), scale[..., None].to(wide)
    share = frames / (count + frames)
    gap = share * (silence - mean)
    # Moments of the two parts together (Chan et al. 1979); the epsilon is in both variances.
    variance = (1 - share) * (scale**-2 - norm.eps + gap * (silence - mean)) + norm.eps
    weight = norm.weight[:, None] / variance.sqrt()
    return y.mul_((weight / scale).to(x.dtype)).add_((norm.bias[:, None] - weight * gap).to(x.dtype))


class _ChannelNorm(nn.Sequential):
    """Layer norm over the channels of (batch, channels, frames); its parameters are those of place 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Identity(), nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self[1](x.transpose(1, 2))
        return normed.transpose(1, 2)


def _convolution_layers(settings: Settings) -> list[nn.Sequential]:
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
