"""The head of Audiobox-Aesthetics (Tjandra et al., arXiv 2502.05139), on stored layers.

Weighted sums of layers and means over time are both linear, so that it is the published head exactly where it reads raw
layer means of the published windows (``layers = "all"``, ``normalise = "raw"``).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from mmmos.axes import AXES
from mmmos.ensembles.heads.neural import Batch, Neural, Output, TrainingOptions
from mmmos.ensembles.heads.stack import Affine, LayerMix, LayerNorm, dropout, elementwise
from mmmos.errors import SetupError
from mmmos.features.encoders import encoder
from mmmos.features.encoders.audiobox import Audiobox
from mmmos.features.encoders.unilm import ACTIVATIONS


class LayerSumOptions(TrainingOptions):
    """Sizes of the perceptrons; the defaults are the published checkpoint's."""

    depth: int = Field(5, ge=1)
    """Linear layers."""
    hidden: int = Field(0, ge=0)
    """Units of the layers before the last; 0: as many as the input has numbers, which is the published size."""
    norm: bool = True
    """Whether a layer norm follows each layer but the last."""
    activation: Literal["gelu", "relu", "silu", "swish", "tanh"] = "gelu"
    """What follows each layer but the last, and its norm."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of units dropped after each layer but the last."""
    unit: bool = True
    """Whether weighted sums of layers are brought to length 1."""


class PerAxis(nn.Module):
    """For each axis, weighted sums of layers and a perceptron; both have parameters (heads, axes, …)."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        axes: int,
        outputs: int,
        draws: Sequence[torch.Generator],
        options: LayerSumOptions,
    ) -> None:
        super().__init__()
        self.mix = LayerMix(shapes, True, len(draws), copies=(axes,), unit=options.unit)
        sizes = [self.mix.size, *[options.hidden or self.mix.size] * (options.depth - 1)]
        places = list(pairwise(sizes))
        self.hidden = nn.ModuleList([Affine(before, after, draws, (axes,)) for before, after in places])
        self.norms = nn.ModuleList([LayerNorm(after, len(draws), (axes,)) for _, after in places if options.norm])
        self.last = Affine(sizes[-1], outputs, draws, (axes,))
        self.activation, self.dropout = ACTIVATIONS[options.activation], options.dropout

    def layers(self) -> Iterator[nn.Module]:
        """The linear layers and the norms, in the order in which they are used."""
        for place, layer in enumerate(self.hidden):
            yield layer
            yield from self.norms[place : place + 1]
        yield self.last

    def forward(self, batch: Batch) -> Output:
        """Numbers of all axes, side by side."""
        x = self.mix(batch.blocks)
        for place, layer in enumerate(self.hidden):
            x = layer(x)
            if len(self.norms):
                x = self.norms[place](x)
            x = dropout(elementwise(self.activation, x), self.dropout, batch.chance, place)
        return Output(self.last(x).transpose(1, 2).flatten(2))


class LayerSum(Neural):
    """The head of Audiobox-Aesthetics (arXiv 2502.05139): for each axis a softmax over layers and a perceptron.

    Several feature sets are put side by side. On raw layer means of the published windows (``layers = "all"``,
    ``normalise = "raw"``) it is the published head exactly.
    """

    Options = LayerSumOptions
    learns_layers = False

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> PerAxis:
        """See ``Neural.build``."""
        return PerAxis(shapes, axes, self.criterion().outputs, draws, self.options)


@torch.no_grad()
def from_audiobox(weights: str | None = None, revision: str | None = None) -> tuple[LayerSum, NDArray[np.float64]]:
    """The heads of an Audiobox checkpoint as one head, and the mean and deviation (2, axes) of their scores; axes in
    the order of ``AXES``.

    ``weights``: checkpoint.pt, or a folder or hub id; by default the published ones. The head predicts standardised
    scores from raw layer means of windows of 10 s; a clip's score is the mean over its windows by length.
    Raises ``SetupError``, ``UsageError``.
    """
    loaded = encoder("audiobox-aesthetics", weights, revision=revision, device="cpu")
    assert isinstance(loaded, Audiobox)
    published, settings = loaded.heads, loaded.heads.settings
    scales = {axis: (mean, deviation) for axis, mean, deviation in settings.scales}
    if set(scales) != set(AXES):
        raise SetupError(f"{loaded.spec.weights} scores {', '.join(sorted(scales))}; needed are {', '.join(AXES)}.")
    same = {name: getattr(settings, name) for name in ("norm", "activation", "unit")}
    head = LayerSum(options=same | {"depth": settings.layers})
    shape = loaded.spec.layers, loaded.spec.dim
    module = head.build([shape], len(AXES), [torch.Generator()])
    for number, axis in enumerate(AXES):
        module.mix.weights[0][0, number] = published.layer_weights[axis]
        theirs = [part for part in published.proj_layer[axis].children() if list(part.parameters())]
        for ours, part in zip(module.layers(), theirs, strict=True):
            for name, value in part.named_parameters():
                ours.get_parameter(name)[0, number] = value.t()
    parameters = {name: value[0].detach() for name, value in module.named_parameters()}
    return head.learned([shape], len(AXES), parameters), np.array([scales[axis] for axis in AXES]).T
