"""What happens inside a Ray actor: it is given the function of a job once, and then the tasks."""

import os
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

from mmmos.parallel import inside
from mmmos.parallel.inside import Context


class Performer:
    """What an actor is; it ends with Ray's process on its machine, at once. ``path``: where else it finds modules."""

    def __init__(self, path: list[str]) -> None:
        sys.path += [folder for folder in path if folder not in sys.path]
        Thread(target=_end_with, args=(os.getppid(),), name="mmmos-parent", daemon=True).start()

    def enter(self, version: str, context: Context, function: Callable[[Any], Any]) -> None:
        """Take the function of a job. Raises ``SetupError`` where the versions differ."""
        inside.check_version(version)
        self._context, self._function = context, function

    def perform(self, number: int, task: Any) -> Any:
        """One task."""
        return inside.perform(self._context, self._function, number, task)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.25)
    os._exit(1)
