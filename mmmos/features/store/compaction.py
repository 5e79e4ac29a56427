"""Many shards become one flat file: what is there twice or damaged stays behind.

A source is deleted after the files that hold its clips are durable, so that a kill or a power cut at any moment leaves
every clip somewhere. Writers and other compactions may go on meanwhile: they never touch a file that is there.
"""

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmmos.audio import MEASURES
from mmmos.errors import SetupError
from mmmos.features.store import shard
from mmmos.features.store.index import ATTEMPTS, Index, Ints, Run, changing, grouped, runs
from mmmos.features.store.reading import Reader, damaged_entries
from mmmos.features.store.remote import Place, Remote, size_of
from mmmos.features.store.shard import ROWS, Array, Piece, Reason
from mmmos.files import sync_folder

# Bytes of vectors after which another file is begun, so that damage of one index costs no more than these.
FLAT_BYTES = 4_000_000_000


@dataclass(frozen=True)
class Compacted:
    """What a compaction did to a folder: files and bytes before and after."""

    folder: str
    files_before: int
    files: int
    bytes_before: int
    bytes: int


def compact(folder: Place, fingerprint: str) -> Compacted:
    """Make the shards of a feature set as few as can be. Rows that are damaged are left behind.

    Raises ``StoreError`` where a shard cannot be read and ``SetupError`` where the disk refuses.
    """
    for _ in range(ATTEMPTS):
        try:
            return _compact(folder, fingerprint)
        except FileNotFoundError:
            # Another compaction was faster; what it made is looked at again.
            continue
        except OSError as error:
            more = " It needs room for a second copy." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise SetupError(
                f"{folder} cannot be compacted: {error.strerror or error}.{more} Nothing is lost."
            ) from error
    raise changing(folder)


def _compact(folder: Place, fingerprint: str) -> Compacted:
    index = Index(folder, fingerprint)
    before = [(contents.path, contents.size) for contents in index.shards]
    paths = [path for path, _ in before]
    if disown_damaged(index) or len(before) > 1:
        paths = flatten(index, folder)
        for path, _ in before:
            path.unlink(missing_ok=True)
        if not isinstance(folder, Remote):
            sync_folder(folder)
    size = sum(size_of(path) for path in paths)
    return Compacted(folder.name, len(before), len(paths), sum(size for _, size in before), size)


def disown_damaged(index: Index) -> bool:
    """Verify all rows; the index forgets entries with damaged ones. Whether there were any."""
    damaged = [(number, place) for number, each in enumerate(index.shards) for place in damaged_entries(each)]
    for number, place in damaged:
        index.disown(number, place)
    return bool(damaged)


def flatten(index: Index, folder: Place, keys: Sequence[str] | None = None) -> list[Place]:
    """Write the clips of an index, or some of them, and their rejections to as few shards as can be, in a folder.

    The parts of a clip that is done become one. In another folder than the index' own the same content is the same
    bytes. Raises ``FileNotFoundError`` when a source is deleted meanwhile.
    """
    rejected = _rejected(index, keys)
    paths = []
    for flat in _files(index, _wanted(index, keys)):
        paths.append(_write(index, folder, flat, rejected))
        rejected = {}
    if rejected:
        paths.append(shard.write(folder, index.fingerprint, [], rejected, unique=folder == index.folder))
    return paths


@dataclass(frozen=True)
class _Flat:
    """What goes to a file: entries of the index' table, and the number of the new entry that each belongs to."""

    entries: Ints
    unit: Ints

    def __getitem__(self, part: slice) -> "_Flat":
        return _Flat(self.entries[part], self.unit[part])


def _rejected(index: Index, keys: Sequence[str] | None) -> dict[str, Reason]:
    wanted = [key for key in (index.rejected if keys is None else keys) if key in index.rejected]
    done = index.done(wanted).tolist()
    return {key: index.rejected[key] for key, is_done in zip(wanted, done, strict=True) if not is_done}


