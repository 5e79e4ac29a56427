"""Decoding a file or its segment to mono, block by block, measured on the way."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmmos.audio import containers, decode, ffmpeg, opening
from mmmos.audio.downmix import Downmix
from mmmos.audio.measures import Meter
from mmmos.audio.segment import Samples, Segment
from mmmos.audio.source import Source


@dataclass(frozen=True)
class Stream:
    """A clip being decoded.

    ``rate`` in Hz and ``channels`` are the file's; ``seconds`` is what its container declares of the segment (NaN:
    unknown; not to be believed). ``blocks`` are mono, float32 ``(samples,)``; reading them raises ``Rejected``, and
    what came before belongs to no usable clip then. ``measures()``, float64 ``(len(MEASURES),)``, is known after the
    last block; earlier it raises ``RuntimeError``.
    """

    rate: int
    channels: int
    seconds: float
    blocks: Iterator[Samples]
    measures: Callable[[], NDArray[np.float64]]


@contextmanager
def stream(
    path: str | Path, start: float | None = None, end: float | None = None, *, skipped: Callable[[], None] | None = None
) -> Iterator[Stream]:
    """Decode a file, or its segment [start, end) in s, in this process, by content and not by name.

    ``skipped`` is called for every block that had to be decoded and lies before the segment. Raises ``Rejected``, on
    opening and while the blocks are read; errors of the caller pass unchanged.
    """
    with opening.regular(path) as file:
        with opening.readable(path):
            header = containers.examine(file)
        foreign = header.container in ffmpeg.DEMUXERS
        with ffmpeg.opened(path, header) if foreign else decode.opened(path, file, header) as source:
            yield measured(source, Segment(start, end), skipped or (lambda: None))


def read(path: str | Path, start: float | None = None, end: float | None = None) -> tuple[Samples, int]:
    """Decode a file, or its segment [start, end) in s, at once and in this process.

    Returns mono samples ``(samples,)`` float32 and the rate in Hz. Raises ``Rejected``.
    """
    with stream(path, start, end) as clip:
        return np.concatenate(list(clip.blocks)), clip.rate


def measured(source: Source, segment: Segment, skipped: Callable[[], None]) -> Stream:
    """A segment of what a decoder gives, mixed to mono and measured. Raises ``Rejected``."""
    meter, downmix, ended = Meter(), Downmix(source.channels), Ended()
    first, last = segment.span(source.rate)
    whole = segment.start is None and segment.end is None
    taken = segment.take(source.blocks(first, last), source.rate, skipped)

    def measures() -> NDArray[np.float64]:
        ended.check()
        return meter.measures(
            declared=source.seconds if whole else math.nan,
            rate=source.rate,
            channels=source.channels,
            container=source.container,
            cancel=downmix.cancel,
            cut=source.cut and segment.end is None,
        )

    blocks = ended.after(meter.signal(downmix.signals(meter.channels(taken))))
    return Stream(source.rate, source.channels, segment.seconds(source.seconds), blocks, measures)


class Ended:
    """Whether blocks were read to their end."""

    def __init__(self) -> None:
        self._ended = False

    def after(self, blocks: Iterator[Samples]) -> Iterator[Samples]:
        """Pass on blocks."""
        yield from blocks
        self._ended = True

    def check(self) -> None:
        """Raises ``RuntimeError`` before the last block was read."""
        if not self._ended:
            raise RuntimeError("The measures of a clip are known after its last block.")
