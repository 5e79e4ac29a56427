"""The batches of heads that read pooled vectors."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmmos.ensembles.heads.inputs import Pooled
from mmmos.ensembles.heads.neural import ROWS, Batch
from mmmos.ensembles.heads.stack import Chance
from mmmos.ensembles.training.engine.feeds import Forward, Member


class PooledFeed:
    """Batches of pooled vectors, in memory that the next batch uses again; with windows, each epoch sees one window of
    each clip, drawn by its share.
    """

    def __init__(self, inputs: Pooled, members: Sequence[Member], device: str, dtype: torch.dtype) -> None:
        self._inputs, self._members = inputs, list(members)
        self._device, self._dtype = device, dtype
        self._shapes = [block.shape[1:] for block in inputs.blocks]
        self._tables = [torch.from_numpy(block.reshape(len(block), -1)).to(device, dtype) for block in inputs.blocks]
        self._rooms = [table[:0].clone() for table in self._tables]
        self._cumulated = None if inputs.share is None else np.cumsum(inputs.share, dtype=np.float64)
        self._prepare()

    def _prepare(self) -> None:
        members = self._members
        self._statistics = [
            tuple(torch.from_numpy(np.stack(each)).flatten(1)[:, None].to(self._device, self._dtype) for each in pair)
            for pair in zip(
                zip(*(member.standardise.means for member in members), strict=True),
                zip(*(member.standardise.scales for member in members), strict=True),
                strict=True,
            )
        ]
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
            blocks = self._blocks(on_device[1][:, step], every)
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

    def _blocks(self, rows: Tensor, heads: Sequence[int]) -> list[Tensor]:
        """Standardised blocks (heads, B, layers, dim) of rows (heads, B), which hold until the next call."""
        blocks = []
        for number, (table, shape) in enumerate(zip(self._tables, self._shapes, strict=True)):
            if len(self._rooms[number]) < rows.numel():
                self._rooms[number] = table.new_empty(rows.numel(), table.shape[1])
            room = self._rooms[number][: rows.numel()]
            block = torch.index_select(table, 0, rows.flatten(), out=room).view(*rows.shape, -1)
            if self._statistics:
                every = len(heads) == len(self._members)
                mean, scale = (each if every else each[list(heads)] for each in self._statistics[number])
                block = block.sub_(mean).div_(scale).clamp_(-8, 8)
            blocks.append(block.view(*rows.shape, *shape))
        return blocks

    def held_out(self, forward: Forward, heads: Sequence[int]) -> Tensor:
        """See ``Feed``. On a CPU head by head, whose clips fit into less memory."""
        if self._inputs.first is not None:
            return torch.stack([self._of_windows(forward, head) for head in heads])
        rows = torch.from_numpy(np.stack([self._members[head].held for head in heads])).to(self._device)
        if self._device != "cpu":
            return self._outputs(forward, rows, heads)
        return torch.cat([self._outputs(forward, row[None], [head]) for row, head in zip(rows, heads, strict=True)])

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
