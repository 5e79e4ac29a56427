"""Heads that read frames: blstm_t, attention, aesa. What is behind a clip's last frame changes nothing."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mmmos.ensembles.heads import Array
from mmmos.ensembles.heads.frames import Frames
from mmmos.ensembles.heads.neural import Batch, Output
from mmmos.ensembles.heads.over_time import (
    FrameOptions,
    Frontend,
    OverTime,
    clip_dropout,
    is_valid,
    lengths_of,
    one_by_one,
    time_mean,
)
from mmmos.ensembles.heads.recurrent import BiLSTM, linear
from mmmos.ensembles.heads.stack import dropout
from mmmos.errors import UsageError


class BLSTMTOptions(FrameOptions):
    """Sizes of a BLSTM over time."""

    width: int = Field(256, ge=1)
    """Units that frames are projected to, with ReLU."""
    hidden: int = Field(128, ge=1)
    """Units of an LSTM layer in each direction."""
    depth: int = Field(1, ge=1)
    """LSTM layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of units dropped before and after the LSTM."""


class _BLSTMT(nn.Module):
    """Projection with ReLU, BLSTM over time, mean over time (the embedding), a last layer."""

    def __init__(self, frontend: Frontend, outputs: int, draw: torch.Generator, options: BLSTMTOptions) -> None:
        super().__init__()
        self.frontend, self.dropout = frontend, options.dropout
        self.lstm = BiLSTM(options.width, options.hidden, options.depth, draw)
        self.last = linear(2 * options.hidden, outputs, draw)

    def forward(self, batch: Batch) -> Output:
        lengths = lengths_of(batch)
        x = clip_dropout(torch.relu(self.frontend(batch)), self.dropout, batch.chance, 0)
        embedding = time_mean(self.lstm(x, lengths), lengths)[None]
        return Output(self.last(dropout(embedding, self.dropout, batch.chance, 1)), embedding)


class BLSTMT(OverTime):
    """A bidirectional LSTM over time, whose outputs are averaged over the clip.

    MMMOS (arXiv 2507.04094) names it BLSTM(t) and leaves its sizes and the common rate of its encoders open.
    """

    Options = BLSTMTOptions

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """See ``Neural.build``."""
        (draw,) = draws
        frontend = Frontend(shapes, self.weighted, self.options.width, draw)
        return _BLSTMT(frontend, self.outputs(axes), draw, self.options)


class AttentionOptions(FrameOptions):
    """Sizes of attentive pooling."""

    width: int = Field(256, ge=1)
    """Units that frames are projected to, with ReLU."""
    attention: int = Field(128, ge=1)
    """Units through which queries look at frames."""
    queries: int = Field(4, ge=1)
    """Queries, each with a mean and a deviation of its own."""
    hidden: int = Field(256, ge=1)
    """Units of the layer behind the pooling."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of units dropped after that layer."""


class _Attention(nn.Module):
    """For each query q the weights over time softmax(vᵩ tanh(W x + b)), and under them mean and deviation of x; the
    statistics of all queries go through a hidden layer with ReLU (the embedding) and a last one.
    """

    def __init__(self, frontend: Frontend, outputs: int, draw: torch.Generator, options: AttentionOptions) -> None:
        super().__init__()
        self.frontend, self.dropout = frontend, options.dropout
        self.look = linear(options.width, options.attention, draw)
        self.query = linear(options.attention, options.queries, draw, bias=False)
        self.hidden = linear(2 * options.queries * options.width, options.hidden, draw)
        self.last = linear(options.hidden, outputs, draw)

    def forward(self, batch: Batch) -> Output:
        x = torch.relu(self.frontend(batch))
        valid = is_valid(lengths_of(batch), x.shape[1])
        asked = self.query(torch.tanh(self.look(x))).masked_fill(~valid[..., None], -torch.inf)
        weights = asked.softmax(1).transpose(1, 2)
        mean = torch.bmm(weights, x)
        variance = torch.bmm(weights, x.square()) - mean.square()
        pooled = torch.cat([mean, variance.clamp_min(1e-6).sqrt()], dim=2).flatten(1)
        embedding = torch.relu(self.hidden(pooled))[None]
        return Output(self.last(dropout(embedding, self.dropout, batch.chance, 0)), embedding)


class Attention(OverTime):
    """Attentive statistics pooling (Okabe et al., 2018) with several queries, shared by all axes, then a perceptron."""

    Options = AttentionOptions

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """See ``Neural.build``."""
        (draw,) = draws
        frontend = Frontend(shapes, self.weighted, self.options.width, draw)
        return _Attention(frontend, self.outputs(axes), draw, self.options)


