"""What an engine is asked for, and what it answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, Final, Protocol

from mmmos.errors import UsageError
from mmmos.parallel.inside import Context
from mmmos.parallel.places import Workers

# How often a task may end the process that carries it out, before the others go on without it.
LIMIT = 3
# What an error adds that ends a call before its tasks are done.
SAVED = "What is finished is saved; the same command goes on from there."


class _Lost:
    """What came of a task that ended its process ``LIMIT`` times."""


LOST: Final = _Lost()


@dataclass(frozen=True)
class Job:
    """A function and its tasks. ``device``: what the tasks compute on ("cpu", "auto", "cuda", …), for engines that deal
    out GPUs. The arguments of a ``partial`` are sent to each worker once, where an engine can.
    """

    function: Callable[[Any], Any]
    tasks: Sequence[Any]
    workers: Workers
    context: Context
    device: str = "cpu"


class Engine(Protocol):
    """Carries out the tasks of a job in other processes, each task in one of them."""

    def __call__(self, job: Job, stop: Event) -> Iterator[tuple[int, Any]]:
        """The number of each task with its result or ``LOST``, in any order, as they are ready.

        What a task raises is raised. Returns early, and leaves no process behind, soon after ``stop`` is set.
        Raises ``SetupError`` where the engine cannot start or goes away.
        """
        ...


def check_importable(function: Callable[[Any], Any]) -> None:
    """Raise ``UsageError`` for a function that other processes cannot import: they would load models for each task."""
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    if getattr(inner, "__module__", None) == "__main__" or "<" in getattr(inner, "__qualname__", ""):
        raise UsageError(
            f"The function {getattr(inner, '__qualname__', inner)!s} is not in a module; other processes import what"
            " they carry out. Put it into a .py file and import it from there."
        )
