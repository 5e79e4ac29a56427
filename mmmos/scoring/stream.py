"""Clips on their way through decoding, encoders and heads to scores, many at once and each by itself.

Decoding threads work ahead; windows are encoded by a pool of threads, on a CPU one by one; a clip is predicted as soon
as its windows are there, and leaves in its turn. Numbers of clips in flight are bounded, so that memory is.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event

import numpy as np
from numpy.typing import NDArray

from mmmos import audio, parallel
from mmmos.ensembles.model import Loaded, Model
from mmmos.errors import MmmosError, Rejected, first_line
from mmmos.features import decoding, encoding, held
from mmmos.features.extraction.status import DAMAGE
from mmmos.features.store.shard import ClipRows
from mmmos.features.threads import Pool
from mmmos.scoring.inputs import Clip, opened
from mmmos.scoring.score import Score, SegmentScore
from mmmos.scoring.segments import Grid, Parts, Whole

# Clips in flight: decoded and not handed over yet.
FLIGHT = 64

Numbers = dict[str, float]


@dataclass(frozen=True)
class Engine:
    """A model with its encoders, where they run, threads that encode and threads that predict; ``decoders``: how many
    threads decode ahead.
    """

    model: Model
    loaded: tuple[Loaded, ...]
    device: str
    encoding: Pool
    predicting: Executor
    decoders: int


@dataclass
class _Flight:
    """A clip and what is known of it by now: rows by feature set, of the whole clip and of windows that only its
    segments have; ``landed`` is what comes of it.
    """

    number: int
    clip: Clip
    samples: int = 0
    rate: int = 1
    measures: NDArray[np.float64] | None = None
    parts: list[Parts] = field(default_factory=list)
    rows: dict[str, list[list[ClipRows]]] = field(default_factory=dict)
    expected: int = 0
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    landed: Future[Score] | None = None

    @property
    def whole(self) -> str:
        """Key of the windows of the whole clip."""
        return f"{self.number}"

    @property
    def extra(self) -> str:
        """Key of the windows that only segments have."""
        return f"{self.number}+"

    @property
    def seconds(self) -> float:
        """Length in s of what was decoded by now."""
        return self.samples / self.rate


class Run:
    """One stream of clips through an engine."""

    def __init__(self, engine: Engine, grid: Grid | None, strict: bool) -> None:
        self._engine, self._grid, self._strict = engine, grid, strict
        self._specs = [loaded.spec for loaded in engine.loaded]
        self._benches = [
            encoding.Bench(loaded.spec, loaded.encoder, engine.device, engine.encoding) for loaded in engine.loaded
        ]
        self._flights: deque[_Flight] = deque()
        self._by_key: dict[str, _Flight] = {}
        self._most = max(FLIGHT, 4 * engine.encoding.count)
        self._stopped = Event()

    def scores(self, clips: Iterable[Clip]) -> Iterator[Score]:
        """The score of each clip, in their order."""
        flights = (_Flight(number, clip) for number, clip in enumerate(clips))
        try:
            with closing(parallel.ahead(self._pieces, flights, threads=self._engine.decoders)) as decoded:
                for flight, pieces in decoded:
                    self._flights.append(flight)
                    for _ in self._encoded(flight, pieces):
                        yield from self._landed(self._most)
                    yield from self._landed(self._most - 1)
                yield from self._landed(0)
        finally:
            self._stop()

    def _pieces(self, flight: _Flight) -> Iterator[decoding.Piece]:
        """The windows of a clip; numbers from the number of feature sets on are of windows that segments alone have."""
        whole = [Whole(spec) for spec in self._specs]
        specs, cutters = list(self._specs), list[decoding.Cutter](whole)
        if self._grid is not None:
            grid = self._grid
            flight.parts = [
                Parts(spec, grid, one, lambda: flight.seconds) for spec, one in zip(specs, whole, strict=True)
            ]
            specs, cutters = specs * 2, [*whole, *flight.parts]
        with opened(flight.clip) as stream:
            flight.rate = stream.rate
            yield from decoding.windows(_counted(stream.blocks, flight), stream.rate, specs, cutters)
            flight.measures = stream.measures()

    def _encoded(self, flight: _Flight, pieces: Iterator[decoding.Piece]) -> Iterator[None]:
        """Hand the windows of a clip to the benches; None after each."""
        count, added = len(self._benches), set[int]()
        self._by_key |= {flight.whole: flight, flight.extra: flight}
        flight.rows = {key: [[] for _ in self._benches] for key in (flight.whole, flight.extra)}
        try:
            for number, start, wave in pieces:
                added.add(number)
                key = flight.whole if number < count else flight.extra
                self._benches[number % count].add(key, start, wave)
                self._collect()
                yield
        except Rejected as error:
            for bench in self._benches:
                bench.drop(flight.whole)
                bench.drop(flight.extra)
            flight.refused[flight.whole] = error.reason, error.detail
            self._settle(flight)
        else:
            flight.expected = len(added)
            for number in added:
                self._benches[number % count].complete(flight.whole if number < count else flight.extra)

    def _collect(self) -> None:
        """Take what is encoded; clips of which nothing more is to come are predicted."""
        for number, bench in enumerate(self._benches):
            rows, refused = bench.finished()
            for part in rows:
                flight = self._by_key[part.key]
                flight.rows[part.key][number].append(part)
                self._count(flight, part.last)
            for key, reason in refused.items():
                flight = self._by_key[key]
                flight.refused.setdefault(key, reason)
                self._count(flight, True)

    def _count(self, flight: _Flight, last: bool) -> None:
        flight.expected -= last
        if last and not flight.expected:
            self._settle(flight)

    def _settle(self, flight: _Flight) -> None:
        del self._by_key[flight.whole], self._by_key[flight.extra]
        flight.landed = self._engine.predicting.submit(self._score, flight)

    def _landed(self, most: int) -> Iterator[Score]:
        """Clips that are done and whose turn it is; waits until no more than ``most`` are in flight."""
        self._collect()
        while self._flights:
            landed = self._flights[0].landed
            if len(self._flights) <= most and (landed is None or not landed.done()):
                return
            if landed is None:
                for bench in self._benches:
                    bench.flush()
                self._collect()
            else:
                self._flights.popleft()
                yield landed.result()

    def _stop(self) -> None:
        self._stopped.set()
        for bench in self._benches:
            bench.stop()
        for flight in self._flights:
            if flight.landed is not None:
                flight.landed.cancel()

    def _score(self, flight: _Flight) -> Score:
        """What is said of a clip whose rows are complete, or that was refused."""
        clip, flags = flight.clip, self._flags(flight)
        seconds = None if flight.measures is None else float(flight.measures[audio.MEASURES.index("seconds")])
        reason, detail = flight.refused.get(flight.whole, ("", ""))
        if self._strict and not reason:
            reason = next((flag for flag in DAMAGE if flag in flags), "")
            detail = audio.FLAGS.get(reason, "")
        scores: Numbers = {}
        spread: Numbers = {}
        segments: tuple[SegmentScore, ...] | None = None if self._grid is None else ()
        if not reason:
            try:
                rows = [encoding.joined(parts) for parts in flight.rows[flight.whole]]
                scores, spread = self._predicted(clip, rows)
                segments = None if self._grid is None else tuple(self._segments(flight, rows))
            except Rejected as error:
                scores, spread, reason, detail = {}, {}, error.reason, error.detail
        flight.rows.clear()
        return Score(clip.id, clip.path, clip.start, clip.end, seconds, scores, spread, flags, reason, detail, segments)

    def _flags(self, flight: _Flight) -> tuple[str, ...]:
        if flight.measures is None:
            return ()
        found: set[str] = set()
        for spec in self._specs:
            told = audio.flags(flight.measures, rate=spec.encoder.rate, minimum=spec.encoder.minimum)
            found |= {flag for flag, is_set in told.items() if is_set[0]}
        container = float(flight.measures[audio.MEASURES.index("container")])
        if flight.clip.path is not None and audio.extension_mismatch(flight.clip.path, container):
            found.add("extension_mismatch")
        return tuple(flag for flag in audio.FLAGS if flag in found)

    def _segments(self, flight: _Flight, whole: list[ClipRows]) -> Iterator[SegmentScore]:
        """Each segment from its own windows; times are those of the file."""
        assert self._grid is not None
        offset, refused = flight.clip.start or 0.0, flight.extra in flight.refused
        extra = [encoding.joined(parts) if parts and not refused else None for parts in flight.rows[flight.extra]]
        rows = [one if more is None else encoding.joined([one, more]) for one, more in zip(whole, extra, strict=True)]
        for number, (begin, end) in enumerate(self._grid.spans(flight.seconds)):
            if self._stopped.is_set():
                return
            owned = [part.owned[number] for part in flight.parts]
            if refused and min(min(windows) for windows in owned) < 0:
                yield SegmentScore(offset + begin, offset + end, {}, {})
                continue
            cut = [
                held.part_of(
                    each,
                    [window if window >= 0 else len(one.frames) - 1 - window for window in windows],
                    part.firsts[number],
                    spec.encoder.rate,
                )
                for each, one, windows, part, spec in zip(rows, whole, owned, flight.parts, self._specs, strict=True)
            ]
            yield SegmentScore(offset + begin, offset + end, *self._predicted(flight.clip, cut))

    def _predicted(self, clip: Clip, rows: list[ClipRows]) -> tuple[Numbers, Numbers]:
        """Scores and spread by axis of a clip by itself. Raises ``Rejected`` where the heads give none."""
        model = self._engine.model
        try:
            found = model.predict(held.features(self._specs, {clip.id: rows}), [clip.domain])
        except MmmosError:
            raise
        except Exception as error:
            raise Rejected(
                "encoder_failed", f"the heads failed: {type(error).__name__}: {first_line(error)}"
            ) from error
        scores = dict(zip(model.axes, map(float, found.scores[0]), strict=True))
        spread = {} if found.spread is None else dict(zip(model.axes, map(float, found.spread[0]), strict=True))
        if not np.isfinite([*scores.values(), *spread.values()]).all():
            raise Rejected("encoder_failed", "the heads gave scores that are not finite")
        return scores, spread


def _counted(blocks: Iterator[audio.Samples], flight: _Flight) -> Iterator[audio.Samples]:
    for block in blocks:
        flight.samples += len(block)
        yield block
