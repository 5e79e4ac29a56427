"""Heads on pooled vectors, many trained at once: linear, mlp."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import nn

from mmmos.ensembles.heads.neural import Batch, Neural, Output, TrainingOptions
from mmmos.ensembles.heads.stack import Affine, LayerMix, dropout


class MLPOptions(TrainingOptions):
    """Sizes of a perceptron."""

    hidden: int = Field(256, ge=1)
    """Units of a hidden layer."""
    depth: int = Field(1, ge=1)
    """Hidden layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of units dropped after each hidden layer."""


class Perceptron(nn.Module):
    """Layers mixed, ``depth`` hidden layers with ReLU (none: linear), one last layer; its input is the embedding."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        weighted: bool,
        outputs: int,
        draws: Sequence[torch.Generator],
        *,
        hidden: int = 0,
        depth: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.mix = LayerMix(shapes, weighted, len(draws))
        sizes = [self.mix.size, *[hidden] * depth]
        self.hidden = nn.ModuleList([Affine(size, hidden, draws) for size in sizes[:-1]])
        self.last = Affine(sizes[-1], outputs, draws)
        self.dropout = dropout

    def forward(self, batch: Batch) -> Output:
        """See the class."""
        x = self.mix(batch.blocks)
        for place, layer in enumerate(self.hidden):
            x = dropout(torch.relu_(layer(x)), self.dropout, batch.chance, place)
        return Output(self.last(x), x if len(self.hidden) else None)


class Linear(Neural):
    """One linear layer on the chosen layers of all feature sets side by side, for all axes."""

    Options = TrainingOptions

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """See ``Neural.build``."""
        return Perceptron(shapes, self.weighted, self.outputs(axes), draws)


class MLP(Neural):
    """A multilayer perceptron with ReLU on the chosen layers of all feature sets side by side, shared by all axes."""

    Options = MLPOptions
    embeds = True

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """See ``Neural.build``."""
        given = self.options
        return Perceptron(
            shapes,
            self.weighted,
            self.outputs(axes),
            draws,
            hidden=given.hidden,
            depth=given.depth,
            dropout=given.dropout,
        )
