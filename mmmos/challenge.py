"""``challenge.toml``: what a workspace is to compute. Everything it names is read and checked before anything runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, model_validator

from mmmos import manifest, recipe
from mmmos.axes import AXES
from mmmos.ensembles import recipe as ensemble_recipe
from mmmos.ensembles.ensemble import check_rule
from mmmos.ensembles.recipe import SEALED, SelectRecipe
from mmmos.ensembles.training.data import OUT_OF_FOLD
from mmmos.errors import RecipeError, UnknownName, UsageError
from mmmos.features import spec as feature_spec
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.recipe import Recipe
from mmmos.submissions.formats import Format, read_format

Names = str | list[str]

FILE = "challenge.toml"

# What a submission or an ensemble may be called.
NAME = r"[\w][\w.-]*"


class DataSection(Recipe):
    """``[data]``: manifests of each set, and roots to replace in their paths. Relative paths lie beside the file."""

    train: Names
    """Labelled clips, natural: what heads learn from."""
    dev: Names = Field(default_factory=list)
    """Labelled clips, natural: early stopping of heads without folds, calibration, selection."""
    pam: Names = Field(default_factory=list)
    """Labelled clips, synthetic (AES-PAM): what the ensemble is chosen on."""
    eval: Names = Field(default_factory=list)
    """Clips to predict; their scores, if there are any, are read after the submission is written."""
    root: dict[str, str] = Field(default_factory=dict)
    """Prefixes of paths, and the folders that stand for them."""

    def roots(self, workspace: Path) -> dict[str, str]:
        """Path prefixes and the folders that stand for them."""
        return {prefix: str(workspace / folder) for prefix, folder in self.root.items()}

    def sources(self, workspace: Path) -> dict[str, list[str]]:
        """Manifest paths of each set that has any."""
        named = {"train": self.train, "dev": self.dev, "pam": self.pam, "eval": self.eval}
        lists = {name: [files] if isinstance(files, str) else files for name, files in named.items()}
        return {name: [str(workspace / file) for file in files] for name, files in lists.items() if files}


class FeaturesSection(Recipe):
    """``[features]``: a recipe, or encoders in place of one."""

    recipe: str | None = None
    """Name or path of a feature recipe, or an encoder's name."""
    encoders: list[str | EncoderRecipe] | None = None
    """Encoders in place of a recipe, by name or as tables."""
    store: str = "features"
    """The store: a folder of the workspace, or a URL."""

    @model_validator(mode="after")
    def _one_of(self) -> "FeaturesSection":
        if (self.recipe is None) == (self.encoders is None):
            raise ValueError('give either recipe = "…" or encoders = ["…"]')
        return self

    def resolve(self, workspace: Path) -> FeatureRecipe:
        """The feature recipe that is meant; weights that lie in the workspace are found there."""
        if self.encoders is not None:
            return FeatureRecipe(encoders=self.encoders).beside(workspace)
        return feature_spec.resolve(str(self.recipe), workspace).beside(workspace)


class EnsemblesSection(Recipe):
    """``[ensembles]``: the recipe of heads and selection."""

    recipe: str
    """Name or path of an ensemble recipe."""


class SubmissionSection(Recipe):
    """``[submission]``: format and folder name."""

    format: str = "audiomos2025-track2"
    """Name or path of a submission format."""
    name: str = Field(default="submission", pattern=f"^{NAME}$")
    """Name of the folder in ``submissions/`` and of the chosen ensemble."""
    missing: Literal["error", "mean"] = "error"
    """What unusable clips of ``eval`` are: an error, or answered with the training mean."""
    header: bool | None = None
    """Whether an optional header is written; by default as the format says."""


class Challenge(Recipe):
    """``challenge.toml``."""

    data: DataSection
    features: FeaturesSection
    ensembles: EnsemblesSection
    submission: SubmissionSection = SubmissionSection()


