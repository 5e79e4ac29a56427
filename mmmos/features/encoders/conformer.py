"""A conformer (Gulati et al., arXiv 2005.08100) with rotary positions, in plain torch.

Parameter names are those of transformers' Wav2Vec2Conformer.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmos.features.encoders.unilm import ACTIVATIONS


@dataclass(frozen=True)
class Shape:
    """Sizes and variants; ``kernel`` frames of the depthwise convolution, ``eps`` of the final layer norm."""

    layers: int
    dim: int
    heads: int
    ffn: int
    kernel: int
    activation: str
    eps: float

    def problem(self) -> str:
        """Why these numbers cannot be a model's, "" when they can."""
        sizes = {"layers": self.layers, "dim": self.dim, "heads": self.heads, "ffn": self.ffn, "kernel": self.kernel}
        outside = [f"{name} = {size}" for name, size in sizes.items() if not 1 <= size < 2**14]
        if outside:
            return f"{', '.join(outside)} must lie from 1 to {2**14 - 1}"
        if self.dim % (2 * self.heads):
            return f"dim = {self.dim} must be an even multiple of heads = {self.heads}"
        if self.kernel % 2 == 0:
            return f"the depthwise kernel of {self.kernel} frames must be odd"
        if self.activation not in ACTIVATIONS:
            return f"the activation {self.activation!r} must be one of {', '.join(ACTIVATIONS)}"
        return "" if 0 < self.eps < math.inf else f"the layer norm's eps of {self.eps} must be positive"


class Conformer(nn.Module):
    """Features (batch, frames, dim) to the states of every block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_positions = Positions(shape.dim // shape.heads)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.layer_norm = nn.LayerNorm(shape.dim, eps=shape.eps)

    def cast(self, dtype: torch.dtype) -> None:
        """Compute in another dtype, but for the angles of the positions."""
        self.layers.to(dtype)
        self.layer_norm.to(dtype)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> list[Tensor]:
        """States (batch, frames, dim): the input, each block's output, and the layer norm of the last.

        ``padding`` (batch, frames), True where a frame is padding: it is zeroed, and no frame attends to it.
        """
        heard = None
        if padding is not None:
            x, heard = x.masked_fill(padding[..., None], 0), ~padding[:, None, None]
        states = [x]
        x = x.to(self.layer_norm.weight.dtype)
        rotation = self.embed_positions(x)
        for block in self.layers:
            x = block(x, rotation, heard)
            states.append(x)
        return [*states, self.layer_norm(x)]


class Positions(nn.Module):
    """Rotary positions (Su et al., arXiv 2104.09864); their angular frequencies are among the weights."""

    inv_freq: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", torch.empty(dim // 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (frames, dim of a head) of each position's angles, in the dtype of (batch, frames, …)."""
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * self.inv_freq
        angles = torch.cat([angles, angles], dim=1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class Block(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, layer norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ffn1_layer_norm, self.ffn1 = nn.LayerNorm(shape.dim), FeedForward(shape)
        self.self_attn_layer_norm, self.self_attn = nn.LayerNorm(shape.dim), Attention(shape)
        self.conv_module = Convolution(shape)
        self.ffn2_layer_norm, self.ffn2 = nn.LayerNorm(shape.dim), FeedForward(shape)
        self.final_layer_norm = nn.LayerNorm(shape.dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], heard: Tensor | None) -> Tensor:
        """The block's output, of the input's shape (batch, frames, dim)."""
        x = x + self.ffn1(self.ffn1_layer_norm(x)) / 2
        x = x + self.self_attn(self.self_attn_layer_norm(x), rotation, heard)
        x = x + self.conv_module(x)
        x = x + self.ffn2(self.ffn2_layer_norm(x)) / 2
        out: Tensor = self.final_layer_norm(x)
        return out


class FeedForward(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.intermediate_dense, self.output_dense = nn.Linear(shape.dim, shape.ffn), nn.Linear(shape.ffn, shape.dim)
        self.activation = ACTIVATIONS[shape.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Of the input's shape."""
        out: Tensor = self.output_dense(self.activation(self.intermediate_dense(x)))
        return out


class Attention(nn.Module):
    """Attention whose queries and keys are projected from the rotated input, and its values from the input itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.linear_q, self.linear_k = nn.Linear(shape.dim, shape.dim), nn.Linear(shape.dim, shape.dim)
        self.linear_v, self.linear_out = nn.Linear(shape.dim, shape.dim), nn.Linear(shape.dim, shape.dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], heard: Tensor | None) -> Tensor:
        """Attention of (batch, frames, dim) over itself; ``heard`` (batch, 1, 1, frames) is False for padding."""
        turned = self._turn(x, *rotation)
        q, k, v = (self._split(part) for part in (self.linear_q(turned), self.linear_k(turned), self.linear_v(x)))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=heard)
        out: Tensor = self.linear_out(mixed.transpose(1, 2).flatten(2))
        return out

    def _turn(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Each pair (i, i + half) of a head's dimensions turned by its angle."""
        parts = self._split(x)
        one, other = parts.chunk(2, dim=-1)
        return (parts * cosine + torch.cat([-other, one], dim=-1) * sine).transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Convolution(nn.Module):
    """Gated pointwise convolution, depthwise convolution over time, pointwise convolution."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        dim = shape.dim
        self.layer_norm = nn.LayerNorm(dim)
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(dim, dim, shape.kernel, padding=shape.kernel // 2, groups=dim, bias=False)
        self.batch_norm = nn.BatchNorm1d(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1, bias=False)
        self.activation = ACTIVATIONS[shape.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Of the input's shape (batch, frames, dim)."""
        x = F.glu(self.pointwise_conv1(self.layer_norm(x).transpose(1, 2)), dim=1)
        out: Tensor = self.pointwise_conv2(self.activation(self.batch_norm(self.depthwise_conv(x))))
        return out.transpose(1, 2)
