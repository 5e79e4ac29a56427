"""``train``: many heads at once, each with its own seed, order, rate, loss and early stopping.

The heads of a stack share nothing but matrix products with a leading dimension of heads. On a CPU in one thread a head
gets the same bits alone and in any stack; on other devices sums have another order, and a stack of one is exact.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from mmmos.ensembles.heads import Array
from mmmos.ensembles.heads.inputs import Pooled
from mmmos.ensembles.heads.neural import Batch, Output
from mmmos.ensembles.losses import Loss
from mmmos.ensembles.training.engine.adam import Adam
from mmmos.ensembles.training.engine.feeds import Feed, Member
from mmmos.ensembles.training.engine.frame_feed import FrameFeed
from mmmos.ensembles.training.engine.pooled_feed import PooledFeed

# Share of stopped heads from which on a stack is made smaller; clips of one held-out loss; place of triplets' chance.
STOPPED = 0.25
PIECE = 1024
TRIPLETS = 1 << 16


def feed_of(inputs: Any, members: Sequence[Member], device: str, dtype: torch.dtype = torch.float32) -> Feed:
    """The feed for ``Pooled`` inputs or for ``Frames``."""
    if isinstance(inputs, Pooled):
        return PooledFeed(inputs, members, device, dtype)
    return FrameFeed(inputs, members, device, dtype)


@dataclass
class Trained:
    """What training one head gave: standardised ``scores`` (held-out clips, axes) of the ``best`` of its ``epochs``,
    counted from 1, with its ``loss`` there; no epoch is best where no loss was finite.
    """

    scores: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    loss: float = float("inf")
    best: int = 0
    epochs: int = 0


def train(
    members: Sequence[Member],
    feed: Feed,
    shapes: Sequence[tuple[int, int]],
    targets: NDArray[np.float64],
    side: Sequence[Mapping[str, Array]] = (),
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Trained]:
    """Train the heads of members, which are of one kind and differ in seed, clips, loss, rate and stopping.

    ``shapes``: (layers, dim) of each feature set; ``targets``: standardised (clips, axes); ``side``: for each member
    what its objective needs besides, (clips, …) by name. The heads can predict afterwards, on the CPU.
    """
    stack = _Stack(members, feed, shapes, targets, side, device, dtype)
    with _without_denormals():
        while stack.running():
            stack.epoch()
            stack.hold_out()
            stack.shrink()
    return stack.results


class _Stack:
    """Heads in training: those that run, by their positions in the stack; and the best of every head so far."""

    def __init__(
        self,
        members: Sequence[Member],
        feed: Feed,
        shapes: Sequence[tuple[int, int]],
        targets: NDArray[np.float64],
        side: Sequence[Mapping[str, Array]],
        device: str,
        dtype: torch.dtype,
    ) -> None:
        self.results = [Trained() for _ in members]
        self._members, self._numbers, self._feed, self._shapes = list(members), list(range(len(members))), feed, shapes
        self._targets = torch.from_numpy(targets).to(device, dtype)
        names = side[0] if side else {}
        self._side = {name: torch.from_numpy(np.stack([each[name] for each in side])).to(device) for name in names}
        draws = [torch.Generator().manual_seed(member.seed()) for member in members]
        first = members[0].head
        self._stacked, self._epochs = first.stacks, 0
        self._module = first.build(shapes, targets.shape[1], draws).to(device, dtype)
        self._adam = Adam(self._module, [member.head.options for member in members], self._stacked)
        self._memory: tuple[Tensor, Tensor] | None = None
        self._group()

    def _group(self) -> None:
        """Sort heads by loss, and by how many clips they hold out."""
        by_loss: dict[tuple[object, ...], list[int]] = {}
        by_held: dict[int, list[int]] = {}
        for number, member in enumerate(self._members):
            head = member.head
            by_loss.setdefault((head.loss, *sorted(head.loss_options.items())), []).append(number)
            by_held.setdefault(len(member.held), []).append(number)
        self._by_loss, self._by_held = list(by_loss.values()), list(by_held.values())
        self._constants = [
            {name: each.to(self._targets) for name, each in self._members[heads[0]].head.constants.items()}
            for heads in self._by_loss
        ]
        self._every = torch.arange(len(self._members), device=self._targets.device)[:, None]

    def running(self) -> bool:
        """True while a head has not stopped."""
        return any(not self._has_stopped(number) for number in range(len(self._members)))

    def _has_stopped(self, number: int) -> bool:
        result, options = self.results[self._numbers[number]], self._members[number].head.options
        return result.epochs >= min(options.epochs, result.best + options.patience)

    def epoch(self) -> None:
        """Every batch of an epoch."""
        for batch, clips in self._feed.epoch(self._epochs):
            self._adam.zero()
            output = self._module(batch)
            self._objective(batch, output, clips).backward()
            self._adam.step()
        self._epochs += 1

    def _objective(self, batch: Batch, output: Output, clips: Tensor) -> Tensor:
        """The sum over heads of what each minimises, so that none has a part in another's gradient."""
        targets = self._targets[clips]
        side = {name: values[self._every, clips] for name, values in self._side.items()}
        total = targets.new_zeros(())
        for heads, constants in zip(self._by_loss, self._constants, strict=True):
            own, of_heads = _of(output, heads), {name: values[heads] for name, values in side.items()}
            head = self._members[heads[0]].head
            total = total + head.objective(own, targets[heads], of_heads, constants).sum()
            if head.criterion().embedding is not None:
                total = total + self._of_embedding(heads, own, targets[heads], batch).sum()
        self._remember(output, targets)
        return total

    def _of_embedding(self, heads: list[int], output: Output, targets: Tensor, batch: Batch) -> Tensor:
        """What the loss says of the embedding (heads,)."""
        criterion = self._members[heads[0]].head.criterion()
        z, y = output.embedding, targets.transpose(1, 2)
        assert z is not None and batch.chance is not None
        if self._memory is None or not criterion.memory:
            earlier = z[:, :0].detach(), y[:, :, :0]
        else:
            earlier = self._memory[0][heads, -criterion.memory :], self._memory[1][heads, :, -criterion.memory :]
        drawn_from = earlier[0].shape[1] if criterion.memory else z.shape[1]
        chance = batch.chance.uniform(TRIPLETS, (y.shape[1], 2, y.shape[2], drawn_from))[heads].to(z)
        return criterion.of_embedding(z, y, earlier, chance)

    def _remember(self, output: Output, targets: Tensor) -> None:
        """Put the embeddings of a batch behind those of earlier ones, where a loss looks at them."""
        kept = max(member.head.criterion().memory for member in self._members)
        if not kept or output.embedding is None:
            return
        z, y = output.embedding.detach(), targets.transpose(1, 2)
        if self._memory is not None:
            z, y = torch.cat([self._memory[0], z], 1), torch.cat([self._memory[1], y], 2)
        self._memory = z[:, -kept:], y[:, :, -kept:]

    @torch.no_grad()
    def hold_out(self) -> None:
        """Measure every running head on its held-out clips, and keep those that are the best so far."""
        for alike in self._by_held:
            outputs = self._feed.held_out(self._forward, alike)
            held = torch.from_numpy(np.stack([self._members[head].held for head in alike])).to(self._targets.device)
            truth = self._targets[held]
            for heads, constants in zip(self._by_loss, self._constants, strict=True):
                places = [place for place, head in enumerate(alike) if head in heads]
                if not places:
                    continue
                criterion = self._members[heads[0]].head.criterion()
                losses = _in_pieces(criterion, outputs[places], truth[places], constants)
                scores = criterion.scores(outputs[places], constants).float().cpu().numpy()
                for place, loss, own in zip(places, losses.tolist(), scores, strict=True):
                    self._note(alike[place], loss, own)

    def _forward(self, batch: Batch, heads: Sequence[int]) -> Tensor:
        if not self._stacked or len(heads) == len(self._members):
            outputs: Tensor = self._module(batch).outputs
            return outputs
        some = slice(heads[0], heads[0] + 1) if len(heads) == 1 else list(heads)
        parameters = {name: value.detach()[some] for name, value in self._module.named_parameters()}
        result: Output = functional_call(self._module, parameters, (batch,))
        return result.outputs

    def _note(self, number: int, loss: float, scores: Array) -> None:
        if self._has_stopped(number):
            return
        result = self.results[self._numbers[number]]
        result.epochs = self._epochs
        if loss < result.loss:
            result.loss, result.best, result.scores = loss, self._epochs, scores
            named = self._module.named_parameters()
            best = {name: (value[number] if self._stacked else value).detach().float().cpu() for name, value in named}
            best = {name: value.clone() for name, value in best.items()}
            self._members[number].head.learned(self._shapes, self._targets.shape[1], best)

    def shrink(self) -> None:
        """Go on without the stopped heads where they are many."""
        heads = [number for number in range(len(self._members)) if not self._has_stopped(number)]
        if not heads or len(self._members) - len(heads) < max(STOPPED * len(self._members), 1):
            return
        for part in self._module.modules():
            for name, value in list(part.named_parameters(recurse=False)):
                setattr(part, name, nn.Parameter(value.detach()[heads].clone()))
        self._adam = self._adam.keep(self._module, heads)
        self._members = [self._members[head] for head in heads]
        self._numbers = [self._numbers[head] for head in heads]
        self._side = {name: values[heads] for name, values in self._side.items()}
        self._memory = self._memory and (self._memory[0][heads], self._memory[1][heads])
        self._feed.keep(heads)
        self._group()


def _of(output: Output, heads: list[int]) -> Output:
    """The output of some heads."""
    if len(heads) == len(output.outputs):
        return output
    rest = [None if each is None else each[heads] for each in output[1:]]
    return Output(output.outputs[heads], *rest)


def _in_pieces(criterion: Loss, outputs: Tensor, truth: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
    """A loss (heads,) over many clips, as the mean over pieces of equal size or one less."""
    count = -(-truth.shape[1] // PIECE)
    pairs = zip(outputs.tensor_split(count, 1), truth.tensor_split(count, 1), strict=True)
    losses = [criterion(some, true, constants) * true.shape[1] for some, true in pairs]
    return torch.stack(losses).sum(0) / truth.shape[1]


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Numbers too small for the exponent become 0: they are slow, and arise where gradients die out."""
    flushed = bool(torch.tensor(2.0**-126) * 0.5 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
