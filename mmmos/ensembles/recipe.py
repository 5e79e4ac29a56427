"""The recipe of an ensemble (``ensembles/*.toml``): a grid of heads, spelled out to specs, and a rule to choose by."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mmmos import recipe
from mmmos.axes import AXES, axis
from mmmos.ensembles.grid import GridEntry, Sets, spell
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import RecipeError, UnknownName, UsageError

# Sets whose scores nothing may learn from or select on.
SEALED = frozenset({"eval"})

METRICS = tuple(f"{level}_{name}" for level in ("utt", "sys") for name in ("SRCC", "LCC", "KTAU", "MSE"))

# A name, several that count alike, or a weight for each.
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Mix = str | list[str] | dict[str, Weight]


def weights_of(mix: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """The weight of each name of a mix; of a name or a list, 1 for each time that it is there."""
    if isinstance(mix, Mapping):
        return {name: float(weight) for name, weight in mix.items()}
    names = [mix] if isinstance(mix, str) else list(mix)
    return {name: float(names.count(name)) for name in names}


class SelectRecipe(recipe.Recipe):
    """``[select]``: a rule, the sets whose truth it may look at, and its parameters."""

    rule: str = "average"
    """A selector."""
    on: Mix | None = None
    """Sets whose truth the rule looks at: one, several, or a table of weights; by default the rule's own."""
    k: int | None = Field(default=None, ge=1)
    """How many; by default the rule's own."""
    metric: Mix | None = None
    """utt_SRCC, utt_LCC, utt_KTAU, utt_MSE or the same with sys_: one, several, or a table of weights."""
    calibrate: str | None = None
    """The labelled set to whose scale the chosen ensemble's predictions are brought."""
    calibrate_by: Literal["set", "domain"] = "set"
    """Whether that is done for the whole set, or for each domain by itself."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of the rule."""

    @field_validator("on")
    @classmethod
    def _not_eval(cls, on: Mix | None) -> Mix | None:
        if on is not None and SEALED & set(weights_of(on)):
            raise ValueError("the evaluation set is never selected on; use pam, dev or oof (out-of-fold)")
        if on is not None and not on:
            raise ValueError("names no set; use pam, dev or oof (out-of-fold)")
        return on

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: Mix | None) -> Mix | None:
        if metric is not None and not metric:
            raise ValueError(f"names no metric; use one of {', '.join(METRICS)}")
        for name in () if metric is None else weights_of(metric):
            if name not in METRICS:
                raise ValueError(str(UnknownName("metric", name, METRICS)))
        return metric

    @field_validator("calibrate")
    @classmethod
    def _open(cls, calibrate: str | None) -> str | None:
        if calibrate in SEALED:
            raise ValueError("nothing is calibrated on the evaluation set; use pam, dev or oof (out-of-fold)")
        return calibrate

    def parameters(self) -> dict[str, Any]:
        """The rule's keyword arguments."""
        given = {"on": self.on, "k": self.k, "metric": self.metric}
        return {key: value for key, value in given.items() if value is not None} | self.options


class EnsembleRecipe(recipe.Recipe):
    """``ensembles/*.toml``: the sets to train on, the grid of heads, the selection rule."""

    description: str = ""
    """What it is, in one line."""
    train: list[str] = Field(default=["train"], min_length=1)
    """Sets of ``[data]`` that heads learn from; never eval."""
    axes: list[str] = Field(default=list(AXES), min_length=1)
    """Axes that heads predict."""
    grid: list[GridEntry] = Field(min_length=1)
    """Tables of heads."""
    select: SelectRecipe = SelectRecipe()
    """The selection."""

    @field_validator("train")
    @classmethod
    def _trainable(cls, train: list[str]) -> list[str]:
        if "eval" in train:
            raise ValueError("the evaluation set is never trained on")
        return train

    @field_validator("axes")
    @classmethod
    def _known(cls, axes: list[str]) -> list[str]:
        try:
            return list(dict.fromkeys(axis(name) for name in axes))
        except UnknownName as error:
            raise ValueError(str(error)) from None

    def kept_out_of_folds(self) -> bool:
        """True when every training clip is predicted by heads that did not see it."""
        return all(entry.folds > 1 for entry in self.grid)

    def open_sets(self, sets: Iterable[str]) -> list[str]:
        """Those of some sets whose scores may be looked at: the evaluation set never; a set that is trained on, where
        its clips are predicted out of fold, and it is not the only one, which "oof" is.
        """
        mixed = self.kept_out_of_folds() and len(self.train) > 1
        return [each for each in sets if each not in SEALED and (mixed or each not in self.train)]

    def specs(self, feature_sets: Sets, file: str = "recipe") -> list[HeadSpec]:
        """All different heads of the grid in order, for the feature sets at hand.

        Where the layers of feature sets are not known, ``layers = "each"`` stands for one head, which cannot be
        trained. Raises ``RecipeError`` for unknown heads, losses, options, feature sets or layers, naming the table.
        """
        specs: dict[HeadSpec, None] = {}
        problems: list[str] = []
        for number, entry in enumerate(self.grid, start=1):
            try:
                if entry.folds == 1 and "dev" in self.train:
                    raise UsageError("folds = 1 holds out the set dev, which this recipe trains on; use folds of 2 up")
                specs |= dict.fromkeys(spell(entry, feature_sets, tuple(self.axes)))
            except UsageError as error:
                problems.append(f"{file}: [[grid]] number {number}: {error}")
        if problems:
            raise RecipeError(problems)
        return list(specs)


def read_recipe(name: str, workspace: str = ".") -> EnsembleRecipe:
    """An ensemble recipe by name or path."""
    return recipe.read(recipe.find("ensembles", name, workspace), EnsembleRecipe)
