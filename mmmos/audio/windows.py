"""Cutting a mono signal into windows."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Windows:
    """Cuts a mono signal that comes in blocks into windows of ``window`` samples; the tail keeps its own length.

    A tail shorter than ``minimum`` samples is left out unless it is the only window.
    """

    def __init__(self, window: int, hop: int, minimum: int) -> None:
        self._window, self._hop, self._minimum = window, hop, minimum
        self._start, self._held = 0, np.zeros(0, np.float32)

    def push(self, block: Samples, last: bool = False) -> Iterator[tuple[int, Samples]]:
        """First sample and samples of each window that is complete by now; with ``last`` of all that are left."""
        self._held = np.concatenate([self._held, block])
        while len(self._held) > self._window:
            yield self._start, self._held[: self._window]
            self._start, self._held = self._start + self._hop, self._held[self._hop :]
        if last and (self._start == 0 or len(self._held) >= self._minimum):
            yield self._start, self._held


def pad(signal: Samples, minimum: int) -> Samples:
    """The signal, with zeros behind it up to ``minimum`` samples when it is shorter."""
    return signal if len(signal) >= minimum else np.pad(signal, (0, minimum - len(signal)))
