"""A head under test, and problems that it can learn: pooled vectors or frames that hold the scores, and noise."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mmmos.axes import AXES
from mmmos.ensembles.heads.frames import frames_of
from mmmos.ensembles.heads.inputs import Pooled
from mmmos.ensembles.heads.neural import Neural
from mmmos.ensembles.runs import FoldHead, Inputs
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.engine import trainer
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.features import pooling
from mmmos.features.table import FeatureArray, Features
from mmmos.files import key_of

FITTED, HELD, NEW = np.arange(64), np.arange(64, 80), np.arange(80, 112)
CLIPS = 112
# Layers and dimension of each feature set; the first set holds the first two scores, the second the other two.
SHAPES = {"a": (2, 4), "b": (1, 3)}

Array = NDArray[np.float32]


class Subject:
    """The head's class under test, its options, and what it learns from."""

    def __init__(self, head_class: type[Any], options: Mapping[str, Any]) -> None:
        self.head_class, self.options = head_class, dict(options)
        self.features, self.targets = _problem()
        self._trained: dict[str, FoldHead] = {}
        self._inputs: dict[tuple[str, ...], Inputs] = {}

    @property
    def is_neural(self) -> bool:
        """True for a head that the engine trains."""
        return not hasattr(self.head_class, "fit")

    @property
    def reads_frames(self) -> bool:
        """True for a head that reads frames."""
        return getattr(self.head_class, "reads", "pooled") == "frames"

    def make(self, *, few: bool = False, **given: Any) -> Any:
        """An untrained head; a neural one with ``few`` is trained for two epochs."""
        options = self.options | ({"epochs": 2} if few and self.is_neural else {})
        return self.head_class(**{"options": options, "weighted": False, "loss": "mse", "seed": 0} | given)

    def inputs(self, sets: Sequence[str] = ("a", "b")) -> Inputs:
        """What it reads of all clips."""
        key = tuple(sets)
        if key not in self._inputs:
            spec = HeadSpec(head="", features=key, normalise="raw", options=self.options)
            pooled = Pooled([self.features[name].raw for name in key])
            self._inputs[key] = frames_of(spec, self.features) if self.reads_frames else pooled
        return self._inputs[key]

    def trained(self, *, few: bool = True, axes: int = 4, sets: Sequence[str] = ("a", "b"), **given: Any) -> FoldHead:
        """A head that has learned some axes from some feature sets; the same one where it was asked for before."""
        key = f"{few} {axes} {sets} {sorted(given.items())}"
        if key not in self._trained:
            self._trained[key] = self.train([self.make(few=few, **given)], axes, sets)[0]
        return self._trained[key]

    def train(self, heads: Sequence[Any], axes: int = 4, sets: Sequence[str] = ("a", "b")) -> list[FoldHead]:
        """Heads that learn together, as a run's are."""
        inputs, targets = self.inputs(sets), self.targets[:, :axes]
        standardise = inputs.standardiser("standard", FITTED)
        if not self.is_neural:
            for head in heads:
                inside, outside = (standardise(inputs.at(rows).blocks) for rows in (FITTED, HELD))
                head.fit(inside, targets[FITTED].astype(np.float32), (outside, targets[HELD].astype(np.float32)))
            return [FoldHead(standardise, head, np.zeros(axes)) for head in heads]
        members, sides = [], []
        for head in heads:
            head.constants = _tensors(head.criterion().of_training(targets[FITTED], _scale(targets[FITTED])))
            batch = min(head.options.batch, len(FITTED))
            members.append(Member(head, standardise, FITTED, HELD, len(FITTED) // batch, batch, (head.seed, 0)))
            sides.append(self._side(head, inputs))
        feed = trainer.feed_of(inputs, members, "cpu")
        trainer.train(members, feed, inputs.shapes, targets, sides)
        return [FoldHead(standardise, head, np.zeros(axes)) for head in heads]

    def _side(self, head: Any, inputs: Inputs) -> dict[str, NDArray[Any]]:
        if type(head).side is Neural.side:
            return {}
        clips = [f"clip{number}" for number in range(CLIPS)]
        about = pd.DataFrame({"set": "train"}, index=clips)
        for number, column in enumerate(("domain", "system", "group")):
            about[column] = [f"{column}{clip % (number + 2)}" for clip in range(CLIPS)]
        for axis in AXES:
            about[f"{axis}_variance"] = 0.5
        blocks = inputs.clip_means() if isinstance(inputs, Pooled) else []
        found: dict[str, NDArray[Any]] = head.side(about, blocks)
        return found

    def predict(self, head: FoldHead, clips: NDArray[np.int64] = NEW, sets: Sequence[str] = ("a", "b")) -> Array:
        """What a trained head says of some clips."""
        return head.predict(self.inputs(sets).at(clips))

    def read(self, sets: Sequence[str] = ("a", "b")) -> Iterator[NDArray[np.float32]]:
        """The arrays that it is given."""
        for name in sets:
            yield self.features[name].raw
            source = self.features[name].source
            assert isinstance(source, _InMemory)
            for key in source.kept:
                rows = source.frames(key)
                yield from (rows.unit, rows.norm)


def _scale(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([scores.mean(0), scores.std(0)])


def _tensors(arrays: Mapping[str, NDArray[np.float64]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in arrays.items()}


@dataclass
class _Rows:
    """Rows as a store gives them."""

    unit: Array
    norm: Array
    span: NDArray[np.float64]
    clip: NDArray[np.int64]
    windows: NDArray[np.int64]


@dataclass
class _InMemory:
    """Frames (frames, layers, dim) of each clip, by key; a clip is one window of 0.1 s for each frame."""

    kept: dict[str, Array]
    rows: dict[str, _Rows] = field(default_factory=dict)

    def gather(self, keys: Sequence[str]) -> _Rows:
        """The windows of clips."""
        unit, norm = pooling.split(np.stack([self.kept[key].mean(0) for key in keys]), "float32")
        span = np.array([[0.0, 0.1 * len(self.kept[key])] for key in keys])
        return _Rows(unit, norm, span, np.arange(len(keys)), np.zeros(0, np.int64))

    def frames(self, key: str) -> _Rows:
        """The frames of a clip."""
        if key not in self.rows:
            unit, norm = pooling.split(self.kept[key], "float32")
            self.rows[key] = _Rows(unit, norm, np.zeros((0, 2)), np.zeros(0, np.int64), np.array([0, len(unit)]))
        return self.rows[key]


def _problem() -> tuple[Features, NDArray[np.float64]]:
    """Clips under two feature sets, and their standardised scores (clips, axes)."""
    rng = np.random.default_rng(20_250_601)
    targets = rng.normal(size=(CLIPS, 4))
    targets = (targets - targets[FITTED].mean(0)) / targets[FITTED].std(0)
    keys = tuple(f"clip{number}" for number in range(CLIPS))
    lengths, arrays = rng.integers(3, 7, CLIPS), {}
    for (name, (layers, dim)), scores in zip(SHAPES.items(), (targets[:, :2], targets[:, 2:]), strict=True):
        mixing = np.stack([np.linalg.qr(rng.normal(size=(dim, 2)))[0].T for _ in range(layers)])
        means = np.einsum("cs,lsd->cld", scores, mixing) + 0.1 * rng.normal(size=(CLIPS, layers, dim))
        frames = {
            key: (mean + 0.3 * rng.normal(size=(length, layers, dim))).astype(np.float32)
            for key, mean, length in zip(keys, means, lengths, strict=True)
        }
        raw = means.astype(np.float32)
        names = tuple(str(layer) for layer in range(layers))
        source: Any = _InMemory(frames)
        arrays[name] = FeatureArray(name, key_of(name), names, raw, source, names, 0.1)
    status = pd.DataFrame({"status": "done"}, index=list(keys))
    return Features(keys, keys, arrays, status), targets
