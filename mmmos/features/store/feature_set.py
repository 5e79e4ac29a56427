"""A feature set in a store: which clips it has, and their rows, verified."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmmos.audio import MEASURES
from mmmos.errors import SetupError, StoreError, UsageError
from mmmos.features.spec import FeatureSpec
from mmmos.features.store.bulk import fetch
from mmmos.features.store.index import ATTEMPTS, Index, changing, grouped, runs
from mmmos.features.store.location import location
from mmmos.features.store.reading import Contents, Reader
from mmmos.features.store.remote import Place, Remote
from mmmos.features.store.shard import SPEC, ClipRows, DamagedShard, Reason
from mmmos.features.store.writing import describe, folder_of, spec_text, write
from mmmos.files import TEMPORARY, write_atomic

log = logging.getLogger("mmmos")

# Shards that are mapped at a time; entries from which on rows are verified in runs.
OPEN = 512
MANY = 256

Read = TypeVar("Read")


def clip_key(content: str, start: float | None, end: float | None) -> str:
    """Key of a clip: blake2b-128 (hex) of its audio's content hash and its segment in s."""
    text = f"{content}:{0.0 if start is None else float(start)!r}:{'' if end is None else repr(float(end))}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Rows:
    """Windows of several clips: ``unit`` (rows, layers, dim) and ``norm`` (rows, layers), so that raw = unit × norm.

    ``frames`` (rows,) of each window, its ``span`` (rows, 2) in the clip in s, and ``clip`` (rows,), the position of
    its clip among those asked for, ascending.
    """

    unit: NDArray[np.floating]
    norm: NDArray[np.float32]
    frames: NDArray[np.int64]
    span: NDArray[np.float64]
    clip: NDArray[np.int64]


@dataclass(frozen=True)
class Frames:
    """The frames of one clip: ``unit`` (frames, layers, dim) and ``norm`` (frames, layers), so that raw = unit × norm.

    ``windows`` (windows + 1,) are the offsets of the windows' frames; views of the file where the clip lies in one
    shard.
    """

    unit: NDArray[np.floating]
    norm: NDArray[np.float32]
    windows: NDArray[np.int64]


