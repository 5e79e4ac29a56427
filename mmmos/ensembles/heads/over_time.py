"""What heads that read frames have in common. What is behind a clip's last frame changes nothing."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from mmmos.ensembles.heads import Array
from mmmos.ensembles.heads.frames import Frames, Padded
from mmmos.ensembles.heads.neural import Batch, Neural, TrainingOptions
from mmmos.ensembles.heads.recurrent import linear
from mmmos.ensembles.heads.stack import Chance, LayerMix, dropout


class FrameOptions(TrainingOptions):
    """How frames are brought to a common rate."""

    rate: float | None = Field(None, gt=0)
    """Hz that frames are pooled to; by default as they are, and of several encoders the lowest rate."""
    batch: int = Field(16, ge=2)
    """Clips in a batch."""


class OverTime(Neural):
    """A head that reads frames."""

    reads = "frames"
    stacks = False
    embeds = True

    @torch.inference_mode()
    def predict(self, inputs: Any) -> Array:
        """Standardised predictions (clips, axes) float32 of ``Frames``."""
        module = self.module()
        outputs = [module(batch).outputs[0] for batch in one_by_one(inputs)]
        scores = [self.criterion().scores(output, self.constants) for output in outputs]
        return torch.cat(scores).numpy() if scores else np.zeros((0, self.axes), np.float32)


def one_by_one(frames: Frames) -> Iterator[Batch]:
    """Each clip as a batch, which holds until the next one: a clip's bits do not depend on other clips."""
    padded = Padded(frames)
    return (padded.batch(np.array([clip])) for clip in range(len(frames)))


class Frontend(nn.Module):
    """The layers of each feature set mixed, all sets side by side, projected: ``Batch`` to (B, T, width)."""

    def __init__(
        self, shapes: Sequence[tuple[int, int]], weighted: bool, width: int, draw: torch.Generator, unit: bool = True
    ) -> None:
        super().__init__()
        self.mix = LayerMix(shapes, weighted, 1, unit=unit)
        self.project = linear(self.mix.size, width, draw)

    def forward(self, batch: Batch) -> Tensor:
        """See the class."""
        mixed = self.mix([block.flatten(1, 2) for block in batch.blocks])
        x: Tensor = self.project(mixed[0]).view(*batch.blocks[0].shape[1:3], -1)
        return x


def lengths_of(batch: Batch) -> Tensor:
    """Frames of each clip (B,)."""
    assert batch.lengths is not None, "pooled vectors for a head that reads frames"
    return batch.lengths[0]


def is_valid(lengths: Tensor, steps: int) -> Tensor:
    """True (B, T) for frames, False for padding."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def time_mean(x: Tensor, lengths: Tensor) -> Tensor:
    """Means (B, size) of the frames of x (B, T, size)."""
    shares = is_valid(lengths, x.shape[1]) / lengths[:, None]
    return torch.bmm(shares[:, None].to(x), x)[:, 0]


def clip_dropout(x: Tensor, share: float, chance: Chance | None, place: int) -> Tensor:
    """Dropout of x (B, T, size) that drops the same numbers in all frames of a clip (Gal and Ghahramani, 2016)."""
    if chance is None or not share:
        return x
    return x * dropout(x.new_ones(1, len(x), 1, x.shape[2]), share, chance, place)[0]
