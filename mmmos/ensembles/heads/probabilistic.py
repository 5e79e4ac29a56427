"""A head that predicts a Gaussian over all axes: means, and a covariance that says how sure they are and how errors of
axes go together (MultiGauss, Cumlin et al.; on the four axes: arXiv 2603.16201).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mmmos.axes import AXES
from mmmos.ensembles.heads import Array, Blocks
from mmmos.ensembles.heads.neural import Neural, Output
from mmmos.ensembles.heads.pooled import MLPOptions, Perceptron
from mmmos.ensembles.losses import Loss

# Smallest conditional deviation, in standard deviations of the scores: a tenth of what ten raters leave open.
FLOOR = 0.03


class GaussianOptions(MLPOptions):
    """Sizes of a perceptron, and its criterion."""

    penalty: float = Field(0.1, ge=0)
    """Weight of negative covariances between axes."""
    ratings: bool = True
    """Whether clips count by how much their raters agree, where single ratings are known."""


@dataclass(frozen=True)
class Joint(Loss):
    """A criterion on all axes together: ``function`` maps outputs (…, B, numbers) and targets (…, B, axes) to (…, B).

    Outputs begin with the scores.
    """

    def of_clips(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The criterion of each clip (…, B)."""
        return self.function(outputs, targets, **self.options)

    def __call__(self, outputs: Tensor, targets: Tensor, constants: Mapping[str, Tensor] | None = None) -> Tensor:
        """Mean over clips (…)."""
        return self.of_clips(outputs, targets).mean(-1)

    def scores(self, outputs: Tensor, constants: Mapping[str, Tensor] | None = None) -> Tensor:
        """Standardised scores (…, B, axes)."""
        return outputs[..., : axes_of(outputs)]


class Gaussian(Neural):
    """A multilayer perceptron that gives the mean and the covariance of a Gaussian over the axes.

    Its criterion is the negative log-likelihood. After MultiGauss (Cumlin et al.), for the four axes after
    arXiv 2603.16201. Scores are the means.
    """

    Options = GaussianOptions
    own_loss = True

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """See ``Neural.build``."""
        given = self.options
        sizes = {"hidden": given.hidden, "depth": given.depth, "dropout": given.dropout}
        return Perceptron(shapes, self.weighted, self.outputs(axes), draws, **sizes)

    def criterion(self) -> Joint:
        """See ``Neural.criterion``."""
        return Joint("gaussian", gaussian_nll, options={"penalty": self.options.penalty})

    def outputs(self, axes: int) -> int:
        """A mean, a diagonal, and what is below it."""
        return axes * (axes + 3) // 2

    def columns(self) -> tuple[str, ...]:
        """See ``Neural.columns``."""
        return tuple(f"{axis}_variance" for axis in AXES) if self.options.ratings else ()

    def side(self, clips: pd.DataFrame, blocks: Blocks) -> dict[str, Array]:
        """``weight`` of each clip, by the mean variance of its ratings over those axes where it is known."""
        if not self.options.ratings:
            return {}
        return {"weight": rating_weights(clips.reindex(columns=list(self.columns())).mean(axis=1).to_numpy(float))}

    def objective(
        self, output: Output, targets: Tensor, side: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> Tensor:
        """See ``Neural.objective``."""
        losses = self.criterion().of_clips(output.outputs, targets)
        return (losses * side["weight"].to(losses) if "weight" in side else losses).mean(-1)

    @torch.inference_mode()
    def covariance(self, inputs: Blocks) -> Array:
        """Standardised covariances (clips, axes, axes) float32 of the errors of ``predict``."""
        factors = map(factor, self.outputs_of(inputs))
        parts = [lower @ lower.mT for lower in factors]
        return torch.cat(parts).numpy() if parts else np.zeros((0, self.axes, self.axes), np.float32)

    def deviations(self, inputs: Blocks) -> Array:
        """Standardised deviations (clips, axes) float32 of the errors of ``predict``."""
        return np.sqrt(np.diagonal(self.covariance(inputs), axis1=1, axis2=2))


def gaussian_nll(outputs: Tensor, y: Tensor, penalty: float = 0.0) -> Tensor:
    """(dᵀ S⁻¹ d + ln det S) / 2 + penalty · mean over pairs of axes of max(0, −S_ij), with d = p − y: (…, B).

    S = L Lᵀ with ``factor`` L. The released code of MultiGauss takes max(ln det S, 1e-6), which is constant where
    standardised scores are predicted well, and so makes no S smaller than det S = 1; here ln det S is as it is, bounded
    by the floor of L. It looks at the covariances of the first axis alone; here no axis comes first.
    """
    axes = axes_of(outputs)
    lower, difference = factor(outputs), outputs[..., :axes] - y
    whitened = torch.linalg.solve_triangular(lower, difference[..., None], upper=False)[..., 0]
    result = whitened.square().sum(-1) / 2 + lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    if not penalty or axes < 2:
        return result
    rows, columns = torch.tril_indices(axes, axes, -1, device=outputs.device)
    covariances = (lower @ lower.mT)[..., rows, columns]
    return result + penalty * (-covariances).relu().mean(-1)


def factor(outputs: Tensor) -> Tensor:
    """Lower triangular L (…, axes, axes) of outputs: mean, diagonal s with L_ii = ln(1 + exp s) + floor, rows below."""
    axes = axes_of(outputs)
    _, diagonal, below = outputs.split([axes, axes, axes * (axes - 1) // 2], dim=-1)
    lower = torch.diag_embed(FLOOR - logsigmoid(-diagonal))
    rows, columns = torch.tril_indices(axes, axes, -1, device=outputs.device)
    lower[..., rows, columns] = below
    return lower


def axes_of(outputs: Tensor) -> int:
    """The axes A of outputs (…, A (A + 3) / 2)."""
    return (math.isqrt(9 + 8 * outputs.shape[-1]) - 3) // 2


def rating_weights(variance: NDArray[np.float64]) -> Array:
    """Weights (clips,) of clips whose mean ratings have a variance v: 1 / (v + mean v), scaled to the mean 1; 1 where v
    is not known (NaN).

    The mean of v stands for what a model leaves open however well a clip is rated: no clip counts more than twice as
    much as one of mean variance.
    """
    weights, known = np.ones(len(variance)), np.isfinite(variance)
    usual = variance[known].mean() if known.any() else 0.0
    if usual > 0:
        inverse = 1 / (variance[known] + usual)
        weights[known] = inverse / inverse.mean()
    return weights.astype(np.float32)
