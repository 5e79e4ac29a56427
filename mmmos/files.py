"""Files that are whole or absent, and the canonical JSON that keys and digests are made of."""

# Calls of ``os`` are what a test can count, fail and kill one by one.
# ruff: noqa: PTH102, PTH105, PTH108

import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bytes = bytes | bytearray | memoryview

TEMPORARY = ".tmp"
# s after which a temporary file has been left behind by a writer that was killed.
LEFT_BEHIND = 3600.0


def write_atomic(path: str | Path, data: Bytes | str | Iterable[Bytes]) -> Path:
    """Write a file, whole or in pieces, under a temporary name in its folder; fsync, rename, fsync the folder.

    A reader sees the old content or all of the new one, also after a kill or a power cut. Returns the path; raises
    ``OSError`` where the disk refuses, and then the old content stays.
    """
    path = Path(path)
    _make_folders(path.parent)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            for piece in _pieces(data):
                _write_all(descriptor, piece)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)
    _keep(path.parent)
    return path


# Folders whose own names are durable, as far as this process can tell.
_kept: set[Path] = set()


def _keep(folder: Path) -> None:
    """Make the name of a folder and of those above it durable, once: who made them may not have come to it."""
    folder = folder.absolute()
    while folder not in _kept and not folder.is_mount():
        if os.access(folder.parent, os.R_OK):
            sync_folder(folder.parent)
        _kept.add(folder)
        folder = folder.parent


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it."""
    absent = []
    while not folder.is_dir():
        absent.append(folder)
        folder = folder.parent
    for each in reversed(absent):
        with suppress(FileExistsError):
            os.mkdir(each)
        _kept.discard(each.absolute())


def _pieces(data: Bytes | str | Iterable[Bytes]) -> Iterable[Bytes]:
    if isinstance(data, str):
        return [data.encode()]
    return [data] if isinstance(data, Bytes) else data


def _write_all(descriptor: int, piece: Bytes) -> None:
    """Write all of a piece: the system may take less at a time."""
    left = memoryview(piece).cast("B") if memoryview(piece).nbytes else memoryview(b"")
    while left:
        left = left[os.write(descriptor, left) :]


def sync_folder(folder: Path) -> None:
    """Make the renames inside a folder durable, where the platform and the file system can."""
    if os.name == "posix":  # pragma: no branch (not on Windows)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def leftovers(folder: str | Path) -> list[Path]:
    """Temporary files of a folder that no living writer of this machine will rename: older than an hour."""
    oldest = time.time() - LEFT_BEHIND
    found = []
    for path in sorted(Path(folder).glob(f".*{TEMPORARY}")):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                found.append(path)
    return found


def tensor_bytes(arrays: "Mapping[str, NDArray[Any]]", metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file of numpy arrays, each in C order: the format itself scrambles any other order silently."""
    import numpy as np
    from safetensors.numpy import save

    data: bytes = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata=metadata)
    return data


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN is refused. 1 and 1.0 are different texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pretty_json(value: Any) -> str:
    """JSON for people: sorted keys, indented, newline at the end; NaN is refused."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def key_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON, half characters of file names included."""
    return hashlib.sha256(canonical_json(value).encode(errors="surrogatepass")).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
