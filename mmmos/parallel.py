"""One ``map`` over joblib.

A task is a small picklable record; the function is importable from a module, writes its own results durably
and returns a small record. A killed run therefore loses the tasks in hand and nothing else.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Full, Queue
from threading import Event
from typing import Any, TypeVar

from mmmos.errors import UsageError

S = TypeVar("S")
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


def ahead(
    function: Callable[[S], Iterable[T]], items: Sequence[S], *, threads: int = 1, depth: int = 8
) -> Generator[tuple[S, Iterator[T]]]:
    """Each item with what ``function(item)`` yields, in the items' order, produced by threads ahead of its use.

    At most ``depth`` results of an item wait, and ``threads`` + 1 items are begun. An error of the function is raised
    where its item's results are read. Close the generator when you leave it early, so that its threads end.
    """
    stop, begun, left = Event(), deque[tuple[S, Queue[Any]]](), iter(items)

    def begin() -> None:
        for item in left:
            queue: Queue[Any] = Queue(maxsize=depth)
            begun.append((item, queue))
            pool.submit(_produce, function, item, queue, stop)
            return

    with ThreadPoolExecutor(threads, thread_name_prefix="mmmos-ahead") as pool:
        try:
            for _ in range(threads + 1):
                begin()
            while begun:
                item, queue = begun.popleft()
                results = _consume(queue)
                yield item, results
                # What the caller left unread is not kept waiting for him.
                _exhaust(results)
                begin()
        finally:
            stop.set()


_END = object()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _produce(function: Callable[[S], Iterable[T]], item: S, queue: "Queue[Any]", stop: Event) -> None:
    try:
        for result in function(item):
            if not _put(queue, result, stop):
                return
        _put(queue, _END, stop)
    except BaseException as error:
        _put(queue, _Failure(error), stop)


def _put(queue: "Queue[Any]", result: object, stop: Event) -> bool:
    """Wait for a place in the queue; False when nobody reads any more."""
    while not stop.is_set():
        try:
            queue.put(result, timeout=0.1)
            return True
        except Full:
            pass
    return False


def _consume(queue: "Queue[Any]") -> Iterator[Any]:
    while (result := queue.get()) is not _END:
        if isinstance(result, _Failure):
            raise result.error
        yield result


def _exhaust(results: Iterator[Any]) -> None:
    """Read the rest; an error in it has no reader."""
    try:
        for _ in results:
            pass
    except Exception:
        return


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
