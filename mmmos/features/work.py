"""One task of extraction: decode some clips once, encode them with every encoder that lacks them, store the rows.

It runs in any process: it is told by a small record, writes its shards itself and returns only what was not stored.
Decoding and resampling run in threads ahead of the encoders; a file of any length passes through in blocks.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

import numpy as np

from mmmos import audio, parallel, progress
from mmmos.errors import Rejected, StoreError, UsageError
from mmmos.features import encoding, spec, store, weights
from mmmos.features.encoders import Encoder, encoder
from mmmos.features.shard import ClipRows
from mmmos.features.spec import EncoderRecipe, FeatureSpec
from mmmos.resampling import resampler

Reason = tuple[str, str]

# Reasons that say something of the file system and nothing of the audio: never stored, so the next run tries again.
TRANSIENT = {"missing", "not_a_file", "unreadable", "empty_file", "changed"}

# Bytes of rows that are stored without waiting for the task's end, so that long files do not pile up in memory.
SHARD_BYTES = 64_000_000
# Bytes of an audio file whose own progress is shown.
LONG_FILE = 20_000_000


@dataclass(frozen=True)
class Clip:
    """A clip to encode: store key, audio file and its stamp, segment in s (None: to either end of the file)."""

    key: str
    file: str
    stamp: tuple[int, int]
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Task:
    """Clips, and for each encoder its table, the fingerprint of its feature set and the keys that it lacks.

    ``threads`` encode on a CPU; elsewhere they decode.
    """

    tables: tuple[EncoderRecipe, ...]
    fingerprints: tuple[str, ...]
    lacking: tuple[frozenset[str], ...]
    clips: tuple[Clip, ...]
    store: str
    device: str
    threads: int = 1
    progress: bool = False


def encode_chunk(task: Task) -> dict[str, Reason]:
    """Carry out a task. Returns (reason, detail) of the clips to be tried again, by key."""
    if parent_process() is not None:
        progress.show(task.progress, lines=True)
    vanished: dict[str, Reason] = {}
    with encoding.threads(task.device, task.threads) as pool:
        loaded = load_encoders(task.tables, task.device)
        desks = [_Desk(task, number, each, pool) for number, each in enumerate(loaded)]
        decoded = parallel.ahead(partial(_pieces, desks), task.clips, threads=1 if pool else task.threads)
        with closing(decoded):
            _encode(decoded, desks, vanished)
    return vanished


def _encode(decoded: "Decoded", desks: Sequence["_Desk"], vanished: dict[str, Reason]) -> None:
    """Feed the desks; the clips to be tried again are added to ``vanished``."""
    for clip, pieces in decoded:
        involved = [desk for desk in desks if clip.key in desk.lacking]
        try:
            for desk, start, wave in _shown(pieces, clip, involved):
                desk.bench.add(clip.key, start, wave)
        except Rejected as error:
            if error.reason in TRANSIENT:
                vanished[clip.key] = error.reason, error.detail
            for desk in involved:
                desk.reject(clip.key, error)
        else:
            for desk in involved:
                desk.bench.complete(clip.key)
        for desk in desks:
            desk.collect()
    for desk in desks:
        desk.bench.flush()
        desk.collect(last=True)


class _Desk:
    """One encoder's part of a task: what it lacks, encodes and stores."""

    def __init__(self, task: Task, number: int, loaded: Encoder, pool: encoding.Pool | None) -> None:
        self.spec = feature_spec(task.tables[number], loaded)
        if self.spec.fingerprint != task.fingerprints[number]:
            name = task.tables[number].encoder
            raise StoreError(f"The weights of {name!r} changed while they were in use. Start again.")
        self.lacking = task.lacking[number]
        self.bench = encoding.Bench(self.spec, loaded, task.device, pool)
        self._store = task.store
        self._done: list[ClipRows] = []
        self._rejected: dict[str, Reason] = {}

    def reject(self, key: str, error: Rejected) -> None:
        """Forget a clip; a reason that will hold the next time is stored."""
        self.bench.drop(key)
        if error.reason not in TRANSIENT:
            self._rejected[key] = error.reason, error.detail

    def collect(self, last: bool = False) -> None:
        """Take what is finished and store it, all of it at the last or when it has become much."""
        for key, rows in self.bench.finished().items():
            if rows is None:
                self._rejected[key] = "bad_embedding", audio.REASONS["bad_embedding"]
            else:
                self._done.append(rows)
        if last or sum(rows.unit.nbytes for rows in self._done) > SHARD_BYTES:
            store.write(self._store, self.spec, self._done, self._rejected)
            self._done, self._rejected = [], {}


