"""What is known of audio files without reading them: content hashes by what the file system says.

A file is known by its path, inode, size and the times of its last write and its last change of any kind, in ns. The
latter cannot be set by a program, so that a file of equal size and restored time is still seen as another one. A file
that was changed less than two seconds before it was hashed is not remembered, as a clock may not tell two writes apart.
That of a store at a URL lies in the local cache. Losing this memory costs reading the audio again, and nothing else.
"""

import hashlib
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmmos.features.store.location import home
from mmmos.files import write_atomic

log = logging.getLogger("mmmos")

FOLDER = "hashes"
SUFFIX = ".bin"
_RECORD = np.dtype([("sign", "S16"), ("content", "V32"), ("crc", "<u4")])
# s between a file's last change and its hashing, files of memory above which they are joined.
_SETTLED = 2.0
_FILES = 16


def sign(path: str, status: os.stat_result) -> bytes:
    """What a file is known by, as 16 bytes."""
    about = f"{Path(path).absolute()}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
    return hashlib.blake2b(about.encode("utf-8", "surrogateescape"), digest_size=16).digest()


class Hashes:
    """The memory of a store; ``forget`` begins without it."""

    def __init__(self, store: str | Path, *, forget: bool = False) -> None:
        self.folder = home(store) / FOLDER
        self._known = _joined([] if forget else [_read(path) for path in self._paths()])
        self._fresh: dict[bytes, bytes] = {}

    def look_up(self, signs: Sequence[bytes]) -> list[str | None]:
        """The content hashes (hex) of files, None for a file that is not known."""
        if not len(self._known) or os.name != "posix":
            return [None] * len(signs)
        wanted = np.array(signs, "S16")
        found = np.minimum(np.searchsorted(self._known["sign"], wanted), len(self._known) - 1)
        known = (self._known["sign"][found] == wanted).tolist()
        content = self._known["content"][found]
        return [content[row].tobytes().hex() if here else None for row, here in enumerate(known)]

    def add(self, mark: bytes, status: os.stat_result, content: str, hashed: float) -> None:
        """Remember a file that was hashed at ``hashed`` (s since the epoch), the status being from before that."""
        if max(status.st_mtime_ns, status.st_ctime_ns) < (hashed - _SETTLED) * 1e9:
            self._fresh[mark] = bytes.fromhex(content)

    def save(self) -> None:
        """Make what was added last; a store that cannot be written is no harm."""
        if not self._fresh:
            return
        fresh = np.empty(len(self._fresh), _RECORD)
        fresh["sign"], fresh["content"] = list(self._fresh), np.array(list(self._fresh.values()), "V32")
        fresh["crc"] = _codes(fresh)
        try:
            old = self._paths()
            if len(old) < _FILES:
                old, joined = [], _joined([fresh])
            else:
                joined = _joined([fresh, *map(_read, old)])
            data = joined.tobytes()
            name = f"{hashlib.blake2b(data, digest_size=16).hexdigest()}{SUFFIX}"
            write_atomic(self.folder / name, data)
            for path in old:
                if path.name != name:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s: %s", self.folder, error)
        self._known, self._fresh = _joined([fresh, self._known]), {}

    def _paths(self) -> list[Path]:
        try:
            return sorted(self.folder.glob(f"*{SUFFIX}"))
        except OSError as error:
            log.debug("%s: %s", self.folder, error)
            return []


def _read(path: Path) -> NDArray[np.void]:
    """The records of a file that are whole."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    records = np.frombuffer(data[: len(data) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)
    return records[records["crc"] == _codes(records)]


def _codes(records: NDArray[np.void]) -> NDArray[np.uint32]:
    size = _RECORD.itemsize
    data = memoryview(records.tobytes())
    return np.array([zlib.crc32(data[at : at + size - 4]) for at in range(0, len(data), size)], np.uint32)


def _joined(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Records sorted by sign, one for each."""
    records = np.concatenate([np.empty(0, _RECORD), *parts])
    return records[np.unique(records["sign"], return_index=True)[1]]
