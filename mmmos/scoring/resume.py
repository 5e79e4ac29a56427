"""Scores that reach a file while they are made, and go on after a kill.

Rows are first lines of a *journal*: the file itself, or ``….partial.jsonl`` where it has another format and is made at
the end. A row is taken over when it is of the same input (id, path, start, end, domain), holds the next time too (no
reason of ``audio.TRANSIENT``), and the audio file has not changed since the run began that made it.
"""

import json
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmos import progress
from mmmos.audio import TRANSIENT
from mmmos.errors import UsageError
from mmmos.files import sync_folder, write_atomic
from mmmos.scoring import tables
from mmmos.scoring.journal import (
    About,
    Settings,
    beside,
    changed,
    checked_lines,
    difference,
    key,
    locked,
    nanoseconds,
    now,
    read_about,
    told,
    whole_lines,
    write_about,
)

if TYPE_CHECKING:
    from mmmos.scoring.inputs import Clip
    from mmmos.scoring.score import Score

# s between two moments from which on written rows survive a power cut.
SYNC = 3.0


@contextmanager
def opened(to: Path, settings: Settings, clips: Sequence["Clip"], *, overwrite: bool = False) -> Iterator["Journal"]:
    """The journal of the scores of ``clips`` in the file ``to``, which no other process may write meanwhile.

    With ``overwrite`` whatever is there is replaced, save the rows of a run of the same settings that was interrupted.
    Raises ``UsageError`` for what cannot be gone on with, ``SetupError`` for what the system refuses.
    """
    check_place(to)
    with locked(to) as lock:
        journal = Journal(to, settings, clips)
        try:
            with told(to):
                journal.begin(now(lock), overwrite)
            yield journal
        finally:
            journal.close()


def check_place(to: Path) -> None:
    """Raises ``UsageError`` where no file of scores can be."""
    if not to.parent.is_dir():
        raise UsageError(f"There is no folder {to.parent} to write {to.name} to; make it first.")
    if to.is_dir():
        raise UsageError(f"{to} is a folder; name a file in it, such as {to / 'scores.jsonl'}.")
    if to.exists() and not to.is_file():
        raise UsageError(f"{to} is not a regular file; for standard output leave --to out.")


