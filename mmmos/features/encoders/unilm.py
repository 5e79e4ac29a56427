"""The transformer encoder that WavLM (arXiv 2110.13900) and BEATs (arXiv 2212.09058) share.

Attention with a gated relative position bias, through torch's fused kernel with the bias as its mask.
Parameter names are those of microsoft/unilm, so that its checkpoints fit as they are, weight norm folded.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmos.errors import SetupError, UnknownName

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Shape:
    """Sizes and variants of the encoder.

    ``pre_norm``: layer norms stand before attention and feed-forward, and one more behind the last block.
    ``residual``: weight of the residual path (deep norm). ``gate_on_query``: the gate reads the projected query
    (BEATs) instead of the input of the attention (WavLM).
    """

    layers: int
    dim: int
    heads: int
    ffn: int
    pos_kernel: int
    pos_groups: int
    buckets: int = 320
    max_distance: int = 800
    pre_norm: bool = False
    residual: float = 1.0
    gate_on_query: bool = False
    activation: str = "gelu"
    eps: float = 1e-5

    def check(self, source: Path) -> "Shape":
        """The shape itself. Raises ``SetupError`` when its numbers cannot be a model's."""
        sizes = (self.layers, self.dim, self.heads, self.ffn, self.pos_kernel, self.pos_groups, self.buckets // 4)
        uneven = min(sizes) < 1 or self.dim % self.heads or self.dim % self.pos_groups
        if uneven or self.max_distance <= self.buckets // 4:
            raise SetupError(f"The settings of {source} describe no model: {self}.")
        if self.activation not in ACTIVATIONS:
            raise UnknownName("activation", self.activation, ACTIVATIONS)
        return self


class TransformerEncoder(nn.Module):
    """Features (batch, frames, dim) to the states of every block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        half = shape.pos_kernel // 2
        self.pos_conv = nn.Conv1d(shape.dim, shape.dim, shape.pos_kernel, padding=half, groups=shape.pos_groups)
        self.layer_norm = nn.LayerNorm(shape.dim, eps=shape.eps)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        first: Any = self.layers[0]
        first.self_attn.relative_attention_bias = nn.Embedding(shape.buckets, shape.heads)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> list[Tensor]:
        """States (batch, frames, dim): the input of block 0, each block's output, and with ``pre_norm`` its norm.

        ``padding`` (batch, frames), True where a frame is padding.
        """
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0)
        x = x + F.gelu(self.pos_conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        if not self.shape.pre_norm:
            x = self.layer_norm(x)
        states, bias = [x], self._bias(x.shape[1])
        for block in self.layers:
            x = block(x, bias, padding)
            states.append(x)
        return [*states, self.layer_norm(x)] if self.shape.pre_norm else states

    def _bias(self, frames: int) -> Tensor:
        """Bias (heads, query, key) by the distance of key from query, in buckets (T5, arXiv 1910.10683)."""
        first: Any = self.layers[0]
        embedding: nn.Embedding = first.self_attn.relative_attention_bias
        # On the CPU: at the edge of a bucket another device's logarithm may fall on the other side.
        buckets = bucket(torch.arange(1 - frames, frames), self.shape.buckets, self.shape.max_distance)
        by_distance = embedding(buckets.to(embedding.weight.device))
        bias: Tensor = by_distance.T.unfold(1, frames, 1).flip(1)
        return bias


class Block(nn.Module):
    """Attention and feed-forward, each with its residual and layer norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.pre_norm, self.residual = shape.pre_norm, shape.residual
        self.self_attn = GatedAttention(shape)
        self.self_attn_layer_norm = nn.LayerNorm(shape.dim, eps=shape.eps)
        self.fc1, self.fc2 = nn.Linear(shape.dim, shape.ffn), nn.Linear(shape.ffn, shape.dim)
        self.final_layer_norm = nn.LayerNorm(shape.dim, eps=shape.eps)
        self.activation = ACTIVATIONS[shape.activation]

    def forward(self, x: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        """The block's output, of the input's shape (batch, frames, dim)."""
        if self.pre_norm:
            x = x + self.self_attn(self.self_attn_layer_norm(x), bias, padding)
            return x + self._feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(self.residual * x + self.self_attn(x, bias, padding))
        normed: Tensor = self.final_layer_norm(self.residual * x + self._feed_forward(x))
        return normed

    def _feed_forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class GatedAttention(nn.Module):
    """softmax(q·k / √d + gate · bias) · v; the gate of a query frame, one a head, is a (b·κ − 1) + 2 in [1, …]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.gate_on_query = shape.heads, shape.gate_on_query
        self.q_proj, self.k_proj = nn.Linear(shape.dim, shape.dim), nn.Linear(shape.dim, shape.dim)
        self.v_proj, self.out_proj = nn.Linear(shape.dim, shape.dim), nn.Linear(shape.dim, shape.dim)
        self.grep_linear = nn.Linear(shape.dim // shape.heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, shape.heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        """Attention of (batch, frames, dim) over itself."""
        q, k, v = (self._split(part(x)) for part in (self.q_proj, self.k_proj, self.v_proj))
        mask = self._gate(q if self.gate_on_query else self._split(x)) * bias
        if padding is not None:
            mask = mask.masked_fill(padding[:, None, None], -math.inf)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _gate(self, x: Tensor) -> Tensor:
        """(batch, heads, frames, 1) of (batch, heads, frames, dim / heads)."""
        a, b = torch.sigmoid(self.grep_linear(x).unflatten(-1, (2, 4)).sum(-1)).unbind(-1)
        return (a[..., None] * (b[..., None] * self.grep_a - 1)) + 2

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Bucket of each signed distance: half of the buckets a sign, exact up to a quarter of them, then logarithmic."""
    half, near = buckets // 2, buckets // 4
    size = distance.abs()
    far = near + (torch.log(size.float() / near) / math.log(max_distance / near) * (half - near)).to(torch.long)
    return half * (distance > 0) + torch.where(size < near, size, far.clamp(max=half - 1))


def folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with each pair ``….weight_g``, ``….weight_v`` of a weight norm made one ``….weight``.

    Pairs whose shapes are not of a weight norm stay as they are.
    """
    names = [key[:-2] for key in state if key.endswith(".weight_g") and f"{key[:-2]}_v" in state]
    pairs = [name for name in names if _are_pair(state[f"{name}_g"], state[f"{name}_v"])]
    parts = {f"{name}{end}" for name in pairs for end in ("_g", "_v")}
    plain = {key: value for key, value in state.items() if key not in parts}
    for name in pairs:
        size, direction = state[f"{name}_g"], state[f"{name}_v"]
        axes = [axis for axis in range(direction.ndim) if size.shape[axis] == 1]
        plain[name] = direction * (size / torch.linalg.vector_norm(direction, dim=axes, keepdim=True))
    return plain


def _are_pair(size: Tensor, direction: Tensor) -> bool:
    """True for the sizes along one axis and the directions across the others."""
    along = [axis for axis, length in enumerate(size.shape) if length > 1]
    return size.ndim == direction.ndim and len(along) <= 1 and all(size.shape[a] == direction.shape[a] for a in along)


def even_padding(padding: Tensor, frames: int) -> Tensor:
    """Padded frames (batch, frames) of a padding by sample, True where all samples of a frame's even share are."""
    usable = padding.shape[1] - padding.shape[1] % frames
    return padding[:, :usable].unflatten(1, (frames, -1)).all(-1)
