"""The pool: predictions of all runs on named sets, and the truth of those sets that may be looked at.

Selectors and statistics read a pool, never models. The evaluation set has predictions here and never truth.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.ensembles.recipe import METRICS, SEALED
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import UnknownName, UsageError
from mmmos.statistics import bootstrap_many, measure, sampling


@dataclass(frozen=True)
class Pool:
    """Runs and what they predict.

    ``specs``, ``keys``: one for each run. By set name: ``ids`` (clips,), ``scores`` (runs, clips, axes) float32,
    ``truth`` (clips, axes) float64 with NaN where unknown, ``systems`` (clips,) or None, ``domains`` (clips,), "" where
    unknown. The set "oof" holds the training clips, each predicted by heads that did not see it.
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
    domains: dict[str, NDArray[np.object_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def labelled(self) -> list[str]:
        """Names of the sets with truth, in their order."""
        return list(self.truth)

    def index(self, name: str) -> pd.Index:
        """The ids of a set's clips."""
        return pd.Index(self.ids[name], name="id", dtype=object)

    def mean(self, name: str, members: NDArray[np.int64], weights: NDArray[np.float64]) -> pd.DataFrame:
        """Weighted mean (clips, axes) of some runs' scores on a set; ``weights`` (members, axes) sum to 1 per axis."""
        scores = np.einsum("rca,ra->ca", self.scores[name][members].astype(np.float64), weights)
        return pd.DataFrame(scores, index=self.index(name), columns=list(self.axes))

    def only(self, members: list[int]) -> "Pool":
        """The pool of some runs."""
        scores = {name: array[members] for name, array in self.scores.items()}
        keys, specs = tuple(self.keys[m] for m in members), tuple(self.specs[m] for m in members)
        return replace(self, keys=keys, specs=specs, scores=scores)

    def resampled(self, draws: Mapping[str, NDArray[np.int64]]) -> "Pool":
        """The pool with the clips of some sets replaced by those at the positions given, repeats included."""
        ids = {name: tuple(self.ids[name][clip] for clip in rows) for name, rows in draws.items()}
        scores = {name: self.scores[name][:, rows] for name, rows in draws.items()}
        truth = {name: self.truth[name][rows] for name, rows in draws.items() if name in self.truth}
        known = {name: self.systems[name] for name in draws}
        systems = {name: None if each is None else each[draws[name]] for name, each in known.items()}
        return replace(
            self,
            ids=self.ids | ids,
            scores=self.scores | scores,
            truth=self.truth | truth,
            systems=self.systems | systems,
            domains=self.domains
            | {name: self.domains[name][rows] for name, rows in draws.items() if name in self.domains},
        )

    def measure(self, name: str, metric: str = "utt_SRCC") -> NDArray[np.float64]:
        """Quality (runs, axes) of every run on a labelled set, higher is better (an MSE is negated).

        NaN where undefined: on an axis without truth, and a correlation of constant values; −∞ for a run whose
        predictions are not finite. At system level, means over each system's clips with truth are compared.
        Raises ``UnknownName`` for a set without truth or an unknown metric, ``UsageError`` for the evaluation set.
        """
        short = metric.rsplit("_", maxsplit=1)[-1]
        result = np.full((len(self), len(self.axes)), np.nan)
        for axis, predictions, truth in self.pairs(name, metric):
            finite = np.isfinite(predictions).all(axis=1)
            result[~finite, axis] = -np.inf
            if finite.any():
                measured = measure(short, predictions[finite], truth)
                result[finite, axis] = -measured if short == "MSE" else measured
        return result

    def confidence(self, name: str, resamples: int = 200) -> NDArray[np.float64]:
        """95 % interval (runs, 2) of each run's utt_SRCC on a labelled set, mean over the axes with truth, by BCa.

        Systems are drawn with all their clips where they are known. NaN for a run whose predictions are not finite,
        and where it is undefined. Raises as ``measure``.
        """
        samples = sampling(len(self.ids[name]), self.systems[name], method="bca", resamples=resamples)
        finite = np.isfinite(self.scores[name]).all(axis=(1, 2))
        found, axes = np.zeros((int(finite.sum()), len(samples.counts))), 0
        for axis, predictions, truth in self.pairs(name):
            known = np.isfinite(self.truth[name][:, axis])
            found += bootstrap_many("SRCC", predictions[finite], truth, samples.counts[:, known])
            axes += 1
        ends = np.full((len(self), 2), np.nan)
        if axes:
            ends[finite] = np.reshape([samples.interval(values / axes, "SRCC") for values in found], (-1, 2))
        return ends

    def truths(self, name: str, metric: str = "utt_SRCC") -> dict[int, NDArray[np.float64]]:
        """Truth of a labelled set by axis, of axes that have any: (clips,) or for sys_ metrics (systems,).

        Clips without truth on an axis are left out. Raises as ``measure``.
        """
        if name in SEALED:
            raise UsageError(f"The set {name!r} is sealed: nothing is selected on it. Use {_words(self.labelled())}.")
        if name not in self.truth:
            raise UnknownName("labelled set", name, self.labelled())
        if metric not in METRICS:
            raise UnknownName("metric", metric, METRICS)
        return {
            axis: self._at_level(name, metric, column[known], known)
            for axis, column in enumerate(self.truth[name].T)
            if (known := np.isfinite(column)).any()
        }

    def pairs(
        self, name: str, metric: str = "utt_SRCC"
    ) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
        """What a metric compares, for each axis of ``truths``: axis, predictions (runs, n), truth (n,)."""
        for axis, truth in self.truths(name, metric).items():
            known = np.isfinite(self.truth[name][:, axis])
            yield axis, self._at_level(name, metric, self.scores[name][:, known, axis].astype(np.float64), known), truth

    def _at_level(
        self, name: str, metric: str, values: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Values (…, known clips) as they are, or for a sys_ metric means over each system's (…, systems)."""
        if not metric.startswith("sys_"):
            return values
        systems = self.systems[name]
        if systems is None:
            raise UsageError(f"The clips of {name!r} have no system; use a metric that begins with utt_.")
        return system_means(values, systems[known])


def system_means(values: NDArray[np.float64], systems: Sequence[object] | NDArray[np.object_]) -> NDArray[np.float64]:
    """Plain means over each system's clips: (…, clips) to (…, systems), in the order of their names."""
    names = np.asarray(systems, object)
    return np.stack([values[..., names == each].mean(axis=-1) for each in sorted(set(names))], axis=-1)


def _words(names: list[str]) -> str:
    return " or ".join(names) or "a labelled set"
