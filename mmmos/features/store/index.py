"""The index of a feature set: where each clip's rows lie, from the headers of the shards; it is in memory only.

Arrays, not objects: a million clips take about 100 MB and a few seconds.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmmos.errors import StoreError
from mmmos.features.store import shard
from mmmos.features.store.bulk import begun
from mmmos.features.store.reading import Contents, open_shard
from mmmos.features.store.remote import Place, Remote
from mmmos.features.store.shard import DamagedShard, Reason

log = logging.getLogger("mmmos")

Ints = NDArray[np.int64]
Run = tuple[int, int, int]

# Times that a folder is looked through which compactions change meanwhile.
ATTEMPTS = 20


@dataclass(frozen=True)
class Table:
    """The entries of all shards, sorted by clip and part, each part once; and the clips that they make up.

    An entry that is a clip's first part and its last is all of it: the clip's other entries are left out.

    Of an entry: number of its ``shard``, its row in that shard's ``entries`` (``place``), number of the ``part`` and
    whether it is the ``last``, ``first`` row and number of ``rows``. Of a clip: ``keys`` (ascending, 16 bytes each),
    its first entry ``begin`` and the one behind its last ``end``, and whether it is ``done``: all its parts are there.
    """

    shard: NDArray[np.int32]
    place: NDArray[np.int32]
    part: NDArray[np.int32]
    last: NDArray[np.bool_]
    first: Ints
    rows: Ints
    keys: NDArray[np.bytes_]
    begin: Ints
    end: Ints
    done: NDArray[np.bool_]

    def find(self, keys: Sequence[str]) -> Ints:
        """The clips' positions in ``keys``, -1 for those that are not there."""
        wanted = packed(keys)
        if not len(self.keys):
            return np.full(len(wanted), -1)
        found = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[found] == wanted, found, -1)


