"""``fit``: heads on their data, one for each grouped fold of every spec; neural ones of a kind are trained together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles import calibration, heads
from mmmos.ensembles.data import Data
from mmmos.ensembles.folds import grouped_folds
from mmmos.ensembles.heads.inputs import Rows, Standardiser
from mmmos.ensembles.losses import loss
from mmmos.ensembles.runs import FoldHead, Inputs, Run, inputs_of
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import UsageError


class Fold(NamedTuple):
    """The head of one fold and its standardised scores (held-out clips, axes)."""

    head: FoldHead
    held: NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """What heads of the same kind learn: training clips, then those of dev where they are held out.

    ``inputs`` of all of them; ``scores`` (clips, axes), standardised to ``targets`` by ``scale`` (2, axes); ``splits``:
    positions of the fitted and of the held-out clips of each fold; ``standardisers`` of each fold.
    """

    inputs: Inputs
    scores: NDArray[np.float64]
    targets: NDArray[np.float64]
    scale: NDArray[np.float64]
    splits: list[tuple[Rows, Rows]]
    standardisers: list[Standardiser]


def fit(
    specs: Sequence[HeadSpec], data: Data, *, device: str = "cpu", together: int = 8
) -> Iterator[tuple[HeadSpec, Run | Exception]]:
    """Train specs of one kind (see ``groups.kind``); each with its run, or with what went wrong.

    ``together``: neural heads in a stack. A head that diverges costs itself only.
    """
    problem = pose(specs[0], data)
    if heads.is_neural(specs[0].head):
        folds = _trained_together(specs, data, problem, device, together)
    else:
        folds = [_fitted_alone(spec, problem) for spec in specs]
    for spec, members in zip(specs, folds, strict=True):
        try:
            yield spec, _run(spec, data, problem, members)
        except ValueError as error:
            yield spec, error


def pose(spec: HeadSpec, data: Data) -> Problem:
    """What a spec is to learn. Raises ``UsageError`` when nothing can be held out."""
    deviation = data.targets.std(axis=0)
    scale = np.array([data.targets.mean(axis=0), np.where(deviation > 0, deviation, 1)])
    rows, scores = data.rows, data.targets
    if spec.folds == 1:
        if not len(data.held_out_rows):
            raise UsageError("folds = 1 holds out the set dev, which has no clips with features and scores")
        rows = np.concatenate([rows, data.held_out_rows])
        scores = np.concatenate([scores, data.held_out_targets])
        splits = [(np.arange(len(data.rows)), np.arange(len(data.rows), len(rows)))]
    else:
        fold = grouped_folds(data.groups, spec.folds, data.domains())
        splits = [(np.flatnonzero(fold != each), np.flatnonzero(fold == each)) for each in range(fold.max() + 1)]
    inputs = inputs_of(spec, data.features).at(rows)
    standardisers = [inputs.standardiser(spec.normalise, fitted) for fitted, _ in splits]
    return Problem(inputs, scores, (scores - scale[0]) / scale[1], scale, splits, standardisers)


def calibration_of(spec: HeadSpec) -> calibration.Kind:
    """How a spec's predictions are calibrated: by its own word; else by a line where its loss is not anchored."""
    if spec.calibration != "auto":
        return spec.calibration
    return "none" if heads.own_loss(spec.head) or loss(spec.loss).anchored else "affine"


def _fitted_alone(spec: HeadSpec, problem: Problem) -> list[Fold]:
    """The heads of a spec with a ``fit`` of its own; with windows, each has its clip's scores."""
    folds = []
    targets = problem.targets.astype(np.float32)
    for (fitted, held), standardise in zip(problem.splits, problem.standardisers, strict=True):
        inside, outside = problem.inputs.at(fitted), problem.inputs.at(held)
        head: Any = heads.make_of(spec)
        others = standardise(outside.blocks), targets[held][outside.clips()]
        head.fit(standardise(inside.blocks), targets[fitted][inside.clips()], others)
        member = FoldHead(standardise, head, np.zeros(len(spec.axes)))
        folds.append(Fold(member, member.predict(outside)))
    return folds


