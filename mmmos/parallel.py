"""One ``map`` over joblib.

A task is a small picklable record; the function is importable from a module, writes its own results durably
and returns a small record. A killed run therefore loses the tasks in hand and nothing else.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def map(function: Callable[..., T], tasks: Sequence[Any], *, jobs: int = 1) -> Iterator[T]:
    """Results of ``function(task)`` in any order, as they are ready.

    ``jobs``: processes; 1 runs in this process, 0 means one for each available core.
    """
    jobs = min(jobs or cores(), max(len(tasks), 1))
    if jobs == 1:
        for task in tasks:
            yield function(task)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, backend="loky", return_as="generator_unordered", batch_size=1)
    yield from parallel(delayed(function)(task) for task in tasks)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
