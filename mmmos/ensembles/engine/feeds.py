"""Feeds: the batches that a stack of heads is trained and held out on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmmos.ensembles.heads.inputs import Pooled, Rows, Standardiser
from mmmos.ensembles.heads.neural import ROWS, Batch, Neural
from mmmos.ensembles.heads.stack import Chance

Forward = Callable[[Batch, Sequence[int]], Tensor]


@dataclass(frozen=True)
class Member:
    """One head to be trained: on which clips (positions), held out on which, ``steps`` batches of ``batch`` an epoch.

    ``stream``: its seed and its fold, from which everything random about it comes.
    """

    head: Neural
    standardise: Standardiser
    fitted: Rows
    held: Rows
    steps: int
    batch: int
    stream: tuple[int, ...]

    def random(self, *place: int) -> np.random.Generator:
        """Random numbers for one use, such as the order of an epoch."""
        return np.random.default_rng([*self.stream, *place])

    def seed(self) -> int:
        """A number of 0 up to 2³² for ``Chance`` and for the first parameters."""
        return int(np.random.SeedSequence(self.stream).generate_state(1)[0])


class Feed(Protocol):
    """The batches of the heads of a stack, by their positions in it."""

    def epoch(self, number: int) -> Iterator[tuple[Batch, Tensor]]:
        """Training batches of an epoch (from 0), each with the clips (heads, B) that it holds."""
        ...

    def held_out(self, forward: Forward, heads: Sequence[int]) -> Tensor:
        """Outputs (heads, held-out clips, numbers) of heads that hold out equally many; ``forward`` runs them."""
        ...

    def keep(self, heads: Sequence[int]) -> None:
        """Go on with some heads; they get the positions 0, 1, …"""
        ...


def feed_of(inputs: Any, members: Sequence[Member], device: str, dtype: torch.dtype = torch.float32) -> Feed:
    """The feed for inputs of either kind."""
    if isinstance(inputs, Pooled):
        return PooledFeed(inputs, members, device, dtype)
    from mmmos.ensembles.engine.frame_feed import FrameFeed

    return FrameFeed(inputs, members, device, dtype)


class PooledFeed:
    """Batches of pooled vectors; with windows, each epoch sees one window of each clip, drawn by its share."""

    def __init__(self, inputs: Pooled, members: Sequence[Member], device: str, dtype: torch.dtype) -> None:
        self._inputs, self._members = inputs, list(members)
        self._device, self._dtype = device, dtype
        self._shapes = [block.shape[1:] for block in inputs.blocks]
        self._tables = [torch.from_numpy(block.reshape(len(block), -1)).to(device, dtype) for block in inputs.blocks]
        self._cumulated = None if inputs.share is None else np.cumsum(inputs.share, dtype=np.float64)
        self._prepare()

    def _prepare(self) -> None:
        members, size = self._members, self._members[0].batch
        self._statistics = [
            tuple(torch.from_numpy(np.stack(each)).flatten(1)[:, None].to(self._device, self._dtype) for each in pair)
            for pair in zip(
                zip(*(member.standardise.means for member in members), strict=True),
                zip(*(member.standardise.scales for member in members), strict=True),
                strict=True,
            )
        ]
        self._rooms = [torch.empty(len(members) * size, table.shape[1]).to(table) for table in self._tables]
        self._seeds = torch.tensor([member.seed() for member in members], device=self._device)

    def keep(self, heads: Sequence[int]) -> None:
        """See ``Feed``."""
        self._members = [self._members[head] for head in heads]
        self._prepare()

    def epoch(self, number: int) -> Iterator[tuple[Batch, Tensor]]:
        """See ``Feed``."""
        steps, size = self._members[0].steps, self._members[0].batch
        orders = [member.random(number, 0).permutation(member.fitted)[: steps * size] for member in self._members]
        clips = np.stack(orders).reshape(len(orders), steps, size)
        rows = self._drawn(clips, number)
        on_device = torch.from_numpy(clips).to(self._device), torch.from_numpy(rows).to(self._device)
        every = range(len(orders))
        for step in range(steps):
            blocks = self._blocks(on_device[1][:, step], every, self._rooms)
            yield Batch(blocks, chance=Chance(self._seeds, number * steps + step)), on_device[0][:, step]

    def _drawn(self, clips: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """The row of each clip in this epoch."""
        first = self._inputs.first
        if first is None or self._cumulated is None:
            return clips
        begin, end = first[:-1], first[1:]
        before = np.concatenate([[0.0], self._cumulated])
        rows = np.empty_like(clips)
        for number, member in enumerate(self._members):
            places = before[begin] + member.random(epoch, 1).random(len(begin)) * (before[end] - before[begin])
            drawn = np.clip(np.searchsorted(self._cumulated, places, side="right"), begin, end - 1)
            rows[number] = drawn[clips[number]]
        return rows

    def _blocks(self, rows: Tensor, heads: Sequence[int], rooms: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Standardised blocks (heads, B, layers, dim) of rows (heads, B), written to ``rooms`` where they are given."""
        blocks = []
        for number, (table, shape) in enumerate(zip(self._tables, self._shapes, strict=True)):
            room = None if rooms is None else rooms[number]
            block = torch.index_select(table, 0, rows.flatten(), out=room).view(*rows.shape, -1)
            if self._statistics:
                mean, scale = (each[list(heads)] for each in self._statistics[number])
                block = block.sub_(mean).div_(scale).clamp_(-8, 8)
            blocks.append(block.view(*rows.shape, *shape))
        return blocks

    def held_out(self, forward: Forward, heads: Sequence[int]) -> Tensor:
        """See ``Feed``."""
        if self._inputs.first is not None:
            return torch.stack([self._of_windows(forward, head) for head in heads])
        rows = torch.from_numpy(np.stack([self._members[head].held for head in heads])).to(self._device)
        return self._outputs(forward, rows, heads)

    def _outputs(self, forward: Forward, rows: Tensor, heads: Sequence[int]) -> Tensor:
        parts = [forward(Batch(self._blocks(part, heads)), heads) for part in rows.split(ROWS, dim=1)]
        return torch.cat(parts, dim=1)

    def _of_windows(self, forward: Forward, head: int) -> Tensor:
        """Outputs (held-out clips, numbers) of a head: means of those of their windows, by share."""
        held = self._members[head].held
        rows, clip, share = (torch.from_numpy(each).to(self._device) for each in self._inputs.windows(held))
        outputs = self._outputs(forward, rows[None], [head])[0]
        means = outputs.new_zeros(len(held), outputs.shape[1])
        return means.index_add_(0, clip, outputs * share[:, None].to(outputs))
