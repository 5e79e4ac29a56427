"""The clips that heads learn from: which ones, their scores and groups, and the digest that goes into a run's key."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.axes import AXES
from mmmos.ensembles import heads
from mmmos.ensembles.recipe import SEALED, EnsembleRecipe
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import InputError, UnknownName, UsageError
from mmmos.features.table import Features
from mmmos.files import key_of

# What heads may know of training clips: metadata, and the variance of each axis' mean rating in score units squared.
ABOUT = ("set", "domain", "system", "group", *(f"{axis}_variance" for axis in AXES))

# Name of the training clips as a set to select on, each predicted by heads that did not see it.
OUT_OF_FOLD = "oof"


class Unlabelled(NamedTuple):
    """Clips that heads may look at and whose scores they may not: positions among all clips, and their groups."""

    rows: NDArray[np.int64]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """What heads are trained on, and every clip they are to predict.

    ``features`` of all clips; ``rows`` of the training clips among them, with ``targets`` (training clips, axes) in
    score units, complete, and ``groups``; ``held_out_rows`` and ``held_out_targets`` the same of the set dev.
    ``about`` (training clips): what else is known of them, columns ``ABOUT``. ``unlabelled``: clips of the sets that
    the recipe names as targets.
    """

    features: Features
    rows: NDArray[np.int64]
    targets: NDArray[np.float64]
    groups: tuple[str, ...]
    held_out_rows: NDArray[np.int64]
    held_out_targets: NDArray[np.float64]
    about: pd.DataFrame
    unlabelled: dict[str, Unlabelled] = field(default_factory=dict)

    def for_fitting(self) -> "Data":
        """The same with the features of training, held-out and target clips alone, which is all that fitting needs."""
        targets = [each.rows for each in self.unlabelled.values()]
        kept = np.unique(np.concatenate([self.rows, self.held_out_rows, *targets]))
        features = self.features.of([self.features.ids[row] for row in kept])
        rows, held_out_rows = np.searchsorted(kept, self.rows), np.searchsorted(kept, self.held_out_rows)
        unlabelled = {
            name: each._replace(rows=np.searchsorted(kept, each.rows)) for name, each in self.unlabelled.items()
        }
        features = replace(features, status=features.status.iloc[:0])
        return replace(self, features=features, rows=rows, held_out_rows=held_out_rows, unlabelled=unlabelled)

    def domains(self) -> list[str]:
        """The domain of each training clip, over which folds are balanced; "" where it is unknown."""
        return self.about["domain"].fillna("").astype(str).tolist()

    def digest(self, spec: HeadSpec) -> str:
        """SHA-256 (hex) of everything a head learns from: audio, encoders, scores, groups."""
        parts: dict[str, object] = {
            "features": self.features.digest(spec.features, self.rows),
            "targets": self.targets.tolist(),
            "groups": list(self.groups),
            "domains": self.domains(),
        }
        if spec.folds == 1:
            parts["held_out"] = self.features.digest(spec.features, self.held_out_rows)
            parts["held_out_targets"] = self.held_out_targets.tolist()
        if spec.target:
            target = self.unlabelled[spec.target]
            parts["target"] = self.features.digest(spec.features, target.rows)
            if spec.importance:
                parts["target_groups"] = list(target.groups)
        columns = heads.columns(spec)
        if columns:
            rows = self.about[list(columns)].itertuples(index=False, name=None)
            parts["about"] = [list(map(str, row)) for row in rows]
        return key_of(parts)


def gather(recipe: EnsembleRecipe, features: Features, clips: pd.DataFrame) -> Data:
    """The training and held-out clips of a recipe.

    Raises ``InputError`` when fewer than two can be trained on, ``UsageError`` for clips that do not fit the recipe.
    """
    axes = list(recipe.axes)
    _check(recipe, features, clips)
    usable = clips.loc[clips.index.isin(features.ids)]
    labelled, sets = usable[axes].notna().all(axis=1), sets_of(usable)
    train, held_out = usable[sets.isin(recipe.train) & labelled], usable[(sets == "dev") & labelled]
    if len(train) < 2:
        raise InputError([_too_few(len(train), recipe, features, clips)])
    position = {clip: row for row, clip in enumerate(features.ids)}

    def rows_of(index: pd.Index) -> NDArray[np.int64]:
        return np.array([position[clip] for clip in index], dtype=np.int64)

    return Data(
        features,
        rows_of(train.index),
        scores_of(train, axes),
        groups_of(train),
        rows_of(held_out.index),
        scores_of(held_out, axes),
        _about(train, sets),
        {name: Unlabelled(rows_of(each.index), groups_of(each)) for name, each in _targets(recipe, usable).items()},
    )


def groups_of(clips: pd.DataFrame) -> tuple[str, ...]:
    """What folds must not split: the group of each clip, its id where it has none."""
    own = pd.Series(clips.index, clips.index, dtype=object)
    return tuple(map(str, clips.get("group", own).fillna(own)))


def _targets(recipe: EnsembleRecipe, usable: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The clips of the sets that the grid names as targets, whether they have scores or not.

    Raises ``UnknownName`` for a set that is not there, ``UsageError`` for one that is trained on, or has no clips.
    """
    sets, found = sets_of(usable), {}
    for name in dict.fromkeys(name for entry in recipe.grid for name in entry.targets()):
        if name in recipe.train:
            raise UsageError(f"The target {name!r} is a set to train on; name one that is not, such as eval or pam.")
        if name not in set(sets):
            raise UnknownName("target, a set of clips", name, sorted(set(map(str, sets)) - set(recipe.train)))
        found[name] = usable[sets == name]
    return found


