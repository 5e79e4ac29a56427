"""Heads trained by gradient descent: linear, mlp, layersum. Each stays on the CPU, under its own seed."""

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from mmmos.ensembles.heads import Array, Blocks
from mmmos.ensembles.losses import Loss
from mmmos.ensembles.losses import loss as find_loss
from mmmos.recipe import Recipe


class LinearOptions(Recipe):
    """Adam with rate ``lr`` and ``weight_decay``; at most ``epochs``, stopped after ``patience`` without gain."""

    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    batch: int = Field(32, ge=2)
    epochs: int = Field(100, ge=1)
    patience: int = Field(15, ge=1)


class MLPOptions(LinearOptions):
    """``hidden`` units in each of ``depth`` hidden layers, ``dropout`` in [0, 1) after each."""

    hidden: int = Field(256, ge=1)
    depth: int = Field(1, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class LayerSumOptions(LinearOptions):
    """``depth`` linear layers for each axis, the last one to a single score; Audiobox has 5."""

    depth: int = Field(5, ge=1)


class Mixed(nn.Module):
    """Feature sets side by side; with ``weighted``, each is a softmax-weighted sum of its layers, of length 1."""

    def __init__(self, shapes: list[tuple[int, int]], weighted: bool) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(layers)) for layers, _ in shapes if weighted])
        self.size = sum(dim if weighted else layers * dim for layers, dim in shapes)

    def forward(self, blocks: list[Tensor]) -> Tensor:
        """(clips, layers, dim) for each set to (clips, size)."""
        if not len(self.weights):
            return torch.cat([block.flatten(1) for block in blocks], dim=1)
        sums = [torch.einsum("cld,l->cd", b, w.softmax(0)) for b, w in zip(blocks, self.weights, strict=True)]
        return torch.cat([nn.functional.normalize(each, dim=1) for each in sums], dim=1)


class _PerAxis(nn.Module):
    """Audiobox's head: for each axis its own layer weights and its own MLP with layer norm and GELU."""

    def __init__(self, shapes: list[tuple[int, int]], axes: int, depth: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList([Mixed(shapes, weighted=True) for _ in range(axes)])
        size = Mixed(shapes, weighted=True).size
        hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(size, size), nn.LayerNorm(size), nn.GELU())]
        self.project = nn.ModuleList([nn.Sequential(*copy.deepcopy(hidden), nn.Linear(size, 1)) for _ in range(axes)])
        self.apply(_reset)

    def forward(self, blocks: list[Tensor]) -> Tensor:
        """(clips, layers, dim) for each set to (clips, axes)."""
        return torch.cat([p(m(blocks)) for m, p in zip(self.mix, self.project, strict=True)], dim=1)


def _reset(module: nn.Module) -> None:
    """Draw a linear layer's parameters anew."""
    if isinstance(module, nn.Linear):
        module.reset_parameters()


