"""A head that hides the domain of a clip from its embedding, so that scores hold for other domains too.

Gradient reversal (Ganin and Lempitsky, arXiv 1409.7495), for scores of generated audio after arXiv 2603.16201.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from mmmos.ensembles.heads import Blocks, flat
from mmmos.ensembles.heads.neural import Batch, Neural, Output
from mmmos.ensembles.heads.pooled import MLPOptions, Perceptron
from mmmos.ensembles.heads.stack import Affine
from mmmos.errors import UnknownName, UsageError

Labels = NDArray[np.int64]


class AdversarialOptions(MLPOptions):
    """Sizes of a perceptron, and what it hides."""

    domains: Literal["domain", "set", "system", "group", "kmeans", "random"] = "kmeans"
    """What a clip's domain is: a column of the clips, its cluster of pooled vectors, or a random part of equal size."""
    clusters: int = Field(8, ge=2)
    """Clusters of "kmeans", parts of "random"."""
    weight: float = Field(0.1, ge=0)
    """Weight of the domains' cross entropy, the same from the first step to the last."""


class DomainAdversarial(nn.Module):
    """A perceptron whose embedding is also read by a classifier of domains, through a reversed gradient."""

    def __init__(self, scorer: Perceptron, size: int, domains: int, draws: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.scorer = scorer
        self.first, self.classes = Affine(size, size, draws), Affine(size, domains, draws)

    def forward(self, batch: Batch) -> Output:
        """Scores, embedding and logits of domains."""
        output: Output = self.scorer(batch)
        reverse: Tensor = _Reverse.apply(output.embedding)
        return output._replace(domain=self.classes(torch.relu_(self.first(reverse))))


class _Reverse(torch.autograd.Function):
    """x itself, with the negative gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return -grads[0]


class Adversarial(Neural):
    """A multilayer perceptron whose embedding hides the domain of a clip, so that scores hold for other domains too.

    It minimises loss + weight × cross entropy of a classifier of domains, where the layers that classifier and scores
    share receive the negative gradient of the cross entropy: gradient reversal (Ganin and Lempitsky, arXiv 1409.7495),
    for scores of generated audio after arXiv 2603.16201. The classifier, whose size is the number of domains, is stored
    with the head. Raises ``UsageError`` for training clips of fewer than two domains.
    """

    Options = AdversarialOptions
    embeds = True
    domains = 0

    def columns(self) -> tuple[str, ...]:
        """See ``Neural.columns``."""
        return () if self.options.domains in ("kmeans", "random") else (self.options.domains,)

    def side(self, clips: pd.DataFrame, blocks: Blocks) -> dict[str, NDArray[Any]]:
        """``domain`` of each clip, from 0; −1 where it is unknown. Raises ``UsageError`` for fewer than two domains."""
        source, count = self.options.domains, self.options.clusters
        if source == "kmeans":
            labels = _clusters(flat(blocks), count, self.seed)
        elif source == "random":
            labels = np.random.default_rng(self.seed).permutation(np.arange(len(clips)) % count)
        else:
            labels = _named(clips, source)
            count = labels.max(initial=-1) + 1
        assert len(labels) == len(clips), "blocks have a vector for each clip"
        found = len(np.unique(labels[labels >= 0]))
        if found < 2:
            where = f"the column {source!r}" if self.columns() else f"domains = {source!r}"
            raise UsageError(
                f"The head 'adversarial' needs training clips of two domains at least; {where} gives {found}."
                ' Take another column of the clips, or domains = "kmeans" or "random".'
            )
        self.domains = int(count)
        return {"domain": labels.astype(np.int64)}

    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """See ``Neural.build``."""
        given = self.options
        sizes = {"hidden": given.hidden, "depth": given.depth, "dropout": given.dropout}
        scorer = Perceptron(shapes, self.weighted, self.outputs(axes), draws, **sizes)
        return DomainAdversarial(scorer, given.hidden, self.domains or given.clusters, draws)

    def objective(
        self, output: Output, targets: Tensor, side: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> Tensor:
        """See ``Neural.objective``; clips of unknown domain have no part in the cross entropy."""
        loss = super().objective(output, targets, side, constants)
        labels = side["domain"].long()
        assert output.domain is not None
        chosen = output.domain.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
        known = (labels >= 0).to(chosen)
        return loss - self.options.weight * (chosen * known).sum(-1) / known.sum(-1).clamp_min(1)

    def learned(self, shapes: Sequence[tuple[int, int]], axes: int, parameters: Mapping[str, Tensor]) -> Self:
        """See ``Neural.learned``."""
        self.domains = len(parameters["classes.bias"])
        return super().learned(shapes, axes, parameters)


def _clusters(vectors: NDArray[np.float32], count: int, seed: int) -> Labels:
    """k-means clusters (clips,) of vectors (clips, features). Raises ``UsageError`` for fewer clips than clusters."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    if len(vectors) < count:
        raise UsageError(f"{len(vectors)} training clips do not make {count} clusters; take fewer (clusters).")
    with threadpool_limits(1), warnings.catch_warnings():
        # Fewer distinct vectors than clusters are no fault as long as there are two.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(KMeans(count, n_init=1, random_state=seed).fit_predict(vectors.astype(np.float64)))


def _named(clips: pd.DataFrame, column: str) -> Labels:
    """Numbers (clips,) of the names in a column, in their alphabetical order; −1 where there is none."""
    if column not in clips:
        raise UnknownName("column of the clips", column, map(str, clips.columns))
    names = np.array([None if pd.isna(name) else str(name) or None for name in clips[column]], object)
    return np.asarray(pd.factorize(names, sort=True)[0])