def _wanted(index: Index, keys: Sequence[str] | None) -> _Flat:
    """What is written, in the order of the sources: clips that are done and, of all, parts of clips that are not.

    Also the parts of a rejected clip: it may be tried again just now, by a process that counts on them.
    """
    table = index.table
    kept = np.ones(len(table.done), bool)
    if keys is not None:
        kept[:] = False
        found = table.find(keys)
        kept[found[found >= 0]] = True
        kept &= table.done
    counts = table.end - table.begin
    entries = np.flatnonzero(np.repeat(kept, counts))
    # The parts of a clip that is done are one unit, at the place of the first; every other entry is a unit of its own.
    leads = np.where(np.repeat(table.done, counts), np.repeat(table.begin, counts), np.arange(len(table.part)))[entries]
    order = np.lexsort((table.part[entries], leads, table.place[leads], table.shard[leads]))
    entries, leads = entries[order], leads[order]
    return _Flat(entries, np.cumsum(np.diff(leads, prepend=-1) != 0) - 1)


def _files(index: Index, wanted: _Flat) -> Iterator[_Flat]:
    """What goes to each file: whole units, up to about ``FLAT_BYTES``."""
    per_row = np.array([contents.size / max(len(contents.frames), 1) for contents in index.shards])
    table = index.table
    size = np.cumsum(table.rows[wanted.entries] * per_row[table.shard[wanted.entries]])
    number = (size // FLAT_BYTES).astype(np.int64)
    # A unit goes where its first entry goes.
    starts = np.flatnonzero(np.diff(wanted.unit, prepend=-1))
    for _, units in grouped(number[starts]):
        first = starts[units[0]]
        end = starts[units[-1] + 1] if units[-1] + 1 < len(starts) else len(wanted.unit)
        yield wanted[first:end]


def _write(index: Index, folder: Place, flat: _Flat, rejected: dict[str, Reason]) -> Place:
    table, shards = index.table, index.shards
    starts = np.flatnonzero(np.diff(flat.unit, prepend=-1))
    ends = np.append(starts[1:], len(flat.entries))
    rows = np.add.reduceat(table.rows[flat.entries], starts)
    heads, tails = flat.entries[starts], flat.entries[ends - 1]
    joined = ends - starts > 1
    measures = np.empty((len(tails), len(MEASURES)))
    keys = np.empty(len(tails), "S16")
    for number, units in grouped(table.shard[tails]):
        places = table.place[tails[units]]
        measures[units], keys[units] = shards[number].measures[places], shards[number].keys[places]
    where = (table.shard, table.first, table.rows)
    spans = runs(*(column[flat.entries].tolist() for column in where))
    columns = {name: [getattr(shards[n], name)[a:b] for n, a, b in spans] for name in ("span", "frames", "checksum")}
    about: dict[str, Array] = {
        "entries": np.column_stack(
            [np.cumsum(rows) - rows, rows, np.where(joined, 0, table.part[heads]), table.last[tails]]
        ).astype(np.int64),
        "measures": measures,
        "keys": keys.view(np.uint8).reshape(-1, 16),
        **{name: np.concatenate(parts) for name, parts in columns.items()},
    }
    places_of = shards[spans[0][0]].places
    totals = {name: int(rows.sum()) if name in ROWS else int(about["frames"].sum()) for name in places_of}
    pieces = {
        name: Piece(dtype, (totals[name], *shape[1:]), _content(index, spans, name))
        for name, (dtype, shape, _) in places_of.items()
    }
    return shard.write_pieces(folder, index.fingerprint, about, rejected, pieces, unique=folder == index.folder)


def _content(index: Index, spans: Sequence[Run], name: str) -> Iterator[Array]:
    """A tensor's rows, each verified."""
    reader: tuple[int, Reader] | None = None
    for number, first, end in spans:
        if reader is None or reader[0] != number:
            reader = number, Reader(index.shards[number])
        yield reader[1].rows(first, end - first)[name]
