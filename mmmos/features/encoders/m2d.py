"""M2D and M2D-CLAP (Niizumi et al., arXiv 2210.14648, 2406.02032): a vision transformer over log-mel spectrograms.

Parameter names are those of the published checkpoints (timm's vision transformer).
The one layer of states is the final layer norm; a frame holds all patches of one time, the lowest frequencies first.
"""

import math
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmos.features import checkpoint
from mmmos.features.encoders import m2d_layouts as layouts
from mmmos.features.encoders.base import EncoderCard, dtype_of, exact, located
from mmmos.features.encoders.m2d_layouts import HEAD, LICENCE, MELS, Layout
from mmmos.features.spec import EncoderSpec
from mmmos.features.weights import weights_file
from mmmos.files import key_of

LOWEST, EPS = 50.0, 1e-6


class MaskedModelingDuo:
    """A frozen M2D; log-mel spectrogram in float32, the transformer in the spec's precision."""

    def __init__(self, model: "VisionTransformer", norm: tuple[float, float], spec: EncoderSpec, device: str) -> None:
        from nnAudio.features.mel import MelSpectrogram

        layout = model.layout
        sizes = {"n_fft": layout.fft, "win_length": layout.fft, "hop_length": layout.hop, "n_mels": MELS}
        mel = MelSpectrogram(sr=layout.rate, **sizes, fmin=LOWEST, fmax=layout.rate / 2, verbose=False)
        self._mean, self._std = norm
        self._device, self._mel = device, mel.to(device)
        self._model = model.to(device, dtype_of(spec.precision))
        self.spec = replace(
            spec,
            rate=layout.rate,
            layers=1,
            dim=layout.grid[0] * model.norm.normalized_shape[0],
            hop=layout.patch_frames * layout.hop / layout.rate,
            minimum=layout.fft // 2 + 1,
            licence=LICENCE,
            config=key_of(asdict(layout)),
            front=f"log-mel spectrogram, {MELS} slaney bands, normalised as in training",
            layer_names=("final",),
        )

    def encode(self, waves: Tensor) -> Tensor:
        """States (batch, 1, frames, dim) float32 of waves (batch, samples) at the spec's rate.

        Frames of the spectrogram that fill no patch are dropped at the end of each full chunk; the last chunk is filled
        up with zeros, which are the mean after normalisation.
        """
        with exact():
            return self.states(self.logmel(waves.to(self._device, torch.float32)))

    def logmel(self, waves: Tensor) -> Tensor:
        """Normalised log-mel spectrogram (batch, bands, frames) of waves on the encoder's device."""
        power: Tensor = self._mel(waves)
        return (torch.log(power + torch.finfo(torch.float32).eps) - self._mean) / self._std

    def states(self, logmel: Tensor) -> Tensor:
        """States (batch, 1, frames, dim) float32 of a normalised spectrogram, in chunks of the longest input."""
        unit, patch = self._model.layout.frames, self._model.layout.patch_frames
        frames = logmel.shape[-1]
        padded = F.pad(logmel, (0, -(frames % unit) % patch))[..., : math.ceil(frames / unit) * unit]
        chunks = padded.to(self._model.norm.weight.dtype).split(unit, dim=-1)
        return torch.cat([self._model(chunk) for chunk in chunks], dim=1)[:, None].float()


class VisionTransformer(nn.Module):
    """Normalised spectrogram (batch, bands, frames) of at most one chunk to (batch, frames of patches, dim)."""

    def __init__(self, layout: Layout, dim: int, depth: int, hidden: int) -> None:
        super().__init__()
        self.layout = layout
        positions = 1 + math.prod(layout.grid)
        self.cls_token, self.pos_embed = (nn.Parameter(torch.empty(1, n, dim)) for n in (1, positions))
        patch = (layout.patch_mels, layout.patch_frames)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, dim, patch, stride=patch)})
        self.blocks = nn.ModuleList(Block(dim, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """The final layer norm; the patches of one time are joined, the lowest frequencies first."""
        patches = self.patch_embed["proj"](spectrogram[:, None])
        own, others = self.pos_embed[:, :1], self.pos_embed[:, 1:].unflatten(1, self.layout.grid)
        x = patches.permute(0, 2, 3, 1) + others[:, :, : patches.shape[3]]
        x = torch.cat([(self.cls_token + own).expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x)[:, 1:].unflatten(1, patches.shape[2:])
        return tokens.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Attention and feed-forward, each behind a layer norm and beside a residual path."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=EPS), Attention(dim)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=EPS), FeedForward(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Of the input's shape (batch, tokens, dim)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """Self-attention with heads of 64 dimensions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Of the input's shape (batch, tokens, dim)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Of the input's shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


def read_model(path: Path, layout: Layout) -> tuple[VisionTransformer, tuple[float, float]]:
    """The frozen model in a file or folder, and the mean and standard deviation that normalise its input.

    Raises ``SetupError`` when the weights do not fit the layout.
    """
    file = weights_file(path)
    state, prefix = layouts.read_encoder(file)
    norm = layouts.pop_norm_stats(state, file)
    layouts.check(state, layout, file)
    dim, hidden = state["pos_embed"].shape[2], state["blocks.0.mlp.fc1.weight"].shape[0]
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    model = checkpoint.empty(lambda: VisionTransformer(layout, dim, depth, hidden))
    checkpoint.fill(model, state, file, lambda name: prefix + name)
    return model, norm


def load(
    card: EncoderCard,
    weights: str,
    revision: str,
    device: str,
    *,
    layout: str | None = None,
    precision: str = "float32",
) -> MaskedModelingDuo:
    """Load an M2D from its .pth file or the folder of it; ``layout`` overrides what the folder's name says.

    Its publisher offers releases and no hub repository.
    """
    path, spec = located(card, weights, revision, precision)
    model, norm = read_model(path, layouts.find_layout(path, layout, card.name))
    return MaskedModelingDuo(model, norm, spec, device)
