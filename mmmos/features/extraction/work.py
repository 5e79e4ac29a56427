"""One task of extraction: decode some clips once, encode them with every encoder that lacks them, store the rows.

It runs in any process of any machine: it writes its shards itself and returns a small record.
Files are decoded in a process of their own, resampled in threads ahead of the encoders; a file of any length passes
through in blocks, and a long one is stored part by part.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmmos import audio, parallel, progress, registry
from mmmos.audio import isolated
from mmmos.errors import MmmosError, Rejected, StoreError, UnknownName, UsageError
from mmmos.features import decoding, devices, encoding, spec, store, weights
from mmmos.features.encoders import Encoder, encoder
from mmmos.features.extraction.clips import Clip, Reason
from mmmos.features.extraction.tally import Stopwatch
from mmmos.features.extraction.tasks import Report, Task
from mmmos.features.spec import EncoderRecipe, FeatureSpec
from mmmos.features.store.shard import ClipRows
from mmmos.features.threads import Pool, threads

# Bytes of rows, and s since the last time, after which rows are stored without waiting for the task's end.
SHARD_BYTES = 64_000_000
SHARD_SECONDS = 30.0
# Bytes of an audio file whose own progress is shown.
LONG_FILE = 20_000_000


def encode_chunk(task: Task) -> Report:
    """Carry out a task: all that it lacks is stored when this returns. What is finished is stored also when it raises.

    Raises ``SetupError``, ``StoreError`` and ``UsageError``, whatever is wrong with all clips; one clip's fault is in
    the report or stored.
    """
    watch, heard = Stopwatch(), {clip.key: _Heard() for clip in task.clips}
    device = devices.find_device(task.device)
    count = task.threads or (1 if device == "cpu" else devices.decoders())
    with threads(device, count) as pool:
        loaded = load_encoders(task.tables, device)
        desks = [_Desk(task, number, each, device, pool, watch) for number, each in enumerate(loaded)]
        pieces = partial(_pieces, desks, heard, watch)
        with closing(parallel.ahead(pieces, task.clips, threads=1 if pool else count)) as decoded:
            try:
                _encode(decoded, desks, heard)
            except BaseException:
                # Whatever stopped the rest, and before anything is waited for: what is collected is kept.
                with suppress(MmmosError):
                    for desk in desks:
                        desk.store()
                raise
    unsettled = {key: reason for desk in desks for key, reason in desk.unsettled.items()}
    seconds = sum(each.length for each in heard.values())
    return Report(unsettled, watch.tally(len(task.clips), seconds, sum(desk.written for desk in desks)))


def _encode(decoded: "Decoded", desks: Sequence["_Desk"], heard: Mapping[str, "_Heard"]) -> None:
    for clip, pieces in decoded:
        involved = [desk for desk in desks if clip.key in desk.lacking.keys]
        try:
            for desk, start, wave in _shown(pieces, clip, heard[clip.key], involved):
                desk.bench.add(clip.key, start, wave)
                desk.collect()
        except Rejected as error:
            for desk in involved:
                desk.reject(clip.key, error)
        else:
            for desk in involved:
                desk.bench.complete(clip.key, heard[clip.key].measures)
        for desk in desks:
            desk.collect()
    for desk in desks:
        desk.bench.flush()
        desk.collect()
        desk.store()


class _Desk:
    """One encoder's part of a task: what it lacks, encodes and stores.

    ``unsettled`` is what is not stored, and why; ``written`` the bytes of the rows that are.
    """

    def __init__(
        self, task: Task, number: int, loaded: Encoder, device: str, pool: Pool | None, watch: Stopwatch
    ) -> None:
        self.spec = feature_spec(task.tables[number], loaded)
        self.lacking = task.lacking[number]
        if self.spec.fingerprint != self.lacking.fingerprint:
            name = task.tables[number].encoder
            raise StoreError(f"The weights of {name!r} changed while they were in use. Start again.")
        timed = partial(watch.at, "encode")
        self.bench = encoding.Bench(self.spec, loaded, device, pool, self.lacking.begun, timed)
        self.unsettled: dict[str, Reason] = {}
        self.written = 0
        self._names = {clip.key: Path(clip.file).name for clip in task.clips}
        self._store, self._watch = task.store, watch
        self._done: list[ClipRows] = []
        self._rejected: dict[str, Reason] = {}
        self._stored = time.monotonic()

    def reject(self, key: str, error: Rejected) -> None:
        """Forget a clip; a reason that will hold the next time is stored."""
        self.bench.drop(key)
        self._refuse(key, (error.reason, error.detail))

    def collect(self) -> None:
        """Take what is finished; store it when it has become much or the last time was long ago."""
        rows, refused = self.bench.finished()
        self._done += rows
        for key, reason in refused.items():
            self._refuse(key, reason)
        late = time.monotonic() - self._stored > SHARD_SECONDS
        if late or sum(rows.nbytes for rows in self._done) > SHARD_BYTES:
            self.store()

    def store(self) -> None:
        """Store what is collected."""
        rejected = {key: (*reason, self._names[key]) for key, reason in self._rejected.items()}
        with self._watch.at("write"):
            store.write(self._store, self.spec, self._done, rejected)
        self.written += sum(rows.nbytes for rows in self._done)
        self._done, self._rejected, self._stored = [], {}, time.monotonic()

    def _refuse(self, key: str, reason: Reason) -> None:
        (self.unsettled if reason[0] in audio.TRANSIENT else self._rejected)[key] = reason


@dataclass
class _Heard:
    """What the decoding of a clip tells besides its samples: its declared length in s, what was measured."""

    seconds: float = math.nan
    measures: NDArray[np.float64] | None = None

    @property
    def length(self) -> float:
        """What was decoded to its end, in s."""
        return 0.0 if self.measures is None else float(self.measures[audio.MEASURES.index("seconds")])


Piece = tuple[_Desk, int, audio.Samples]
Decoded = Iterator[tuple[Clip, Iterator[Piece]]]


def _pieces(desks: Sequence[_Desk], heard: Mapping[str, _Heard], watch: Stopwatch, clip: Clip) -> Iterator[Piece]:
    """The windows of a clip for every desk that lacks it: desk, first sample and samples at its encoder's rate.

    A file written to since its content was hashed is refused, sound or not.
    """
    try:
        involved = [desk for desk in desks if clip.key in desk.lacking.keys]
        yield from watch.each("resample", _decoded(involved, heard[clip.key], watch, clip))
    except Rejected as error:
        if error.reason in audio.TRANSIENT or audio.stamp(clip.file) == clip.stamp:
            raise
    if audio.stamp(clip.file) != clip.stamp:
        raise Rejected("changed", f"{clip.file} was written to while it was being read; it is tried again next time")


def _decoded(desks: Sequence[_Desk], heard: _Heard, watch: Stopwatch, clip: Clip) -> Iterator[Piece]:
    """One pass over the file for every desk."""
    specs = [desk.spec for desk in desks]
    with ExitStack() as opened:
        with watch.at("decode"):
            file = opened.enter_context(isolated.stream(clip.file, clip.start, clip.end))
        heard.seconds = file.seconds
        blocks = watch.each("decode", file.blocks)
        for number, start, wave in decoding.windows(blocks, file.rate, specs, list(map(encoding.cutter, specs))):
            yield desks[number], start, wave
        heard.measures = file.measures()


def _shown(pieces: Iterator[Piece], clip: Clip, heard: _Heard, desks: Sequence[_Desk]) -> Iterator[Piece]:
    """The pieces of a clip, of a long file with progress."""
    if not progress.is_shown() or clip.stamp[0] < LONG_FILE:
        yield from pieces
        return
    for first in pieces:
        total = sum(math.ceil(heard.seconds / desk.spec.hop) for desk in desks) if math.isfinite(heard.seconds) else 0
        yield from progress.track(chain([first], pieces), total, f"{Path(clip.file).name}, windows")


def feature_spec(table: EncoderRecipe, loaded: Encoder) -> FeatureSpec:
    """The feature set of a recipe's table. Raises ``UsageError`` for windows that the encoder does not take."""
    window, facts = table.window or spec.WINDOW, loaded.spec
    if window * facts.rate < facts.minimum:
        least = facts.minimum / facts.rate
        raise UsageError(f"A window of {window:g} s is too short for {table.encoder}: it needs {least:g} s.")
    if facts.maximum and round(window * facts.rate) > facts.maximum:
        most = facts.maximum / facts.rate
        raise UsageError(f"A window of {window:g} s is too long for {table.encoder}: it takes {most:g} s at most.")
    frames = _frame_layers(table, facts.names())
    return FeatureSpec(table.set_name, facts, window, table.hop or window, table.dtype or "float16", frames)


