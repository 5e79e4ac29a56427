"""A segment [start, end) of a file, in s: which samples it takes, and whether the audio filled it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmmos.audio import limits
from mmmos.errors import Rejected

Samples = NDArray[np.float32]
Numbered = Iterator[tuple[int, Samples]]


@dataclass(frozen=True)
class Segment:
    """``start`` and ``end`` in s; None is the beginning or the end of the file."""

    start: float | None = None
    end: float | None = None

    def span(self, rate: int) -> tuple[int, int]:
        """First sample and the one behind the last, at most one sample more than is allowed. Raises ``Rejected``."""
        begin, stop = self.start or 0.0, math.inf if self.end is None else self.end
        if not 0 <= begin < stop:
            raise Rejected("bad_segment", f"the segment from {begin:g} s to {stop:g} s holds nothing")
        longest = begin + limits.MAX_SECONDS
        return round(begin * rate), round(min(stop, longest) * rate) + (stop > longest)

    def seconds(self, declared: float) -> float:
        """Length in s of the segment where the file declares ``declared`` s (NaN: unknown)."""
        begin = self.start or 0.0
        if self.end is None or declared < self.end:
            return max(declared - begin, 0.0) if not math.isnan(declared) else math.nan
        return self.end - begin

    def take(self, numbered: Numbered, rate: int, skipped: Callable[[], None]) -> Iterator[Samples]:
        """Of decoded blocks, each with the place of its first sample, the segment's part. Raises ``Rejected``.

        ``skipped`` is called for every block that lies before the segment.
        """
        first, last = self.span(rate)
        position = 0
        for at, block in numbered:
            position = at + len(block)
            part = block[max(first - at, 0) : max(last - at, 0)]
            if len(part):
                yield finite(part, max(at, first), rate)
            else:
                skipped()
            if position >= last:
                break
        self._check(first, last, position, rate)

    def _check(self, first: int, last: int, position: int, rate: int) -> None:
        """Refuse a segment that the audio, ``position`` samples from its beginning, did not fill."""
        samples = min(position, last) - first
        ends = f"the audio ends at {position / rate:.3f} s"
        if samples > limits.MAX_SECONDS * rate:
            raise Rejected("too_long", f"more than {limits.MAX_SECONDS / 3600:g} h of audio")
        if not position:
            raise Rejected("no_samples", "the header is valid and no samples follow")
        if samples <= 0:
            raise Rejected("bad_segment", f"the segment starts at {self.start:g} s, {ends}")
        if self.end is not None and math.inf > self.end > position / rate + limits.MIN_SECONDS:
            raise Rejected("bad_segment", f"the segment ends at {self.end:g} s, {ends}")
        if samples < limits.MIN_SECONDS * rate:
            raise Rejected("too_short", f"{samples / rate:.4f} s of audio; at least {limits.MIN_SECONDS} s are needed")


def finite(block: Samples, position: int, rate: int) -> Samples:
    """The block itself, unless it holds NaN or infinite samples. Raises ``Rejected`` (non_finite)."""
    if not (math.isfinite(block.min()) and math.isfinite(block.max())):
        bad = ~np.isfinite(block).all(axis=1)
        first = (position + int(bad.argmax())) / rate
        raise Rejected("non_finite", f"NaN or infinite samples, the first at {first:.3f} s")
    return block