class Index:
    """The shards of a folder that belong to one fingerprint; ``damaged`` and ``foreign`` ones are left out.

    ``rejected``: reason, detail and file name by key. Raises ``StoreError`` as ``refresh``.
    """

    def __init__(self, folder: Place, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.shards: list[Contents] = []
        self.rejected: dict[str, Reason] = {}
        self.damaged: dict[Place, DamagedShard] = {}
        self.foreign: dict[Place, str] = {}
        self._gone: set[Place] = set()
        self._bad: set[tuple[Place, int]] = set()
        self._table: Table | None = None
        self.refresh()

    def refresh(self) -> None:
        """Open the shards that were not there before and forget those that are gone.

        Raises ``StoreError`` for a folder or a shard that cannot be read.
        """
        known = {contents.path: contents for contents in self.shards}
        seen: set[Place] = set()
        for attempt in range(ATTEMPTS):
            seen |= _listing(self.folder)
            seen -= self._gone
            fresh = sorted(seen - known.keys() - self.damaged.keys() - self.foreign.keys(), key=str)
            opened = [self._open(path) for path in begun(fresh)]
            known |= {contents.path: contents for contents in opened if contents}
            seen -= {path for path, contents in zip(fresh, opened, strict=True) if contents is None}
            # One look may miss what a compaction makes meanwhile, and of what it made it: a second one finds that.
            if attempt and None not in opened:
                break
        else:
            raise changing(self.folder)
        paths = sorted(known.keys() & seen, key=str)
        if paths != [contents.path for contents in self.shards]:
            self.shards = [known[path] for path in paths]
            self.rejected = {}
            for contents in self.shards:
                self.rejected |= contents.rejected
            self._table = None

    def _open(self, path: Place) -> Contents | None:
        try:
            contents = open_shard(path)
        except DamagedShard as error:
            self.damaged[path] = error
            log.warning("%s Its clips are computed again.", error)
        except FileNotFoundError:
            self.forget(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
        else:
            if contents.fingerprint == self.fingerprint:
                return contents
            self.foreign[path] = f"{path} belongs to another feature set ({contents.fingerprint[:12]})."
            log.warning("%s It is left alone.", self.foreign[path])
        return None

    def forget(self, path: Place) -> None:
        """Do without an object that is gone: listings may lag behind, and no name is ever used twice."""
        if isinstance(path, Remote):
            self._gone.add(path)

    @property
    def table(self) -> Table:
        """The entries of all shards."""
        if self._table is None:
            self._table = _table(self.shards, self._bad)
        return self._table

    def disown(self, number: int, place: int) -> None:
        """Do without an entry whose rows are damaged; another shard's entry for the same part takes its place."""
        self._bad.add((self.shards[number].path, place))
        self._table = None

    def missing(self, keys: Iterable[str], *, retry: bool = False) -> list[str]:
        """The distinct keys that are neither done nor rejected, in their order; with ``retry`` also the rejected."""
        distinct = list(dict.fromkeys(keys))
        done = self.done(distinct)
        return [k for k, d in zip(distinct, done.tolist(), strict=True) if not d and (retry or k not in self.rejected)]

    def done(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Which clips have all their rows."""
        table, found = self.table, self.table.find(keys)
        return table.done[found] & (found >= 0) if len(table.keys) else found >= 0

    def begun(self, keys: Sequence[str]) -> dict[str, frozenset[int]]:
        """The clips of which some parts are there and others are not, with the parts that are."""
        table, found = self.table, self.table.find(keys)
        return {
            key: frozenset(table.part[table.begin[clip] : table.end[clip]].tolist())
            for key, clip in zip(keys, found.tolist(), strict=True)
            if clip >= 0 and not table.done[clip]
        }

    def entries(self, keys: Sequence[str]) -> tuple[Ints, Ints]:
        """The entries of clips that are done, as rows of the table, and for each of them the clip's position in keys.

        Raises ``KeyError`` for a clip that is not done.
        """
        table, found = self.table, self.table.find(keys)
        if len(keys) and (not len(table.keys) or (found < 0).any() or not table.done[found].all()):
            raise KeyError(next(key for key, done in zip(keys, self.done(keys), strict=True) if not done))
        if not len(keys):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        counts = table.end[found] - table.begin[found]
        clip = np.repeat(np.arange(len(keys)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return table.begin[found][clip] + within, clip


def changing(folder: Place) -> StoreError:
    """What to raise when other processes compact a folder faster than it can be read."""
    return StoreError(f"{folder} changes all the time; run the same command again when nobody tidies it up.")


def _listing(folder: Place) -> set[Place]:
    """The shards of a folder, none where there is no folder. A folder that cannot be read is never an empty one."""
    if isinstance(folder, Remote):
        return set(folder.glob(f"*{shard.SUFFIX}"))
    try:
        with os.scandir(folder) as entries:
            return {folder / entry.name for entry in entries if entry.name.endswith(shard.SUFFIX)}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror or error}.") from error


def grouped(numbers: NDArray[np.integer]) -> Iterator[tuple[int, Ints]]:
    """Each distinct number, ascending, with the positions where it stands."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    for positions in np.split(order, starts[1:]) if len(order) else ():
        yield int(numbers[positions[0]]), positions


def runs(numbers: Iterable[int], firsts: Iterable[int], counts: Iterable[int]) -> list[Run]:
    """Rows that follow each other in one shard: its number, the first row, the one behind the last."""
    found: list[Run] = []
    for number, first, count in zip(numbers, firsts, counts, strict=True):
        if found and found[-1][0] == number and found[-1][2] == first:
            found[-1] = number, found[-1][1], first + count
        else:
            found.append((number, first, first + count))
    return found


def packed(keys: Sequence[str]) -> NDArray[np.bytes_]:
    """Keys in hex as arrays of 16 bytes."""
    return np.frombuffer(b"".join(map(bytes.fromhex, keys)), "S16")


def _table(shards: Sequence[Contents], bad: set[tuple[Place, int]]) -> Table:
    keys = np.concatenate([np.zeros(0, "S16"), *(each.keys for each in shards)])
    counts = [len(each.keys) for each in shards]
    number = np.repeat(np.arange(len(shards), dtype=np.int32), counts)
    place = np.concatenate([np.zeros(0, np.int32), *(np.arange(count, dtype=np.int32) for count in counts)])
    columns = np.concatenate([np.zeros((0, 4), np.int64), *(each.entries for each in shards)])
    part, last = columns[:, 2].astype(np.int32), columns[:, 3] == 1
    good = np.ones(len(keys), bool)
    first_of = {each.path: start for each, start in zip(shards, np.cumsum([0, *counts]).tolist(), strict=False)}
    good[[first_of[path] + row for path, row in bad if path in first_of]] = False
    order = np.flatnonzero(good)
    whole = (part == 0) & last
    order = order[np.lexsort((number[order], part[order], ~whole[order], keys[order]))]
    leads = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])[: len(order)]
    covered = whole[order][leads][np.cumsum(leads) - 1]
    again = np.concatenate([[False], part[order][1:] == part[order][:-1]])[: len(order)]
    order = order[leads | ~(again | covered)]
    keys, part, last, columns = keys[order], part[order], last[order], columns[order]
    begin = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    end = np.append(begin[1:], len(keys)).astype(np.int64)[: len(begin)]
    within = np.arange(len(keys)) - np.repeat(begin, end - begin)
    whole = np.logical_and.reduceat(part == within, begin) if len(begin) else np.zeros(0, bool)
    done = whole & last[end - 1]
    return Table(number[order], place[order], part, last, columns[:, 0], columns[:, 1], keys[begin], begin, end, done)
