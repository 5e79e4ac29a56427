"""The pool: predictions of all runs on named sets, and the truth of those sets that may be looked at.

Selectors and statistics read a pool, never models. The evaluation set has predictions here and never truth.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import metrics
from mmmos.ensembles.recipe import METRICS, SEALED
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import UnknownName, UsageError


@dataclass(frozen=True)
class Pool:
    """Runs and what they predict.

    ``specs``, ``keys``: one for each run. By set name: ``ids`` (clips,), ``scores`` (runs, clips, axes) float32,
    ``truth`` (clips, axes) float64 with NaN where unknown, ``systems`` (clips,) or None. The set "oof" holds the
    training clips, each predicted by heads that did not see it.
    """

    name: str
    folder: Path
    data: str
    axes: tuple[str, ...]
    specs: tuple[HeadSpec, ...]
    keys: tuple[str, ...]
    ids: dict[str, tuple[str, ...]]
    scores: dict[str, NDArray[np.float32]]
    truth: dict[str, NDArray[np.float64]]
    systems: dict[str, NDArray[np.object_] | None]

    def __len__(self) -> int:
        return len(self.keys)

    def labelled(self) -> list[str]:
        """Names of the sets with truth, in their order."""
        return list(self.truth)

    def mean(self, name: str, members: NDArray[np.int64], weights: NDArray[np.float64]) -> pd.DataFrame:
        """Weighted mean (clips, axes) of some runs' scores on a set; ``weights`` (members, axes) sum to 1 per axis."""
        scores = np.einsum("rca,ra->ca", self.scores[name][members].astype(np.float64), weights)
        return pd.DataFrame(scores, index=pd.Index(self.ids[name], name="id"), columns=list(self.axes))

    def only(self, members: list[int]) -> "Pool":
        """The pool of some runs."""
        scores = {name: array[members] for name, array in self.scores.items()}
        keys, specs = tuple(self.keys[m] for m in members), tuple(self.specs[m] for m in members)
        return replace(self, keys=keys, specs=specs, scores=scores)

    def measure(self, name: str, metric: str = "utt_SRCC") -> NDArray[np.float64]:
        """Quality (runs, axes) of every run on a labelled set, higher is better (an MSE is negated).

        NaN where undefined: on an axis without truth, and a correlation of constant values; −∞ for a run whose
        predictions are not finite.
        Raises ``UnknownName`` for a set without truth or an unknown metric, ``UsageError`` for the evaluation set.
        """
        if name in SEALED:
            raise UsageError(f"The set {name!r} is sealed: nothing is selected on it. Use {_words(self.labelled())}.")
        if name not in self.truth:
            raise UnknownName("labelled set", name, self.labelled())
        if metric not in METRICS:
            raise UnknownName("metric", metric, METRICS)
        level, short = metric.split("_")
        function, sign = metrics.METRICS[short], -1 if short == "MSE" else 1
        scores, truth = self.scores[name].astype(np.float64), self.truth[name]
        if level == "sys":
            scores, truth = self._by_system(name, scores), self._by_system(name, truth[None])[0]
        result = np.full((len(self), len(self.axes)), np.nan)
        for column in range(len(self.axes)):
            known = np.isfinite(truth[:, column])
            if known.any():
                pairs = ((truth[known, column], run[known, column]) for run in scores)
                result[:, column] = [sign * function(y, p) if np.isfinite(p).all() else -np.inf for y, p in pairs]
        return result

    def _by_system(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means over the clips of each system: (…, clips, axes) to (…, systems, axes)."""
        systems = self.systems[name]
        if systems is None:
            raise UsageError(f"The clips of {name!r} have no system; use a metric that begins with utt_.")
        names = sorted(set(systems))
        return np.stack([values[:, systems == system].mean(axis=1) for system in names], axis=1)


def _words(names: list[str]) -> str:
    return " or ".join(names) or "a labelled set"
