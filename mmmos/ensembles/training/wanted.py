"""The heads that a recipe asks for on the clips at hand, and which of them are trained."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmmos.ensembles import runs
from mmmos.ensembles.heads import columns
from mmmos.ensembles.recipe import EnsembleRecipe, read_recipe
from mmmos.ensembles.runs import run_key
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.data import Data, gather
from mmmos.features.table import Features


@dataclass(frozen=True)
class Wanted:
    """The heads of a recipe on some clips, by the names of their run folders, which lie in ``folder``."""

    name: str
    folder: Path
    recipe: EnsembleRecipe
    data: Data
    specs: dict[str, HeadSpec]

    def done(self) -> set[str]:
        """The keys of those that are trained."""
        return {key for key in self.specs if runs.is_done(self.folder, key)}


def wanted_heads(
    recipe: str | EnsembleRecipe,
    features: Features,
    clips: pd.DataFrame,
    *,
    folder: str | Path,
    name: str | None = None,
    workspace: str | Path = ".",
) -> Wanted:
    """The heads of a recipe (a name, a path or an ``EnsembleRecipe``), kept in ``folder`` under its name."""
    name = name or (Path(recipe).stem if isinstance(recipe, str) else "recipe")
    recipe = read_recipe(recipe, str(workspace)) if isinstance(recipe, str) else recipe
    data = gather(recipe, features, clips)
    return Wanted(name, Path(folder) / name, recipe, data, keyed_specs(recipe, data, name))


def keyed_specs(recipe: EnsembleRecipe, data: Data, name: str = "recipe") -> dict[str, HeadSpec]:
    """The heads of a recipe by the names of their run folders."""
    layers = {name: array.layer_names for name, array in data.features.sets.items()}
    specs = recipe.specs(layers, f"the ensemble recipe {name!r}")
    kinds = {spec: (spec.features, spec.folds == 1, columns(spec), spec.target, spec.importance) for spec in specs}
    of_kind = {kind: spec for spec, kind in kinds.items()}
    digests = {kind: data.digest(spec) for kind, spec in of_kind.items()}
    return {run_key(spec, digests[kind]): spec for spec, kind in kinds.items()}
