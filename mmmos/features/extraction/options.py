"""How extraction goes about its work."""

from dataclasses import dataclass, replace

from mmmos import parallel
from mmmos.features import devices
from mmmos.parallel import Jobs, Workers


@dataclass(frozen=True)
class Options:
    """How extraction goes about it; none of these changes a number.

    ``device``: where encoders run. ``jobs``: processes that encode, here or on a cluster; 0 for this one with a thread
    on each core, or for one process on each of several GPUs. ``strict``: reject audio that is not what its container
    says. ``retry``: try rejected clips again. ``rehash``: read every file again, whatever the file system says of it.
    """

    device: str = "auto"
    jobs: Jobs = 0
    strict: bool = False
    retry: bool = False
    rehash: bool = False

    def workers(self) -> Workers:
        """Where tasks run; what 0 stands for is said."""
        where = parallel.workers(self.jobs)
        return replace(where, jobs=devices.processes(self.device)) if where.is_local and not where.jobs else where

    def are_here(self) -> bool:
        """Whether tasks run in this process."""
        where = self.workers()
        return where.is_local and where.jobs == 1

    def threads(self) -> int:
        """Threads of each task; 0: as its worker decides."""
        where = parallel.workers(self.jobs)
        if where.is_local and where.jobs:
            return 1
        return parallel.cores() if self.are_here() else 0


DEFAULTS = Options()
