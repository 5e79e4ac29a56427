"""Scoring in many processes: a task is a block of consecutive clips, and each worker keeps the model it scores with.

Scores are the same bits as in one process, and come in the clips' order.
"""

import logging
import os
import socket
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from mmmos import parallel
from mmmos.ensembles.model import Model
from mmmos.errors import StoreError, UsageError
from mmmos.features.devices import decoders, find_device, processes
from mmmos.parallel import Workers
from mmmos.scoring.inputs import Clip
from mmmos.scoring.naming import Source
from mmmos.scoring.score import Score
from mmmos.scoring.scorer import Scorer

# Clips of a block at most, and blocks that each worker should have at least.
BLOCK, SHARE = 32, 8

log = logging.getLogger("mmmos")


@dataclass(frozen=True)
class Work:
    """What a worker is told once: where the model is, and the options of ``Scorer`` and ``Scorer.stream``.

    ``threads`` of each worker: 0 for its share of this machine's cores; on a cluster for 1 on a CPU, and for those that
    keep a GPU busy.
    """

    source: Source
    device: str = "auto"
    threads: int = 0
    segments: float | None = None
    hop: float | None = None
    strict: bool = False


@dataclass(frozen=True)
class Block:
    """Clips of one task, of files by absolute path."""

    clips: tuple[Clip, ...]

    @property
    def label(self) -> str:
        """For logs and sentences."""
        names = [Path(clip.path or "").name for clip in self.clips]
        return f"{len(names)} clips, first {names[0]}" if len(names) > 1 else "".join(names) or "no clips"


def crew(workers: Workers, device: str) -> Workers | None:
    """The workers that clips are sent to: those asked for, and by default one for each of several GPUs of this machine.

    None where this process scores by itself, with threads.
    """
    if not workers.is_local:
        return workers
    jobs = workers.jobs or processes(device)
    return replace(workers, jobs=jobs) if jobs > 1 else None


def scores(clips: Sequence[Clip], work: Work, workers: Workers) -> Generator[Score]:
    """The score of each clip in the clips' order, from workers that ``crew`` gave. Close it when you leave it early.

    A clip that ends three processes by itself has the reason ``worker_killed``.
    Raises ``UsageError`` for a clip that is not a file's by absolute path, ``StoreError`` where a worker finds another
    model, and what loading the model raises.
    """
    for clip in clips:
        if clip.path is None or not os.path.isabs(clip.path):  # noqa: PTH117
            raise UsageError(f"Other processes score files named by absolute paths, and the clip {clip.id!r} is none.")
    if workers.is_local:
        work = replace(work, threads=work.threads or max(1, parallel.cores() // workers.jobs))
    blocks = _blocks(clips, workers)
    with closing(_mapped(blocks, work, workers)) as results:
        for block, found in zip(blocks, results, strict=True):
            if found is not None:
                yield from found
            elif len(block.clips) > 1:
                yield from _one_by_one(block, work, workers)
            else:
                yield _killed(block.clips[0], work)


def tell_licences(model: Model) -> None:
    """Say which weights of a bundle may not be used commercially, where it is other processes that load them."""
    from mmmos.ensembles.bundle import Bundle

    for each in model.about.encoders if isinstance(model, Bundle) else ():
        if not each.commercial:
            log.warning("The weights of %s may not be used commercially (%s).", each.encoder, each.facts.licence)


def _blocks(clips: Sequence[Clip], workers: Workers) -> list[Block]:
    """Blocks so small that every worker has some, and that rows come steadily."""
    size = max(1, min(BLOCK, len(clips) // (SHARE * (workers.jobs or parallel.cores()))))
    return [Block(tuple(clips[first : first + size])) for first in range(0, len(clips), size)]


def _one_by_one(block: Block, work: Work, workers: Workers) -> Generator[Score]:
    """The scores of a block that ended processes, each clip a task of its own.

    They follow a task without clips: what loads the model and lives shows that it is a clip that ends the others.
    """
    if workers.is_local:
        workers = replace(workers, jobs=2)
    tasks = [Block(()), *(Block((clip,)) for clip in block.clips)]
    with closing(_mapped(tasks, work, workers)) as results:
        next(results)
        for clip, found in zip(block.clips, results, strict=True):
            yield from (_killed(clip, work),) if found is None else found


def _mapped(blocks: Sequence[Block], work: Work, workers: Workers) -> Generator[tuple[Score, ...] | None]:
    """The scores of each block; None for one that ended its processes."""
    function = partial(score_block, work)
    return parallel.map(function, blocks, jobs=workers, device=work.device, lost=lambda _: None, ordered=True)


def _killed(clip: Clip, work: Work) -> Score:
    segments = None if work.segments is None else ()
    detail = "the process that scored it was ended three times"
    return Score(clip.id, clip.path, clip.start, clip.end, reason="worker_killed", detail=detail, segments=segments)


def score_block(work: Work, block: Block) -> tuple[Score, ...]:
    """The scores of a block's clips, in a worker. Raises ``StoreError`` where it finds another model than is meant."""
    device = find_device(work.device)
    scorer = _scorer(work.source, device, work.threads or (1 if device == "cpu" else decoders()))
    return tuple(scorer.stream(block.clips, segments=work.segments, hop=work.hop, strict=work.strict))


@lru_cache(maxsize=1)
def _scorer(source: Source, device: str, threads: int) -> Scorer:
    model = source.model()
    if model.digest != source.digest:
        raise StoreError(
            f"On {socket.gethostname()} {source.bundle} is another model than where the command was given: its digest"
            f" is {model.digest[:16]} and not {source.digest[:16]}. Put the same files there, or name the model by a"
            " path that all machines see."
        )
    return Scorer(model, device=device, threads=threads)
