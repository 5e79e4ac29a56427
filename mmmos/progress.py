"""Progress of anything that takes over two seconds: a bar in a terminal, plain lines elsewhere, or JSON lines.

All output goes to stderr. Libraries and tests are silent until ``show`` is called, as the command line does.
A stage that may be interrupted says with ``saved`` what would not be lost.
"""

import json
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from mmmos.errors import UnknownName

T = TypeVar("T")

# bar: where stderr is a terminal, lines elsewhere.
FORMS = ("bar", "lines", "json", "none")

# s before anything is shown, between two lines of a stage, and from which on a rate says something.
_DELAY = 2.0
_EVERY = 10.0
_MEASURED = 1.0

_shown = False
_form = "bar"
_bars: Any = None
_saved = ""
_goes_on = True


def show(how: str | bool) -> None:
    """Show the progress of this process in one of ``FORMS``; True: bar, False: none. Raises ``UnknownName``."""
    global _shown, _form
    chosen = how if isinstance(how, str) else "bar" if how else "none"
    if chosen not in FORMS:
        raise UnknownName("form of progress", chosen, FORMS)
    _shown, _form = chosen != "none", chosen


def form() -> str:
    """The one of ``FORMS`` in which progress is shown."""
    return _form if _shown else "none"


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


def as_line(text: str, event: str = "message") -> str:
    """A text as it is written to stderr: itself, in JSON lines an object with ``event`` and ``text``."""
    return _object(event, text=text) if form() == "json" else text


def tell(event: str, **facts: Any) -> None:
    """One JSON line of an event; nothing in other forms. Numbers that are not finite become null."""
    if form() == "json":
        _write(_object(event, **facts))


def _object(event: str, **facts: Any) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text = json.dumps({"event": event, "time": now} | facts, default=_plain)
    return json.dumps(json.loads(text, parse_constant=lambda _: None))


def _plain(value: Any) -> Any:
    """What JSON has no word for: a NumPy number as a number, anything else as its text."""
    return value.item() if getattr(value, "ndim", None) == 0 else str(value)


def _write(line: str) -> None:
    """At once and whole; a reader who has gone does not stop the work."""
    with suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def track(items: Iterable[T], total: int, label: str) -> Generator[T]:
    """The items, with progress shown while they pass. Closed early, it closes the generator of the items.

    ``total``: 0 where it is not known.
    """
    try:
        if not _shown:
            yield from items
        elif _form == "json":
            yield from _objects(items, total, label)
        elif _form == "bar" and sys.stderr.isatty():
            yield from _bar(items, total, label)
        else:
            yield from _lines(items, total, label)
    finally:
        if isinstance(items, Generator):
            items.close()


def _bar(items: Iterable[T], total: int, label: str) -> Generator[T]:
    started = time.monotonic()
    with _display() as bars:
        task = bars.add_task(label, total=total or None, visible=False, pace="")
        try:
            for done, item in enumerate(items, start=1):
                yield item
                elapsed = time.monotonic() - started
                bars.update(task, advance=1, visible=elapsed > _DELAY, pace=_pace(done, elapsed))
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

    pace = TextColumn("{task.fields[pace]}", style="progress.data.speed")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), pace, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as _bars:
        try:
            yield _bars
        finally:
            _bars = None


def _lines(items: Iterable[T], total: int, label: str) -> Generator[T]:
    started = time.monotonic()
    last = started + _DELAY - _EVERY
    for done, item in enumerate(items, start=1):
        yield item
        if (now := time.monotonic()) - last > _EVERY:
            last = now
            _write(f"{label}: {_words(done, total, now - started)}")


def _objects(items: Iterable[T], total: int, label: str) -> Generator[T]:
    """A stage of unknown length begins with its first item; one without items is not worth a line."""
    started = last = time.monotonic()
    done = 0
    if total:
        tell("begin", **_facts(label, done, total, 0.0))
    try:
        for item in items:
            if not (total or done):
                tell("begin", **_facts(label, done, total, 0.0))
            yield item
            done += 1
            if (now := time.monotonic()) - last > _EVERY:
                last = now
                tell("progress", **_facts(label, done, total, now - started))
    finally:
        if total or done:
            tell("end", **_facts(label, done, total, time.monotonic() - started))


def _facts(label: str, done: int, total: int, elapsed: float) -> dict[str, Any]:
    facts = {"label": label, "done": done, "total": total or None, "elapsed_s": round(elapsed, 3)}
    left = _left(done, total, elapsed)
    return facts if left is None else facts | {"eta_s": round(left, 3)}


def _words(done: int, total: int, elapsed: float) -> str:
    """As in 12 of 300, 3.1/s, 1 min 33 s left."""
    left = _left(done, total, elapsed)
    parts = [f"{done} of {total}" if total else str(done), _pace(done, elapsed)]
    if left and elapsed >= _MEASURED:
        parts.append(f"{_duration(left)} left")
    return ", ".join(filter(None, parts))


def _left(done: int, total: int, elapsed: float) -> float | None:
    """s that the rest takes at the mean rate so far; None where that is not known."""
    return elapsed / done * max(total - done, 0) if done and total else None


def _pace(done: int, elapsed: float) -> str:
    """The mean rate so far, in the unit that makes it at least one; "" where too little time has passed."""
    if elapsed < _MEASURED:
        return ""
    unit, seconds = next((u for u in (("s", 1), ("min", 60)) if done * u[1] >= elapsed), ("h", 3600))
    rate = done * seconds / elapsed
    return f"{rate:,.1f}/{unit}" if rate < 10 else f"{rate:,.0f}/{unit}"


def _duration(seconds: float) -> str:
    """The two largest units of a time: "1 min 33 s"."""
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"
