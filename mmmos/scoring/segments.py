"""Segments of a clip: each is cut from the decoded audio and scored as if it were a clip of its own."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mmmos.audio import MIN_SECONDS, Samples
from mmmos.errors import UsageError
from mmmos.features import encoding
from mmmos.features.spec import FeatureSpec

# s: a last segment is this long at least, or half a segment; what the one before leaves over is more than nothing.
TAIL = 1.0
NOTHING = 0.001
# s behind a segment that must be there before it is certain to be a whole one, whatever a resampler holds back.
CERTAIN = 0.01


@dataclass(frozen=True)
class Grid:
    """Segments of ``length`` s, one every ``hop`` s."""

    length: float
    hop: float

    def spans(self, seconds: float) -> list[tuple[float, float]]:
        """Begin and end in s of the segments of a clip: they follow until one reaches the clip's end.

        The last one may be shorter; under 1 s and under half a segment (or 0.1 s) it is left out, unless it is the only
        one.
        """
        least = max(min(TAIL, self.length / 2), MIN_SECONDS) - NOTHING
        found: list[tuple[float, float]] = []
        while not found or found[-1][1] < seconds - NOTHING:
            begin = len(found) * self.hop
            end = min(begin + self.length, seconds)
            if found and end - begin < least:
                break
            found.append((begin, end))
        return found


def grid(segments: float | None, hop: float | None) -> Grid | None:
    """Segments of so many s, one every ``hop`` s (None: they follow each other); None for no segments.

    Raises ``UsageError`` unless ``MIN_SECONDS`` <= ``segments`` and 0 < ``hop`` <= ``segments``.
    """
    if segments is None:
        if hop is not None:
            raise UsageError("A hop needs segments: how long they are, in s, as in segments = 10, hop = 5.")
        return None
    hop = segments if hop is None else hop
    if not (math.isfinite(segments) and segments >= MIN_SECONDS):
        raise UsageError(f"Segments are {MIN_SECONDS} s long at least; got {segments:g} s.")
    if not 0 < hop <= segments:
        raise UsageError(
            f"The hop lies between 0 and the length of a segment, {segments:g} s, so that no audio is left out; got"
            f" {hop:g} s."
        )
    return Grid(float(segments), float(hop))


class Whole:
    """Cuts a clip into the windows of a feature set; ``places``: number of each by its first sample and length."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._cutter = encoding.cutter(spec)
        self.places: dict[tuple[int, int], int] = {}

    def push(self, block: Samples, last: bool = False) -> Iterator[tuple[int, Samples]]:
        """First sample and samples of each window."""
        for start, wave in self._cutter.push(block, last):
            self.places[start, len(wave)] = len(self.places)
            yield start, wave


class Parts:
    """Cuts the segments of a clip and gives their windows, but for those that the whole clip has as well.

    ``owned``: the windows of each segment in their order, by number among the whole clip's windows, or, from −1
    downwards, among those given here. ``firsts``: the first sample of each segment. ``seconds`` tells, at the end, how
    long the clip is.
    """

    def __init__(self, spec: FeatureSpec, grid: Grid, whole: Whole, seconds: Callable[[], float]) -> None:
        self.owned: defaultdict[int, list[int]] = defaultdict(list)
        self.firsts: list[int] = []
        self._spec, self._grid, self._whole, self._seconds = spec, grid, whole, seconds
        self._held, self._begin = np.zeros(0, np.float32), 0
        self._own: dict[tuple[int, int], int] = {}

    def push(self, block: Samples, last: bool = False) -> Iterator[tuple[int, Samples]]:
        """First sample and samples of each window of the segments that are complete by now."""
        self._held = np.concatenate([self._held, block])
        rate, total = self._spec.encoder.rate, self._begin + len(self._held)
        length = round(self._grid.length * rate)
        while self._next() + length + CERTAIN * rate < total:
            yield from self._segment(length)
        if last:
            for _ in self._grid.spans(self._seconds())[len(self.firsts) :]:
                yield from self._segment(length)

    def _next(self) -> int:
        """First sample of the next segment."""
        return round(len(self.firsts) * self._grid.hop * self._spec.encoder.rate)

    def _segment(self, length: int) -> Iterator[tuple[int, Samples]]:
        first, number = self._next(), len(self.firsts)
        self._held, self._begin = self._held[first - self._begin :], first
        self.firsts.append(first)
        for start, wave in encoding.cutter(self._spec).push(self._held[:length], last=True):
            place = first + start, len(wave)
            known = self._whole.places.get(place, self._own.get(place))
            if known is None:
                known = self._own[place] = -1 - len(self._own)
                yield first + start, wave
            self.owned[number].append(known)
