"""Shards: one part of an ordered list of work for each of several machines, which need not know of each other."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mmmos.errors import UsageError

T = TypeVar("T")


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
    """The shard that "i/N" names; "auto": the place in a Slurm array, and in a step of several tasks; None: everything.

    Raises ``UsageError``.
    """
    if text is None:
        return Shard()
    if isinstance(text, Shard):
        return text
    if text == "auto":
        return _told(environment)
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not found:
        raise UsageError(f"A shard is i/N, such as 1/8, or auto inside a Slurm job; got {text!r}.")
    return Shard(int(found[1]), int(found[2]))


def _told(environment: Mapping[str, str]) -> Shard:
    try:
        place, count = _array(environment)
        ranks = int(environment.get("SLURM_NTASKS", 1))
        rank = int(environment["SLURM_PROCID"]) if ranks > 1 else 0
    except (KeyError, ValueError):
        place = count = rank = ranks = 0
    if not count * ranks:
        raise UsageError(
            "The shard auto is for the tasks of a Slurm job array, which have SLURM_ARRAY_TASK_ID and its companions;"
            " they are not set here. Write i/N, such as 1/8."
        )
    return Shard(place * ranks + rank + 1, count * ranks)


def _array(environment: Mapping[str, str]) -> tuple[int, int]:
    """The place of this task in its Slurm array, from 0, and the number of tasks; (0, 1) in a step of several tasks."""
    if "SLURM_ARRAY_TASK_ID" not in environment and int(environment["SLURM_NTASKS"]) > 1:
        return 0, 1
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    task, first, last, step, count = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in names)
    if (last - first) // step + 1 != count:
        raise UsageError(
            f"The shard auto needs a job array without gaps; this one has {count} tasks from {first} to {last}. Write"
            " i/N, such as 1/8."
        )
    return (task - first) // step, count
