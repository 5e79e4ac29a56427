"""Shards, read: the header and the index are verified on opening, a row when it is first asked for."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from mmap import ACCESS_READ, mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos.audio import MEASURES
from mmmos.features.store.remote import Place, Ranged, Remote
from mmmos.features.store.shard import (
    DTYPES,
    FRAMES,
    HEADER_LIMIT,
    INDEX,
    ROWS,
    SUFFIX,
    Array,
    DamagedShard,
    Reason,
    digest_name,
    row_checksums,
)

_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Contents:
    """An opened shard: its index, verified, and where the other tensors lie in the file (dtype, shape, offset)."""

    path: Place
    fingerprint: str
    entries: NDArray[np.int64]
    keys: NDArray[np.bytes_]
    measures: NDArray[np.float64]
    span: NDArray[np.float64]
    frames: NDArray[np.int64]
    checksum: NDArray[np.int64]
    rejected: dict[str, Reason]
    places: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]
    size: int


def open_shard(path: Place) -> Contents:
    """Read a shard's header and index and verify both.

    Of an object only these parts are transferred. Raises ``DamagedShard`` for a file that is no whole shard,
    ``OSError`` where the file system refuses to read it.
    """
    with path.open("rb", buffering=0) as file:
        try:
            return _open(path, file)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise DamagedShard(f"{path} is not a readable shard: {error}.") from None


def _open(path: Place, file: FileIO | Ranged) -> Contents:
    start = _read(file, _AT_ONCE)
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= HEADER_LIMIT:
        raise ValueError("it does not begin like one")
    start += _read(file, 8 + length - len(start))
    header = start[: 8 + length]
    if path.name != f"{digest_name(header)}{SUFFIX}":
        raise ValueError("its header is not the one that it is named by")
    tensors = json.loads(header[8:])
    about = json.loads(tensors.pop("__metadata__")["mmmos"])
    places, end = {}, 8 + length
    for name, tensor in tensors.items():
        dtype, shape = np.dtype(DTYPES[tensor["dtype"]]), tuple(tensor["shape"])
        begin, stop = (8 + length + offset for offset in tensor["data_offsets"])
        if begin != end or stop - begin != dtype.itemsize * math.prod(shape) or min(shape) < 0:
            raise ValueError(f"the tensor {name!r} does not lie where it should")
        places[name], end = (dtype, shape, begin), stop
    size = file.size if isinstance(file, Ranged) else os.fstat(file.fileno()).st_size
    if size != end:
        raise ValueError(f"it has {size} bytes instead of {end}")
    dtype, shape, offset = places["rejected"]
    stop = offset + shape[0]
    start = start[:stop] + _read(file, stop - len(start))
    if hashlib.blake2b(start[8 + length : stop], digest_size=32).hexdigest() != about["index"]:
        raise ValueError("its index does not match the digest in its header")
    index = {name: _view(start, *places[name]) for name in INDEX}
    return Contents(
        path.bare if isinstance(path, Remote) else path,
        about["fingerprint"],
        index["entries"],
        index["keys"].reshape(-1).view("S16"),
        _known(index["measures"], about["measures"]),
        index["span"],
        index["frames"],
        index["checksum"],
        _reasons(index["rejected"].tobytes()),
        {name: places[name] for name in (*ROWS, *FRAMES) if name in places},
        size,
    )


class Reader:
    """The vectors of an opened shard, mapped; a row is verified when it is first asked for.

    ``pooled``: what a window mean consists of, by name, of all rows. Only those may be used for which ``verify`` was
    called.
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._offsets = np.concatenate([[0], np.cumsum(contents.frames)])
        self._renewed = False
        self._map_file()

    def _map_file(self) -> None:
        contents = self.contents
        path = contents.path.fetched(contents.size) if isinstance(contents.path, Remote) else contents.path
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != contents.size:
                raise DamagedShard(f"{contents.path} is not a readable shard: its length has changed.")
            self._map = mmap(file.fileno(), contents.size, access=ACCESS_READ)
        self._tensors = {name: _view(self._map, *place) for name, place in contents.places.items()}
        own = {"frames": contents.frames, "span": contents.span}
        self.pooled = tuple(({name: self._tensors[name] for name in ROWS if name in self._tensors} | own).items())
        self._unverified = bytearray(b"?" * len(contents.frames))

    def verify(self, first: int, count: int) -> None:
        """Compare consecutive rows with their checksums, once. Raises ``DamagedShard``."""
        end = first + count
        if self._unverified.find(b"?", first, end) < 0:
            return
        wrong = self._wrong(first, end)
        if wrong.any() and self._renew():
            wrong = self._wrong(first, end)
        if wrong.any():
            row = first + int(wrong.argmax())
            raise DamagedShard(f"{self.contents.path} is damaged: row {row} does not match its checksum.")
        self._unverified[first:end] = bytes(count)

    def _wrong(self, first: int, end: int) -> NDArray[np.bool_]:
        wanted = self.contents.checksum[first:end]
        found = row_checksums(self._slices(first, end), self.contents.span[first:end], self.contents.frames[first:end])
        wrong: NDArray[np.bool_] = found != wanted
        return wrong

    def _renew(self) -> bool:
        """Map another copy of an object, once: the local one may be damaged where the object is not."""
        path = self.contents.path
        if self._renewed or not isinstance(path, Remote):
            return False
        self._renewed = True
        path.forget()
        self._map_file()
        return True

    def rows(self, first: int, count: int) -> dict[str, Array]:
        """The vectors of consecutive rows, verified, by tensor, as views of the file. Raises ``DamagedShard``."""
        self.verify(first, count)
        return self._slices(first, first + count)

    def _slices(self, first: int, end: int) -> dict[str, Array]:
        frames = slice(self._offsets[first], self._offsets[end])
        return {name: tensor[frames if name in FRAMES else slice(first, end)] for name, tensor in self._tensors.items()}


def damaged_entries(contents: Contents) -> list[int]:
    """Reads all rows of a shard: the places of the entries with damaged ones."""
    if not len(contents.frames):
        return []
    reader, damaged = Reader(contents), []
    with suppress(DamagedShard):
        reader.rows(0, len(contents.frames))
        return []
    for place, (first, count) in enumerate(contents.entries[:, :2].tolist()):
        try:
            reader.rows(first, count)
        except DamagedShard:
            damaged.append(place)
    return damaged


def _reasons(text: bytes) -> dict[str, Reason]:
    found = json.loads(text) if text else {}
    return {key: (str(reason), str(detail), str(name)) for key, (reason, detail, name) in found.items()}


def _read(file: FileIO | Ranged, count: int) -> bytes:
    """The next bytes of a file, fewer only at its end."""
    found = bytearray()
    while len(found) < count and (some := file.read(count - len(found))):
        found += some
    return bytes(found)


def _view(buffer: bytes | mmap, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(buffer, dtype, count, offset).reshape(shape) if count else np.zeros(shape, dtype)


def _known(measures: Array, names: Sequence[str]) -> NDArray[np.float64]:
    """The columns that this version knows, in its order; NaN where the shard lacks one."""
    if tuple(names) == MEASURES:
        return measures
    found = {name: measures[:, column] for column, name in enumerate(names)}
    unknown = np.full(len(measures), np.nan)
    return np.stack([found.get(name, unknown) for name in MEASURES], axis=1)
