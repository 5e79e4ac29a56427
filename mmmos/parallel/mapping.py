"""``map``: one function over many small tasks, in this process, in others of this machine, or on a cluster."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

from mmmos.errors import SetupError
from mmmos.parallel import inside, places
from mmmos.parallel.ending import ending
from mmmos.parallel.job import LIMIT, LOST, Engine, Job, check_importable
from mmmos.parallel.places import Jobs, Workers
from mmmos.parallel.working_ahead import END, Failure, consume

T = TypeVar("T")

# s of work after which starting processes (about 3 s each) pays.
PATIENCE = 5.0
# Tasks that end their processes, and no other one succeeds: it is not them, it is the machine.
HOPELESS = 8
# s that an engine may take to end its processes.
PARTING = 5.0

_ENGINES = {"local": "on_loky", "dask": "on_dask", "ray": "on_ray"}


def map(
    function: Callable[[Any], T],
    tasks: Sequence[Any],
    *,
    jobs: Jobs = 1,
    device: str = "cpu",
    lost: Callable[[Any], T] | None = None,
    ordered: bool = False,
) -> Generator[T]:
    """Results of ``function(task)``, as they are ready, or with ``ordered`` in the order of the tasks.

    ``jobs``: ``Workers``, or processes of this machine: 1 runs in this process, 0 begins in this process and, where
    that takes long, hands the rest to one process for each available core. ``device``: what tasks compute on, for
    clusters that deal out GPUs. ``lost``: what stands for a task that ended ``LIMIT`` processes; without it, and where
    the first ``HOPELESS`` tasks to come to an end are such, ``SetupError`` is raised.

    A task is small and picklable; the function is importable from a module, writes what it makes durably and returns a
    small record: it may be called again with the same task when its process was killed. Close the generator when you
    leave it early (``contextlib.closing``): its processes are then killed. What a task raises is raised.
    """
    where = places.workers(jobs)
    numbered = _numbered(function, tasks, where, device)
    results = _checked(numbered, tasks, lost)
    try:
        yield from _in_order(results) if ordered else (result for _, result in results)
    finally:
        numbered.close()


def _numbered(
    function: Callable[[Any], T], tasks: Sequence[Any], where: Workers, device: str
) -> Generator[tuple[int, Any]]:
    """The number of each task and its result."""
    begun, number = time.monotonic(), 0
    with inside.here(where.logs) as perform:
        while number < len(tasks) and _stays(where, len(tasks) - number, time.monotonic() - begun):
            yield number, perform(function, number, tasks[number])
            number += 1
    if number < len(tasks):
        check_importable(function)
        if where.is_local:
            where = replace(where, jobs=where.jobs or places.cores())
        job = Job(function, tasks[number:], where, inside.context(where.logs), device)
        for place, result in _elsewhere(_engine(where.backend), job):
            yield number + place, result


def _stays(where: Workers, left: int, spent: float) -> bool:
    """Whether this process carries out the next task, of so many that are left, after so many s."""
    if not where.is_local or where.jobs > 1:
        return False
    return where.jobs == 1 or left == 1 or spent < PATIENCE or places.cores() == 1


def _engine(backend: str) -> Engine:
    engine: Engine = import_module(f"mmmos.parallel.{_ENGINES[backend]}").carry_out
    return engine


def _elsewhere(engine: Engine, job: Job) -> Generator[tuple[int, Any]]:
    """The engine runs in a thread of its own, where no Ctrl-C interrupts it halfway through starting a process."""
    results: SimpleQueue[Any] = SimpleQueue()
    stop = Event()
    ending.clear()

    def drive() -> None:
        try:
            for result in engine(job, stop):
                results.put(result)
            results.put(END)
        except BaseException as error:
            results.put(Failure(error))

    thread = Thread(target=drive, name="mmmos-map", daemon=True)
    try:
        thread.start()
        yield from consume(results)
    finally:
        stop.set()
        thread.join(PARTING)


def _checked(
    results: Iterable[tuple[int, Any]], tasks: Sequence[Any], lost: Callable[[Any], T] | None
) -> Iterator[tuple[int, T]]:
    """The results; what stands for a task that was lost."""
    gone = 0
    for ended, (number, result) in enumerate(results, start=1):
        if result is LOST:
            gone += 1
            label = inside.label_of(tasks[number]) or f"task {number + 1} of {len(tasks)}"
            if lost is None or gone == ended == HOPELESS:
                raise SetupError(
                    f"A worker process was killed, most likely because memory ran out: {label} ended {LIMIT} of them."
                    " What is finished is saved; the same command goes on from there, and with a smaller --jobs it"
                    " needs less memory."
                )
            yield number, lost(tasks[number])
        else:
            yield number, result


def _in_order(results: Iterable[tuple[int, T]]) -> Iterator[T]:
    early: dict[int, T] = {}
    due = 0
    for number, result in results:
        early[number] = result
        while due in early:
            yield early.pop(due)
            due += 1
