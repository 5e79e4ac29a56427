"""Files as they lie on a disk: only regular ones are opened, and without waiting."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmmos.errors import Rejected

_READ = 1 << 20

# Without waiting, so that a pipe in the place of a file cannot block.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def content_hash(path: str | Path) -> str:
    """blake2b-256 of a file's bytes, hex. Raises ``Rejected`` (missing, not_a_file, unreadable, empty_file)."""
    digest = hashlib.blake2b(digest_size=32)
    with regular(path) as file, readable(path):
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()


def stamp(path: str | Path) -> tuple[int, int]:
    """Size and time of the last write (ns): two equal stamps mean that nothing was written in between."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


@contextmanager
def regular(path: str | Path) -> Iterator[BinaryIO]:
    """A regular, non-empty file opened for reading, without a name that a decoder could go by.

    Raises ``Rejected`` (missing, not_a_file, unreadable, empty_file) on opening; errors of the caller pass unchanged.
    """
    with readable(path):
        file = os.fdopen(_descriptor(Path(path)), "rb")
    with file:
        yield file


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Turn an ``OSError`` of what is done inside into ``Rejected`` (unreadable)."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: str | Path, error: OSError) -> Rejected:
    """The file system's refusal as a rejection."""
    return Rejected("unreadable", f"{path}: {error.strerror or error}")


def checked(path: str | Path) -> os.stat_result:
    """What the file system says of a regular, non-empty file.

    Raises ``Rejected`` (missing, not_a_file, unreadable, empty_file).
    """
    path = Path(path)
    try:
        with readable(path):
            status = _status(path)
    except ValueError as error:
        raise Rejected("unreadable", f"{str(path)!r}: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise Rejected("not_a_file", f"{path} is not a regular file")
    if status.st_size == 0:
        raise Rejected("empty_file", f"{path} has 0 bytes")
    return status


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Rejected("missing", f"there is no file {path}") from None


def _descriptor(path: Path) -> int:
    checked(path)
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        raise Rejected("missing", f"there is no file {path}") from None


class View:
    """A file for a decoder: ``prefix``, then the bytes of another from ``offset`` on.

    A decoder written in C takes an error of reading for the end of the file, so ``error`` keeps the first one.
    """

    def __init__(self, file: BinaryIO, prefix: bytes = b"", offset: int = 0) -> None:
        self._file, self._prefix, self._offset = file, prefix, offset
        self._size = len(prefix) + max(os.fstat(file.fileno()).st_size - offset, 0)
        self._at = 0
        self.error: OSError | None = None

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; one before the beginning is the beginning."""
        self._at = max(place + (0, self._at, self._size)[whence], 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer as far as there are bytes; 0 at the end and after an error."""
        ours = self._prefix[self._at : self._at + len(buffer)]
        buffer[: len(ours)] = ours
        try:
            theirs = self._file_bytes(len(buffer) - len(ours), self._at + len(ours))
        except OSError as error:
            self.error = self.error or error
            return 0
        buffer[len(ours) : len(ours) + len(theirs)] = theirs
        self._at += len(ours) + len(theirs)
        return len(ours) + len(theirs)

    def _file_bytes(self, count: int, at: int) -> bytes:
        if not count or at >= self._size:
            return b""
        place = at - len(self._prefix) + self._offset
        if self._file.tell() != place:
            self._file.seek(place)
        return self._file.read(count)
