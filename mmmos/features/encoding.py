"""Windows to rows: encode, pool, collect by clip.

On a CPU each window is encoded by itself in one thread, so that its numbers are the same bits whatever the neighbours
and the number of threads, processes and cores; elsewhere windows of equal length share a batch.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos import audio
from mmmos.errors import MmmosError, SetupError, first_line
from mmmos.features import pooling
from mmmos.features.encoders import Encoder
from mmmos.features.spec import FeatureSpec
from mmmos.features.store.shard import ClipRows
from mmmos.features.threads import Pool, threads

Array = NDArray[np.float32]

BATCH = 16
# Windows of a part: a clip of more of them is handed over part by part. Another number needs another ``spec.SCHEMA``.
PART = 64


@dataclass(frozen=True)
class Window:
    """A window of a clip: the clip's key, the window's number, its first sample, its samples ``(samples,)``."""

    key: str
    number: int
    start: int
    wave: Array


@dataclass(frozen=True)
class States:
    """What an encoder gave for a window: ``means`` over time (layers, dim), number of ``frames``.

    ``states``: the frames of the chosen layers (frames, layers, dim), None where none are kept.
    """

    means: Array
    frames: int
    states: Array | None


# Of a window: its number, first and last sample, number of frames, unit vectors and norms; then those of its frames.
Row = tuple[Any, ...]


@dataclass
class _Clip:
    """What is known of a clip so far: rows by part, windows that are added and not encoded yet."""

    parts: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    added: int = 0
    waiting: int = 0
    complete: bool = False
    measures: NDArray[np.float64] | None = None
    refused: tuple[str, str] | None = None

    def ready(self) -> list[int]:
        """Parts that can be handed over: full ones with a window behind them, all of them when the clip is finished."""
        if self.finished:
            return sorted(self.parts)
        return sorted(part for part, rows in self.parts.items() if len(rows) == PART and self.added > (part + 1) * PART)

    @property
    def finished(self) -> bool:
        """Whether all windows are added and encoded."""
        return self.complete and not self.waiting


class Bench:
    """Encodes the windows of many clips with one encoder and hands over their rows.

    ``stored``: the parts of a clip that need not be encoded. With a ``pool`` of threads several batches are encoded at
    once. ``timed()`` is entered for the time that the encoder is busy, in any thread.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        encoder: Encoder,
        device: str,
        pool: Pool | None = None,
        stored: Mapping[str, frozenset[int]] | None = None,
        timed: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.spec = spec
        self._encoder = encoder
        self._batch = 1 if device == "cpu" else BATCH
        self._pool = pool
        self._stored = stored or {}
        self._timed = timed
        self._layers = [encoder.spec.names().index(name) for name in spec.frames]
        self._clips: dict[str, _Clip] = defaultdict(_Clip)
        self._waiting: dict[int, list[Window]] = defaultdict(list)
        self._running: deque[tuple[list[Window], Future[list[States | Exception]]]] = deque()

    def add(self, key: str, start: int, wave: Array) -> None:
        """Take a window of a clip (its first sample, its samples at the encoder's rate) and encode it in time."""
        clip = self._clips[key]
        number, clip.added = clip.added, clip.added + 1
        if number // PART in self._stored.get(key, ()):
            return
        clip.waiting += 1
        length = max(len(wave), self.spec.encoder.minimum)
        self._waiting[length].append(Window(key, number, start, wave))
        if len(self._waiting[length]) >= self._batch:
            self._encode(length)

    def complete(self, key: str, measures: NDArray[np.float64] | None = None) -> None:
        """All windows of a clip have been added; what was measured of its audio."""
        self._clips[key].complete = True
        self._clips[key].measures = measures

    def drop(self, key: str) -> None:
        """Forget a clip that turned out unusable."""
        self._clips.pop(key, None)
        for length, group in self._waiting.items():
            self._waiting[length] = [window for window in group if window.key != key]

    def flush(self) -> None:
        """Encode what waits for a fuller batch, to the end."""
        for length in list(self._waiting):
            self._encode(length)
        self._take(0)

    def stop(self) -> None:
        """Encode nothing more; what is being encoded is not waited for."""
        for _, batch in self._running:
            batch.cancel()
        self._running.clear()
        self._waiting.clear()

    def finished(self) -> tuple[list[ClipRows], dict[str, tuple[str, str]]]:
        """What can be stored by now, handed over once: rows of clips or of parts of long ones, and, by key, the reason
        and detail of clips that the encoder could do nothing with.
        """
        rows: list[ClipRows] = []
        refused: dict[str, tuple[str, str]] = {}
        for key, clip in list(self._clips.items()):
            if clip.refused is None:
                rows += [self._rows(key, clip, part) for part in clip.ready()]
            elif clip.finished:
                refused[key] = clip.refused
            if clip.finished:
                del self._clips[key]
        return rows, refused

    def _encode(self, length: int) -> None:
        group = self._waiting.pop(length)
        if not group:
            return
        waves = np.stack([audio.pad(window.wave, length) for window in group])
        if self._pool is None:
            self._keep(group, self._attempt(waves))
        else:
            self._running.append((group, self._pool.threads.submit(self._attempt, waves)))
            self._take(2 * self._pool.count)

    def _take(self, most: int) -> None:
        """Keep what the threads have done, in order, until no more than ``most`` batches are under way."""
        while self._running and (len(self._running) > most or self._running[0][1].done()):
            group, batch = self._running.popleft()
            self._keep(group, batch.result())

    def _keep(self, group: list[Window], results: list[States | Exception]) -> None:
        for window, result in zip(group, results, strict=True):
            clip = self._clips.get(window.key)
            if clip is None:
                continue
            clip.waiting -= 1
            if isinstance(result, Exception):
                clip.refused = "encoder_failed", f"{type(result).__name__}: {first_line(result)}"
            elif not pooling.is_sound(result.means) or not (result.states is None or np.isfinite(result.states).all()):
                clip.refused = clip.refused or ("bad_embedding", audio.REASONS["bad_embedding"])
            else:
                clip.parts[window.number // PART].append(self._row(window, result))

    def _row(self, window: Window, result: States) -> Row:
        row = (window.number, window.start, window.start + len(window.wave), result.frames)
        frames = () if result.states is None else pooling.split(result.states, self.spec.dtype)
        return (*row, *pooling.split(result.means, self.spec.dtype), *frames)

    def _attempt(self, waves: Array) -> list[States | Exception]:
        """What the encoder gives for each of some equally long waves, or its error; a batch that fails goes singly."""
        try:
            with self._timed():
                return list(self._states(waves))
        except MmmosError:
            raise
        except Exception as error:
            if len(waves) == 1:
                return [error]
            return [self._attempt(wave[None])[0] for wave in waves]

    def _states(self, waves: Array) -> Iterator[States]:
        import torch

        states, spec = self._encoder.encode(torch.from_numpy(waves)), self._encoder.spec
        if states.ndim != 4 or (*states.shape[:2], states.shape[3]) != (len(waves), spec.layers, spec.dim):
            raise SetupError(
                f"The encoder {spec.name!r} gave states of shape {tuple(states.shape)}; by its spec they are"
                f" ({len(waves)}, {spec.layers}, frames, {spec.dim})."
            )
        means = states.mean(dim=2, dtype=torch.float32).cpu().numpy()
        chosen = states[:, self._layers].transpose(1, 2).float().cpu().numpy() if self._layers else [None] * len(waves)
        return (States(mean, states.shape[2], frames) for mean, frames in zip(means, chosen, strict=True))

    def _rows(self, key: str, clip: _Clip, part: int) -> ClipRows:
        """The rows of a part, in the order of its windows, taken out of the clip."""
        _, starts, stops, frames, unit, norm, *rest = zip(*sorted(clip.parts.pop(part)), strict=True)
        last = clip.finished and part == (clip.added - 1) // PART
        return ClipRows(
            key,
            np.stack(unit),
            np.stack(norm),
            np.array(frames),
            np.stack([starts, stops], axis=1) / self.spec.encoder.rate,
            clip.measures if last else None,
            part,
            last,
            *(np.concatenate(column) for column in rest[::-1]),
        )


def cutter(spec: FeatureSpec) -> audio.Windows:
    """What cuts a signal at the encoder's rate into the windows of a feature set."""
    rate = spec.encoder.rate
    return audio.Windows(round(spec.window * rate), round(spec.hop * rate), spec.encoder.minimum)


def encode(
    signals: Mapping[str, Array], spec: FeatureSpec, encoder: Encoder, device: str
) -> dict[str, ClipRows | None]:
    """Rows of whole signals (by key, at the encoder's rate); None for one whose vectors are not sound.

    Raises ``SetupError`` when the encoder fails.
    """
    bench = Bench(spec, encoder, device)
    with threads(device):
        for key, signal in signals.items():
            for start, wave in cutter(spec).push(signal, last=True):
                bench.add(key, start, wave)
            bench.complete(key)
        bench.flush()
    rows, refused = bench.finished()
    for reason, detail in refused.values():
        if reason == "encoder_failed":
            raise SetupError(f"The encoder {spec.encoder.name!r} failed: {detail}.")
    return {key: None if key in refused else joined([part for part in rows if part.key == key]) for key in signals}


def joined(parts: Sequence[ClipRows]) -> ClipRows:
    """The rows of a clip from those of all its parts, in their order."""
    names = ("unit", "norm", "frames", "span", *(() if parts[0].frame_unit is None else ("frame_norm", "frame_unit")))
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[-1], part=0, **columns)
