"""A store at a URL: what a store needs of ``pathlib.Path``, where fsspec leads to an object store.

An object is put whole under its final name and never changed, and what is read of it is verified as in a file. So a
copy in the local cache is as good as the object: its damage is seen, and it is fetched again.
"""

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from multiprocessing import parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

from mmmos.errors import SetupError, UsageError, first_line
from mmmos.files import TEMPORARY, Bytes

# s for which a call that fails is repeated.
PATIENCE = 5.0

# What another try does not mend.
_FINAL = (PermissionError, NotImplementedError)

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Remote:
    """An object or a folder of objects; ``size`` in bytes and ``beginning`` where they are known already.

    Every method raises ``FileNotFoundError`` where there is no such object or bucket, and ``SetupError`` when the
    object store refuses or does not answer.
    """

    url: str
    size: int = field(default=-1, compare=False, repr=False)
    beginning: bytes = field(default=b"", compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def bare(self) -> "Remote":
        """The same without its beginning."""
        return replace(self, beginning=b"")

    def path_in(self, system: Any) -> str:
        """What a file system of fsspec calls it."""
        return str(system._strip_protocol(self.url))

    def iterdir(self) -> list["Remote"]:
        """What lies directly inside, as it is listed now; nothing where there is no such folder."""

        def look() -> list["Remote"]:
            system, path = reach(self.url)
            system.invalidate_cache()
            entries = {entry["name"].rstrip("/"): entry.get("size") for entry in system.ls(path, detail=True)}
            inside = {name.rpartition("/")[2]: size for name, size in entries.items() if name != path.rstrip("/")}
            return [Remote(f"{self.url}/{name}", -1 if size is None else size) for name, size in inside.items()]

        try:
            return sorted(self._tried("listed", look))
        except FileNotFoundError:
            return []

    def glob(self, pattern: str) -> list["Remote"]:
        """What lies directly inside and has a name of a pattern."""
        return [each for each in self.iterdir() if fnmatchcase(each.name, pattern)]

    def is_dir(self) -> bool:
        """Whether anything lies inside."""
        return bool(self.iterdir())

    def length(self) -> int:
        """Bytes of the object."""
        return self.size if self.size >= 0 else self._tried("read", lambda: _size(*reach(self.url)))

    def part(self, first: int, end: int) -> bytes:
        """The bytes from ``first`` to before ``end``."""
        if end <= len(self.beginning):
            return self.beginning[first:end]

        def read() -> bytes:
            system, path = reach(self.url)
            return bytes(system.cat_file(path, start=first, end=end))

        return self._tried("read", read) if first < end else b""

    def open(self, mode: str = "rb", buffering: int = -1) -> "Ranged":
        """The object to be read from its beginning; only what is asked for is transferred."""
        return Ranged(self)

    def read_bytes(self) -> bytes:
        """The whole object."""
        return self.part(0, self.length())

    def write(self, pieces: Iterable[Bytes]) -> "Remote":
        """Put the object whole; it is there, of the right size, when this returns."""
        with TemporaryDirectory(prefix="mmmos-") as folder:
            file = Path(folder) / self.name
            with file.open("wb") as out:
                out.writelines(pieces)
            self._tried("written", lambda: _put(file, *reach(self.url)))
        return self

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object and its local copy."""

        def delete() -> None:
            system, path = reach(self.url)
            system.rm_file(path)

        self.forget()
        try:
            self._tried("deleted", delete)
        except FileNotFoundError:
            if not missing_ok:
                raise

    @property
    def cached(self) -> Path:
        """Where the local copy lies: in a folder named by the digest of the URL of the folder."""
        return cache_of(self.url.rpartition("/")[0]) / self.name

    def fetched(self, size: int) -> Path:
        """The local copy, made where there is none of ``size`` bytes."""
        if not has(self.cached, size):
            self._tried(f"copied to {self.cached.parent}", lambda: _copy(self))
        return self.cached

    def forget(self) -> None:
        """Delete the local copy."""
        self.cached.unlink(missing_ok=True)

    def _tried(self, verb: str, call: Callable[[], T]) -> T:
        """What a call returns, repeated while the reason of its failure may pass."""
        begun, pause, first = time.monotonic(), 0.2, None
        while True:
            try:
                return call()
            except FileNotFoundError:
                raise FileNotFoundError(errno.ENOENT, "No such object or bucket", self.url) from None
            except (SetupError, UsageError):
                raise
            except Exception as error:
                # What follows a failure may only say that there was one.
                first = first or error
                if not isinstance(error, _FINAL) and time.monotonic() - begun + pause < PATIENCE:
                    time.sleep(pause)
                    pause *= 2
                    continue
                full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
                raise SetupError(
                    f"{self.url} cannot be {verb}: {first_line(first)}."
                    + (" MMMOS_CACHE names another folder for local copies." if full else "")
                    + " Look at the address, the network and the credentials; what is stored already is kept, and the"
                    " same command goes on from there."
                ) from first


class Ranged:
    """An object that is read part by part; ``size`` in bytes."""

    def __init__(self, remote: Remote) -> None:
        self._remote, self._at, self.size = remote, 0, remote.length()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""

    def read(self, count: int) -> bytes:
        """The next bytes, fewer only at the end."""
        found = self._remote.part(self._at, min(self._at + count, self.size))
        self._at += len(found)
        return found


Place = Path | Remote


def listed(folder: Place, pattern: str) -> list[Place]:
    """What lies directly inside a folder and has a name of a pattern, sorted."""
    return sorted(folder.glob(pattern), key=str)


def size_of(path: Place) -> int:
    """Bytes of a file or an object."""
    return path.length() if isinstance(path, Remote) else path.stat().st_size


def cache_of(url: str) -> Path:
    """The folder for local copies of what lies at a URL; ``MMMOS_CACHE`` names another place than the user's cache."""
    import platformdirs

    base = os.environ.get("MMMOS_CACHE") or platformdirs.user_cache_path("mmmos", appauthor=False)
    return Path(base) / "stores" / hashlib.blake2b(url.encode(), digest_size=16).hexdigest()


def reach(url: str) -> tuple[Any, str]:
    """The file system that serves a URL, of this process, and the path in it."""
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    protocol = url.partition(":")[0]
    if protocol == "memory" and parent_process() is not None:
        raise UsageError(f"{url} is in the memory of another process; name a store that all reach, or --jobs 1.")
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        known = known_implementations.get(protocol, {})
        package = known.get("class", "fsspec").partition(".")[0]
        hint = f"pip install {package}" if package != "fsspec" else known.get("err", first_line(error)).rstrip(".")
        raise SetupError(f"A store at {protocol}:// needs a package that is not installed: {hint}.") from error
    return system, str(path)


def _size(system: Any, path: str) -> int:
    return int(system.info(path)["size"])


def _put(file: Path, system: Any, path: str) -> None:
    """Put a file and look whether it is there, in full."""
    if not getattr(system, "async_impl", False):
        # Object stores have no folders; of them a folder would be a new bucket.
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
    system.put_file(str(file), path)
    system.invalidate_cache()
    size, found = file.stat().st_size, _size(system, path)
    if found != size:
        raise OSError(f"of {size} bytes {found} arrived")


def get(objects: Sequence[Remote], copies: Sequence[Path]) -> None:
    """Copy objects, all of one URL's file system, to files."""
    system = reach(objects[0].url)[0]
    for copy in copies:
        copy.parent.mkdir(parents=True, exist_ok=True)
    system.get([each.path_in(system) for each in objects], [str(copy) for copy in copies])


def _copy(remote: Remote) -> None:
    """Make the local copy of an object, whole or not at all."""
    copy = temporary(remote.cached)
    try:
        get([remote], [copy])
        copy.replace(remote.cached)
    finally:
        copy.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """A name beside a file that nobody else uses."""
    return path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY}"


def has(path: Path, size: int) -> bool:
    """Whether a file is there, of a size."""
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