class AESAOptions(FrameOptions):
    """Sizes of AESA-Net."""

    lr: float = Field(1e-4, gt=0)
    """Learning rate."""
    width: int = Field(256, ge=1)
    """Units of the adapter, which frames are projected to."""
    hidden: int = Field(128, ge=1)
    """Units of an LSTM layer in each direction."""
    depth: int = Field(2, ge=1)
    """LSTM layers."""
    shared: int = Field(128, ge=1)
    """Units of the layer that all axes share, a multiple of ``attention_heads``."""
    attention_heads: int = Field(8, ge=1)
    """Heads of each axis's self-attention."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of units dropped after the shared layer."""
    reach: float = Field(5.0, gt=0)
    """Frame scores lie within ± so many standard deviations."""
    frame_weight: float = Field(0.0, ge=0)
    """Weight of the frame scores' own squared error."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.shared % self.attention_heads:
            raise ValueError(f"shared = {self.shared} is not a multiple of attention_heads = {self.attention_heads}")
        return self


class _Axis(nn.Module):
    """Self-attention over the frames, and of each frame a number: x (B, T, size) to (B, T)."""

    def __init__(self, size: int, heads: int, draw: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.inner = linear(size, 3 * size, draw)
        self.outer = linear(size, size, draw)
        self.score = linear(size, 1, draw)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        query, key, value = self.inner(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None])
        numbers: Tensor = self.score(self.outer(seen.transpose(1, 2).flatten(2)))[..., 0]
        return numbers


class _AESA(nn.Module):
    """Frame scores, and an embedding of each frame, of which clips get the means over time."""

    def __init__(self, frontend: Frontend, axes: int, draw: torch.Generator, options: AESAOptions) -> None:
        super().__init__()
        self.frontend, self.dropout, self.reach = frontend, options.dropout, options.reach
        self.lstm = BiLSTM(options.width, options.hidden, options.depth, draw)
        self.shared = linear(2 * options.hidden, options.shared, draw)
        self.axes = nn.ModuleList([_Axis(options.shared, options.attention_heads, draw) for _ in range(axes)])

    def frames(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores (B, T, axes) and embeddings (B, T, shared) of frames."""
        lengths = lengths_of(batch)
        x = torch.relu(self.shared(self.lstm(self.frontend(batch), lengths)))
        x = clip_dropout(x, self.dropout, batch.chance, 0)
        valid = is_valid(lengths, x.shape[1])
        numbers = torch.stack([axis(x, valid) for axis in self.axes], dim=2)
        return self.reach * torch.tanh(numbers / self.reach), x

    def forward(self, batch: Batch) -> Output:
        lengths = lengths_of(batch)
        scores, x = self.frames(batch)
        mean = time_mean(scores, lengths)
        spread = time_mean((scores - mean[:, None]).square(), lengths)[None]
        return Output(mean[None], time_mean(x, lengths)[None], spread=spread)


class AESA(OverTime):
    """The head of AESA-Net (arXiv 2509.03292): adapter, BLSTM, for each axis self-attention and frame scores.

    Layers are mixed, then come a linear adapter, a BLSTM of two layers and a shared layer with ReLU, whose mean over
    time is the embedding; then for each axis self-attention and a score for every frame, whose mean is the clip's.
    It takes losses of one number an axis; for another raises ``UsageError``.

    The paper ends frames in a sigmoid, [0, 1], though its targets have mean 0 and deviation 1. Here a frame's score is
    ``reach`` × tanh(x / ``reach``): the same sigmoid, of 2x / reach and brought to ±reach deviations, so that every
    target is reached and the slope at 0 is 1. Sizes, dropout and ``frame_weight`` are left open by the paper; its
    batches are of one clip.
    """

    Options = AESAOptions

    def __init__(
        self,
        *,
        options: Mapping[str, object],
        weighted: bool = False,
        loss: str = "mse",
        loss_options: Mapping[str, object] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(options=options, weighted=weighted, loss=loss, loss_options=loss_options, seed=seed)
        if self.criterion().outputs != 1:
            raise UsageError(
                f"The head 'aesa' gives one score for each axis, and the loss {loss!r} asks for"
                f" {self.criterion().outputs} numbers; use a loss of one number, such as mse or triplet."
            )

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """See ``Neural.build``."""
        (draw,) = draws
        frontend = Frontend(shapes, self.weighted, self.options.width, draw, unit=False)
        return _AESA(frontend, axes, draw, self.options)

    def objective(
        self, output: Output, targets: Tensor, side: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> Tensor:
        """The loss, and ``frame_weight`` × the mean squared error of frame scores against their clip's targets.

        A clip's frames have the error (mean − y)² + variance, so that clips of any length count alike.
        """
        total = super().objective(output, targets, side, constants)
        if not self.options.frame_weight or output.spread is None:
            return total
        errors = (output.outputs - targets).square() + output.spread
        return total + self.options.frame_weight * errors.mean((1, 2))

    @torch.inference_mode()
    def frame_scores(self, inputs: Frames) -> list[Array]:
        """Standardised scores (frames, axes) float32 of each clip."""
        module = self.module()
        assert isinstance(module, _AESA)
        found = [module.frames(batch)[0][0] for batch in one_by_one(inputs)]
        return [self.criterion().scores(scores, self.constants).numpy() for scores in found]
