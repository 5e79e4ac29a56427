"""``mmmos score``: what a bundle, or Audiobox, says of any audio."""

import os
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from mmmos.cli.inputs import paths_by_name, refuse_options
from mmmos.cli.options import Address, Backend, Device, Input, Logs, Root, Shard, Strict, Weights
from mmmos.cli.output import agreeing, counted, say, say_unusable, shown_path
from mmmos.cli.workers import workers_of
from mmmos.errors import UsageError
from mmmos.parallel import shard_of

if TYPE_CHECKING:
    from mmmos.ensembles.model import Model
    from mmmos.parallel import Workers
    from mmmos.scoring.distributed import Work
    from mmmos.scoring.inputs import Clip
    from mmmos.scoring.journal import Settings
    from mmmos.scoring.score import Score
    from mmmos.scoring.tables import Row


def score(
    *inputs: Annotated[
        Input, Parameter(help="Folders, globs, audio files, CSV, JSONL, wav.scp, id lists; - for a list on stdin.")
    ],
    bundle: Annotated[str, Parameter(name=("--bundle", "-b"))],
    to: Path | None = None,
    format: Literal["jsonl", "aes", "csv", "parquet"] | None = None,
    segments: float | None = None,
    hop: float | None = None,
    weights: Weights = None,
    root: Root = None,
    device: Device = "auto",
    threads: int = 0,
    jobs: int = 0,
    backend: Backend = "local",
    address: Address = None,
    shard: Shard = None,
    logs: Logs = None,
    strict: Strict = False,
    overwrite: bool = False,
) -> int:
    """Score any audio: one row for each clip, in the order of the inputs.

    With --to, the same command goes on where it was interrupted. Example: mmmos score clips/ --bundle first

    Parameters
    ----------
    bundle
        A name, folder, zip or hf://owner/name; or audiobox, or a checkpoint.pt of it.
    to
        A file for the rows; by default they go to standard output.
    format
        jsonl, aes (the lines of audio-aes), csv or parquet; by default as the file's suffix says, otherwise jsonl.
    segments
        Also score segments of so many seconds.
    hop
        Seconds from one segment's begin to the next; by default their length.
    threads
        Threads that encode on a CPU in each process; 0: the cores divided by the processes.
    jobs
        Processes that score; 0: this one, and with several GPUs one for each.
    overwrite
        Replace the file, also where other settings or another program made it.
    """
    refuse_options(inputs, score)
    if not inputs:
        raise UsageError("Name what to score: a folder, files, or a list; - for a list on standard input.")
    workers, part = workers_of(backend, address, jobs, logs), shard_of(shard)

    from mmmos.manifest import read_manifest
    from mmmos.scoring import naming, resume, tables
    from mmmos.scoring.distributed import Work
    from mmmos.scoring.inputs import read
    from mmmos.scoring.journal import Settings
    from mmmos.scoring.segments import grid

    form, cut = tables.format_of(format, to), grid(segments, hop)
    if cut and form == "aes":
        raise UsageError("aes has one row for each clip and none for segments; use jsonl, csv or parquet.")
    if to is not None:
        resume.check_place(to)
    elif overwrite:
        raise UsageError("--overwrite replaces the file that --to names; name it, or leave --overwrite out.")
    listed = list(read(read_manifest(list(inputs), root=root, labels=False, repeated="number")).clips)
    clips = part.block(listed)
    if part.count > 1:
        say(f"Shard {part}: {len(clips)} of {len(listed)} clips.")
    given = paths_by_name(weights)
    model = naming.find(bundle, weights=given)
    length, every = (cut.length, cut.hop) if cut else (None, None)
    name = str(part) if part.count > 1 else None
    settings = Settings(model.name, model.digest, tuple(model.axes), form, length, every, strict, name)
    work = Work(naming.source(bundle, given, model), device, threads, length, every, strict)
    run = _Run(model, settings, work, workers)
    return run.to_stdout(clips) if to is None else run.to_file(clips, to, overwrite)


