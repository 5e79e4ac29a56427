"""``Scorer``: a model with its encoders in memory, audio in, scores out."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from mmmos import parallel
from mmmos.ensembles.model import Model
from mmmos.errors import UsageError
from mmmos.features.encoders import find_device
from mmmos.features.threads import Pool, one_thread
from mmmos.scoring import inputs
from mmmos.scoring.inputs import Clip
from mmmos.scoring.score import Score, columns
from mmmos.scoring.segments import Grid, grid
from mmmos.scoring.stream import Engine, Run

# Columns of a table of scores that hold no numbers.
TEXTS = ("path", "flags", "reason", "detail")


class Scorer:
    """Scores of audio by one model. Encoders are loaded once; nothing is stored.

    On a CPU a clip's scores are the same bits whatever other clips, their order and the number of threads. Several
    threads may call one scorer at once; while they do, torch computes with one thread of its own in each. A scorer
    is neither pickled nor used in a fork: each process has its own.
    """

    def __init__(self, model: Model, *, device: str = "auto", threads: int = 0) -> None:
        """Load the encoders on a device (auto, cpu, cuda, cuda:1, mps); ``threads``: as for ``mmmos.load``."""
        if threads < 0:
            raise UsageError(f"threads must be 0 (one for each core) or more; got {threads}.")
        self.model, self.device = model, find_device(device)
        count = threads or parallel.cores()
        on_cpu = self.device == "cpu"
        workers = ThreadPoolExecutor(count if on_cpu else 1, thread_name_prefix="mmmos-score")
        with one_thread():
            loaded = tuple(workers.submit(model.encoders, self.device).result())
        predicting = workers if on_cpu else ThreadPoolExecutor(count, thread_name_prefix="mmmos-predict")
        pool = Pool(workers, count if on_cpu else 1)
        self._engine = Engine(model, loaded, self.device, pool, predicting, 1 if on_cpu else count)

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of the scores."""
        return self.model.axes

    def __call__(self, audio: Any, rate: int | None = None) -> Any:
        """Scores of a path, samples with their ``rate`` (Hz), a binary file object, …: a pandas ``Series``; of a list
        or a manifest: a ``DataFrame`` by id. Keys and columns are those of ``Score.row``.

        Samples are (samples,) or (samples, channels), of a tensor (channels, samples). Audio that cannot be used has a
        reason in place of scores. Raises ``UsageError`` for what is no audio by its type or shape.
        """
        given = inputs.read(audio, rate)
        rows = [score.row(self.axes) for score in self.stream(given.clips)]
        if given.one:
            return pd.Series(rows[0], dtype=object, name=rows[0]["id"])
        ids, *names = columns(self.axes)
        index = pd.Index([row[ids] for row in rows], dtype=object, name=ids)
        kinds = {name: object if name in TEXTS else float for name in names}
        return pd.DataFrame(
            {name: pd.Series([row[name] for row in rows], index, dtype=kind) for name, kind in kinds.items()}
        )

    def stream(
        self, clips: Iterable[Clip], *, segments: float | None = None, hop: float | None = None, strict: bool = False
    ) -> Iterator[Score]:
        """The score of each clip in the clips' order, lazily; a clip that cannot be used has a reason.

        ``segments``: also score segments of so many s, one every ``hop`` s (by default they follow each other).
        ``strict``: refuse audio that is not what its container says. Clips are asked for a little ahead. Close the
        iterator when you leave it early. Raises ``UsageError`` for segments that cannot be cut.
        """
        return self._stream(clips, grid(segments, hop), strict)

    def _stream(self, clips: Iterable[Clip], segments: Grid | None, strict: bool) -> Iterator[Score]:
        with one_thread():
            yield from Run(self._engine, segments, strict).scores(clips)
