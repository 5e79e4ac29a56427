"""The batches of a head that reads frames."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mmmos.ensembles.heads.frames import Frames, Padded
from mmmos.ensembles.heads.inputs import Rows
from mmmos.ensembles.heads.neural import Batch
from mmmos.ensembles.heads.stack import Chance
from mmmos.ensembles.training.engine.feeds import Forward, Member

# Batches among which clips are sorted by length; numbers in a batch of held-out clips on a device that is no CPU.
POOL = 8
NUMBERS = 1 << 26


class FrameFeed:
    """Batches of clips of similar length, for one head."""

    def __init__(self, inputs: Frames, members: Sequence[Member], device: str, dtype: torch.dtype) -> None:
        (self._member,) = members
        self._frames, self._device = inputs.standardised(self._member.standardise), device
        self._padded = Padded(self._frames, device, dtype)
        self._seeds = torch.tensor([self._member.seed()], device=device)

    def keep(self, heads: Sequence[int]) -> None:
        """See ``Feed``."""

    def epoch(self, number: int) -> Iterator[tuple[Batch, Tensor]]:
        """See ``Feed``."""
        for step, clips in enumerate(self._clips(number)):
            chance = Chance(self._seeds, number * self._member.steps + step)
            yield self._padded.batch(clips, chance), torch.from_numpy(clips)[None].to(self._device)

    def _clips(self, epoch: int) -> list[Rows]:
        """The clips of each batch: shuffled, sorted by length in pools of several batches, the batches shuffled."""
        member, random = self._member, self._member.random(epoch, 0)
        clips = random.permutation(member.fitted)[: member.steps * member.batch]
        pools = np.split(clips, range(POOL * member.batch, len(clips), POOL * member.batch))
        ordered = [pool[np.argsort(self._frames.lengths[pool], kind="stable")] for pool in pools]
        batches = np.concatenate(ordered).reshape(member.steps, member.batch)
        return [batches[step] for step in random.permutation(member.steps)]

    def held_out(self, forward: Forward, heads: Sequence[int]) -> Tensor:
        """See ``Feed``. On a CPU clips are run one by one: a clip has the same bits whatever the others are."""
        held = self._member.held
        parts = [(places, forward(self._padded.batch(held[places]), heads)) for places in self._similar(held)]
        order = torch.from_numpy(np.concatenate([places for places, _ in parts])).to(self._device)
        outputs = torch.cat([part for _, part in parts], dim=1)
        return torch.empty_like(outputs).index_copy_(1, order, outputs)

    def _similar(self, clips: Rows) -> list[Rows]:
        """Positions of clips that are run together: of similar length, as many as memory holds."""
        lengths = self._frames.lengths[clips]
        order = np.argsort(lengths, kind="stable")
        if self._device == "cpu":
            return list(order[:, None])
        most = NUMBERS // sum(layers * dim for layers, dim in self._frames.shapes)
        batches: list[list[int]] = [[]]
        for place in order.tolist():
            if batches[-1] and (len(batches[-1]) + 1) * lengths[place] > most:
                batches.append([])
            batches[-1].append(place)
        return [np.array(batch) for batch in batches]