class _Neural(ABC):
    """Training and storage; subclasses build the module."""

    Options: ClassVar[type[LinearOptions]]
    own_loss = False

    def __init__(self, *, options: dict[str, Any], weighted: bool = False, loss: str = "mse", seed: int = 0) -> None:
        self.options: Any = self.Options.model_validate(options)
        self.weighted, self.loss, self.seed = weighted, loss, seed
        self.shapes: list[tuple[int, int]] = []
        self.module: nn.Module = nn.Identity()

    @abstractmethod
    def build(self, axes: int) -> nn.Module:
        """An untrained module from blocks of ``self.shapes`` (layers, dim) to ``axes`` scores."""

    def fit(self, blocks: Blocks, targets: Array, held_out: tuple[Blocks, Array]) -> Self:
        """Train until the loss on the held-out clips stops falling; keeps the best epoch."""
        self.shapes = [(block.shape[1], block.shape[2]) for block in blocks]
        criterion = find_loss(self.loss)
        held = (_tensors(held_out[0]), torch.from_numpy(held_out[1]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.module = self.build(targets.shape[1])
            _train(self.module, _tensors(blocks), torch.from_numpy(targets), held, criterion, self.options)
        return self

    @torch.inference_mode()
    def predict(self, blocks: Blocks) -> Array:
        """Standardised predictions (clips, axes) float32."""
        result: Array = self.module.eval()(_tensors(blocks)).numpy()
        return result

    def state(self) -> dict[str, NDArray[Any]]:
        """The parameters by name; ``shapes`` holds (layers, dim) of each block, ``axes`` the number of scores."""
        arrays = {name: tensor.numpy() for name, tensor in self.module.state_dict().items()}
        return arrays | {
            "shapes": np.array(self.shapes, dtype=np.int32),
            "axes": np.array(self._axes(), dtype=np.int32),
        }

    def restore(self, state: dict[str, NDArray[Any]]) -> Self:
        """Take the parameters of a stored head."""
        self.shapes = [(int(layers), int(dim)) for layers, dim in state["shapes"]]
        self.module = self.build(int(state["axes"]))
        parameters = {name: torch.from_numpy(array) for name, array in state.items() if name not in ("shapes", "axes")}
        self.module.load_state_dict(parameters)
        return self

    def _axes(self) -> int:
        with torch.inference_mode():
            return int(self.module.eval()([torch.zeros(1, *shape) for shape in self.shapes]).shape[1])


class Linear(_Neural):
    """One linear layer on the chosen layers of all feature sets."""

    Options = LinearOptions

    def build(self, axes: int) -> nn.Module:
        """See ``_Neural.build``."""
        mixed = Mixed(self.shapes, self.weighted)
        return nn.Sequential(mixed, nn.Linear(mixed.size, axes))


class MLP(_Neural):
    """A multilayer perceptron with ReLU, shared by all axes."""

    Options = MLPOptions

    def build(self, axes: int) -> nn.Module:
        """See ``_Neural.build``."""
        mixed = Mixed(self.shapes, self.weighted)
        layers: list[nn.Module] = [mixed]
        size = mixed.size
        for _ in range(self.options.depth):
            layers += [nn.Linear(size, self.options.hidden), nn.ReLU(), nn.Dropout(self.options.dropout)]
            size = self.options.hidden
        return nn.Sequential(*layers, nn.Linear(size, axes))


class LayerSum(_Neural):
    """Audiobox-Aesthetics' head (arXiv 2502.05139) on pooled layers; wants ``normalise = "raw"``."""

    Options = LayerSumOptions

    def build(self, axes: int) -> nn.Module:
        """See ``_Neural.build``."""
        return _PerAxis(self.shapes, axes, self.options.depth)


def _tensors(blocks: Blocks) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32)) for block in blocks]


def _train(
    module: nn.Module, x: list[Tensor], y: Tensor, held_out: tuple[list[Tensor], Tensor], loss: Loss, options: Any
) -> None:
    """Adam on shuffled batches of nearly equal size; keeps the parameters of the best epoch on the held-out clips."""
    optimiser = torch.optim.Adam(module.parameters(), lr=options.lr, weight_decay=options.weight_decay, fused=True)
    batches = max(round(len(y) / options.batch), 1)
    best, best_state, waited = float("inf"), copy.deepcopy(module.state_dict()), 0
    for _ in range(options.epochs):
        module.train()
        for rows in torch.randperm(len(y)).tensor_split(batches):
            optimiser.zero_grad()
            loss(module([block[rows] for block in x]), y[rows]).backward()
            optimiser.step()
        with torch.inference_mode():
            score = float(loss(module.eval()(held_out[0]), held_out[1]))
        if score < best:
            best, best_state, waited = score, copy.deepcopy(module.state_dict()), 0
        else:
            waited += 1
            if waited >= options.patience:
                break
    module.load_state_dict(best_state)
    module.requires_grad_(False)
