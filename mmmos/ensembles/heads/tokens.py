"""A recurrent head on pooled vectors: blstm."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from mmmos.ensembles.heads.neural import Batch, Neural, Output, TrainingOptions
from mmmos.ensembles.heads.recurrent import BiLSTM, linear
from mmmos.ensembles.heads.stack import LayerMix, dropout


class BLSTMOptions(TrainingOptions):
    """Sizes of a BLSTM over pooled vectors."""

    width: int = Field(256, ge=1)
    """Units that each vector is projected to."""
    hidden: int = Field(128, ge=1)
    """Units of an LSTM layer in each direction."""
    depth: int = Field(1, ge=1)
    """LSTM layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of units dropped before the last layer."""
    batch: int = Field(16, ge=2)
    """Clips in a batch."""


class Tokens(nn.Module):
    """Each feature set projected, a BLSTM over all vectors in their order, their mean (the embedding), a last layer."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        weighted: bool,
        outputs: int,
        draw: torch.Generator,
        options: BLSTMOptions,
    ) -> None:
        super().__init__()
        self.mixes = nn.ModuleList([LayerMix([shape], True, 1) for shape in shapes] if weighted else [])
        self.projections = nn.ModuleList([linear(dim, options.width, draw) for _, dim in shapes])
        self.lstm = BiLSTM(options.width, options.hidden, options.depth, draw)
        self.last = linear(2 * options.hidden, outputs, draw)
        self.dropout = options.dropout

    def forward(self, batch: Batch) -> Output:
        """See the class."""
        blocks = list(batch.blocks)
        if len(self.mixes):
            blocks = [mix([block]).unsqueeze(2) for mix, block in zip(self.mixes, blocks, strict=True)]
        tokens = [project(block[0]) for project, block in zip(self.projections, blocks, strict=True)]
        embedding: Tensor = self.lstm(torch.cat(tokens, dim=1)).mean(1)[None]
        kept = dropout(embedding, self.dropout, batch.chance, 0)
        return Output(self.last(kept), embedding)


class BLSTM(Neural):
    """A bidirectional LSTM over the pooled vectors of all feature sets and chosen layers, one token each, in order.

    With ``layers = "weighted"``, a feature set is one token. MMMOS (arXiv 2507.04094) names a BLSTM and leaves its
    sizes and its sequence open; over tokens of the encoders is our reading, ``blstm_t`` runs over time.
    """

    Options = BLSTMOptions
    stacks = False
    embeds = True

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """See ``Neural.build``."""
        (draw,) = draws
        return Tokens(shapes, self.weighted, self.outputs(axes), draw, self.options)
