"""Progress of anything that takes over two seconds: a bar in a terminal, a plain line every ten seconds elsewhere.

All output goes to stderr. Libraries and tests are silent until ``show(True)``, which the command line calls.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_DELAY = 2.0
_EVERY = 10.0
_shown = False


def show(yes: bool) -> None:
    """Turn progress output on or off for this process."""
    global _shown
    _shown = yes


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """The items, with progress shown while they pass."""
    if not _shown:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total, label)
    else:
        yield from _lines(items, total, label)


def _bar(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, visible=False)
        for item in items:
            yield item
            bar.update(task, advance=1, visible=time.monotonic() - started > _DELAY)


def _lines(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    last = time.monotonic() + _DELAY - _EVERY
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > _EVERY:
            last = time.monotonic()
            sys.stderr.write(f"{label}: {done} of {total}\n")
