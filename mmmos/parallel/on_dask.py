"""Tasks on a Dask cluster: at a time as many as it has workers, so that each has one.

A cluster of our own stays for the next call. The futures are ours too: through joblib's Dask backend a call one of
whose tasks ends its worker never returns (joblib 1.5, distributed 2026.8).
"""

import atexit
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any
from uuid import uuid4

import mmmos
from mmmos.errors import SetupError, first_line
from mmmos.parallel import places
from mmmos.parallel.ending import block_the_terminal, ending
from mmmos.parallel.job import LIMIT, LOST, SAVED, Job

try:
    import dask
    from distributed import Client, Future, KilledWorker, LocalCluster

    from mmmos.parallel import in_dask
except ImportError:
    raise SetupError("The backend dask needs Dask, which is not installed. Type: pip install 'mmmos[dask]'") from None

# s for a scheduler to answer.
PATIENCE = 15.0
# s that a cluster may be without a worker.
DROUGHT = 60.0
# s between two looks at the workers, and at whether the tasks are still wanted.
LOOK = 0.2

_lock = threading.Lock()
_kept: list["_Cluster"] = []


def carry_out(job: Job, stop: Event) -> Iterator[tuple[int, Any]]:
    """As ``job.Engine`` says, on the cluster at ``job.workers.address``, or on one of this machine."""
    for name in ("distributed", "distributed.client"):  # each with a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with (
        _cluster(job, stop) as cluster,
        cluster.given(job) as begun,
        closing(_carried_out(job, stop, begun)) as results,
    ):
        yield from results


def _carried_out(job: Job, stop: Event, begun: "_Begun") -> Generator[tuple[int, Any]]:
    """A task that ended its worker is tried again; for the last time alone, when no other can be the cause."""
    waiting, alone, deaths = deque(range(len(job.tasks))), deque[int](), Counter[int]()
    while (waiting or alone or begun) and not (stop.is_set() or ending.is_set()):
        room = begun.cluster.size(job.workers.jobs)
        while waiting and not alone and len(begun) < room:
            begun.add(waiting.popleft())
        if alone and room and not begun:
            begun.add(alone.popleft())
        for number, result in begun.ended():
            if result is LOST:
                # A cluster that is not ours has let it end several.
                deaths[number] += 1 if begun.cluster.is_own else LIMIT - 1
                if deaths[number] < LIMIT:
                    if deaths[number] == LIMIT - 1:
                        alone.append(number)
                    else:
                        waiting.insert(2 * room, number)
                    continue
            yield number, result


class _Begun:
    """The tasks of a job that a cluster has; ``name``: of the function that its workers were brought."""

    def __init__(self, cluster: "_Cluster", job: Job, name: str) -> None:
        self.cluster, self._job, self._name = cluster, job, name
        self._futures: dict[Any, tuple[int, Future[Any]]] = {}
        self._ready: SimpleQueue[Future[Any]] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, number: int) -> None:
        """Begin a task."""
        what = mmmos.__version__, self._job.context, self._name, number, self._job.tasks[number]
        future = self.cluster.client.submit(in_dask.perform, *what, key=f"{self._name}-{uuid4().hex}", pure=False)
        self._futures[future.key] = number, future
        future.add_done_callback(self._ready.put)

    def ended(self) -> Iterator[tuple[int, Any]]:
        """Those that came to an end, ``LOST`` for one whose worker died; waits ``LOOK`` seconds for the first."""
        timeout = LOOK
        with suppress(Empty):
            while True:
                future = self._ready.get(timeout=timeout)
                yield self._futures.pop(future.key)[0], self._result(future)
                timeout = 0.0

    def _result(self, future: "Future[Any]") -> Any:
        """What a task returned; what it raised is raised."""
        if future.status == "error":
            error: BaseException = future.exception()
            if isinstance(error, KilledWorker):
                self.cluster.look()
                return LOST
            raise error
        try:
            return future.result(timeout=PATIENCE)
        except (OSError, CancelledError):
            raise self.cluster.gone() from None

    def cancel(self) -> None:
        """Those that have not begun never will."""
        self.cluster.client.cancel([future for _, future in self._futures.values()], force=True)


