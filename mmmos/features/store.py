"""The store: a folder of feature sets, each a folder of immutable shards named by what they hold.

A clip's key is the hash of its audio content and segment; the feature set's folder is named by its fingerprint.
Writers never share a file, so there is no lock. A shard that cannot be trusted is a miss, said once in a warning.
A clip is done (has rows), rejected (has a reason) or absent; only absent clips are computed.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos.errors import StoreError, UsageError
from mmmos.features import shard
from mmmos.features.shard import ClipRows, DamagedShard
from mmmos.features.spec import FeatureSpec
from mmmos.files import pretty_json, write_atomic

log = logging.getLogger("mmmos")


def clip_key(content: str, start: float | None, end: float | None) -> str:
    """Key of a clip: blake2b-128 (hex) of its audio's content hash and its segment in s."""
    text = f"{content}:{0.0 if start is None else float(start)!r}:{'' if end is None else repr(float(end))}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def folder_of(store: str | Path, spec: FeatureSpec) -> Path:
    """The folder of a feature set in a store."""
    return Path(store) / f"{spec.name}-{spec.fingerprint[:12]}"


def write(
    store: str | Path, spec: FeatureSpec, clips: list[ClipRows], rejected: dict[str, tuple[str, str]]
) -> Path | None:
    """Store clips and rejections of a feature set in one shard; they are durable when this returns.

    Returns the shard's path, None when there was nothing to store. Raises ``StoreError`` when the disk refuses.
    """
    if not clips and not rejected:
        return None
    folder = folder_of(store, spec)
    about = folder / "spec.json"
    try:
        if not about.is_file():
            write_atomic(about, pretty_json({"name": spec.name, **spec.numbers()}))
        return shard.write(folder, spec.fingerprint, clips, rejected)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written: {error.strerror or error}. What is stored already is kept."
        ) from error


@dataclass(frozen=True)
class Rows:
    """Windows of several clips: arrays as in a shard, and ``clip``, the position of each row's clip, ascending."""

    unit: NDArray[np.floating]
    norm: NDArray[np.float32]
    frames: NDArray[np.int32]
    span: NDArray[np.float64]
    clip: NDArray[np.int64]


