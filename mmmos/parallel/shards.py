"""Shards: one part of an ordered list of work for each of several machines, which need not know of each other."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mmmos.errors import UsageError

T = TypeVar("T")

# What tells a process its number, from the first one's number on, and how many there are.
_TOLD = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "", "", "SLURM_NTASKS"),
)


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, from 1."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        """Raises ``UsageError``."""
        if not 1 <= self.number <= self.count:
            raise UsageError(f"A shard is i/N with i from 1 to N; got {self.number}/{self.count}.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def every(self, items: Sequence[T]) -> list[T]:
        """Each ``count``-th item, beginning with item ``number``: parts that are alike."""
        return list(items[self.number - 1 :: self.count])

    def block(self, items: Sequence[T]) -> list[T]:
        """Consecutive items: the blocks of all shards, one after the other, are the list."""
        total = len(items)
        return list(items[total * (self.number - 1) // self.count : total * self.number // self.count])


def shard_of(text: str | Shard | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard that "i/N" names; "auto": as the variables of a Slurm array or step say; None: everything.

    Raises ``UsageError``.
    """
    if text is None:
        return Shard()
    if isinstance(text, Shard):
        return text
    if text == "auto":
        return _told(environment)
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise UsageError(f"A shard is i/N, such as 1/8, or auto inside a Slurm job; got {text!r}.")
    return Shard(int(found[1]), int(found[2]))


def _told(environment: Mapping[str, str]) -> Shard:
    for number, first, step, count in _TOLD:
        if number in environment and count in environment:
            at = int(environment[number]) - int(environment.get(first, 0))
            return Shard(at // int(environment.get(step, 1)) + 1, int(environment[count]))
    raise UsageError(
        "The shard auto is for Slurm, whose variables SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT are not set here;"
        " write i/N, such as 1/8."
    )
