"""The loss contract."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmmos.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Constants = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Loss:
    """A training criterion, the same for every axis. B is the batch size, … are any leading dimensions, the last of
    them axes.

    ``function`` maps predictions (…, B), or (…, B, outputs) for ``outputs`` > 1, and standardised targets (…, B) to
    (…); ``decode`` maps (…, outputs) to standardised scores (…). Both also get, as keyword arguments, what
    ``constants`` makes of the training scores (clips, axes) and their scale (2, axes), mean and deviation: arrays
    (axes, …).

    ``anchored`` is False when a constant added to all predictions changes nothing, or the optimum leaves the scale:
    such heads are calibrated before they are averaged.

    ``embedding`` is added on training batches of heads that give embeddings: from z (heads, B, dim), y (heads, axes,
    B), the last ``memory`` pairs of earlier batches z' (heads, M, dim) and y' (heads, axes, M), M ≤ memory, and chance
    (heads, axes, 2, B, M or B without memory), uniform in [0, 1), to (heads,).

    ``options`` are values of keyword parameters of ``function`` and ``embedding`` other than their defaults.
    """

    name: str
    function: "Callable[..., Tensor]"
    anchored: bool = True
    outputs: int = 1
    decode: "Callable[..., Tensor] | None" = None
    constants: Callable[[Array, Array], dict[str, Array]] | None = None
    embedding: "Callable[..., Tensor] | None" = None
    memory: int = 0
    options: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, outputs: "Tensor", targets: "Tensor", constants: Constants | None = None) -> "Tensor":
        """Mean over axes (…) of outputs (…, B, axes × outputs) and targets (…, B, axes)."""
        keywords = {**(constants or {}), **_accepted(self.function, self.options)}
        return self.function(self._by_axis(outputs), targets.transpose(-1, -2).contiguous(), **keywords).mean(-1)

    def scores(self, outputs: "Tensor", constants: Constants | None = None) -> "Tensor":
        """Standardised scores (…, B, axes) of outputs (…, B, axes × outputs)."""
        if self.decode is None:
            return outputs
        return self.decode(self._by_axis(outputs), **(constants or {})).transpose(-1, -2)

    def _by_axis(self, outputs: "Tensor") -> "Tensor":
        """(…, B, axes × outputs) to (…, axes, B) or (…, axes, B, outputs), laid out so that sums have one order."""
        if self.outputs == 1:
            return outputs.transpose(-1, -2).contiguous()
        return outputs.unflatten(-1, (-1, self.outputs)).transpose(-2, -3).contiguous()

    def of_embedding(self, z: "Tensor", y: "Tensor", memory: "tuple[Tensor, Tensor]", chance: "Tensor") -> "Tensor":
        """What the embedding adds (heads,); 0 for a loss that does not look at it."""
        if self.embedding is None:
            return z.new_zeros(len(z))
        return self.embedding(z, y, *memory, chance, **_accepted(self.embedding, self.options))

    def of_training(self, scores: Array, scale: Array) -> dict[str, Array]:
        """The constants of training scores (clips, axes) with mean and deviation ``scale`` (2, axes)."""
        return self.constants(scores, scale) if self.constants else {}

    def parameters(self) -> dict[str, float]:
        """Numbers that a recipe may set, with their values."""
        parts = [part for part in (self.function, self.embedding) if part is not None]
        found = {name: default for part in parts for name, default in _numbers(part).items()}
        return found | dict(self.options)

    def given(self, options: Mapping[str, Any]) -> "Loss":
        """This loss with other values of its parameters.

        Raises ``UnknownName`` for a parameter that it lacks, ``UsageError`` for a value that is not a positive number.
        """
        known = self.parameters()
        for name, value in options.items():
            if name not in known:
                raise UnknownName(f"option of the loss {self.name!r}", name, known)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise UsageError(f"The option {name} of the loss {self.name!r} is a number of 0 up; got {value!r}.")
        return replace(self, options={**self.options, **options})


@cache
def _numbers(function: "Callable[..., Tensor]") -> dict[str, float]:
    """The keyword parameters of a function that have a number as default."""
    parameters = inspect.signature(function).parameters
    return {name: each.default for name, each in parameters.items() if isinstance(each.default, int | float)}


def _accepted(function: "Callable[..., Tensor]", options: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in options.items() if name in _numbers(function)}


def pairs(values: "Tensor") -> "Tensor":
    """All differences: (…, B) to (…, B, B), entry i, j being v_i − v_j."""
    return values.unsqueeze(-1) - values.unsqueeze(-2)