@dataclass(frozen=True)
class Inputs:
    """A challenge with everything it names read and checked, before anything is computed."""

    challenge: Challenge
    workspace: Path
    features: FeatureRecipe
    ensembles: ensemble_recipe.EnsembleRecipe
    format: Format
    clips: pd.DataFrame

    @property
    def store(self) -> Path | str:
        """Folder or URL of the feature store."""
        store = self.challenge.features.store
        return store if "://" in store else self.workspace / store

    @property
    def runs(self) -> Path:
        """Folder of the trained heads of all recipes."""
        return self.workspace / "ensembles"

    @property
    def submission(self) -> Path:
        """Folder of the submission."""
        return self.workspace / "submissions" / self.challenge.submission.name

    @property
    def recipe_words(self) -> str:
        """The ensemble recipe, as messages call it."""
        return f"the ensemble recipe {self.challenge.ensembles.recipe!r}"

    @property
    def recipe_name(self) -> str:
        """Name of the ensemble recipe, and of its folder of runs."""
        return Path(self.challenge.ensembles.recipe).stem


def read(path: str | Path, *, ensembles: str | None = None) -> Inputs:
    """Read a challenge file, its recipes, its format and its manifests; nothing is computed if any of them is wrong.

    ``ensembles``: another ensemble recipe in place of the file's own. Scores of the evaluation set are not read.
    Raises ``UsageError`` (``RecipeError``, ``UnknownName``) for the file, recipes and format, ``InputError`` for the
    manifests.
    """
    if Path(path).name == FILE and not Path(path).exists():
        folder = Path(path).resolve().parent
        raise UsageError(f"There is no {FILE} in {folder}; mmmos init lays out a workspace with one.")
    challenge = recipe.read(path, Challenge)
    if ensembles is not None:
        challenge = challenge.model_copy(update={"ensembles": EnsemblesSection(recipe=ensembles)})
    workspace = Path(path).resolve().parent
    features = challenge.features.resolve(workspace)
    heads = ensemble_recipe.read_recipe(challenge.ensembles.recipe, str(workspace))
    format = read_format(challenge.submission.format, workspace)
    sources = challenge.data.sources(workspace)
    roots = challenge.data.roots(workspace)
    clips = manifest.read_manifest(sources, root=roots, labels=set(sources) - SEALED)
    inputs = Inputs(challenge, workspace, features, heads, format, clips)
    _check(inputs)
    return inputs


def _check(inputs: Inputs) -> None:
    """Raise ``RecipeError`` when the ensemble recipe does not fit the features, the sets at hand or the format."""
    recipe, name = inputs.ensembles, inputs.recipe_words
    recipe.specs([table.set_name for table in inputs.features.tables()], name)
    sets = set(inputs.clips["set"])
    unknown = [each for each in recipe.train if each not in sets]
    if unknown:
        raise RecipeError([f"{name}: train: {UnknownName('set of [data]', unknown[0], sorted(sets - SEALED))}"])
    others = [score for score in inputs.format.axes if score not in AXES]
    if others and "eval" in sets:
        asked = f"the format {inputs.format.title!r} asks for {', '.join(others)}"
        advice = "mmmos submissions write makes an answer in any format from a table of predictions"
        raise RecipeError([f"[submission]: {asked}, but heads predict {', '.join(AXES)} alone; {advice}."])
    targets = [each for entry in recipe.grid for each in entry.targets() if each not in sets]
    if targets:
        raise RecipeError([f"{name}: target: {UnknownName('set of [data]', targets[0], sorted(sets))}"])
    absent = [axis for axis in inputs.format.axes if axis not in recipe.axes]
    if absent and "eval" in sets:
        raise RecipeError([f"{name}: axes: {absent[0]} is missing, which the format {inputs.format.title!r} asks for."])


def check_selection(inputs: Inputs, rule: SelectRecipe) -> None:
    """Raise ``RecipeError`` for a rule that is unknown or looks at a set without scores."""
    recipe = inputs.ensembles
    labelled = inputs.clips.loc[inputs.clips[recipe.axes].notna().any(axis=1), "set"]
    open_sets = recipe.open_sets(map(str, labelled.unique()))
    if recipe.kept_out_of_folds():
        open_sets.append(OUT_OF_FOLD)
    try:
        check_rule(rule, open_sets)
    except UsageError as error:
        raise RecipeError([f"{inputs.recipe_words}: [select]: {error}"]) from None
