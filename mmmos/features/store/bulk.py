"""Many objects asked for at once: what one by one would take the time of as many journeys."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from mmmos import progress
from mmmos.features.store.remote import Place, Remote, get, has, reach, temporary

# Bytes of an object's beginning that are read ahead; objects asked for at once.
AHEAD = 1 << 16
TOGETHER = 64

T = TypeVar("T")


def begun(paths: Sequence[Place]) -> Iterator[Place]:
    """The paths; of objects the beginnings are read, many at once."""
    for some in _blocks(paths):
        read = _beginnings([each for each in some if isinstance(each, Remote) and each.size > 0])
        yield from (read.get(each, each) for each in some)


def _beginnings(objects: Sequence[Remote]) -> dict[Place, Remote]:
    """The objects with their beginnings; one that fails is left to be asked for alone."""
    if not objects:
        return {}
    found: list[object] = []
    with suppress(Exception):
        system, ends = reach(objects[0].url)[0], [min(each.size, AHEAD) for each in objects]
        found = system.cat_ranges([each.path_in(system) for each in objects], [0] * len(ends), ends)
    starts = zip(objects, found, strict=False)
    return {each: replace(each, beginning=start) for each, start in starts if isinstance(start, bytes)}


def fetch(paths: Iterable[Place]) -> None:
    """Copy objects of known size to the cache, many at once; one that fails is left to be asked for alone."""
    absent = [each for each in paths if isinstance(each, Remote) and not has(each.cached, each.size)]
    blocks = list(_blocks(absent))
    for some in progress.track(blocks, len(blocks), f"copying {TOGETHER} shards each"):
        copies = [temporary(each.cached) for each in some]
        with suppress(Exception):
            get(some, copies)
        for each, copy in zip(some, copies, strict=True):
            if has(copy, each.size):
                copy.replace(each.cached)
            copy.unlink(missing_ok=True)


def _blocks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[first : first + TOGETHER] for first in range(0, len(items), TOGETHER))
