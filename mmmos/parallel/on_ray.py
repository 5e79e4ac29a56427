"""Tasks in actors of a Ray cluster, one at a time in each.

An actor that dies costs its task and is replaced by a new one, which is given work when it is ready: where its place is
gone, the others do the rest. A cluster of our own, and its actors, stay for the next call.
"""

import atexit
import logging
import os
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from threading import Event, Thread
from typing import Any

import mmmos
from mmmos.errors import SetupError, first_line
from mmmos.parallel import places
from mmmos.parallel.ending import block_the_terminal, ending
from mmmos.parallel.in_ray import Performer
from mmmos.parallel.job import LIMIT, LOST, SAVED, Job

# Nothing is sent home, and no GPU is hidden from a worker that was given none.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError:
    raise SetupError("The backend ray needs Ray, which is not installed. Type: pip install 'mmmos[ray]'") from None

# s for a cluster to answer; Ray itself ends the whole process a minute after its head went away.
PATIENCE = 15.0
# s that a cluster may leave a call without an actor.
DROUGHT = 60.0
# s between two looks at whether the tasks are still wanted.
LOOK = 0.2

_lock = threading.Lock()
_idle: list["_Actor"] = []
# CPUs of the cluster that is ours, 0 for none; what ends the connection that is ours.
_own = 0
_end: Event | None = None


def carry_out(job: Job, stop: Event) -> Iterator[tuple[int, Any]]:
    """As ``job.Engine`` says, on the cluster at ``job.workers.address``, or on one of this machine."""
    logging.getLogger("ray").setLevel(logging.CRITICAL + 1)
    # A process has one connection: calls take turns.
    while not _lock.acquire(timeout=LOOK):
        if stop.is_set():
            return
    try:
        with _connected(job, stop), closing(_Crew(job)) as crew, closing(_carried_out(job, stop, crew)) as results:
            yield from results
    finally:
        _lock.release()


def _carried_out(job: Job, stop: Event, crew: "_Crew") -> Generator[tuple[int, Any]]:
    waiting, deaths = deque(range(len(job.tasks))), Counter[int]()
    while (waiting or crew.at_hand) and not (stop.is_set() or ending.is_set()):
        while waiting and crew.free:
            crew.begin(waiting.popleft())
        for number, result in crew.ended():
            if result is LOST:
                deaths[number] += 1
                if deaths[number] < LIMIT:
                    waiting.insert(2 * crew.count, number)
                    continue
            yield number, result


class _Actor:
    """A handle of an actor, and the GPUs that it holds."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.handle: Any = ray.remote(num_cpus=1, num_gpus=gpus)(Performer).remote(sys.path if _own else [])

    def kill(self) -> None:
        with suppress(Exception):
            ray.kill(self.handle)


class _Crew:
    """The actors of a call: those that are there, and new ones. ``at_hand``: its unfinished tasks."""

    def __init__(self, job: Job) -> None:
        self._job, self._function = job, ray.put(job.function)
        self._head = ray.get_runtime_context().gcs_address
        self._headless = False
        self.free: list[_Actor] = []
        self.at_hand: dict[Any, tuple[int, _Actor]] = {}
        self._entering: dict[Any, _Actor] = {}
        self._gpus, self.count = _needed(job)
        self._failures, self._at_work, self._answered = 0, time.monotonic(), time.monotonic()
        for _ in range(self.count):
            self._enter(_idle.pop() if _idle and _idle[-1].gpus == self._gpus else _Actor(self._gpus))

    def _enter(self, actor: _Actor) -> None:
        entered = actor.handle.enter.remote(mmmos.__version__, self._job.context, self._function)
        self._entering[entered] = actor

    def begin(self, number: int) -> None:
        """Begin a task in a free actor."""
        actor = self.free.pop()
        self.at_hand[actor.handle.perform.remote(number, self._job.tasks[number])] = number, actor

    def ended(self) -> Iterator[tuple[int, Any]]:
        """The tasks that came to an end, ``LOST`` for one whose actor died; waits ``LOOK`` seconds for the first."""
        self._look()
        for reference in ray.wait([*self.at_hand, *self._entering], timeout=LOOK)[0]:
            number, actor = self.at_hand.pop(reference, (None, None))
            actor = actor or self._entering.pop(reference)
            result = _result(reference)
            if result is LOST:
                # Without a head Ray would wait for ever for a new actor.
                if not _answers(self._head, 1.0):
                    raise self._gone()
                actor.kill()
                self._enter(_Actor(self._gpus))
            else:
                self.free.append(actor)
            if number is not None:
                yield number, result
            else:
                self._count_failures(result)

    def _count_failures(self, result: Any) -> None:
        self._failures = self._failures + 1 if result is LOST else 0
        if self._failures > LIMIT * self.count:
            raise SetupError("Ray's workers die as soon as they start; most likely memory has run out.")

    def _look(self) -> None:
        """Raise ``SetupError`` where the cluster's head is gone, or gives no place to any actor."""
        now = time.monotonic()
        if self.free or self.at_hand:
            self._at_work = now
        elif now - self._at_work > DROUGHT:
            what = "1 CPU and 1 GPU" if self._gpus else "1 CPU"
            raise SetupError(f"The Ray cluster at {self._head} had no free place ({what}) for {DROUGHT:.0f} s. {SAVED}")
        if now - self._answered > 1.0:
            if _answers(self._head, 1.0):
                self._answered = now
            elif now - self._answered > PATIENCE:
                raise self._gone()

    def _gone(self) -> SetupError:
        self._headless = True
        return SetupError(f"The head of the Ray cluster at {self._head} no longer answers. {SAVED}")

    def close(self) -> None:
        """Actors of our own cluster that have nothing to do stay; the others end. Without a head none can be ended."""
        if self._headless:
            return
        leaving = [*self._entering.values(), *(actor for _, actor in self.at_hand.values())]
        if _own:
            _idle.extend(self.free)
        else:
            leaving += self.free
        for actor in leaving:
            actor.kill()


