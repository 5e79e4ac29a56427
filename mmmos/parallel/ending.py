"""Child processes and signals: none reaches them but by their parent, and all end at once when one ends that."""

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


def block_the_terminal() -> None:
    """Block what a terminal sends to all processes in this thread and those it starts: their parent deals with it."""
    if os.name == "posix":  # pragma: no branch - not so on Windows
        from multiprocessing.resource_tracker import ensure_running

        signals = {signal.SIGINT, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        # It leaves SIGINT unblocked when it starts its helper.
        ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
