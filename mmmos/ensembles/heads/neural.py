"""Heads trained by gradient descent: what they have in common, and what the engine asks of them."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from mmmos.ensembles.heads import Array, Blocks
from mmmos.ensembles.heads.stack import Chance
from mmmos.ensembles.losses import Loss
from mmmos.ensembles.losses import loss as find_loss
from mmmos.recipe import Recipe

# Rows that are predicted at a time.
ROWS = 4096


class TrainingOptions(Recipe):
    """How Adam trains a head, and when it stops."""

    lr: float = Field(1e-3, gt=0)
    """Learning rate."""
    weight_decay: float = Field(0.0, ge=0)
    """L2 penalty on the parameters, added to the gradient."""
    clip: float = Field(0.0, ge=0)
    """Norm that gradients are clipped to; 0: they are not."""
    batch: int = Field(32, ge=2)
    """Clips in a batch."""
    epochs: int = Field(100, ge=1)
    """Passes over the training clips, at most."""
    patience: int = Field(15, ge=1)
    """Epochs without gain on the held-out clips, after which training stops."""


class Batch(NamedTuple):
    """What a module reads: for each feature set (heads, B, layers, dim), of frames (1, B, frames, layers, dim).

    ``lengths`` (1, B): frames of each clip, the rest being zeros; None for pooled vectors.
    ``chance``: the randomness of a training step, None in prediction.
    """

    blocks: Sequence[Tensor]
    lengths: Tensor | None = None
    chance: Chance | None = None


class Output(NamedTuple):
    """What a module gives: ``outputs`` (heads, B, numbers that the loss asks for); where the head has them, the
    ``embedding`` (heads, B, dim) for losses on it, ``domain`` (heads, B, domains), logits of an adversary, and
    ``spread`` (heads, B, axes), the variance of a clip's frame scores.
    """

    outputs: Tensor
    embedding: Tensor | None = None
    domain: Tensor | None = None
    spread: Tensor | None = None


def tensor_of(array: NDArray[Any]) -> Tensor:
    """A tensor on the memory of an array, which may be a read-only file: it is never written to."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class Neural(ABC):
    """A head whose module the engine trains.

    ``stacks``: its parameters have a leading dimension of heads, so that many are trained at once; else it is trained
    alone, and its module gives outputs of one head. ``embeds``: its output has an embedding that losses may look at.
    ``learns_layers``: it takes ``layers = "weighted"``.
    """

    Options: ClassVar[type[TrainingOptions]]
    own_loss: ClassVar[bool] = False
    reads: ClassVar[Literal["pooled", "frames"]] = "pooled"
    stacks: ClassVar[bool] = True
    embeds: ClassVar[bool] = False
    learns_layers: ClassVar[bool] = True

    def __init__(
        self,
        *,
        options: Mapping[str, Any],
        weighted: bool = False,
        loss: str = "mse",
        loss_options: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.options: Any = self.Options.model_validate(dict(options))
        self.weighted, self.loss, self.loss_options, self.seed = weighted, loss, dict(loss_options or {}), seed
        self._criterion: Loss | None = None
        self.shapes: list[tuple[int, int]] = []
        self.axes = 0
        self.constants: dict[str, Tensor] = {}
        self.parameters: dict[str, Tensor] = {}
        self._kept: nn.Module | None = None

    @abstractmethod
    def build(self, shapes: Sequence[tuple[int, int]], axes: int, draws: Sequence[torch.Generator]) -> nn.Module:
        """An untrained module from ``Batch`` to ``Output``, a head for each generator.

        ``shapes``: (layers, dim) of each feature set. Parameters are drawn from the generators alone.
        """

    def criterion(self) -> Loss:
        """What is measured on held-out clips, and how outputs become scores."""
        if self._criterion is None:
            self._criterion = find_loss(self.loss, self.loss_options)
        return self._criterion

    def outputs(self, axes: int) -> int:
        """Numbers that the module gives for a clip."""
        return axes * self.criterion().outputs

    def columns(self) -> tuple[str, ...]:
        """Columns of the clips' table that ``side`` reads."""
        return ()

    def side(self, clips: pd.DataFrame, blocks: Blocks) -> dict[str, NDArray[Any]]:
        """What the objective needs beside scores, (clips, …) each, from the table of the training clips and their
        pooled vectors (none for a head that reads frames). It is called before ``build``.
        """
        return {}

    def objective(
        self, output: Output, targets: Tensor, side: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> Tensor:
        """What is minimised on a training batch (heads,): targets (heads, B, axes), side (heads, B, …) by name."""
        return self.criterion()(output.outputs, targets, constants)

    @torch.inference_mode()
    def predict(self, inputs: Blocks) -> Array:
        """Standardised predictions (clips, axes) float32."""
        parts = [self.criterion().scores(outputs, self.constants) for outputs in self.outputs_of(inputs)]
        return torch.cat(parts).numpy() if parts else np.zeros((0, self.axes), np.float32)

    def outputs_of(self, inputs: Blocks) -> Iterator[Tensor]:
        """What the module gives for the clips (some clips, numbers), piece by piece."""
        module = self.module()
        for first in range(0, len(inputs[0]), ROWS):
            blocks = [tensor_of(np.ascontiguousarray(block[first : first + ROWS])) for block in inputs]
            yield module(Batch([block[None] for block in blocks])).outputs[0]

    def module(self) -> nn.Module:
        """The trained module of this head."""
        if self._kept is not None:
            return self._kept
        module = self.build(self.shapes, self.axes, [torch.Generator()])
        stored = {name: value[None] if self.stacks else value for name, value in self.parameters.items()}
        module.load_state_dict(stored)
        return module.eval().requires_grad_(False)

    def keep_module(self) -> None:
        """Build the module once, for many predictions of few clips."""
        self._kept = self.module()

    def learned(self, shapes: Sequence[tuple[int, int]], axes: int, parameters: Mapping[str, Tensor]) -> Self:
        """Take parameters of one head, by their names in the module and without the dimension of heads."""
        self.shapes, self.axes, self.parameters, self._kept = list(shapes), axes, dict(parameters), None
        return self

    def state(self) -> dict[str, NDArray[Any]]:
        """Parameters by name; ``shapes`` (layers, dim) of each feature set; ``axes``; constants of the loss."""
        arrays = {name: tensor.numpy() for name, tensor in self.parameters.items()}
        arrays |= {f"loss.{name}": tensor.numpy() for name, tensor in self.constants.items()}
        return arrays | {"shapes": np.array(self.shapes, np.int32), "axes": np.array(self.axes, np.int32)}

    def restore(self, state: dict[str, NDArray[Any]]) -> Self:
        """Take the state of a stored head."""
        tensors = {name: torch.from_numpy(array) for name, array in state.items() if name not in ("shapes", "axes")}
        self.constants = {name[5:]: value for name, value in tensors.items() if name.startswith("loss.")}
        shapes = [(int(layers), int(dim)) for layers, dim in state["shapes"]]
        parameters = {name: value for name, value in tensors.items() if not name.startswith("loss.")}
        return self.learned(shapes, int(state["axes"]), parameters)