def _result(reference: Any) -> Any:
    """What an actor answered, ``LOST`` where it died; what the task raised is raised."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, BaseException) else error from None
    except RayError:
        return LOST


def _needed(job: Job) -> tuple[int, int]:
    """GPUs for each actor, and the number of actors. Raises ``SetupError`` for a cluster without a place."""
    there = ray.cluster_resources()
    gpus = int(job.device.startswith("cuda") or (job.device == "auto" and there.get("GPU", 0) >= 1))
    room = int(min(there.get("CPU", 0), there.get("GPU", 0) if gpus else there.get("CPU", 0)))
    if not room:
        raise SetupError(f"The Ray cluster has no {'GPU' if there.get('CPU') else 'CPU'}; tasks run on {job.device}.")
    for actor in [actor for actor in _idle if actor.gpus != gpus]:
        _idle.remove(actor)
        actor.kill()
    return gpus, min(room, job.workers.jobs or room, len(job.tasks))


def _answers(address: str, timeout: float) -> bool:
    """Whether something listens at "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout):
            return True
    except (OSError, ValueError):
        return False


@contextmanager
def _connected(job: Job, stop: Event) -> Iterator[None]:
    """Ray as the user has begun it; else at the address, for the time of a call; else our own, until one is broken off.

    Raises ``SetupError``.
    """
    address, count = job.workers.address, job.workers.jobs or places.cores()
    if _own and (address or _own != count):
        close()
    if ray.is_initialized() and not _own:
        yield
        return
    if not _own:
        _connect(address, count)
    try:
        yield
    except BaseException:
        stop.set()
        raise
    finally:
        if address or stop.is_set() or ending.is_set():
            close()


def _connect(address: str | None, count: int) -> None:
    global _own, _end
    if address and ":" in address and not _answers(address, PATIENCE):
        raise SetupError(f"There is no Ray cluster at {address}. An address is like head:6379, or auto.")
    settings: dict[str, Any] = {"address": address} if address else {"address": "local", "num_cpus": count}
    block_the_terminal()
    begun: Future[None] = Future()
    end = Event()

    def keep() -> None:
        """Linux ends Ray's processes with the thread that started them, so this one stays."""
        try:
            with _unheard():
                ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False, **settings)
            begun.set_result(None)
        except BaseException as error:
            begun.set_exception(error)
            return
        end.wait()

    Thread(target=keep, name="mmmos-ray", daemon=True).start()
    try:
        begun.result()
    except (RayError, OSError, RuntimeError, ValueError) as error:
        where = f"There is no usable Ray cluster at {address}" if address else "Ray does not start"
        raise SetupError(f"{where}: {first_line(error)}.") from None
    _own, _end = 0 if address else count, end


@contextmanager
def _unheard() -> Iterator[None]:
    """Ray begun without the thread that tells of each worker's death on stdout, whatever it was asked."""
    from ray._private import worker

    name = "listen_error_messages"
    listen = getattr(worker, name)
    setattr(worker, name, lambda worker, stopped: None)
    try:
        yield
    finally:
        setattr(worker, name, listen)


@atexit.register
def close() -> None:
    """Leave the cluster that this module joined; one that is ours ends."""
    global _own, _end
    _idle.clear()
    if _end is not None:
        with suppress(Exception):
            ray.shutdown()
        _end.set()
    _own, _end = 0, None