class FeatureSet:
    """The shards of one feature set in a store; of a store that is not there, none.

    Raises ``UsageError`` or ``UnknownName`` for no store's address, and ``StoreError`` where it cannot be read.
    ``key in feature_set`` tells whether a clip is done.
    """

    def __init__(self, store: str | Path | Remote, spec: FeatureSpec) -> None:
        self.spec = spec
        self.store, self.folder = location(store), folder_of(store, spec)
        self._readers: OrderedDict[Place, Reader] = OrderedDict()
        self.index  # noqa: B018 (opened now, so that what is wrong with it is said now)

    def __getstate__(self) -> dict[str, Any]:
        """In another process, the same place, opened there when it is first read."""
        places = [each if isinstance(each, Remote) else each.absolute() for each in (self.store, self.folder)]
        return {"spec": self.spec, "store": places[0], "folder": places[1], "_readers": OrderedDict()}

    @cached_property
    def index(self) -> Index:
        """Which clips lie where."""
        return Index(self.folder, self.spec.fingerprint)

    def refresh(self) -> None:
        """Open the shards that were not there before."""
        self.index.refresh()

    def __contains__(self, key: str) -> bool:
        return bool(self.index.done([key])[0])

    def missing(self, keys: Iterable[str], *, retry: bool = False) -> list[str]:
        """The distinct keys that are neither done nor rejected, in their order; with ``retry`` also the rejected."""
        return self.index.missing(keys, retry=retry)

    def rejections(self, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Reason code and detail of the clips that are rejected and not done, by key."""
        done = self.index.done(keys).tolist()
        known = self.index.rejected
        return {key: known[key][:2] for key, is_done in zip(keys, done, strict=True) if not is_done and key in known}

    def write(self, clips: Sequence[ClipRows], rejected: Mapping[str, Reason] | None = None) -> None:
        """Store clips and rejections in one shard; they are durable when this returns. Raises as ``writing.write``."""
        write(self.store, self.spec, clips, rejected or {})
        self.refresh()

    def gather(self, keys: Sequence[str]) -> Rows:
        """The windows of clips that are done, in the order of the keys, every row verified.

        Raises ``DamagedShard`` when rows are damaged or gone; after that ``missing`` names their clips.
        """
        return self._held(lambda: self._gather(keys), keys)

    def _held(self, read: Callable[[], Read], keys: Sequence[str]) -> Read:
        """What ``read`` returns; where shards have gone or rows are damaged, of the copies in other shards."""
        for _ in range(ATTEMPTS):
            try:
                return read()
            except FileNotFoundError:
                # Another process has compacted the set.
                self.refresh()
            except DamagedShard as error:
                if not self.index.done(keys).all():
                    raise
                log.warning("%s It is read from another shard.", error)
        raise changing(self.folder)

    def _gather(self, keys: Sequence[str]) -> Rows:
        entries, clips = self._entries(keys)
        table = self.index.table
        counts = table.rows[entries]
        if isinstance(self.folder, Remote):
            fetch(self.index.shards[number].path for number in np.unique(table.shard[entries]))
        out: dict[str, NDArray[Any]] = {}
        damaged: list[DamagedShard] = []
        # In the order of the files. Copying row by row beats one gather of numpy or torch from a mapped file.
        order = np.lexsort((table.first[entries], table.shard[entries]))
        columns = (table.shard[entries], table.place[entries], table.first[entries], counts, np.cumsum(counts))
        places = [column[order].tolist() for column in columns]
        if len(entries) > MANY:
            self._verify_ahead(places[0], places[2], places[3])
        for number, place, first, count, end in zip(*places, strict=True):
            try:
                reader = self._reader(self.index.shards[number])
                reader.verify(first, count)
            except DamagedShard as error:
                self.index.disown(number, place)
                damaged.append(error)
                continue
            for name, rows in reader.pooled:
                if name not in out:
                    out[name] = np.empty((counts.sum(), *rows.shape[1:]), rows.dtype)
                out[name][end - count : end] = rows[first : first + count]
        if damaged:
            raise DamagedShard(f"{damaged[0]}" + (f" So are {len(damaged) - 1} others." if damaged[1:] else ""))
        return Rows(**(out or self._nothing()), clip=np.repeat(clips, counts))

    def _verify_ahead(self, numbers: list[int], firsts: list[int], counts: list[int]) -> None:
        """Verify rows that follow each other at once; which of them are damaged is found when each is read."""
        for number, first, end in runs(numbers, firsts, counts):
            with suppress(DamagedShard):
                self._reader(self.index.shards[number]).verify(first, end - first)

    def _nothing(self) -> dict[str, NDArray[Any]]:
        layers, dim = self.spec.encoder.layers, self.spec.encoder.dim
        unit, norm = np.zeros((0, layers, dim), self.spec.dtype), np.zeros((0, layers), np.float32)
        return {"unit": unit, "norm": norm, "frames": np.zeros(0, np.int64), "span": np.zeros((0, 2))}

    def frames(self, key: str) -> Frames:
        """The frames of a clip that is done. Raises ``UsageError`` where the feature set keeps none.

        Raises ``DamagedShard`` as ``gather``.
        """
        if not self.spec.frames:
            raise UsageError(f"{self.folder} keeps no frames; ask for them in the feature recipe: frames = [layers].")
        return self._held(lambda: self._frames(key), [key])

    def _frames(self, key: str) -> Frames:
        table, parts = self.index.table, []
        for entry in self._entries([key])[0].tolist():
            number, first, count = int(table.shard[entry]), int(table.first[entry]), int(table.rows[entry])
            contents = self.index.shards[number]
            try:
                rows = self._reader(contents).rows(first, count)
            except DamagedShard:
                self.index.disown(number, int(table.place[entry]))
                raise
            parts.append((rows["frame_unit"], rows["frame_norm"], contents.frames[first : first + count]))
        unit, norm, frames = (
            parts[0] if len(parts) == 1 else (np.concatenate(part) for part in zip(*parts, strict=True))
        )
        return Frames(unit, norm, np.concatenate([[0], np.cumsum(frames)]))

    def measures(self, keys: Sequence[str]) -> NDArray[np.float64]:
        """What was measured of the audio of clips that are done: (clips, ``audio.MEASURES``), NaN where unknown.

        Raises ``DamagedShard`` for a clip that is not done.
        """
        table, found = self.index.table, np.empty((len(keys), len(MEASURES)))
        if len(keys):
            self._entries(keys)
            last = table.end[table.find(keys)] - 1
            for number, clips in grouped(table.shard[last]):
                found[clips] = self.index.shards[number].measures[table.place[last[clips]]]
        return found

    def _entries(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        try:
            return self.index.entries(keys)
        except KeyError as error:
            raise DamagedShard(f"{self.folder} does not hold clip {error.args[0]}.") from None

    def _reader(self, contents: Contents) -> Reader:
        if contents.path in self._readers:
            self._readers.move_to_end(contents.path)
            return self._readers[contents.path]
        try:
            reader = self._readers[contents.path] = Reader(contents)
        except FileNotFoundError:
            self.index.forget(contents.path)
            raise
        except OSError as error:
            raise StoreError(f"{contents.path} cannot be read: {error.strerror or error}.") from error
        if len(self._readers) > OPEN:
            self._readers.popitem(last=False)
        return reader

    def prepare(self) -> None:
        """Make the set ready to be written to: set aside shards that could not be opened, where that is allowed.

        Raises ``SetupError`` for a store that cannot be written, before anything is computed for it.
        """
        while self.index.damaged:
            path, _ = self.index.damaged.popitem()
            if isinstance(path, Remote):
                # An object has no other name to go by; it stays, and is said again the next time.
                continue
            try:
                path.rename(path.with_suffix(".damaged"))
            except FileNotFoundError:
                # Another process has set it aside.
                continue
            except OSError as error:
                log.warning("%s is damaged and cannot be set aside (%s).", path, error.strerror)
        try:
            if isinstance(self.folder, Remote):
                (self.folder / SPEC).write([spec_text(self.spec)])
                return
            describe(self.folder, self.spec)
            write_atomic(self.folder / f".writable{TEMPORARY}", b"\n").unlink(missing_ok=True)
        except OSError as error:
            raise SetupError(f"{self.folder} cannot be written: {error.strerror or error}.") from error