def _too_few(found: int, recipe: EnsembleRecipe, features: Features, clips: pd.DataFrame) -> str:
    """Why there is nothing to train on: no scores, or no audio."""
    listed = clips.index[sets_of(clips).isin(recipe.train)]
    rejected = features.rejected()
    rejected = rejected[rejected.index.isin(listed)]
    sentence = (
        f"There are {found} clips to train on in {', '.join(recipe.train)}, of {len(listed)} listed; at least 2 are"
        f" needed, with audio and scores for all of {', '.join(recipe.axes)}."
    )
    if rejected.empty:
        return sentence
    first = rejected.iloc[0]
    return f"{sentence} {len(rejected)} were rejected, the first as {first['reason']}: {first['detail']}."


def _about(clips: pd.DataFrame, sets: pd.Series) -> pd.DataFrame:
    """What is known of clips beside their scores: columns ``ABOUT``, None or NaN where unknown."""
    table = pd.DataFrame({"set": sets.loc[clips.index]}, index=clips.index)
    for name in ("domain", "system", "group"):
        table[name] = clips.get(name)
    for name in AXES:
        ratings = clips.get(f"{name}_ratings", pd.Series(None, clips.index, dtype=object))
        table[f"{name}_variance"] = [_variance(each) for each in ratings]
    return table


def _variance(ratings: object) -> float:
    """Variance (ddof 1) of the mean of a clip's ratings, NaN where fewer than two are known."""
    if not isinstance(ratings, tuple) or len(ratings) < 2:
        return float("nan")
    return float(np.var(ratings, ddof=1) / len(ratings))


def scores_of(clips: pd.DataFrame, axes: list[str]) -> NDArray[np.float64]:
    """Scores (clips, axes) in C order: sums depend on the order in memory, which a DataFrame leaves open."""
    return np.ascontiguousarray(clips[axes].to_numpy(np.float64))


def sets_of(clips: pd.DataFrame) -> pd.Series:
    """The set of each clip; all are of the set train where there is no column ``set``."""
    return clips["set"] if "set" in clips else pd.Series("train", clips.index)


def _check(recipe: EnsembleRecipe, features: Features, clips: pd.DataFrame) -> None:
    """Raise ``UsageError`` for clips that do not fit the recipe or the features."""
    sealed = sorted(SEALED & set(recipe.train))
    if sealed:
        raise UsageError(f"The set {sealed[0]!r} is sealed: nothing is trained on it.")
    for axis in recipe.axes:
        if axis not in clips:
            raise UnknownName("column of the clips", axis, map(str, clips.columns))
    sets = set(sets_of(clips))
    for name in recipe.train:
        if name not in sets:
            raise UnknownName("set to train on", name, sorted(sets - SEALED))
    if OUT_OF_FOLD in sets:
        raise UsageError(f"The set name {OUT_OF_FOLD!r} means the out-of-fold predictions; give the set another name.")
    repeated = clips.index[clips.index.duplicated()]
    if len(repeated):
        raise UsageError(f"The clip {repeated[0]!r} is listed more than once.")
    unlisted = [clip for clip in features.ids if clip not in clips.index]
    if unlisted:
        raise UsageError(
            f"{len(unlisted)} clips with features are not in the table of clips, among them {unlisted[0]!r};"
            " take features.of(list(clips.index))."
        )
