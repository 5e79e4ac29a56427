"""Looking after a store: what it holds, whether it is whole, its shards made one."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmos import progress
from mmmos.errors import StoreError, UsageError, first_line
from mmmos.features.store.compaction import Compacted, compact
from mmmos.features.store.index import Index
from mmmos.features.store.location import location
from mmmos.features.store.reading import damaged_entries, open_shard
from mmmos.features.store.remote import Place, Remote, listed
from mmmos.features.store.shard import SPEC, SUFFIX, DamagedShard
from mmmos.files import key_of

DAMAGED = ".damaged"
_FOLDER = re.compile(r"-[0-9a-f]{12}$")
# Bytes of a spec.
_LIMIT = 1 << 16


@dataclass(frozen=True)
class SetSummary:
    """What a feature set in a store holds; ``begun``: long clips of which some parts are there. A megabyte is 1e6."""

    folder: str
    shards: int
    clips: int
    begun: int
    windows: int
    rejected: int
    megabytes: float

    def as_dict(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def folders(store: str | Path) -> list[Place]:
    """The folders of feature sets of a store. Raises ``UsageError`` when there is no store."""
    place = location(store)
    if not place.is_dir():
        raise UsageError(f"There is no store {str(store)!r}; mmmos features extract makes one.")
    return sorted((path for path in place.iterdir() if _FOLDER.search(path.name) and path.is_dir()), key=str)


def spec_of(folder: Place) -> tuple[dict[str, Any], str]:
    """What ``spec.json`` of a feature set says, and the fingerprint that follows from it.

    Raises ``OSError``, and ``ValueError`` where it is no spec or not that of the folder.
    """
    with (folder / SPEC).open("rb") as file:
        text = file.read(_LIMIT + 1)
    if len(text) > _LIMIT:
        raise ValueError(f"it has more than {_LIMIT} bytes")
    try:
        about = json.loads(text)
        fingerprint = key_of({key: value for key, value in about.items() if key != "name"})
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no spec: {first_line(error)}") from None
    if fingerprint[:12] != folder.name[-12:]:
        raise ValueError("it describes another feature set than its folder is named by")
    return about, fingerprint


def fingerprint_of(folder: Place) -> str:
    """The fingerprint of a feature set. Raises ``StoreError`` where ``spec.json`` does not tell."""
    try:
        return spec_of(folder)[1]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{folder / SPEC}: {reason}. The next extraction into this set writes it again.") from None


def indices(store: str | Path) -> Iterator[Index]:
    """The index of each feature set of a store. Raises ``UsageError`` when there is none, ``StoreError``."""
    return (Index(folder, fingerprint_of(folder)) for folder in folders(store))


def summaries(store: str | Path) -> list[SetSummary]:
    """One summary for each feature set of a store; raises as ``indices``."""
    found = []
    for index in indices(store):
        table = index.table
        windows = int(table.rows[np.repeat(table.done, table.end - table.begin)].sum())
        done = int(table.done.sum())
        rejected = int((~index.done(list(index.rejected))).sum())
        size = sum(contents.size for contents in index.shards) / 1e6
        counts = done, len(table.done) - done, windows, rejected
        found.append(SetSummary(index.folder.name, len(index.shards), *counts, size))
    return found


def rejections(store: str | Path) -> pd.DataFrame:
    """Every clip that a store has rejected: feature set, reason, detail, name of the file it was found in, key."""
    rows = []
    for index in indices(store):
        keys = list(index.rejected)
        for key, done in zip(keys, index.done(keys).tolist(), strict=True):
            if not done:
                rows.append((index.folder.name, *index.rejected[key], key))
    return pd.DataFrame(rows, columns=["feature_set", "reason", "detail", "name", "key"], dtype=object)


def verify(store: str | Path, *, full: bool = False) -> list[str]:
    """A sentence for everything in a store that is damaged, set aside or in the wrong folder; empty when all is well.

    Headers, indices and lengths are checked; with ``full`` every byte. Raises ``UsageError`` when there is no store.
    """
    problems = []
    for folder in folders(store):
        try:
            fingerprint = fingerprint_of(folder)
        except StoreError as error:
            problems.append(str(error))
            fingerprint = ""
        problems += [f"{path} was set aside as damaged. Delete it." for path in listed(folder, f"*{DAMAGED}")]
        paths = listed(folder, f"*{SUFFIX}")
        for path in progress.track(paths, len(paths), f"verifying {folder.name}"):
            try:
                _check(path, folder.name, fingerprint, full)
            except StoreError as error:
                problems.append(str(error))
            except FileNotFoundError:
                # A compaction has deleted it meanwhile.
                continue
            except OSError as error:
                problems.append(f"{path} cannot be read: {error.strerror or error}.")
    return problems


def _check(path: Place, folder: str, fingerprint: str, full: bool) -> None:
    contents = open_shard(path)
    if not contents.fingerprint.startswith(folder[-12:]) or (fingerprint and contents.fingerprint != fingerprint):
        raise StoreError(f"{path} belongs to another feature set ({contents.fingerprint[:12]}).")
    if full and isinstance(path, Remote):
        path.forget()
    if full and (damaged := damaged_entries(contents)):
        raise DamagedShard(
            f"{path} is damaged: the rows of {len(damaged)} of its {len(contents.keys)} clips are not what was written."
            " mmmos features compact drops them, and the next extraction computes them again."
        )


def compact_all(store: str | Path) -> list[Compacted]:
    """Compact each feature set of a store. Raises ``UsageError`` when there is none, ``StoreError``, ``SetupError``."""
    return [compact(folder, fingerprint_of(folder)) for folder in folders(store)]
