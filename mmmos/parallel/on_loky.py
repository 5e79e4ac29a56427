"""Tasks in processes of this machine: each worker is a pool of one process.

A process that dies therefore costs the task that it was at and no other: it is replaced, and the task is tried again,
up to ``LIMIT`` times. Workers stay for the next call; those that have nothing to do for some minutes end.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from mmmos.errors import SetupError
from mmmos.parallel import inside
from mmmos.parallel.arrays import SharedArrays
from mmmos.parallel.ending import block_the_terminal, ending
from mmmos.parallel.job import LIMIT, LOST, Job

# s without work after which a worker ends.
IDLE = 300
# s between two looks at whether the tasks are still wanted.
LOOK = 0.2

_lock = threading.Lock()
_idle: list["_Worker"] = []
_arrays = SharedArrays()
_calls = 0


def carry_out(job: Job, stop: Event) -> Iterator[tuple[int, Any]]:
    """As ``job.Engine`` says, in as many processes as ``job.workers`` asks for."""
    block_the_terminal()
    crew = _taken(min(job.workers.jobs, len(job.tasks)))
    try:
        yield from _carried_out(job, stop, crew)
    except BaseException:
        stop.set()
        raise
    finally:
        if stop.is_set():
            for worker in crew:
                worker.kill()
        _given_back(crew)


def _carried_out(job: Job, stop: Event, crew: list["_Worker"]) -> Iterator[tuple[int, Any]]:
    waiting, deaths = deque(range(len(job.tasks))), Counter[int]()
    at_hand: dict[Future[Any], tuple[int, _Worker]] = {}
    free = list(crew)
    while (waiting or at_hand) and not (stop.is_set() or ending.is_set()):
        while free and waiting:
            number, worker = waiting.popleft(), free.pop()
            at_hand[worker.begin(job, number)] = number, worker
        for future in wait(at_hand, timeout=LOOK, return_when=FIRST_COMPLETED).done:
            number, worker = at_hand.pop(future)
            worker.free_since = time.monotonic()
            free.append(worker)
            if isinstance(future.exception(), BrokenProcessPool):
                worker.kill()
                deaths[number] += 1
                if deaths[number] < LIMIT:
                    # Soon, but not at once: if others succeed meanwhile, it is the task that is to blame.
                    waiting.insert(2 * len(crew), number)
                    continue
            yield number, LOST if deaths[number] == LIMIT else future.result()


class _Worker:
    """A process, started when there is a task for it; ``number``: its place among those of this machine.

    ``free_since``: when its last task was over, by ``time.monotonic``.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._pool: Any = None
        self.free_since = 0.0

    def begin(self, job: Job, number: int) -> "Future[Any]":
        """Begin a task. Raises ``SetupError`` where no process can be started."""
        # loky may not notice the death of a process that it began in place of one that had been idle (joblib 1.5).
        if time.monotonic() - self.free_since > IDLE / 2:
            self.kill()
        for _ in range(LIMIT):
            if self._pool is None:
                self._pool = _started(self.number)
            # It may have died since its last task.
            with suppress(BrokenProcessPool):
                future: Future[Any] = self._pool.submit(
                    inside.perform, job.context, job.function, number, job.tasks[number]
                )
                return future
            self.kill()
        raise SetupError("Worker processes die as soon as they start; most likely memory has run out.")

    def kill(self) -> None:
        """End the process, whatever it does."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, kill_workers=True)


def close() -> None:
    """End the workers that wait for a next call."""
    with _lock:
        crew = [_idle.pop() for _ in range(len(_idle))]
    for worker in crew:
        worker.kill()


def _started(number: int) -> Any:
    from joblib.externals.loky import ProcessPoolExecutor

    reducers, initial = _reducers(), (os.getpid(), number)
    return ProcessPoolExecutor(
        1, timeout=IDLE, job_reducers=reducers, result_reducers={}, initializer=_begin, initargs=initial
    )


def _reducers() -> dict[type, Any]:
    import numpy as np

    return {np.ndarray: _arrays}


def _begin(parent: int, number: int) -> None:
    """In the worker: take its place, keep it, and end soon after its parent, which may be killed without a word.

    loky would start a process anew that has grown by 300 MB since its first task, as those with other models do.
    On Windows a parent's death cannot be seen from its number; there the process ends when it has been idle for long.
    """
    from joblib.externals.loky import process_executor

    inside.sit(number)
    process_executor._USE_PSUTIL = False

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        os._exit(1)

    Thread(target=watch, name="mmmos-parent", daemon=True).start()


def _taken(count: int) -> list[_Worker]:
    """Workers for one call: those that are there, and new ones."""
    global _calls
    with _lock:
        _calls += 1
        crew = [_idle.pop(0) for _ in range(min(count, len(_idle)))]
    crew += [_Worker(0) for _ in range(count - len(crew))]
    for number, worker in enumerate(crew):
        if worker.number != number:
            worker.kill()
            worker.number = number
    return crew


def _given_back(crew: list[_Worker]) -> None:
    global _calls
    with _lock:
        _calls -= 1
        _idle[:0] = crew
        if not _calls:
            _arrays.clear()
