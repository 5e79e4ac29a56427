"""What happens inside a worker: it enters a context once, and carries out one task at a time."""

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger("mmmos")

# What a worker is told of its parent's environment.
TOLD = ("HF_HUB_OFFLINE", "HF_HUB_VERBOSITY")

_lock = RLock()
_slot = 0
_entered: "Context | None" = None
_handler: logging.Handler | None = None


@dataclass(frozen=True)
class Context:
    """What all workers of a call are told: environment variables, and the folder of their logs ("" for none)."""

    environment: tuple[tuple[str, str], ...] = ()
    logs: str = ""


def context(logs: str | None) -> Context:
    """The context of this process' workers."""
    told = tuple((name, os.environ[name]) for name in TOLD if name in os.environ)
    return Context(told, str(Path(logs).absolute()) if logs else "")


def slot() -> int:
    """The number of this worker among those of one call on this machine, from 0; 0 in any other process."""
    return _slot


def sit(number: int) -> None:
    """Take the place ``number`` among the workers of this machine."""
    global _slot
    _slot = number


def perform(context: Context, function: Callable[[Any], T], number: int, task: Any) -> T:
    """``function(task)``, one at a time in this process however many threads it has, and written to its log."""
    with _lock:
        _enter(context)
        begun = time.perf_counter()
        log.info("task %d begins%s", number, f": {label}" if (label := label_of(task)) else "")
        try:
            result = function(task)
        except Exception as error:
            log.info(
                "task %d fails after %.3f s: %s: %s", number, time.perf_counter() - begun, type(error).__name__, error
            )
            raise
        log.info("task %d ends after %.3f s", number, time.perf_counter() - begun)
        return result


def label_of(task: object) -> str:
    """What a task calls itself: its attribute ``label``, "" without one."""
    return str(getattr(task, "label", ""))


def _enter(told: Context) -> None:
    """Be as the context says, from now on."""
    global _entered, _handler
    if told == _entered:
        return
    os.environ.update(told.environment)
    if _handler is not None:
        log.removeHandler(_handler)
        _handler.close()
        _handler = None
    if told.logs:
        folder = Path(told.logs)
        folder.mkdir(parents=True, exist_ok=True)
        _handler = logging.FileHandler(folder / f"{socket.gethostname()}-{os.getpid()}.log", encoding="utf-8")
        _handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(_handler)
        log.setLevel(logging.INFO)
    _entered = told
