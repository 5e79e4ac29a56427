"""``fit``: heads on their data, one for each grouped fold of every spec; neural ones of a kind are trained together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles import calibration, heads
from mmmos.ensembles.heads.inputs import Rows, Standardiser
from mmmos.ensembles.losses import loss
from mmmos.ensembles.runs import FoldHead, Inputs, Run, inputs_of
from mmmos.ensembles.shift.importance import importance, repeated
from mmmos.ensembles.shift.leaving_out import leave_out
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.data import Data
from mmmos.ensembles.training.folds import grouped_folds, part
from mmmos.errors import UsageError


class Fold(NamedTuple):
    """The head of one fold and its standardised scores (held-out clips, axes)."""

    head: FoldHead
    held: NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """What heads of the same kind learn: training clips, then those of dev where they are held out.

    ``inputs`` of all of them; ``scores`` (clips, axes), standardised to ``targets`` by ``scale`` (2, axes);
    ``learned``: positions of the training clips that anything is learned from; ``splits``: of the fitted ones among
    them and of the held-out clips of each fold; ``standardisers`` of each fold.
    """

    inputs: Inputs
    scores: NDArray[np.float64]
    targets: NDArray[np.float64]
    scale: NDArray[np.float64]
    learned: Rows
    splits: list[tuple[Rows, Rows]]
    standardisers: list[Standardiser]


def fit(
    specs: Sequence[HeadSpec], data: Data, *, device: str = "cpu", together: int = 8
) -> Iterator[tuple[HeadSpec, Run | Exception]]:
    """Train specs of one kind (see ``groups.kind``); each with its run, or with what went wrong.

    ``together``: neural heads in a stack. A head that diverges costs itself only.
    """
    for alike in _of_one_problem(specs):
        problem = pose(alike[0], data)
        if heads.is_neural(alike[0].head):
            folds = _trained_together(alike, data, problem, device, together)
        else:
            folds = [_fitted_alone(spec, problem) for spec in alike]
        for spec, members in zip(alike, folds, strict=True):
            try:
                yield spec, _run(spec, data, problem, members)
            except ValueError as error:
                yield spec, error


def _of_one_problem(specs: Sequence[HeadSpec]) -> list[list[HeadSpec]]:
    """Specs of one kind by what they learn from: where that is a share of the groups, the seed decides which."""
    seeds = dict.fromkeys(spec.seed if spec.share < 1 else 0 for spec in specs)
    return [[spec for spec in specs if spec.share == 1 or spec.seed == seed] for seed in seeds]


def pose(spec: HeadSpec, data: Data) -> Problem:
    """What a spec is to learn. Raises ``UsageError`` when nothing can be held out, or too little is left to fit."""
    rows, scores = data.rows, data.targets
    fold = np.zeros(len(rows), np.int64)
    if spec.folds > 1:
        fold = grouped_folds(data.groups, spec.folds, data.domains())
    kept = part(data.groups, spec.share, spec.seed, fold)
    learned = np.flatnonzero(kept)
    if spec.folds == 1:
        if not len(data.held_out_rows):
            raise UsageError("folds = 1 holds out the set dev, which has no clips with features and scores")
        rows = np.concatenate([rows, data.held_out_rows])
        scores = np.concatenate([scores, data.held_out_targets])
        splits = [(learned, np.arange(len(data.rows), len(rows)))]
    else:
        every = range(fold.max() + 1)
        splits = [(np.flatnonzero(kept & (fold != each)), np.flatnonzero(fold == each)) for each in every]
    fewest = min(len(fitted) for fitted, _ in splits)
    if spec.share < 1 and fewest < 2:
        raise UsageError(
            f"share = {spec.share:g} leaves a fold with too little to fit (clips: {fewest}); take a larger one"
        )
    targets = data.targets[learned]
    deviation = targets.std(axis=0)
    scale = np.array([targets.mean(axis=0), np.where(deviation > 0, deviation, 1)])
    if spec.importance:
        weights = importance(spec, data, learned)
        splits = [(repeated(fitted, weights), held) for fitted, held in splits]
    every_input = inputs_of(spec, data.features)
    inputs = every_input.at(rows)
    standardisers = [inputs.standardiser(spec.normalise, fitted) for fitted, _ in splits]
    if spec.leave_out:
        unlabelled = every_input.at(data.unlabelled[str(spec.target)].rows).blocks
        pairs = zip(standardisers, splits, strict=True)
        standardisers = [
            leave_out(each, inputs.at(fitted).blocks, unlabelled, spec.leave_out) for each, (fitted, _) in pairs
        ]
    return Problem(inputs, scores, (scores - scale[0]) / scale[1], scale, learned, splits, standardisers)


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
    from mmmos.ensembles.training.engine import trainer

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
    from mmmos.ensembles.training.engine.feeds import Member

    smallest = min(len(fitted) for fitted, _ in problem.splits)
    for number, (fitted, held) in enumerate(problem.splits):
        head: Any = heads.make_of(spec)
        head.constants = _tensors(head.criterion().of_training(data.targets[problem.learned], problem.scale))
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
    """What a head's objective reads beside the scores; clips not learned from have zeros there, which nothing reads."""
    from mmmos.ensembles.heads.neural import Neural

    if type(head).side is Neural.side:
        return {}
    learned = problem.learned
    found = head.side(data.about.iloc[learned], problem.inputs.at(learned).clip_means())
    side = {name: np.zeros((len(problem.targets), *own.shape[1:]), own.dtype) for name, own in found.items()}
    for name, own in found.items():
        side[name][learned] = own
    return side


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
    scores, kind = held * problem.scale[1] + problem.scale[0], calibration_of(spec)
    if spec.folds == 1:
        rows = problem.splits[0][1]
        calibrated, out_of_fold = calibration.fit(kind, scores[rows], problem.scores[rows]), scores[:0]
    else:
        truth = np.full_like(problem.scores, np.nan)
        truth[problem.learned] = problem.scores[problem.learned]
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
