"""What happens inside a worker: it enters a context once, and carries out one task at a time."""

import logging
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from mmmos import progress
from mmmos.errors import SetupError

T = TypeVar("T")

log = logging.getLogger("mmmos")
# What a worker does, for its own log alone.
_journal = logging.getLogger("mmmos.worker")
_journal.propagate = False

# What a worker is told of its parent's environment.
TOLD = ("HF_HUB_OFFLINE", "HF_HUB_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS")
# What a worker's log says of its own.
NOTED = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID")

_lock = RLock()
_slot = 0
_entered: "Context | None" = None
_leave = ExitStack()
_unusable: set[str] = set()


@dataclass(frozen=True)
class Context:
    """What all workers of a call are told: environment variables, the folder of their logs ("" for none), and how they
    show progress (of ``progress.FORMS``).
    """

    environment: tuple[tuple[str, str], ...] = ()
    logs: str = ""
    progress: str = "none"


def context(logs: str | None) -> Context:
    """The context of this process' workers. A folder that cannot be written costs the logs, and is said once."""
    told = tuple((name, os.environ[name]) for name in TOLD if name in os.environ)
    form = progress.form()
    # Of several processes only one can draw bars.
    return Context(told, _usable(logs) if logs else "", "lines" if form == "bar" else form)


def _usable(logs: str) -> str:
    """The absolute path of a folder that can be written to, or ""."""
    folder = Path(logs).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".{socket.gethostname()}-{os.getpid()}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        if logs not in _unusable:
            log.warning("No logs of the workers are written to %s: %s.", folder, error.strerror)
        _unusable.add(logs)
        return ""
    return str(folder)


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
        enter(context)
        begun = time.perf_counter()
        _journal.info("task %d begins%s", number, f": {label}" if (label := label_of(task)) else "")
        try:
            result = function(task)
        except Exception as error:
            spent = time.perf_counter() - begun
            _journal.info("task %d fails after %.3f s: %s: %s", number, spent, type(error).__name__, error)
            raise
        _journal.info("task %d ends after %.3f s", number, time.perf_counter() - begun)
        return result


@contextmanager
def here(logs: str | None) -> Iterator[Callable[[Callable[[Any], T], int, Any], T]]:
    """What carries out tasks in this process, ``perform`` without its context; with ``logs`` it writes one as well."""
    if not logs:
        yield lambda function, number, task: function(task)
        return
    try:
        yield partial(perform, Context((), _usable(logs), progress.form()))
    finally:
        leave()


def check_version(driver: str) -> None:
    """Raise ``SetupError`` where this worker has another version of MMMOS than the process that sends it tasks."""
    from mmmos import __version__

    if driver != __version__:
        raise SetupError(
            f"The workers have mmmos {__version__}, and this is mmmos {driver}; install the same version everywhere."
        )


def label_of(task: object) -> str:
    """What a task calls itself: its attribute ``label``, "" without one."""
    return str(getattr(task, "label", ""))


def leave() -> None:
    """Be as before any context."""
    global _entered
    _leave.close()
    _entered = None


def enter(told: Context) -> None:
    """Be as the context says until another one is entered; what the one before it changed is as it was."""
    global _entered
    if told == _entered:
        return
    _leave.close()
    _entered = told
    for name, value in told.environment:
        _leave.callback(_set, name, os.environ.get(name))
        os.environ[name] = value
    _leave.callback(progress.show, progress.form())
    progress.show(told.progress)
    if told.logs:
        _keep_a_log(Path(told.logs))


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _keep_a_log(folder: Path) -> None:
    """Write this worker's tasks and MMMOS's warnings to a file of its own, until the context is left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _Log(folder / f"{socket.gethostname()}-{os.getpid()}.log", encoding="utf-8")
    except OSError as error:
        log.warning("Worker %d of %s writes no log: %s.", os.getpid(), socket.gethostname(), error)
        return
    file.setFormatter(_Line("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    _leave.callback(_close, file)
    _leave.callback(_journal.setLevel, _journal.level)
    _journal.setLevel(logging.INFO)
    for logger in (log, _journal):
        logger.addHandler(file)
        _leave.callback(logger.removeHandler, file)
    _journal.info("%s", _about())


def _close(file: logging.FileHandler) -> None:
    # What could not be written before cannot be now.
    with suppress(OSError):
        file.close()


def _about() -> str:
    """Which worker this is, and what it was given."""
    from mmmos import __version__

    given = [f"{name}={os.environ[name]}" for name in NOTED if name in os.environ]
    which = f"worker {_slot} on {socket.gethostname()}, process {os.getpid()}"
    return ", ".join([which, f"mmmos {__version__}", f"Python {platform.python_version()}", *given])


class _Line(logging.Formatter):
    """One line for each record, its time in UTC."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


class _Log(logging.FileHandler):
    """A log beside which warnings go where they went without it; one that cannot be written any more is given up."""

    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort
        alone = log.handlers == [self] and not logging.getLogger().handlers
        super().emit(record)
        if last and alone and record.levelno >= last.level:
            last.handle(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging calls it so)
        for logger in (log, _journal):
            logger.removeHandler(self)
        log.warning("The log %s cannot be written any more.", self.baseFilename)
