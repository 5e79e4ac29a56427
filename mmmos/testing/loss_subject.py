"""A loss under test with batches that fit it."""

import inspect
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from mmmos.ensembles.losses import Loss
from mmmos.ensembles.losses.base import Array

HEADS, AXES, CLIPS, DIM = 2, 3, 8, 5
EVERY = slice(None)

Term = tuple[str, Callable[[Tensor], Tensor], Tensor]


class Subject:
    """The loss under test, training scores, and batches that fit them."""

    def __init__(self, loss: Loss) -> None:
        assert isinstance(loss, Loss), f"A loss is a mmmos.ensembles.losses.Loss; got {type(loss).__name__}."
        self.loss = loss
        self.scores: Array = np.random.default_rng(0).uniform(1, 9, (60, AXES)).round(1)
        self.scale: Array = np.array([self.scores.mean(0), self.scores.std(0)])

    def constants(self, dtype: torch.dtype, axes: slice = EVERY) -> dict[str, Tensor]:
        """The loss's constants for some axes."""
        found = self.loss.of_training(self.scores, self.scale)
        return {name: torch.tensor(values[axes], dtype=dtype) for name, values in found.items()}

    def batch(self, clips: int = CLIPS, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Predictions (heads, axes, clips[, outputs]) and targets (heads, axes, clips)."""
        draw = torch.Generator().manual_seed(seed)
        scores = torch.from_numpy((self.scores - self.scale[0]) / self.scale[1])
        y = scores[torch.randint(len(scores), (HEADS, clips), generator=draw)].transpose(1, 2).contiguous()
        noise = _normal(*y.shape, self.loss.outputs, draw=draw)
        p = y / 2 + noise[..., 0] if self.loss.outputs == 1 else noise
        return p.to(dtype), y.to(dtype)

    def values(self, p: Tensor, y: Tensor, constants: dict[str, Tensor] | None = None) -> Tensor:
        """What the function gives, with the constants of all axes unless others are given."""
        constants = self.constants(y.dtype) if constants is None else constants
        return self.loss.function(p, y, **constants, **self._options(self.loss.function))

    def embeddings(
        self, clips: int = CLIPS, known: int | None = None, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        """Embeddings and targets of a batch, of ``known`` (a full memory) remembered clips, and chance."""
        known = self.loss.memory if known is None else known
        draw = torch.Generator().manual_seed(1)
        z, known_z = (_normal(HEADS, size, DIM, draw=draw).to(dtype) for size in (clips, known))
        y, known_y = (self.batch(size, dtype, seed=size)[1] for size in (clips, known))
        candidates = known if self.loss.memory else clips
        return z, y, known_z, known_y, torch.rand(HEADS, AXES, 2, clips, candidates, generator=draw)

    def embedded(self, z: Tensor, *others: Tensor) -> Tensor:
        """What the embedding's term gives."""
        assert self.loss.embedding is not None
        return self.loss.embedding(z, *others, **self._options(self.loss.embedding))

    def terms(self, dtype: torch.dtype = torch.float64) -> Iterator[Term]:
        """What training differentiates: the function of predictions and, where there is one, that of embeddings."""
        p, y = self.batch(dtype=dtype)
        yield "the function", lambda x: self.values(x, y), p
        if self.loss.embedding:
            z, *others = self.embeddings(dtype=dtype)
            yield "the embedding's term", lambda x: self.embedded(x, *others), z

    def _options(self, part: Callable[..., Tensor]) -> dict[str, float]:
        return {name: value for name, value in self.loss.options.items() if name in inspect.signature(part).parameters}


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Values and the gradient of their sum; one of 0 where they do not depend on x."""
    x = x.detach().clone().requires_grad_()
    values = function(x)
    if not values.requires_grad:
        return values, torch.zeros_like(x)
    return values.detach(), torch.autograd.grad(values.sum(), x)[0]


def _normal(*shape: int, draw: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=draw)