class _Cluster:
    """The cluster at an address, or one of our own with ``count`` workers."""

    def __init__(self, address: str | None, count: int) -> None:
        self.is_own, self.count = address is None, count
        self._looked, self._inhabited, self._size = 0.0, time.monotonic(), 0
        self._local: Any = None
        if address is None:
            block_the_terminal()
            self._local = _started(count)
            self.client = Client(self._local, set_as_default=False)
        else:
            self.client = _client(address)
        self.address = address or self._local.scheduler_address

    def size(self, most: int = 0) -> int:
        """How many workers there are, up to ``most`` where it is not 0. Raises ``SetupError`` after ``DROUGHT``."""
        now = time.monotonic()
        if now - self._looked > LOOK:
            try:
                self._size = len(self.client.nthreads(callback_timeout=PATIENCE))
            # A client that has given up its scheduler has none to ask.
            except (OSError, CancelledError, RuntimeError, AttributeError):
                raise self.gone() from None
            self._looked = now
            if self._size:
                self._inhabited = now
            elif now - self._inhabited > DROUGHT:
                raise SetupError(
                    f"The Dask scheduler at {self.address} has had no worker for {DROUGHT:.0f} s. Start some with:"
                    f" dask worker {self.address}\n{SAVED}"
                )
        return min(self._size, most or self._size)

    def look(self) -> None:
        """Count the workers anew, the next time."""
        self._looked = 0.0

    @contextmanager
    def given(self, job: Job) -> Iterator[_Begun]:
        """A job's function is brought to all workers."""
        name = f"mmmos-{uuid4().hex}"
        self.client.register_plugin(in_dask.Function(name, job.function), name)
        begun = _Begun(self, job, name)
        try:
            yield begun
        finally:
            with suppress(Exception):
                begun.cancel()
                self.client.unregister_worker_plugin(name)

    def gone(self) -> SetupError:
        """What is said of a scheduler that is no longer there."""
        return SetupError(f"The Dask scheduler at {self.address} no longer answers. {SAVED}")

    def close(self) -> None:
        """Leave the cluster; one that is ours ends."""
        with suppress(Exception):
            self.client.close(timeout=1)
        if self._local is not None:
            with suppress(Exception):
                self._local.close(timeout=1)


def _started(count: int) -> LocalCluster:
    """A scheduler in this process, and workers."""
    # A worker that dies is started again however often it does. The variables are set in this process too.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1000 days"})
    with dask.config.set({"distributed.nanny.pre-spawn-environ": {"DASK_LOGGING__DISTRIBUTED": "critical"}}):
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            # Each death is told: how often a task is tried is decided here.
            scheduler_kwargs={"allowed_failures": 0},
        )


def _client(address: str) -> Client:
    """Connected to a scheduler. Raises ``SetupError``."""
    try:
        if Path(address).is_file():
            return Client(scheduler_file=address, timeout=PATIENCE, set_as_default=False)
        return Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"There is no Dask scheduler at {address}: {first_line(error)}. An address is like tcp://host:8786, or the"
            " path of a scheduler file."
        ) from None


@contextmanager
def _cluster(job: Job, stop: Event) -> Iterator[_Cluster]:
    """The cluster of a call. One of our own is kept for the next, unless this one is broken off."""
    if job.workers.address is not None:
        with closing(_Cluster(job.workers.address, 0)) as cluster:
            yield cluster
        return
    most = job.workers.jobs or places.cores()
    with _lock:
        kept = _kept.pop() if _kept else None
    if kept is not None and not min(most, len(job.tasks)) <= kept.count <= most:
        kept.close()
        kept = None
    cluster = kept or _Cluster(None, min(most, len(job.tasks)))
    try:
        yield cluster
    except BaseException:
        stop.set()
        raise
    finally:
        with _lock:
            keep = not (stop.is_set() or ending.is_set() or _kept)
            if keep:
                _kept.append(cluster)
        if not keep:
            cluster.close()


@atexit.register
def close() -> None:
    """End the clusters of our own that wait for a next call."""
    while _kept:
        _kept.pop().close()
