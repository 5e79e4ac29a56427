"""Threads that work ahead of whoever uses their results."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Full, Queue, SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

# s after which a thread that does not end is left to itself.
PARTING = 1.0


def ahead(
    function: Callable[[S], Iterable[T]], items: Iterable[S], *, threads: int = 1, depth: int = 8
) -> Generator[tuple[S, Iterator[T]]]:
    """Each item with what ``function(item)`` yields, in the items' order, produced by threads ahead of its use.

    At most ``depth`` results of an item wait, and ``threads`` + 1 items are begun. An error of the function is raised
    where its item's results are read. Close the generator when you leave it early, so that its threads end: each does
    so before its next result. One that does not within ``PARTING`` seconds (a file of a dead server) is left behind,
    and does not keep the interpreter alive.
    """
    stop, begun, left = Event(), deque[tuple[S, Queue[Any]]](), iter(items)
    tasks: SimpleQueue[Any] = SimpleQueue()
    crew = [Thread(target=_work, args=(function, tasks, stop), name="mmmos-ahead", daemon=True) for _ in range(threads)]

    def begin() -> None:
        for item in left:
            queue: Queue[Any] = Queue(maxsize=depth)
            begun.append((item, queue))
            tasks.put((item, queue))
            return

    try:
        for thread in crew:
            thread.start()
        for _ in range(threads + 1):
            begin()
        while begun:
            item, queue = begun.popleft()
            results = consume(queue)
            yield item, results
            # What the caller left unread is not kept waiting for him.
            _exhaust(results)
            begin()
    finally:
        stop.set()
        until = time.monotonic() + PARTING
        for _ in crew:
            tasks.put(END)
        for thread in crew:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))


END = object()


class Failure:
    """An error in a queue of results."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _work(function: Callable[[S], Iterable[T]], tasks: "SimpleQueue[Any]", stop: Event) -> None:
    while (task := tasks.get()) is not END:
        item, queue = task
        _produce(function, item, queue, stop)


def _produce(function: Callable[[S], Iterable[T]], item: S, queue: "Queue[Any]", stop: Event) -> None:
    if stop.is_set():
        return
    try:
        for result in function(item):
            if not _put(queue, result, stop):
                return
        _put(queue, END, stop)
    except BaseException as error:
        _put(queue, Failure(error), stop)


def _put(queue: "Queue[Any]", result: object, stop: Event) -> bool:
    """Wait for a place in the queue; False when nobody reads any more."""
    while not stop.is_set():
        try:
            queue.put(result, timeout=0.1)
            return True
        except Full:
            pass
    return False


def consume(queue: "Queue[Any] | SimpleQueue[Any]") -> Iterator[Any]:
    """What a queue holds, up to its end; an error in it is raised."""
    while (result := queue.get()) is not END:
        if isinstance(result, Failure):
            raise result.error
        yield result


def _exhaust(results: Iterator[Any]) -> None:
    """Read the rest; an error in it has no reader."""
    try:
        for _ in results:
            pass
    except Exception:
        return