class Journal:
    """The rows of ``clips`` in the file ``to``, in their order; made by ``opened``.

    ``missing``: the clips that must be scored. ``finished``: of a file to which nothing needs to be done what
    ``About.finished`` says, otherwise None.
    """

    def __init__(self, to: Path, settings: Settings, clips: Sequence["Clip"]) -> None:
        self.to, self.settings, self.clips = to, settings, clips
        self.path = to if settings.format == "jsonl" else beside(to, "partial.jsonl")
        self.missing: list[Clip] = []
        self.finished: dict[str, Any] | None = None
        self._keys = [key(tables.input_of(clip)) for clip in clips]
        # Rows at the beginning of the journal that stay there.
        self._kept = 0
        # Offset and length of the other rows that hold, in the file of rows from before.
        self._before: dict[bytes, tuple[int, int]] = {}
        self._descriptor, self._synced = -1, 0.0

    def begin(self, begun: str, overwrite: bool) -> None:
        """Take over what is there and open the journal, unless nothing is left to do. Raises ``UsageError``."""
        about = self._about_there(overwrite)
        if about is not None:
            self._take_over(about)
        if self.finished is not None:
            return
        pairs = zip(self.clips[self._kept :], self._keys[self._kept :], strict=True)
        self.missing = [clip for clip, its_key in pairs if its_key not in self._before]
        # Later than the rows that do not hold are gone: they are not to pass for new ones.
        self._about = About(asdict(self.settings), begun)
        write_about(self.to, self._about)
        self._descriptor = os.open(
            self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
        )
        sync_folder(self.path.parent)

    def rows(self, scores: Iterator["Score"]) -> Generator[tuple[dict[str, Any], bool]]:
        """Every row once it is in the journal, and whether it is new. ``scores``: of the ``missing`` clips in order."""
        there = whole_lines(self.path)
        for number, (clip, its_key) in enumerate(zip(self.clips, self._keys, strict=True)):
            new = number >= self._kept and its_key not in self._before
            if new:
                score = next(scores)
                assert score.id == clip.id, (score.id, clip.id)
                row = tables.row_of(score, self.settings.axes, clip.domain)
                self._write(tables.line(row))
            else:
                raw = next(there) if number < self._kept else self._from_before(its_key)
                row = json.loads(raw)
                if number >= self._kept:
                    self._write(raw)
            progress.saved(f"{number + 1} of {len(self.clips)} rows are in {self.path}.")
            yield row, new

    def finish(self, reasons: Mapping[str, int]) -> None:
        """Make the file, now that all rows are there; ``reasons``: how many rows have which."""
        with told(self.to):
            os.fsync(self._descriptor)
            if self.path != self.to:
                self._render()
            finished = {"rows": len(self.clips), "inputs": _digest(self._keys), "reasons": dict(reasons)}
            write_about(self.to, replace(self._about, finished=finished))
            beside(self.to, "before").unlink(missing_ok=True)
            # Where something may turn out otherwise the next time, the rows that hold are needed then.
            if self.path != self.to and not TRANSIENT & set(reasons):
                self.path.unlink()
        progress.saved("")

    def close(self) -> None:
        """Make durable what is written."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _about_there(self, overwrite: bool) -> About | None:
        """What is known of scores that are gone on with; None where there are none. Raises ``UsageError``."""
        files = [beside(self.to, "before"), *{self.path, self.to, beside(self.to, "partial.jsonl")}]
        if not any(path.exists() for path in files[1:]):
            files[0].unlink(missing_ok=True)
            return None
        about = read_about(self.to)
        problem = difference(about, self.settings, self.to)
        if overwrite and (about is None or problem or about.finished):
            for path in files:
                path.unlink(missing_ok=True)
            return None
        if problem:
            raise UsageError(f"{problem} Use --overwrite to replace it, or write to another file.")
        return about

    def _take_over(self, about: About) -> None:
        """Leave the rows that hold where they are in their place, and put the others beside the journal.

        At every moment each of them is in one of the two files.
        """
        begun = nanoseconds(about.begun)
        if about.finished and not self.path.exists():
            self._check_finished(about.finished, begun)
            return
        end = 0
        for raw, its_key in checked_lines(self.path, begun):
            if self._kept == len(self._keys) or its_key != self._keys[self._kept]:
                break
            self._kept, end = self._kept + 1, end + len(raw)
        size = self.path.stat().st_size if self.path.exists() else 0
        before = beside(self.to, "before")
        if self._kept == len(self._keys) and end == size:
            before.unlink(missing_ok=True)
            if about.finished and self.to.exists():
                self.finished = about.finished
                if self.path != self.to:
                    self.path.unlink()
            return
        if end < size or before.exists():
            write_atomic(before, self._others(before, begun, end))
            if end < size:
                with self.path.open("r+b") as file:
                    file.truncate(end)
                    os.fsync(file.fileno())

    def _others(self, before: Path, begun: int, start: int) -> Iterator[bytes]:
        """The rows that hold, of the journal behind an offset and of the file of rows from before, each input once."""
        place = 0
        for path, offset in ((self.path, start), (before, 0)):
            for raw, its_key in checked_lines(path, begun, offset):
                if its_key is not None and its_key not in self._before:
                    self._before[its_key] = place, len(raw)
                    place += len(raw)
                    yield raw

    def _check_finished(self, finished: Mapping[str, Any], begun: int) -> None:
        """Raises ``UsageError`` unless a file without a journal is of these inputs, and none has changed."""
        if finished.get("inputs") != _digest(self._keys):
            what = "is finished and holds the scores of other inputs"
        elif any(changed(clip.path or "") >= begun for clip in self.clips):
            what = "is finished, and audio files have changed since"
        else:
            self.finished = dict(finished)
            return
        raise UsageError(
            f"{self.to} {what}. Use --overwrite to score all again, or write to another file; JSON lines can be gone on"
            " with."
        )

    def _from_before(self, its_key: bytes) -> bytes:
        place, length = self._before[its_key]
        with beside(self.to, "before").open("rb") as file:
            file.seek(place)
            return file.read(length)

    def _write(self, raw: bytes) -> None:
        """Append a line; every few seconds, wait until the disk has it."""
        with told(self.to):
            left = memoryview(raw)
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:
                # The part of a line that a full disk still took.
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - len(raw) + len(left))
                raise
            if time.monotonic() - self._synced > SYNC:
                os.fsync(self._descriptor)
                self._synced = time.monotonic()

    def _render(self) -> None:
        """Make the file of another format from the journal."""
        rows = (json.loads(raw) for raw in whole_lines(self.path))
        axes, segments = self.settings.axes, self.settings.segments is not None
        if self.settings.format == "parquet":
            write_atomic(self.to, tables.parquet(rows, axes, segments=segments))
        else:
            write_atomic(self.to, tables.pieces(rows, self.settings.format, axes, segments=segments))


def _digest(keys: Sequence[bytes]) -> str:
    """Of inputs in their order."""
    return blake2b(b"".join(keys), digest_size=16).hexdigest()
