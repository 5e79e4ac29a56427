"""What a decoder gives, whichever it is."""

from collections.abc import Callable
from dataclasses import dataclass

from mmmos.audio.segment import Numbered


@dataclass(frozen=True)
class Source:
    """An open file: rate in Hz, channels, container, declared length in s (NaN: unknown), whether it is cut.

    ``blocks(first, last)`` decodes from at most sample ``first`` to at least sample ``last`` or the end of the audio:
    the place of each block's first sample, and the block ``(samples, channels)``. It raises ``Rejected``.
    """

    rate: int
    channels: int
    container: str
    seconds: float
    cut: bool
    blocks: Callable[[int, int], Numbered]