Piece = tuple[_Desk, int, audio.Samples]
Decoded = Iterator[tuple[Clip, Iterator[Piece]]]


def _pieces(desks: Sequence[_Desk], clip: Clip) -> Iterator[Piece]:
    """The windows of a clip for every desk that lacks it: desk, first sample and samples at its encoder's rate.

    A file written to since its content was hashed is refused, sound or not.
    """
    try:
        yield from _decoded([desk for desk in desks if clip.key in desk.lacking], clip)
    except Rejected as error:
        if error.reason in TRANSIENT or audio.stamp(clip.file) == clip.stamp:
            raise
    if audio.stamp(clip.file) != clip.stamp:
        raise Rejected("changed", f"{clip.file} was written to while it was being read; it is tried again next time")


def _decoded(desks: Sequence[_Desk], clip: Clip) -> Iterator[Piece]:
    """One pass over the file: each block is resampled once for each rate, and cut for each desk."""
    cutters = [(desk, encoding.cutter(desk.spec)) for desk in desks]
    with audio.stream(clip.file, clip.start, clip.end) as file:
        kinds = {(desk.spec.encoder.resampler, desk.spec.encoder.rate) for desk in desks}
        resamplers = {kind: resampler(kind[0], file.rate, kind[1]) for kind in sorted(kinds)}
        for block, last in _with_end(file.blocks):
            signal = audio.mono(block)
            resampled = {kind: each.push(signal, last) for kind, each in resamplers.items()}
            for desk, cutter in cutters:
                part = resampled[desk.spec.encoder.resampler, desk.spec.encoder.rate]
                for start, wave in cutter.push(part, last):
                    yield desk, start, wave


def _with_end(blocks: Iterator[audio.Samples]) -> Iterator[tuple[audio.Samples, bool]]:
    """Each block and whether it is the last one, which is an empty one."""
    for block in blocks:
        yield block, False
    yield np.zeros((0, 1), np.float32), True


def _shown(pieces: Iterator[Piece], clip: Clip, desks: Sequence[_Desk]) -> Iterator[Piece]:
    """The pieces of a clip, of a long file with progress."""
    if not progress.is_shown() or clip.stamp[0] < LONG_FILE:
        return pieces
    with audio.stream(clip.file) as file:
        seconds = min(file.seconds, clip.end or math.inf) - (clip.start or 0.0)
    total = sum(math.ceil(seconds / desk.spec.hop) for desk in desks)
    return progress.track(pieces, total, f"{Path(clip.file).name}, windows")


def feature_spec(table: EncoderRecipe, loaded: Encoder) -> FeatureSpec:
    """The feature set of a recipe's table. Raises ``UsageError`` for windows that the encoder does not take."""
    window, facts = table.window or spec.WINDOW, loaded.spec
    if window * facts.rate < facts.minimum:
        least = facts.minimum / facts.rate
        raise UsageError(f"A window of {window:g} s is too short for {table.encoder}: it needs {least:g} s.")
    if facts.maximum and round(window * facts.rate) > facts.maximum:
        most = facts.maximum / facts.rate
        raise UsageError(f"A window of {window:g} s is too long for {table.encoder}: it takes {most:g} s at most.")
    return FeatureSpec(table.set_name, facts, window, table.hop or window, table.dtype or "float16")


_Key = tuple[str, str, object]
_loaded: dict[_Key, Encoder] = {}


def load_encoders(tables: Sequence[EncoderRecipe], device: str) -> list[Encoder]:
    """The encoders of some tables; they stay in memory until others are asked for, or their local weights change."""
    keys = [(table.model_dump_json(), device, weights.stamps(table.weights)) for table in tables]
    for stale in set(_loaded) - set(keys):
        del _loaded[stale]
    for key, table in zip(keys, tables, strict=True):
        if key not in _loaded:
            _loaded[key] = _load(table, device)
    return [_loaded[key] for key in keys]


def _load(table: EncoderRecipe, device: str) -> Encoder:
    options = table.options | ({"precision": table.precision} if table.precision else {})
    return encoder(table.encoder, table.weights, revision=table.revision, device=device, **options)
