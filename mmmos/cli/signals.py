"""Signals: Ctrl-C, SIGTERM and SIGHUP end a command within two seconds, whatever its threads and processes do.

The main thread unwinds for ``GRACE`` seconds, so that ``finally`` clauses may store what is finished; then the process
ends hard. A thread of its own sees to that, also while the main thread is inside a C function; one that keeps Python's
lock (few do, none of the long ones) delays it. A second signal ends the process at once.
"""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

from mmmos import parallel, progress

# s that the main thread may take to unwind.
GRACE = 1.5
# s within which signals are one: launchers pass on what the terminal has sent already.
ONE = 0.25
# s that output may take; a terminal or pipe that nobody reads blocks for ever.
LAST_WORDS = 0.15

_WORDS = {"SIGINT": "Interrupted.", "SIGTERM": "Terminated.", "SIGHUP": "Terminated."}
# Windows has no SIGHUP.
WORDS: dict[int, str] = {int(getattr(signal, name)): word for name, word in _WORDS.items() if hasattr(signal, name)}

_UNWOUND = 0
_arrived = 0
_debug = False


def arrived() -> bool:
    """True once a signal ends the command; what fails after it is of no interest."""
    return _arrived != 0


@contextmanager
def watched(command: str, *, debug: bool = False) -> Iterator[None]:
    """Within it the signals end the process: exit code 128 + number, and ``command`` named as the one that goes on.

    A signal that is ignored on entry (``nohup``, a shell's background) stays so. On leaving the signals get the
    system's meaning, so that they end the interpreter's own shutdown at once and silently.
    """
    global _arrived, _debug
    _arrived, _debug = 0, debug
    ear, mouth = os.pipe()
    if os.name == "posix":
        os.set_blocking(mouth, False)
    heard: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=_listen, args=(ear, heard, command), name="mmmos-signals", daemon=True).start()
    before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    for number in WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _unwind)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
    try:
        yield
    finally:
        if arrived():
            heard.put(_UNWOUND)
            _wait_for_the_end()
        _forget()
        signal.set_wakeup_fd(before)
        os.close(mouth)


def _unwind(number: int, frame: FrameType | None) -> None:
    """Leave whatever the main thread does; once."""
    global _arrived
    if not _arrived:
        _arrived = number
        _hush()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _listen(ear: int, heard: "SimpleQueue[int]", command: str) -> None:
    """Read the numbers of signals from a pipe, to which Python writes them at once, until it is closed."""
    ending = False
    while number := os.read(ear, 1):
        if number[0] not in WORDS:
            continue
        if ending:
            heard.put(number[0])
        else:
            threading.Thread(target=_end, args=(number[0], heard, command), daemon=True).start()
            ending = True
    os.close(ear)


def _end(number: int, heard: "SimpleQueue[int]", command: str) -> None:
    """See the process to its end."""
    try:
        until = time.monotonic() + GRACE
        parallel.stop()
        _hush()
        _aside(progress.clear)
        _aside(lambda: _write(WORDS[number]))
        _wait(heard, until)
        parallel.stop()
        _aside(lambda: _write(farewell(command)))
        _aside(_flush)
    finally:
        os._exit(128 + number)


def _wait(heard: "SimpleQueue[int]", until: float) -> None:
    """Return when the main thread has unwound, at a second signal, and at a time at the latest."""
    alone = until - GRACE + ONE
    while (left := until - time.monotonic()) > 0:
        try:
            news = heard.get(timeout=left)
        except Empty:
            return
        if news == _UNWOUND or time.monotonic() > alone:
            return


def farewell(command: str) -> str:
    """What is saved, and the command that goes on, if it does."""
    saved = progress.what_is_saved() or "What is finished is saved."
    if not progress.goes_on():
        return saved
    return f"{saved} The same command goes on from there:\n    {command}"


def _hush() -> None:
    """Say nothing of what breaks while the process ends."""
    if _debug:
        return
    sys.excepthook = lambda *_: None
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    warnings.simplefilter("ignore")
    logging.disable()


def _aside(function: Callable[[], object]) -> None:
    """Call a function that may block; wait only for ``LAST_WORDS`` seconds."""

    def run() -> None:
        with suppress(Exception):
            function()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LAST_WORDS)


def _write(text: str) -> None:
    """To stderr, past its buffer, which the main thread may hold; arguments as the very bytes that were typed."""
    os.write(2, os.fsencode(progress.as_line(text, "signal") + "\n"))


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _wait_for_the_end() -> NoReturn:
    """The other thread ends the process, unless none could be started."""
    time.sleep(GRACE + ONE)
    os._exit(128 + _arrived)


def _forget() -> None:
    """Give the signals the system's meaning; in a forked process, which must not speak for its parent, too."""
    signal.set_wakeup_fd(-1)
    for number in WORDS:
        if signal.getsignal(number) is _unwind:
            signal.signal(number, signal.SIG_DFL)