class _Run:
    """One call of the command: the model, and what is counted for the summary."""

    def __init__(self, model: "Model", settings: "Settings", work: "Work", workers: "Workers") -> None:
        self.model, self.settings, self.work, self.workers = model, settings, work, workers
        self.reasons: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.unusable: list[tuple[str, str, str]] = []
        self.rows = self.new = self.flagged = 0
        self.seconds = 0.0
        self.begun = time.monotonic()

    def to_stdout(self, clips: "list[Clip]") -> int:
        """Every row is flushed when it is there."""
        from mmmos import progress
        from mmmos.scoring import tables

        progress.saved("Without --to FILE, an interrupted run begins anew.", goes_on=False)
        with closing(self._scores(clips)) as scores:
            pairs = zip(clips, scores, strict=True)
            rows = (tables.row_of(score, self.settings.axes, clip.domain) for clip, score in pairs)
            # In a terminal the rows themselves show how far it is.
            shown = rows if sys.stdout.isatty() else progress.track(rows, len(clips), "score")
            with closing(shown):
                counted = (self._count(row, new=True) for row in shown)
                for piece in tables.pieces(counted, self.settings.format, self.settings.axes, segments=self._segments):
                    _put(piece)
        progress.saved("")
        return self._say("")

    def to_file(self, clips: "list[Clip]", to: Path, overwrite: bool) -> int:
        from mmmos import progress
        from mmmos.scoring import resume

        with resume.opened(to, self.settings, clips, overwrite=overwrite) as journal:
            if journal.finished is not None:
                return _say_finished(journal.finished, to)
            with (
                closing(self._scores(journal.missing)) as scores,
                closing(journal.rows(scores)) as rows,
                closing(progress.track(rows, len(clips), "score")) as shown,
            ):
                for row, new in shown:
                    self._count(row, new=new)
            journal.finish(self.reasons)
        return self._say(shown_path(to))

    @property
    def _segments(self) -> bool:
        return self.settings.segments is not None

    def _scores(self, clips: "list[Clip]") -> "Generator[Score]":
        """The scores of clips; encoders are loaded for the first one."""
        from mmmos.scoring import distributed
        from mmmos.scoring.scorer import Scorer

        if not clips:
            return
        work, crew = self.work, distributed.crew(self.workers, self.work.device)
        if crew is None:
            scorer = Scorer(self.model, device=work.device, threads=work.threads)
            self.begun = time.monotonic()
            yield from scorer.stream(clips, segments=work.segments, hop=work.hop, strict=work.strict)
        else:
            distributed.tell_licences(self.model)
            with closing(distributed.scores(clips, work, crew)) as scores:
                yield from scores

    def _count(self, row: "Row", *, new: bool) -> "Row":
        self.rows += 1
        self.new += new
        if row["reason"] is not None:
            self.reasons[row["reason"]] += 1
            self.unusable.append((row["id"], row["reason"], row["detail"]))
        else:
            self.flags.update(row["flags"])
            self.flagged += bool(row["flags"])
            self.seconds += (row["seconds"] or 0.0) * new
        return row

    def _say(self, place: str) -> int:
        """The summary, on stderr; the exit code."""
        import pandas as pd

        took = time.monotonic() - self.begun
        scored = self.rows - len(self.unusable)
        where = f": {place}" if place else ""
        before = f", {self.rows - self.new} rows were there" if self.new < self.rows else ""
        speed = f", {self.seconds / took:.0f} s of audio a second" if self.seconds else ""
        say(f"{scored} of {self.rows} clips are scored by {self.settings.bundle}{before}{speed}{where}")
        if self.flagged:
            listed = ", ".join(f"{count} {flag}" for flag, count in self.flags.most_common())
            say(f"{self.flagged} of them are flagged: {listed}.")
        unusable = pd.DataFrame(self.unusable, columns=["id", "reason", "detail"], dtype=object)
        return say_unusable(unusable.set_index("id"))


def _put(piece: bytes) -> None:
    """Write to standard output at once. Raises ``SetupError`` where it takes no more, as a full disk does."""
    from mmmos.errors import SetupError

    try:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is still held back would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SetupError(f"Standard output cannot be written: {error.strerror}.") from error


def _say_finished(finished: dict[str, Any], to: Path) -> int:
    """What a file holds to which nothing needs to be done; the exit code."""
    reasons = finished["reasons"]
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    count = sum(reasons.values())
    without = f"; {counted(count, 'clip')} {agreeing(count, 'were')} rejected ({listed})" if reasons else ""
    say(f"{shown_path(to)} is complete already: {counted(finished['rows'], 'row')}{without}.")
    return 3 if reasons else 0
