"""How long each stage of extraction was busy, summed over threads, tasks and workers."""

import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, local
from typing import TypeVar

from mmmos import progress

T = TypeVar("T")

STAGES = ("decode", "resample", "encode", "write")

# s of work from which on its throughput is worth a table.
WORTH = 2.0


@dataclass(frozen=True)
class Tally:
    """What was done: ``busy`` s by stage as in ``STAGES``, summed over threads; clips; s of audio; bytes of rows; wall
    s of the tasks; the processes that did it, as host:pid.
    """

    busy: tuple[float, ...] = (0.0,) * len(STAGES)
    clips: int = 0
    audio: float = 0.0
    bytes: int = 0
    wall: float = 0.0
    workers: frozenset[str] = frozenset()

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            tuple(one + two for one, two in zip(self.busy, other.busy, strict=True)),
            self.clips + other.clips,
            self.audio + other.audio,
            self.bytes + other.bytes,
            self.wall + other.wall,
            self.workers | other.workers,
        )

    def facts(self, elapsed: float) -> dict[str, object]:
        """All of it for programs; ``elapsed``: wall s of the run."""
        return {
            "clips": self.clips,
            "audio_s": round(self.audio, 3),
            "elapsed_s": round(elapsed, 3),
            "task_s": round(self.wall, 3),
            "workers": len(self.workers),
            "bytes": self.bytes,
            "busy_s": {stage: round(busy, 3) for stage, busy in zip(STAGES, self.busy, strict=True)},
        }

    def table(self, label: str, elapsed: float) -> str:
        """All of it for people, six lines."""
        total = sum(self.busy) or 1.0
        lines = [f"{'stage':<10}{'busy s':>10}{'share':>8}{'× real time':>13}"]
        lines += [
            f"{stage:<10}{busy:>10.1f}{busy / total:>8.0%}{_times(self.audio, busy):>13}"
            for stage, busy in zip(STAGES, self.busy, strict=True)
        ]
        count = len(self.workers)
        lines.append(
            f"{label}: {self.clips:,} clips, {_length(self.audio)} of audio in {elapsed:,.0f} s with {count}"
            f" worker{'s' if count != 1 else ''}: {_times(self.audio, elapsed)} × real time"
        )
        return "\n".join(lines)


def tell(tally: Tally, label: str, elapsed: float) -> None:
    """Say on stderr how fast the stages were, where progress is shown and it took ``WORTH`` s."""
    progress.tell("throughput", label=label, **tally.facts(elapsed))
    if progress.form() in ("bar", "lines") and elapsed > WORTH:
        sys.stderr.write(tally.table(label, elapsed) + "\n")


class Stopwatch:
    """Counts the busy seconds of the stages of one task, in any number of threads."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._busy = dict.fromkeys(STAGES, 0.0)
        self._lock = Lock()
        self._inside = local()

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """Count the time inside for a stage, less what is counted inside of it for another."""
        begun, before = time.perf_counter(), getattr(self._inside, "spent", 0.0)
        self._inside.spent = 0.0
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            with self._lock:
                self._busy[stage] += spent - self._inside.spent
            self._inside.spent = before + spent

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time that each takes to come counts for a stage."""
        left = iter(items)
        while True:
            with self.at(stage):
                try:
                    item = next(left)
                except StopIteration:
                    return
            yield item

    def tally(self, clips: int, audio: float, size: int) -> Tally:
        """What was counted so far, by this process."""
        worker = f"{socket.gethostname()}:{os.getpid()}"
        wall = time.perf_counter() - self._begun
        with self._lock:
            return Tally(tuple(self._busy.values()), clips, audio, size, wall, frozenset([worker]))


def _times(audio: float, seconds: float) -> str:
    return f"{audio / seconds:,.0f}" if seconds else "–"


def _length(seconds: float) -> str:
    """A length of audio as people say it."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
