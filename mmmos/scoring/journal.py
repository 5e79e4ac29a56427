"""What lies beside a file of scores, and which of its rows still hold.

``scores.csv.about.json`` says what made the scores, ``….partial.jsonl`` holds the rows before the file is made of them,
``….before`` those that a run found out of their place, ``….lock`` is there while a process writes.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mmmos import __version__
from mmmos.audio import TRANSIENT
from mmmos.errors import SetupError, UsageError
from mmmos.files import pretty_json, write_atomic

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Settings:
    """What scores depend on, apart from the audio, and the file's format: rows of different settings are never mixed.

    ``bundle`` and ``digest`` are the model's; ``segments`` and ``hop`` are in s; ``shard``: "i/N" where the file holds
    one part of the inputs.
    """

    bundle: str
    digest: str
    axes: tuple[str, ...]
    format: str
    segments: float | None = None
    hop: float | None = None
    strict: bool = False
    shard: str | None = None
    mmmos: str = __version__


@dataclass(frozen=True)
class About:
    """What made a file of scores: ``settings``, when the last run ``begun`` (ISO 8601), and of a finished file how many
    ``rows`` it has, the digest of its ``inputs`` and how many rows have which ``reasons``.
    """

    settings: dict[str, Any]
    begun: str
    finished: dict[str, Any] | None = None


def beside(path: Path, what: str) -> Path:
    """The file that lies beside another one: "scores.csv", "lock" → "scores.csv.lock"."""
    return path.with_name(f"{path.name}.{what}")


def write_about(path: Path, about: About) -> None:
    """Write what is known of a file of scores."""
    write_atomic(beside(path, "about.json"), pretty_json(asdict(about)))


def read_about(path: Path) -> About | None:
    """What is known of a file of scores; None where nothing is, or nothing that could be read."""
    try:
        about = About(**json.loads(beside(path, "about.json").read_bytes()))
        nanoseconds(about.begun)
        return about if isinstance(about.settings, dict) else None
    except (OSError, ValueError, TypeError):
        return None


def difference(about: About | None, settings: Settings, path: Path) -> str:
    """Why scores of these settings cannot go into a file that exists: a sentence, "" where they can."""
    if about is None:
        return f"{path} exists, and nothing beside it says that MMMOS made it."
    there, wanted = about.settings, json.loads(json.dumps(asdict(settings)))
    parts = [
        f"{name} {_shown(there.get(name))} instead of {_shown(wanted[name])}"
        for name in ("format", "segments", "hop", "strict", "shard", "mmmos")
        if there.get(name) != wanted[name]
    ]
    if there.get("digest") != wanted["digest"]:
        changed = " as it was before it changed" if there.get("bundle") == settings.bundle else ""
        parts = [f"the bundle {there.get('bundle')}{changed or f' instead of {settings.bundle}'}", *parts]
    return f"{path} was made with {', '.join(parts)}." if parts else ""


def _shown(value: object) -> str:
    """A setting's value for people."""
    return {None: "none", True: "on", False: "off"}.get(value) or str(value)  # type: ignore[call-overload]


def nanoseconds(iso: str) -> int:
    """Nanoseconds since 1970 of a time in ISO 8601 with its zone. Raises ``ValueError``, ``TypeError``."""
    return (datetime.fromisoformat(iso) - _EPOCH) // timedelta(microseconds=1) * 1000


def now(path: Path) -> str:
    """The time in ISO 8601 by the clock that stamps a file; a network drive's is not this machine's."""
    os.utime(path)
    microseconds = path.stat().st_mtime_ns // 1000
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")


def key(row: dict[str, Any]) -> bytes:
    """What tells inputs apart: id, path, domain, start and end in s, as a row has them. Raises ``KeyError``."""
    parts = [row["id"], row["path"], *(edge if edge is None else float(edge) for edge in (row["start"], row["end"]))]
    return blake2b(json.dumps([*parts, row["domain"]]).encode(), digest_size=16).digest()


def whole_lines(path: Path, start: int = 0) -> Iterator[bytes]:
    """The lines of a file from an offset on, with their ends; without the last one if it was cut off."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(start)
        for raw in file:
            if raw.endswith(b"\n"):
                yield raw


def checked_lines(path: Path, begun: int, start: int = 0) -> Iterator[tuple[bytes, bytes | None]]:
    """Lines of a journal with their keys; None for a row that does not hold: it is broken, its audio file was changed
    after ``begun`` (ns since 1970), or its reason is one of the moment.
    """
    changed_since = cache(lambda path: changed(path) >= begun)
    for raw in whole_lines(path, start):
        try:
            row = json.loads(raw)
            holds = row["reason"] not in TRANSIENT and not changed_since(row["path"])
            yield raw, key(row) if holds else None
        except (ValueError, TypeError, KeyError, RecursionError):
            yield raw, None


def changed(path: str) -> float:
    """When a file was changed or put in its place (ns since 1970); infinity where none is to be seen."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return float("inf")
    # Of a file that another one replaces, only the second is new. Windows means something else by it.
    return max(status.st_mtime_ns, 0 if sys.platform == "win32" else status.st_ctime_ns)


@contextmanager
def locked(path: Path) -> Iterator[Path]:
    """The lock file of a file of scores, held; the system lets go of it when a process ends, however it ends.

    Raises ``UsageError`` when another process holds it, ``SetupError`` where it cannot be made.
    """
    lock = beside(path, "lock")
    while True:
        with told(path):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _acquire(descriptor):
                raise UsageError(f"Another process is writing {path}; wait for it, or write to another file.")
            # Who held it before may have removed the name meanwhile.
            if not (lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat())):
                continue
            try:
                yield lock
            finally:
                with suppress(OSError):
                    lock.unlink()
            return
        finally:
            os.close(descriptor)


def _acquire(descriptor: int) -> bool:
    """Lock an open file; False when another process has. A file system without locks gives none, and True."""
    if sys.platform == "win32":  # pragma: no cover - Windows alone
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What the system refuses while a file of scores is written, as a sentence. Raises ``SetupError``."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        raise SetupError(
            f"{path} cannot be written: {what}. The rows so far are kept; mend this, and the same command goes on."
        ) from error
