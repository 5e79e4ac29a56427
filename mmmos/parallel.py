"""One ``map`` over joblib, and threads that work ahead.

A task is a small picklable record; the function is importable from a module, writes its own results durably
and returns a small record. A killed run therefore loses the tasks in hand and nothing else.
No process and no thread of these outlives its use: they end when their generator is closed, and when their parent
is killed.
"""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Full, Queue, SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

from mmmos.errors import SetupError, UsageError

S = TypeVar("S")
T = TypeVar("T")

# s of work after which starting processes (about 3 s each) pays.
PATIENCE = 5.0
# s after which a thread that does not end is left to itself.
PARTING = 1.0


def map(function: Callable[..., T], tasks: Sequence[Any], *, jobs: int = 1) -> Generator[T]:
    """Results of ``function(task)`` in any order, as they are ready.

    ``jobs``: processes; 1 runs in this process, 0 begins in this process and, where that takes long, hands the rest
    to one process for each available core. Close the generator when you leave it early (``contextlib.closing``): its
    processes are then killed.
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
    yield from _map_in_processes(function, todo, workers)


def _map_in_processes(function: Callable[..., T], tasks: Sequence[Any], workers: int) -> Generator[T]:
    """joblib is called in a thread of its own, where no Ctrl-C interrupts it halfway through starting a process."""
    results: SimpleQueue[Any] = SimpleQueue()
    stop = Event()
    thread = Thread(target=_drive, args=(function, tasks, workers, results, stop), name="mmmos-map", daemon=True)
    try:
        thread.start()
        yield from _consume(results)
    except BaseException:
        stop.set()
        until = time.monotonic() + PARTING
        while thread.is_alive() and time.monotonic() < until:
            _kill_workers()
            thread.join(0.05)
        raise


def _drive(
    function: Callable[..., T], tasks: Sequence[Any], workers: int, results: "SimpleQueue[Any]", stop: Event
) -> None:
    try:
        _block_the_terminal()
        from joblib import Parallel, delayed
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        options = {"initializer": _end_with_parent, "initargs": (os.getpid(),)}
        parallel = Parallel(workers, backend="loky", return_as="generator_unordered", batch_size=1, **options)
        try:
            for result in parallel(delayed(function)(task) for task in tasks if not stop.is_set()):
                results.put(result)
        except TerminatedWorkerError:
            raise SetupError(
                "A worker process was killed, most likely because memory ran out. What is finished is saved;"
                " the same command goes on from there, and with a smaller --jobs it needs less memory."
            ) from None
        results.put(_END)
    except BaseException as error:
        results.put(_Failure(error))


def _block_the_terminal() -> None:
    """Block what a terminal sends to all processes in this thread and those it starts: their parent deals with it."""
    if os.name == "posix":
        from multiprocessing.resource_tracker import ensure_running

        signals = {signal.SIGINT, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        # It leaves SIGINT unblocked when it starts its helper.
        ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def stop() -> None:
    """Kill all child processes that multiprocessing or joblib started, at once and from any thread."""
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        for process in active_children():
            _kill(process.pid)


def _kill_workers() -> None:
    from multiprocessing import active_children

    from joblib.externals.loky.backend.process import LokyProcess

    for process in active_children():
        if isinstance(process, LokyProcess):
            _kill(process.pid)


def _kill(pid: int | None) -> None:
    with suppress(OSError):
        os.kill(pid or 0, getattr(signal, "SIGKILL", signal.SIGTERM))


def _end_with_parent(parent: int) -> None:
    """Make this process end soon after its parent, which may be killed without a word.

    On Windows a parent's death cannot be seen from its number; there the process ends when it has been idle for long.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        os._exit(1)

    Thread(target=watch, name="mmmos-parent", daemon=True).start()


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
            results = _consume(queue)
            yield item, results
            # What the caller left unread is not kept waiting for him.
            _exhaust(results)
            begin()
    finally:
        stop.set()
        until = time.monotonic() + PARTING
        for _ in crew:
            tasks.put(_END)
        for thread in crew:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))


_END = object()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _work(function: Callable[[S], Iterable[T]], tasks: "SimpleQueue[Any]", stop: Event) -> None:
    while (task := tasks.get()) is not _END:
        item, queue = task
        _produce(function, item, queue, stop)


def _produce(function: Callable[[S], Iterable[T]], item: S, queue: "Queue[Any]", stop: Event) -> None:
    if stop.is_set():
        return
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


def _consume(queue: "Queue[Any] | SimpleQueue[Any]") -> Iterator[Any]:
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
