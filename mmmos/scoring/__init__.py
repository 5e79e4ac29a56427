"""Scoring: audio in, scores out, nothing stored."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmmos.ensembles.model import Model
    from mmmos.scoring.scorer import Scorer

__all__ = ["load"]


def load(
    bundle: "str | Path | Model", *, device: str = "auto", weights: Mapping[str, str | Path] = {}, threads: int = 0
) -> "Scorer":
    """A scorer: ``scorer("a.wav")``, ``scorer(samples, rate)``, ``scorer(["a.wav", "b.mp3"])``.

    ``bundle``: a name (of ``submissions/NAME/bundle`` in the current folder), a folder or a zip, an address
    (``hf://owner/name@revision``), or ``audiobox``, its checkpoint.pt or folder.
    ``device``: auto, cpu, cuda, cuda:1, mps. ``weights``: files or folders of encoders' weights by name of encoder or
    feature set. ``threads`` encode on a CPU, 0 for one on each core.
    Of several clips the scorer gives a table by id: scores 0 to 10 and their spread for each axis, start, end and
    seconds, flags, and a reason where a clip cannot be scored.
    Raises ``UnknownName`` for a bundle that is not there, ``SetupError`` where weights or the device are not to be had.

    >>> scorer = mmmos.load("demo")
    >>> scorer(list(evaluation["path"][:2]))[["PQ", "PC", "CE", "CU"]].shape
    (2, 4)
    """
    from mmmos.scoring.naming import find
    from mmmos.scoring.scorer import Scorer

    return Scorer(find(bundle, weights=weights), device=device, threads=threads)
