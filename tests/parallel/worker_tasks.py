"""What the workers of these tests carry out; they import it by its file's folder."""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple


class Told(NamedTuple):
    """A task: its number, and a folder in which executions leave a file each."""

    number: int
    folder: str
    seconds: float = 0.0
    poison: bool = False

    @property
    def label(self):
        return f"task called {self.number}"


def note(task):
    """Leave a trace of an execution, wait, and return the number and the process."""
    with (Path(task.folder) / "executions").open("a") as file:
        file.write(f"{task.number} {os.getpid()}\n")
    if task.poison:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(task.seconds)
    return task.number, os.getpid()


def executions(folder):
    """(number, process) of each execution."""
    lines = (Path(folder) / "executions").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines]


def kind_and_sum(array, number):
    return type(array).__name__, int(array.sum()) + number


def slot_of(number):
    """The place of this process among the workers of a call."""
    from mmmos import parallel

    time.sleep(0.01)
    return parallel.slot(), os.getpid()


_grown = []


def grow(megabytes):
    """Take memory for good."""
    _grown.append(b"x" * (megabytes << 20))
    time.sleep(1.1 if megabytes else 0)
    return os.getpid()


_loaded = []


def sleeper(seconds):
    """Sleep; which process did."""
    time.sleep(seconds)
    return os.getpid()


def load_once(number):
    """How often this process has loaded its model."""
    time.sleep(0.02)
    if not _loaded:
        _loaded.append(time.sleep(0.01))
    return os.getpid(), len(_loaded)
