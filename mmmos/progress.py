"""Progress of anything that takes over two seconds: a bar in a terminal, a plain line every ten seconds elsewhere.

All output goes to stderr. Libraries and tests are silent until ``show(True)``, which the command line calls.
A stage that may be interrupted says with ``saved`` what would not be lost.
"""

import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_DELAY = 2.0
_EVERY = 10.0
_shown = False
_in_lines = False
_bars: Any = None
_saved = ""
_goes_on = True


def show(yes: bool, *, lines: bool = False) -> None:
    """Turn progress output on or off for this process; ``lines``: plain lines also in a terminal."""
    global _shown, _in_lines
    _shown, _in_lines = yes, lines


def is_shown() -> bool:
    """True when progress is shown."""
    return _shown


def saved(text: str, *, goes_on: bool = True) -> None:
    """Keep a sentence of what is durable so far, for whoever interrupts the stage; "" when the stage ends.

    ``goes_on``: whether the same command goes on from there.
    """
    global _saved, _goes_on
    _saved, _goes_on = text, goes_on


def what_is_saved() -> str:
    """The last sentence given to ``saved``."""
    return _saved


def goes_on() -> bool:
    """False where an interrupted stage has to begin anew."""
    return _goes_on


def clear() -> None:
    """Take the bars off the terminal and show its cursor again, from any thread; they stay away."""
    if _bars is not None:
        _bars.stop()


def track(items: Iterable[T], total: int, label: str) -> Generator[T]:
    """The items, with progress shown while they pass. Closed early, it closes the generator of the items."""
    try:
        if not _shown:
            yield from items
        elif sys.stderr.isatty() and not _in_lines:
            yield from _bar(items, total, label)
        else:
            yield from _lines(items, total, label)
    finally:
        if isinstance(items, Generator):
            items.close()


def _bar(items: Iterable[T], total: int, label: str) -> Generator[T]:
    started = time.monotonic()
    with _display() as bars:
        task = bars.add_task(label, total=total, visible=False)
        try:
            for item in items:
                yield item
                bars.update(task, advance=1, visible=time.monotonic() - started > _DELAY)
        finally:
            bars.remove_task(task)


@contextmanager
def _display() -> Generator[Any]:
    """The terminal's bars; a bar inside another one joins it."""
    global _bars
    if _bars is not None:
        yield _bars
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as _bars:
        try:
            yield _bars
        finally:
            _bars = None


def _lines(items: Iterable[T], total: int, label: str) -> Generator[T]:
    last = time.monotonic() + _DELAY - _EVERY
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > _EVERY:
            last = time.monotonic()
            sys.stderr.write(f"{label}: {done} of {total}\n")
