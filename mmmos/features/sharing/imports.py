"""``import``: an exported folder, which may come from anyone, into a store.

It is first copied to a private place inside the store, plain files of the expected names alone, and verified there to
the last number; then its shards take their names. So nothing is imported when anything is wrong, and what was verified
is what is kept.
"""

import os
import re
import secrets
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmmos import progress
from mmmos.errors import InputError, SetupError, UsageError
from mmmos.features.sharing.exports import README
from mmmos.features.sharing.verification import ForeignSet, verified
from mmmos.features.spec import NAME
from mmmos.features.store import lists
from mmmos.features.store.compaction import disown_damaged
from mmmos.features.store.index import Index, packed
from mmmos.features.store.shard import SUFFIX
from mmmos.features.store.upkeep import SPEC
from mmmos.files import TEMPORARY, pretty_json, sync_folder, write_atomic
from mmmos.manifest.rows import Report, shorten

_SET = re.compile(rf"{NAME[:-1]}-[0-9a-f]{{12}}")
_SHARD = re.compile(rf"[0-9a-f]{{32}}{re.escape(SUFFIX)}")
# Bytes of a list and of a small file; problems that are shown; bytes that are copied at a time.
_LIST, _SMALL = 1 << 30, 1 << 16
_PROBLEMS = 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Imported:
    """What an import brought: names of the feature sets, number of clips listed, shards and bytes that were new."""

    sets: tuple[str, ...]
    clips: int
    shards: int
    size: int


def import_features(folder: str | Path, store: str | Path = "features") -> Imported:
    """Add an exported folder to a store; what is there already stays.

    Raises ``InputError`` with a sentence for each thing that is wrong with it, and then nothing is imported.
    """
    source, store = Path(folder), Path(store)
    if not source.is_dir():
        raise UsageError(f"There is no folder {str(source)!r}; mmmos features export makes one.")
    report, was_there = Report(_PROBLEMS), store.is_dir()
    staged = store / f".import.{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY}"
    try:
        _stage(source, staged, report)
        report.stop()
        sets = [each for path in _folders(staged) if (each := verified(path, report)) is not None]
        report.stop()
        listed = (staged / lists.LIST).read_bytes()
        keys = lists.checked(listed, lists.LIST, report)
        for each in sets:
            _check_listed(each, keys, report)
        report.stop()
        new = [path for each in sets for path in _settle(each, store / each.folder)]
        shared = store / lists.FOLDER / lists.file_name(listed)
        if not shared.is_file() or shared.read_bytes() != listed:
            write_atomic(shared, listed)
    except InputError as error:
        raise InputError([*error.problems, f"Nothing of {source} is imported."], error.more) from None
    except OSError as error:
        raise SetupError(
            f"{source} cannot be imported into {store}: {error.strerror or error}. Mend that and type the same again."
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if not was_there:
            with suppress(OSError):
                store.rmdir()
    size = sum(path.stat().st_size for path in new)
    return Imported(tuple(each.about["name"] for each in sets), len(keys), len(new), size)


def _stage(source: Path, staged: Path, report: Report) -> None:
    """Copy the plain files of the expected names; anything else goes to the report."""
    files: list[tuple[Path, int | None]] = []
    sets = 0
    for entry in _entries(source, report):
        if entry.is_dir(follow_symlinks=False) and _SET.fullmatch(entry.name):
            sets += 1
            inner = list(_entries(Path(entry.path), report))
            if SPEC not in {each.name for each in inner}:
                report.add(entry.name, f"it holds no {SPEC}")
            for each in inner:
                limit = _SMALL if each.name == SPEC else None
                files += _plain(each, each.name == SPEC or bool(_SHARD.fullmatch(each.name)), limit, source, report)
        else:
            limit = _LIST if entry.name == lists.LIST else _SMALL
            files += _plain(entry, entry.name in (lists.LIST, README), limit, source, report)
    if not sets:
        report.add(str(source), "it holds no feature set, so that it is no export")
    if source / lists.LIST not in [path for path, _ in files]:
        report.add(str(source), f"it holds no {lists.LIST}")
    if not report.count:
        staged.mkdir(parents=True)
        for path, limit in progress.track(files, len(files), "copying"):
            if path.name != README:
                _copy(path, staged / path.relative_to(source), limit, str(path.relative_to(source)), report)
                # So that nobody takes it for left behind.
                os.utime(staged)


def _entries(folder: Path, report: Report) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        report.add(folder.name, f"the folder cannot be read: {error.strerror or error}")
        return []


def _plain(
    entry: "os.DirEntry[str]", expected: bool, limit: int | None, source: Path, report: Report
) -> list[tuple[Path, int | None]]:
    """The entry's path and the most bytes it may have, nothing if it is not what an export holds."""
    shown = shorten(os.path.relpath(entry.path, source))
    if not expected:
        report.add(shown, "it does not belong to an export; delete it if it came here by accident")
    elif entry.is_symlink() or not entry.is_file(follow_symlinks=False):
        report.add(shown, "it is a link, a folder or a device; an export holds plain files")
    else:
        return [(Path(entry.path), limit)]
    return []


def _copy(path: Path, to: Path, limit: int | None, shown: str, report: Report) -> None:
    options = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        descriptor = os.open(path, os.O_RDONLY | options)
    except OSError as error:
        report.add(shown, f"it cannot be read: {error.strerror or error}")
        return
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            report.add(shown, "it is no plain file")
        elif limit is not None and status.st_size > limit:
            report.add(shown, f"it has {status.st_size} bytes; at most {limit} are read")
        else:
            write_atomic(to, iter(lambda: file.read(_CHUNK), b""))


def _folders(staged: Path) -> list[Path]:
    return sorted(path for path in staged.iterdir() if path.is_dir())


def _check_listed(each: ForeignSet, keys: list[str], report: Report) -> None:
    """Every clip of the list is done or rejected."""
    there = [contents.keys for contents in each.shards]
    there += [packed(list(contents.rejected)) for contents in each.shards]
    absent = ~np.isin(packed(keys), np.concatenate(there)) if there and keys else np.zeros(0, bool)
    if absent.any():
        key = keys[int(absent.argmax())]
        report.add(lists.LIST, f"{int(absent.sum())} of its clips are not in {each.folder}, for one {key}")


def _settle(each: ForeignSet, folder: Path) -> list[Path]:
    """Give the shards with anything that the store lacks their names in it; damaged rows there count as lacking."""
    index = Index(folder, each.fingerprint)
    disown_damaged(index)
    new = []
    for contents in each.shards:
        done = [row.tobytes().hex() for row in contents.keys.view(np.uint8).reshape(-1, 16)]
        if index.missing(done, retry=True) or index.missing(contents.rejected):
            new.append(folder / contents.path.name)
            folder.mkdir(parents=True, exist_ok=True)
            contents.path.replace(new[-1])
    if new or not (folder / SPEC).is_file():
        write_atomic(folder / SPEC, pretty_json(each.about))
        sync_folder(folder)
        sync_folder(folder.parent)
    return new
