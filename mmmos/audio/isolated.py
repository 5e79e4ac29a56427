"""The same streams from another process, which a damaged or hostile file may crash, hang or fill in this one's place.

Decoding processes start when they are needed, serve one clip at a time and wait in a pool in between; one that has not
come to the end of its clip is ended instead. They belong to the process that started them: a fork has its own.
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmmos.audio.child import Child
from mmmos.audio.streaming import Stream

_lock = threading.Lock()
_all: set[Child] = set()
_idle: list[Child] = []


@contextmanager
def stream(path: str | Path, start: float | None = None, end: float | None = None) -> Iterator[Stream]:
    """``audio.stream`` in a decoding process: the same samples and measures to the bit.

    Raises ``Rejected`` as that does, and with decoder_crashed, decode_timeout or out_of_memory for what befell the
    decoding process; the next clip gets another one. Raises ``SetupError`` where no such process can start.
    """
    child = _take()
    try:
        child.ask(path, start, end)
        rate, channels, seconds = child.header()
        yield Stream(rate, channels, seconds, child.blocks(), child.measures)
    finally:
        _give_back(child)


def close() -> None:
    """End all decoding processes, also those at work; the next clip starts others."""
    with _lock:
        children = list(_all)
        _all.clear()
        _idle.clear()
    for child in children:
        child.end()


def _take() -> Child:
    while True:
        with _lock:
            child = _idle.pop() if _idle else None
        if child is None:
            child = Child()
            with _lock:
                _all.add(child)
            return child
        if child.is_alive():
            return child
        _discard(child)


def _give_back(child: Child) -> None:
    with _lock:
        reusable = child.idle and child in _all
        if reusable:
            _idle.append(child)
    if not reusable:
        _discard(child)


def _discard(child: Child) -> None:
    with _lock:
        _all.discard(child)
    child.end()


def _forget() -> None:
    """In a fork: let go of the children of the process that was forked, which goes on using them."""
    global _lock
    _lock = threading.Lock()
    for child in _all:
        child.abandon()
    _all.clear()
    _idle.clear()


atexit.register(close)
if hasattr(os, "register_at_fork"):  # pragma: no branch (not on Windows)
    os.register_at_fork(after_in_child=_forget)
