"""The clips that heads learn from: which ones, their scores and groups, and the digest that goes into a run's key."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.ensembles.spec import EnsembleRecipe, HeadSpec
from mmmos.errors import UsageError
from mmmos.features.table import Features
from mmmos.files import key_of

# Sets whose scores nothing may learn from or select on.
SEALED = frozenset({"eval"})


@dataclass(frozen=True)
class Data:
    """What heads are trained on, and every clip they are to predict.

    ``features`` of all clips; ``rows`` of the training clips among them, with ``targets`` (training clips, axes) in
    score units, complete, and ``groups``; ``held_out_rows`` and ``held_out_targets`` the same of the set dev.
    """

    features: Features
    rows: NDArray[np.int64]
    targets: NDArray[np.float64]
    groups: tuple[str, ...]
    held_out_rows: NDArray[np.int64]
    held_out_targets: NDArray[np.float64]

    def digest(self, spec: HeadSpec) -> str:
        """SHA-256 (hex) of everything a head learns from: audio, encoders, scores, groups."""
        parts: dict[str, object] = {
            "features": self.features.digest(spec.features, self.rows),
            "targets": self.targets.tolist(),
            "groups": list(self.groups),
        }
        if spec.folds == 1:
            parts["held_out"] = self.features.digest(spec.features, self.held_out_rows)
            parts["held_out_targets"] = self.held_out_targets.tolist()
        return key_of(parts)


def gather(recipe: EnsembleRecipe, features: Features, clips: pd.DataFrame) -> Data:
    """The training and held-out clips of a recipe. Raises ``UsageError`` when none can be trained on."""
    sealed = SEALED & set(recipe.train)
    if sealed:
        raise UsageError(f"The set {sealed.pop()!r} is sealed: nothing is trained on it.")
    clips = clips.loc[clips.index.isin(features.ids)]
    labelled = clips[list(recipe.axes)].notna().all(axis=1)
    sets = clips["set"] if "set" in clips else pd.Series("train", clips.index)
    train, held_out = clips[sets.isin(recipe.train) & labelled], clips[(sets == "dev") & labelled]
    if len(train) < 2:
        raise UsageError(
            f"There are {len(train)} clips to train on in {', '.join(recipe.train)} (with features and all of"
            f" {', '.join(recipe.axes)}); at least 2 are needed. Sets at hand: {', '.join(sorted(set(sets)))}."
        )
    position = pd.Series(range(len(features)), index=list(features.ids))
    return Data(
        features,
        position[train.index].to_numpy(),
        train[list(recipe.axes)].to_numpy(np.float64),
        tuple(train.get("group", train.index.to_series())),
        position[held_out.index].to_numpy(np.int64),
        held_out[list(recipe.axes)].to_numpy(np.float64),
    )
