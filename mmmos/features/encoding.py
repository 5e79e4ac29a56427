"""Windows to rows: encode, pool, collect by clip.

On a CPU each window is encoded by itself in one thread, so that its numbers are the same bits whatever the neighbours
and the number of threads, processes and cores; elsewhere windows of equal length share a batch.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos import audio
from mmmos.errors import SetupError
from mmmos.features import pooling
from mmmos.features.encoders import Encoder
from mmmos.features.shard import ClipRows
from mmmos.features.spec import FeatureSpec

Array = NDArray[np.float32]

BATCH = 16
MERGED = 64

# Key of the clip, first sample, samples.
Window = tuple[str, int, Array]


@dataclass(frozen=True)
class Pool:
    """Threads that encode, and how many there are."""

    threads: ThreadPoolExecutor
    count: int


# First and last sample, unit vectors, norms, number of frames of a window.
Row = tuple[int, int, NDArray[np.floating], Array, int]


@dataclass
class _Clip:
    """What is known of a clip so far; rows are merged in blocks, for thousands of small arrays splinter memory."""

    rows: list[Row] = field(default_factory=list)
    blocks: list[list[NDArray[Any]]] = field(default_factory=list)
    waiting: int = 0
    complete: bool = False
    sound: bool = True

    def add(self, row: Row) -> None:
        """Keep a window."""
        self.rows.append(row)
        if len(self.rows) == MERGED:
            self._merge()

    def columns(self) -> list[NDArray[Any]]:
        """The parts of all rows, in the order of the windows."""
        self._merge()
        parts = [column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*self.blocks, strict=True)]
        order = np.argsort(parts[0])
        return parts if (order[1:] > order[:-1]).all() else [part[order] for part in parts]

    def _merge(self) -> None:
        if self.rows:
            self.blocks.append([np.stack(part) for part in zip(*self.rows, strict=True)])
            self.rows = []


class Bench:
    """Encodes the windows of many clips with one encoder; a clip is finished once its last window is encoded.

    With a ``pool`` of threads several batches are encoded at once.
    """

    def __init__(self, spec: FeatureSpec, encoder: Encoder, device: str, pool: Pool | None = None) -> None:
        self.spec = spec
        self._encoder = encoder
        self._batch = 1 if device == "cpu" else BATCH
        self._pool = pool
        self._clips: dict[str, _Clip] = defaultdict(_Clip)
        self._waiting: dict[int, list[Window]] = defaultdict(list)
        self._running: deque[tuple[list[Window], Future[tuple[Array, int]]]] = deque()

    def add(self, key: str, start: int, wave: Array) -> None:
        """Take a window of a clip (its first sample, its samples at the encoder's rate) and encode it in time."""
        self._clips[key].waiting += 1
        length = max(len(wave), self.spec.encoder.minimum)
        self._waiting[length].append((key, start, wave))
        if len(self._waiting[length]) >= self._batch:
            self._encode(length)

    def complete(self, key: str) -> None:
        """All windows of a clip have been added."""
        self._clips[key].complete = True

    def drop(self, key: str) -> None:
        """Forget a clip that turned out unusable."""
        self._clips.pop(key, None)
        for length, group in self._waiting.items():
            self._waiting[length] = [window for window in group if window[0] != key]

    def flush(self) -> None:
        """Encode what waits for a fuller batch, to the end."""
        for length in list(self._waiting):
            self._encode(length)
        self._take(0)

    def finished(self) -> dict[str, ClipRows | None]:
        """Rows of the clips that are finished, by key, handed over once; None for one whose vectors are not sound."""
        done = [key for key, clip in self._clips.items() if clip.complete and not clip.waiting]
        return {key: self._rows(key, self._clips.pop(key)) for key in done}

    def _encode(self, length: int) -> None:
        group = self._waiting.pop(length)
        if not group:
            return
        waves = np.stack([audio.pad(wave, length) for _, _, wave in group])
        if self._pool is None:
            self._keep(group, *self._means(waves))
        else:
            self._running.append((group, self._pool.threads.submit(self._means, waves)))
            self._take(2 * self._pool.count)

    def _take(self, most: int) -> None:
        """Keep what the threads have done, in order, until no more than ``most`` batches are under way."""
        while self._running and (len(self._running) > most or self._running[0][1].done()):
            group, batch = self._running.popleft()
            self._keep(group, *batch.result())

    def _keep(self, group: list[Window], means: Array, frames: int) -> None:
        for (key, start, wave), raw in zip(group, means, strict=True):
            clip = self._clips.get(key)
            if clip is None:
                continue
            clip.waiting -= 1
            if pooling.is_sound(raw):
                clip.add((start, start + len(wave), *pooling.split(raw, self.spec.dtype), frames))
            else:
                clip.sound = False

    def _means(self, waves: Array) -> tuple[Array, int]:
        """Time means (batch, layers, dim) of equally long waves, and their number of frames."""
        import torch

        states, spec = self._encoder.encode(torch.from_numpy(waves)), self._encoder.spec
        if states.ndim != 4 or (*states.shape[:2], states.shape[3]) != (len(waves), spec.layers, spec.dim):
            raise SetupError(
                f"The encoder {spec.name!r} gave states of shape {tuple(states.shape)}; by its spec they are"
                f" ({len(waves)}, {spec.layers}, frames, {spec.dim})."
            )
        return states.mean(dim=2, dtype=torch.float32).cpu().numpy(), states.shape[2]

    def _rows(self, key: str, clip: _Clip) -> ClipRows | None:
        if not clip.sound:
            return None
        starts, stops, unit, norm, frames = clip.columns()
        span = np.stack([starts, stops], axis=1) / self.spec.encoder.rate
        return ClipRows(key, unit, norm, frames.astype(np.int32), span)


def cutter(spec: FeatureSpec) -> audio.Windows:
    """What cuts a signal at the encoder's rate into the windows of a feature set."""
    rate = spec.encoder.rate
    return audio.Windows(round(spec.window * rate), round(spec.hop * rate), spec.encoder.minimum)


def encode(
    signals: Mapping[str, Array], spec: FeatureSpec, encoder: Encoder, device: str
) -> dict[str, ClipRows | None]:
    """Window rows of whole signals (by key, at the encoder's rate); None for one whose vectors are not sound."""
    bench = Bench(spec, encoder, device)
    with threads(device):
        for key, signal in signals.items():
            for start, wave in cutter(spec).push(signal, last=True):
                bench.add(key, start, wave)
            bench.complete(key)
        bench.flush()
    finished = bench.finished()
    return {key: finished[key] for key in signals}


@contextmanager
def threads(device: str, count: int = 1) -> Iterator[Pool | None]:
    """A pool of threads for a CPU, in each of which torch uses one thread: sums in another order are other numbers.

    None where one thread will do.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else before)
    try:
        if device != "cpu" or count <= 1:
            yield None
            return
        with ThreadPoolExecutor(count, thread_name_prefix="mmmos-encode") as pool:
            yield Pool(pool, count)
    finally:
        torch.set_num_threads(before)