def _trained_together(
    specs: Sequence[HeadSpec], data: Data, problem: Problem, device: str, together: int
) -> list[list[Fold]]:
    """The heads of each neural spec, stacked ``together`` at a time."""
    from mmmos.ensembles.engine import trainer

    members = [member for spec in specs for member in _members(spec, data, problem)]
    folds = []
    size = together if members[0].head.stacks else 1
    for first in range(0, len(members), size):
        some = members[first : first + size]
        sides = [_side(member.head, data, problem) for member in some]
        feed = trainer.feed_of(problem.inputs, some, device)
        trained = trainer.train(some, feed, problem.inputs.shapes, problem.targets, sides, device=device)
        folds += [_anchored(member, result, problem) for member, result in zip(some, trained, strict=True)]
    count = len(problem.splits)
    return [folds[first : first + count] for first in range(0, len(folds), count)]


def _members(spec: HeadSpec, data: Data, problem: Problem) -> Iterator[Any]:
    """The heads of a neural spec to be trained; an epoch is the full batches of the smallest fold."""
    from mmmos.ensembles.engine.feeds import Member

    smallest = min(len(fitted) for fitted, _ in problem.splits)
    for number, (fitted, held) in enumerate(problem.splits):
        head: Any = heads.make_of(spec)
        head.constants = _tensors(head.criterion().of_training(data.targets, problem.scale))
        batch = min(head.options.batch, smallest)
        stream = (spec.seed, number)
        yield Member(head, problem.standardisers[number], fitted, held, smallest // batch, batch, stream)


def _anchored(member: Any, result: Any, problem: Problem) -> Fold:
    """A trained head; where its loss knows no offset, its mean over the clips that it learned from is their mean."""
    epochs, axes = (result.best, result.epochs), problem.targets.shape[1]
    head = FoldHead(member.standardise, member.head, np.zeros(axes), epochs)
    if not result.best or member.head.own_loss or member.head.criterion().anchored:
        return Fold(head, result.scores)
    shift = (head.predict(problem.inputs.at(member.fitted)) - problem.targets[member.fitted]).mean(0)
    return Fold(replace(head, offset=shift), (result.scores - shift).astype(np.float32))


def _side(head: Any, data: Data, problem: Problem) -> dict[str, NDArray[Any]]:
    """What a head's objective reads beside the scores; clips of dev have zeros there, which nothing reads."""
    from mmmos.ensembles.heads.neural import Neural

    if type(head).side is Neural.side:
        return {}
    count = len(data.rows)
    found = head.side(data.about, problem.inputs.at(np.arange(count)).clip_means())
    longer = len(problem.targets) - count
    return {name: np.pad(values, [(0, longer)] + [(0, 0)] * (values.ndim - 1)) for name, values in found.items()}


def _tensors(arrays: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in arrays.items()}


def _run(spec: HeadSpec, data: Data, problem: Problem, folds: Sequence[Fold]) -> Run:
    """A run of its heads. Raises ``ValueError`` for a head that diverged."""
    if any(fold.head.epochs[1] and not fold.head.epochs[0] for fold in folds):
        raise ValueError("its loss is not finite; try a lower lr or another normalise")
    held = np.zeros_like(problem.targets)
    fold_of = np.zeros(len(held), np.int64)
    for number, (fold, (_, rows)) in enumerate(zip(folds, problem.splits, strict=True)):
        if not np.isfinite(fold.held).all():
            raise ValueError("its predictions are not finite; try a lower lr or another normalise")
        held[rows], fold_of[rows] = fold.held, number
    scores, truth, kind = held * problem.scale[1] + problem.scale[0], problem.scores, calibration_of(spec)
    if spec.folds == 1:
        rows = problem.splits[0][1]
        calibrated, out_of_fold = calibration.fit(kind, scores[rows], truth[rows]), scores[:0]
    else:
        calibrated = calibration.fit(kind, scores, truth)
        out_of_fold = calibration.cross_fitted(kind, scores, truth, fold_of)
    return Run(
        spec,
        data.digest(spec),
        tuple(fold.head for fold in folds),
        problem.scale,
        calibrated,
        out_of_fold.astype(np.float32),
    )
