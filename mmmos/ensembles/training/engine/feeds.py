"""What a stack of heads asks of a feed: the batches that it is trained and held out on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from mmmos.ensembles.heads.inputs import Rows, Standardiser
from mmmos.ensembles.heads.neural import Batch, Neural

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
