"""What happens inside a Dask worker: it is given the function of a job once, and then the tasks."""

import re
from collections.abc import Callable
from typing import Any

from distributed import WorkerPlugin

from mmmos.parallel import inside
from mmmos.parallel.inside import Context

_functions: dict[str, Callable[[Any], Any]] = {}


class Function(WorkerPlugin):
    """Brings a function, with what a ``partial`` binds to it, to all workers of a cluster, and to those that come."""

    def __init__(self, name: str, function: Callable[[Any], Any]) -> None:
        self.name, self.function = name, function

    def setup(self, worker: Any) -> None:
        """In a worker: keep the function. Its slot is the number at the end of its name ("3", "gpu-3"), or 0."""
        numbered = re.search(r"(?:^|-)(\d+)$", str(worker.name))
        inside.sit(int(numbered[1]) if numbered else 0)
        _functions[self.name] = self.function

    def teardown(self, worker: Any) -> None:
        """In a worker: forget it."""
        _functions.pop(self.name, None)


def perform(version: str, context: Context, name: str, number: int, task: Any) -> Any:
    """A task of the function that was brought as ``name``. Raises ``SetupError`` where the versions differ."""
    inside.check_version(version)
    return inside.perform(context, _functions[name], number, task)