def _frame_layers(table: EncoderRecipe, names: tuple[str, ...]) -> tuple[str, ...]:
    """The layers whose frames a table asks for, in their order. Raises ``UnknownName``."""
    if table.frames == "all":
        return names
    wanted = [names[-1]] if table.frames == "last" else [str(layer) for layer in table.frames or ()]
    for name in wanted:
        if name not in names:
            raise UnknownName(f"layer of {table.encoder}", name, names)
    return tuple(name for name in names if name in wanted)


_Key = tuple[str, str, object]
_loaded: dict[_Key, Encoder] = {}


def load_encoders(tables: Sequence[EncoderRecipe], device: str) -> list[Encoder]:
    """The encoders of some tables; they stay in memory until others are asked for, or their local weights or
    local file change.
    """
    keys = [(table.model_dump_json(), device, _stamps(table)) for table in tables]
    for stale in set(_loaded) - set(keys):
        del _loaded[stale]
    for key, table in zip(keys, tables, strict=True):
        if key not in _loaded:
            _loaded[key] = _load(table, device)
    return [_loaded[key] for key in keys]


def _stamps(table: EncoderRecipe) -> tuple[object, ...]:
    """What changes when the local weights or the local file of an encoder do."""
    return *weights.stamps(table.weights), registry.code_of("encoders", table.encoder)


def _load(table: EncoderRecipe, device: str) -> Encoder:
    options = table.options | ({"precision": table.precision} if table.precision else {})
    return encoder(table.encoder, table.weights, revision=table.revision, device=device, **options)
