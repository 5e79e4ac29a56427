"""``import``: an exported folder or repository of the hub, which may come from anyone, into a store.

It is first copied to a private place inside the store, plain files of the expected names alone, and verified there to
the last number; then its shards take their names. So nothing is imported when anything is wrong, and what was verified
is what is kept.
"""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from mmmos import hub, progress
from mmmos.errors import InputError, SetupError, UsageError, shorten
from mmmos.features.sharing.exports import README
from mmmos.features.sharing.verification import ForeignSet, verified
from mmmos.features.spec import NAME
from mmmos.features.store import lists
from mmmos.features.store.compaction import disown_damaged
from mmmos.features.store.index import Index, packed
from mmmos.features.store.location import local
from mmmos.features.store.shard import SPEC, SUFFIX
from mmmos.files import TEMPORARY, pretty_json, sync_folder, write_atomic
from mmmos.manifest.rows import Report

_SET = re.compile(rf"{NAME[:-1]}-[0-9a-f]{{12}}")
_SHARD = re.compile(rf"[0-9a-f]{{32}}{re.escape(SUFFIX)}")
# Files of an export on the hub, and their bytes.
_ON_THE_HUB = (lists.LIST, README, f"*/{SPEC}", f"*/*{SUFFIX}")
_MOST_BYTES = 200_000_000_000
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


def import_features(source: str | Path, store: str | Path = "features") -> Imported:
    """Add an exported folder, or one on the hub (``hf://owner/name@revision``), to a store; what is there stays.

    Raises ``InputError`` with a sentence for each thing that is wrong with it, and then nothing is imported.
    """
    store = local(store, "imported into")
    was_there = store.is_dir()
    report = Report(_PROBLEMS)
    staged = store / f".import.{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY}"
    try:
        _copy_all(_files_of(source, report), staged, report)
        sets, listed, keys = _verified(staged, report)
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


def check(folder: str | Path) -> list[ForeignSet]:
    """The feature sets of an exported folder, verified as by an import. Raises ``InputError``, ``UsageError``."""
    report = Report(_PROBLEMS)
    _files_of(Path(folder), report)
    return _verified(Path(folder), report)[0]


def _verified(folder: Path, report: Report) -> tuple[list[ForeignSet], bytes, list[str]]:
    """The feature sets of a folder with nothing else in it, the bytes of its list, and the keys of its clips."""
    report.stop()
    sets = [each for path in _folders(folder) if (each := verified(path, report)) is not None]
    report.stop()
    listed = (folder / lists.LIST).read_bytes()
    keys = lists.checked(listed, lists.LIST, report)
    for each in sets:
        _check_listed(each, keys, report)
    report.stop()
    return sets, listed, keys


def _files_of(source: str | Path, report: Report) -> dict[str, Path]:
    """The files of an export by their names in it; anything else goes to the report."""
    if isinstance(source, str) and hub.is_address(source):
        files = hub.pull(source, kind="dataset", allowed=_ON_THE_HUB, limit=_MOST_BYTES)
        for name in [name for name in files if not _belongs(name)]:
            report.add(shorten(name), "it does not belong to an export")
    elif not Path(source).is_dir():
        raise UsageError(f"There is no folder {str(source)!r}; mmmos features export makes one.")
    else:
        files = _plain_files(Path(source), report)
    sets = {name.split("/")[0] for name in files if "/" in name}
    for name in sorted(sets):
        if f"{name}/{SPEC}" not in files:
            report.add(name, f"it holds no {SPEC}")
    if not sets:
        report.add(str(source), "it holds no feature set, so that it is no export")
    if lists.LIST not in files:
        report.add(str(source), f"it holds no {lists.LIST}")
    return files


def _belongs(name: str) -> bool:
    """Whether an export has a file of this name."""
    folder, _, file = name.rpartition("/")
    if not folder:
        return file in (lists.LIST, README)
    return bool(_SET.fullmatch(folder)) and (file == SPEC or bool(_SHARD.fullmatch(file)))


def _plain_files(source: Path, report: Report) -> dict[str, Path]:
    """The plain files of a folder that belong to an export."""
    found: dict[str, Path] = {}
    for entry in _entries(source, report):
        if entry.is_dir(follow_symlinks=False) and _SET.fullmatch(entry.name):
            inner = _entries(Path(entry.path), report)
            found |= {name: path for each in inner for name, path in _plain(each, f"{entry.name}/", report)}
            if not inner:
                report.add(entry.name, f"it holds no {SPEC}")
        else:
            found |= dict(_plain(entry, "", report))
    return found


def _entries(folder: Path, report: Report) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        report.add(folder.name, f"the folder cannot be read: {error.strerror or error}")
        return []


def _plain(entry: "os.DirEntry[str]", folder: str, report: Report) -> list[tuple[str, Path]]:
    """The entry's name in the export and its path, nothing if it is not what an export holds."""
    name = folder + entry.name
    if not _belongs(name):
        report.add(shorten(name), "it does not belong to an export; delete it if it came here by accident")
    elif entry.is_symlink() or not entry.is_file(follow_symlinks=False):
        report.add(shorten(name), "it is a link, a folder or a device; an export holds plain files")
    else:
        return [(name, Path(entry.path))]
    return []


def _copy_all(files: Mapping[str, Path], staged: Path, report: Report) -> None:
    """Copy the files that an import reads to a new folder; of any problem so far, raise ``InputError`` first."""
    report.stop()
    limits = {lists.LIST: _LIST, SPEC: _SMALL}
    staged.mkdir(parents=True)
    for name, path in progress.track(files.items(), len(files), "copying"):
        if name != README:
            _copy(path, staged / name, limits.get(PurePosixPath(name).name), name, report)
            # So that nobody takes it for left behind.
            os.utime(staged)


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
        assert isinstance(contents.path, Path), "what is imported was copied here"
        if index.missing(done, retry=True) or index.missing(contents.rejected):
            new.append(folder / contents.path.name)
            folder.mkdir(parents=True, exist_ok=True)
            contents.path.replace(new[-1])
    if new or not (folder / SPEC).is_file():
        write_atomic(folder / SPEC, pretty_json(each.about))
        sync_folder(folder)
        sync_folder(folder.parent)
    return new
