"""``fit``: one ``HeadSpec`` on its data, a head for each grouped fold."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles import calibration, heads
from mmmos.ensembles.data import Data
from mmmos.ensembles.folds import grouped_folds
from mmmos.ensembles.heads.inputs import Standardiser, blocks_of
from mmmos.ensembles.losses import loss
from mmmos.ensembles.runs import Run
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import UsageError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Some clips: blocks (clips, layers, dim) of each feature set, standardised targets (clips, axes) float32."""

    blocks: heads.Blocks
    targets: NDArray[np.float32]

    def at(self, rows: Rows) -> "Part":
        """The clips at some positions."""
        return Part([block[rows] for block in self.blocks], self.targets[rows])


def fit(spec: HeadSpec, data: Data) -> Run:
    """Train one spec. Raises ``ValueError`` when it diverges, ``UsageError`` when nothing can be held out."""
    blocks = blocks_of(spec, data.features)
    deviation = data.targets.std(axis=0)
    scale = np.array([data.targets.mean(axis=0), np.where(deviation > 0, deviation, 1)])
    train = Part([block[data.rows] for block in blocks], _standard(data.targets, scale))
    members, held = [], np.zeros((0, len(spec.axes)), np.float32)
    if spec.folds == 1:
        dev = Part([block[data.held_out_rows] for block in blocks], _standard(data.held_out_targets, scale))
        if not len(dev.targets):
            raise UsageError("folds = 1 holds out the set dev, which has no clips with features and scores")
        member, held = _fit_member(spec, train, dev)
        members.append(member)
        truth = data.held_out_targets
    else:
        held, truth = np.zeros_like(train.targets), data.targets
        for fitted_rows, held_rows in _splits(data.groups, spec.folds):
            member, held[held_rows] = _fit_member(spec, train.at(fitted_rows), train.at(held_rows))
            members.append(member)
    scores = held * scale[1] + scale[0]
    line = calibration.affine(scores, truth) if is_calibrated(spec) else calibration.identity(len(spec.axes))
    out_of_fold = calibration.apply(line, scores).astype(np.float32) if spec.folds > 1 else held[:0]
    return Run(spec, data.digest(spec), tuple(members), scale, line, out_of_fold)


def is_calibrated(spec: HeadSpec) -> bool:
    """True when a spec's predictions get an affine calibration: by its own word, or since its loss is not anchored."""
    if spec.calibration != "auto":
        return spec.calibration == "affine"
    return not heads.own_loss(spec.head) and not loss(spec.loss).anchored


def _fit_member(
    spec: HeadSpec, fitted: Part, held: Part
) -> tuple[tuple[Standardiser, heads.Head], NDArray[np.float32]]:
    """A head with its input statistics, and its standardised predictions of the held-out clips."""
    standardise = Standardiser.fit(spec, fitted.blocks)
    weighted = spec.layers == "weighted"
    head = heads.make(spec.head, options=spec.options, weighted=weighted, loss=spec.loss, seed=spec.seed)
    outside = standardise(held.blocks)
    head.fit(standardise(fitted.blocks), fitted.targets, (outside, held.targets))
    predicted = head.predict(outside)
    if not np.isfinite(predicted).all():
        raise ValueError("its predictions are not finite; try a lower lr or another normalise")
    return (standardise, head), predicted


def _splits(groups: tuple[str, ...], folds: int) -> Iterator[tuple[Rows, Rows]]:
    """Positions of the fitted and of the held-out clips, for each fold."""
    number = grouped_folds(groups, folds)
    for fold in range(number.max() + 1):
        yield np.flatnonzero(number != fold), np.flatnonzero(number == fold)


def _standard(targets: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    return ((targets - scale[0]) / scale[1]).astype(np.float32)