class FeatureSet:
    """The shards of one feature set in a store."""

    def __init__(self, store: str | Path, spec: FeatureSpec) -> None:
        self.spec = spec
        self.store, self.folder = Path(store), folder_of(store, spec)
        self._where: dict[str, tuple[Path, int, int]] = {}
        self._rejected: dict[str, tuple[str, str]] = {}
        self._scanned: set[Path] = set()
        self._damaged: dict[Path, DamagedShard] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the headers of shards that were not there before."""
        for path in sorted(self.folder.glob(f"*{shard.SUFFIX}")):
            if path not in self._scanned:
                self._scanned.add(path)
                try:
                    self._add(shard.read_contents(path))
                except DamagedShard as error:
                    self._damaged[path] = error
                    log.warning("%s Its clips are computed again.", error)
                except StoreError as error:
                    log.warning("%s It is left alone.", error)

    def _add(self, contents: shard.Contents) -> None:
        if contents.fingerprint != self.spec.fingerprint:
            raise StoreError(f"{contents.path} belongs to another feature set ({contents.fingerprint[:12]}).")
        for key, (first, rows) in contents.clips.items():
            self._where.setdefault(key, (contents.path, first, rows))
        self._rejected.update(contents.rejected)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def rejection(self, key: str) -> tuple[str, str] | None:
        """Reason code and detail of a rejected clip, None for any other."""
        return None if key in self._where else self._rejected.get(key)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The distinct keys that are neither done nor rejected, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self._where and key not in self._rejected]

    def write(self, clips: list[ClipRows], rejected: dict[str, tuple[str, str]]) -> None:
        """Store clips and rejections in one shard; they are durable when this returns."""
        path = write(self.store, self.spec, clips, rejected)
        if path is not None:
            self._scanned.add(path)
            self._add(shard.read_contents(path))

    def gather(self, keys: list[str]) -> Rows:
        """The windows of clips, in the order of the keys; one shard after the other is in memory.

        Raises ``DamagedShard``: the shard is set aside first, so that ``missing`` names its clips.
        """
        places = [self._where[key] for key in keys]
        counts = np.array([rows for _, _, rows in places], dtype=np.int64)
        ends = np.cumsum(counts)
        clips_of: dict[Path, list[int]] = {}
        for position, (path, _, _) in enumerate(places):
            clips_of.setdefault(path, []).append(position)
        arrays: dict[str, NDArray[Any]] = {}
        for path, positions in clips_of.items():
            for name, tensor in self._read(path).items():
                if name not in arrays:
                    arrays[name] = np.empty((counts.sum(), *tensor.shape[1:]), tensor.dtype)
                for position in positions:
                    _, first, rows = places[position]
                    arrays[name][ends[position] - rows : ends[position]] = tensor[first : first + rows]
        return Rows(**arrays, clip=np.repeat(np.arange(len(keys)), counts))

    def _read(self, path: Path) -> dict[str, NDArray[Any]]:
        try:
            return shard.read(path)
        except DamagedShard as error:
            self._set_aside(path, error)
            self._where, self._rejected, self._scanned = {}, {}, set()
            self.refresh()
            raise

    def clear(self) -> None:
        """Set aside the shards whose headers were found damaged. Raises ``StoreError`` where that is not allowed."""
        while self._damaged:
            self._set_aside(*self._damaged.popitem())

    def _set_aside(self, path: Path, error: DamagedShard) -> None:
        self._scanned.discard(path)
        try:
            path.rename(path.with_suffix(".damaged"))
        except FileNotFoundError:
            pass
        except OSError as refused:
            raise StoreError(f"{error} It cannot be set aside ({refused.strerror}): delete it.") from None


@dataclass(frozen=True)
class SetSummary:
    """What a feature set in a store holds."""

    folder: str
    shards: int
    clips: int
    windows: int
    rejected: int
    megabytes: float

    def as_dict(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def summaries(store: str | Path) -> list[SetSummary]:
    """One summary for each feature set of a store, from the shards' headers. Raises ``StoreError`` for a broken one."""
    found = []
    for folder in _folders(store):
        contents = [shard.read_contents(path) for path in sorted(folder.glob(f"*{shard.SUFFIX}"))]
        clips = {key: rows for c in contents for key, (_, rows) in c.clips.items()}
        rejected = {key for c in contents for key in c.rejected} - set(clips)
        size = sum(c.path.stat().st_size for c in contents) / 1e6
        found.append(SetSummary(folder.name, len(contents), len(clips), sum(clips.values()), len(rejected), size))
    return found


def verify(store: str | Path) -> list[str]:
    """A sentence for each shard that is damaged, set aside or in the wrong folder; empty when all is well."""
    problems = []
    for folder in _folders(store):
        problems += [f"{path} was set aside as damaged. Delete it." for path in sorted(folder.glob("*.damaged"))]
        for path in sorted(folder.glob(f"*{shard.SUFFIX}")):
            try:
                contents, tensors = shard.read_contents(path), shard.read(path)
                if not folder.name.endswith(contents.fingerprint[:12]):
                    raise StoreError(f"{path} belongs to another feature set ({contents.fingerprint[:12]}).")
                if tensors and len(tensors["unit"]) != sum(rows for _, rows in contents.clips.values()):
                    raise StoreError(f"{path} holds other rows than its header says.")
            except StoreError as error:
                problems.append(str(error))
    return problems


def _folders(store: str | Path) -> list[Path]:
    """The folders of a store that hold shards. Raises ``UsageError`` when there is no store."""
    if not Path(store).is_dir():
        raise UsageError(f"There is no store {str(store)!r}; mmmos features extract makes one.")
    return sorted(
        {path.parent for pattern in (f"*{shard.SUFFIX}", "*.damaged") for path in Path(store).glob(f"*/{pattern}")}
    )
