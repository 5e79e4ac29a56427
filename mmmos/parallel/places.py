"""Where tasks run: on this machine, or on a cluster."""

import os
from dataclasses import dataclass

from mmmos.errors import UnknownName, UsageError

BACKENDS = ("local", "dask", "ray")


@dataclass(frozen=True)
class Workers:
    """Where tasks run; none of it changes a number.

    ``backend``: "local" (processes of this machine), "dask" or "ray". ``address``: of a Dask scheduler
    ("tcp://host:8786", or the path of its scheduler file) or of a Ray cluster ("auto", "host:6379"); None starts one on
    this machine for the time of a call. ``jobs``: processes; where the backend is local 1 is this one; 0: as many as
    pay, on a cluster all there are. ``logs``: a folder for a log file of each worker.

    Raises ``UnknownName`` for another backend, ``UsageError`` for a negative number of processes and for an address of
    the local backend.

    >>> mmmos.Workers("dask", "tcp://host:8786").is_local
    False
    """

    backend: str = "local"
    address: str | None = None
    jobs: int = 0
    logs: str | None = None

    def __post_init__(self) -> None:
        """Check the parts."""
        if self.backend not in BACKENDS:
            raise UnknownName("backend", self.backend, BACKENDS)
        if self.jobs < 0:
            raise UsageError(f"jobs must be 0 (one process for each core) or more; got {self.jobs}.")
        if self.address and self.backend == "local":
            raise UsageError("An address is of a Dask or Ray cluster; choose --backend dask or ray.")

    @property
    def is_local(self) -> bool:
        """Whether the tasks stay on this machine, in this process or its children."""
        return self.backend == "local"


# A number of processes of this machine, or where else.
Jobs = int | Workers


def workers(jobs: Jobs) -> Workers:
    """The workers that are meant by a number of processes."""
    return jobs if isinstance(jobs, Workers) else Workers(jobs=jobs)


def cores() -> int:
    """Number of CPU cores that this process may use; inside a Slurm task no more than that was given."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(usable, int(given)) if given.isdecimal() and int(given) else usable
