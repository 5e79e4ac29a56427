"""From a manifest to clips with keys: where the audio is, what its content's hash is. No audio is decoded here."""

import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmmos import audio, parallel, progress
from mmmos.errors import Rejected
from mmmos.features.store import clip_key, lists
from mmmos.features.store.hashes import Hashes, sign
from mmmos.manifest import locate

log = logging.getLogger("mmmos")

# Threads that read files; a disk or a network takes no more at once.
_READERS = 8
# s between two savings of hashes.
_EVERY = 30.0

Reason = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip: store key, audio file and its stamp, segment in s (None: to either end of the file).

    ``file`` is "" where only the embedding is there, from another machine.
    """

    key: str
    file: str
    stamp: tuple[int, int]
    start: float | None
    end: float | None


def find(clips: pd.DataFrame, store: str | Path, *, rehash: bool = False) -> tuple[dict[str, Clip], dict[str, Reason]]:
    """Clips of a manifest by id; and (reason, detail) of those without a readable file.

    Only files that the store's memory of hashes does not know are read; with ``rehash`` all are. A clip without a file
    is looked up in what the store has imported.
    """
    files = locate(clips)["file"]
    hashed, refused = _hashed(dict.fromkeys(file for file in files if isinstance(file, str)), store, rehash)
    found: dict[str, Clip] = {}
    rejected: dict[str, Reason] = {}
    shared: lists.Shared | None = None
    starts, ends = (_edges(clips, name) for name in ("start", "end"))
    for clip, path, file, *segment in zip(clips.index, clips["path"], files, starts, ends, strict=True):
        if not isinstance(file, str):
            shared = shared or lists.known(store)
            try:
                found[clip] = Clip(_imported(shared, clip, path, segment), "", (0, 0), *segment)
            except Rejected as error:
                rejected[clip] = error.reason, error.detail
        elif file in refused:
            rejected[clip] = refused[file]
        else:
            stamp, content = hashed[file]
            found[clip] = Clip(clip_key(content, *segment), file, stamp, *segment)
    if imported := sum(not clip.file for clip in found.values()):
        log.warning("%d clips have no audio here; their embeddings come from an import.", imported)
    return found, rejected


def _edges(clips: pd.DataFrame, name: str) -> list[float | None]:
    """A column of times in s, None where there is none."""
    if name not in clips:
        return [None] * len(clips)
    return [None if math.isnan(edge) else edge for edge in clips[name].astype(float).tolist()]


def _imported(shared: lists.Shared, clip: str, path: str, segment: list[float | None]) -> str:
    """The key of a clip that an import names. Raises ``Rejected``."""
    key = shared.key(clip, path, *segment)
    if key is None:
        # A folder, a pipe or a device in its place is said to be one.
        audio.checked(path)
        raise Rejected("missing", f"there is no file {path}, nor one of that name with another extension")
    return key


Stamped = tuple[tuple[int, int], str]


def _hashed(files: Iterable[str], store: str | Path, rehash: bool) -> tuple[dict[str, Stamped], dict[str, Reason]]:
    """Stamp and content hash of files; (reason, detail) of those that cannot be read."""
    memory = Hashes(store, forget=rehash)
    states, refused = _states(list(files))
    marks = {file: sign(file, status) for file, status in states.items()}
    known = dict(zip(marks, memory.look_up(list(marks.values())), strict=True))
    unknown = [file for file, content in known.items() if content is None]
    saved = time.monotonic()
    try:
        with closing(parallel.ahead(_read, unknown, threads=min(parallel.cores(), _READERS))) as reading:
            for file, result in progress.track(reading, len(unknown), "reading audio files for the first time"):
                try:
                    begun, content = next(result)
                except Rejected as error:
                    refused[file] = error.reason, error.detail
                    continue
                known[file] = content
                if audio.stamp(file) == _stamp(states[file]):
                    memory.add(marks[file], states[file], content, begun)
                if time.monotonic() - saved > _EVERY:
                    memory.save()
                    saved = time.monotonic()
    finally:
        memory.save()
    return {file: (_stamp(states[file]), content) for file, content in known.items() if content}, refused


def _read(file: str) -> Iterator[tuple[float, str]]:
    """When the reading of a file began (s since the epoch), and its content hash."""
    yield time.time(), audio.content_hash(file)


def _states(files: Sequence[str]) -> tuple[dict[str, os.stat_result], dict[str, Reason]]:
    """What the file system says of files that can be read; (reason, detail) of the others."""
    states: dict[str, os.stat_result] = {}
    refused: dict[str, Reason] = {}
    for file in progress.track(files, len(files), "looking for audio files"):
        try:
            states[file] = audio.checked(file)
        except Rejected as error:
            refused[file] = error.reason, error.detail
    return states, refused


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
