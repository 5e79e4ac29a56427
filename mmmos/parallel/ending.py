"""The end of all child processes at once, when a signal ends the command."""

import os
import signal
import sys
from contextlib import suppress
from threading import Event

# Set when all are killed: no worker is replaced until the next call begins.
ending = Event()


def stop() -> None:
    """Kill all children that multiprocessing or joblib started, at once and from any thread; none is replaced."""
    ending.set()
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        for process in active_children():
            with suppress(OSError):
                os.kill(process.pid or 0, getattr(signal, "SIGKILL", signal.SIGTERM))
