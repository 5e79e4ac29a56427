"""One ``map`` over joblib.

A task is a small picklable record; the function is importable from a module, writes its own results durably
and returns a small record. A killed run therefore loses the tasks in hand and nothing else.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from mmmos.errors import UsageError

T = TypeVar("T")

# s of work after which starting processes (about 3 s each) pays.
PATIENCE = 5.0


def map(function: Callable[..., T], tasks: Sequence[Any], *, jobs: int = 1) -> Iterator[T]:
    """Results of ``function(task)`` in any order, as they are ready.

    ``jobs``: processes; 1 runs in this process, 0 begins in this process and, where that takes long, hands the rest
    to one process for each available core.
    """
    if jobs < 0:
        raise UsageError(f"jobs must be 0 (one process for each core) or more; got {jobs}.")
    begun, left = time.monotonic(), iter(tasks)
    if jobs == 0:
        while time.monotonic() - begun < PATIENCE or cores() == 1:
            try:
                task = next(left)
            except StopIteration:
                return
            yield function(task)
    todo = list(left)
    workers = min(jobs or cores(), len(todo))
    if workers <= 1:
        for task in todo:
            yield function(task)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered", batch_size=1)
    yield from parallel(delayed(function)(task) for task in todo)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
