"""What the workers of the clusters' tests carry out; they import it by name."""

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from mmmos import parallel
from mmmos.errors import UnknownName


def write_down(folder, line):
    """Append a line to a file, in one piece whatever other processes do."""
    handle = os.open(Path(folder) / "executed", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def executed(folder):
    """The lines that were written down."""
    path = Path(folder) / "executed"
    return path.read_text().split() if path.exists() else []


def square(number):
    return number * number


def slow_pid(folder, number):
    write_down(folder, number)
    time.sleep(0.05)
    return os.getpid()


def die_at(folder, fatal, number):
    """SIGKILL for oneself, as the system does when memory runs out."""
    write_down(folder, number)
    if number in fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(folder, number):
    """Ends its worker where it was begun for the first time."""
    first = str(number) not in executed(folder)
    write_down(folder, number)
    if first and number % 10 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number):
    raise UnknownName("axis", "PQQ", ["PQ", "PC"])


def process(seconds):
    time.sleep(seconds)
    return os.getpid()


def slot(seconds):
    time.sleep(seconds)
    return parallel.slot()


def process_with_child(seconds):
    """This process and one that it began, which ends when its stdin does, as decoders do."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    time.sleep(seconds)
    _children.append(child)
    return os.getpid(), child.pid


_children = []


@cache
def _model(folder):
    write_down(folder, os.getpid())
    return abs


def with_a_model(large, folder, number):
    return _model(folder)(number)


class Large:
    """Writes down each time that it arrives in a process."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return arrive, (self.folder,)


def arrive(folder):
    write_down(folder, os.getpid())
    return Large(folder)


def allocate(folder, fatal, number):
    """600 MB more for the fatal task."""
    write_down(folder, number)
    if number == fatal:
        held = b"x" * (600 << 20)
        time.sleep(20)
        return len(held)
    return number
