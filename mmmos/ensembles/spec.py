"""What a head is (``HeadSpec``) and the recipe that spells a grid of them (``ensembles/*.toml``)."""

from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from mmmos import recipe, registry
from mmmos.axes import AXES, axis
from mmmos.ensembles.heads import own_loss
from mmmos.errors import RecipeError, UnknownName, UsageError
from mmmos.files import key_of

Layers = str | tuple[str, ...]

# What ``layers`` may be beside names of layers.
LAYER_CHOICES = ("all", "last", "mean", "weighted")

# Changes when the training code gives other numbers for the same spec.
CODE = 1


class HeadSpec(recipe.Recipe):
    """A head to be trained: everything that changes its numbers apart from the data.

    ``layers``: all, last, mean, weighted (a learned softmax) or layer names. ``normalise``: unit (each layer's vector
    has length 1), raw, standard (train mean 0, standard deviation 1). ``loss`` is of neural heads. ``folds`` ≥ 2: one
    head for each grouped fold, averaged; 1: one head on all training clips, held out on dev. ``options``: of the head.
    """

    head: str
    features: tuple[str, ...]
    layers: Layers = "all"
    normalise: Literal["unit", "raw", "standard"] = "unit"
    loss: str = "mse"
    axes: tuple[str, ...] = AXES
    seed: int = 0
    folds: int = Field(default=5, ge=1)
    calibration: Literal["auto", "affine", "none"] = "auto"
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short description for tables, such as "ridge melstats:mean unit"."""
        layers = self.layers if isinstance(self.layers, str) else "+".join(self.layers)
        parts = [self.head, f"{'+'.join(self.features)}:{layers}", self.normalise]
        if not own_loss(self.head):
            parts.append(self.loss)
        return " ".join(parts) + (f" seed {self.seed}" if self.seed else "")

    def __hash__(self) -> int:
        return hash(self.key(data=""))

    def key(self, data: str) -> str:
        """SHA-256 (hex) of this spec, the code's version and the digest of the training data."""
        return key_of({"spec": self.model_dump(mode="json"), "data": data, "code": CODE})


class GridEntry(recipe.Recipe):
    """One ``[[grid]]`` table: every value may be a list of alternatives, and all combinations are meant.

    ``features = "all"`` is all feature sets together, "each" every one alone.
    """

    head: str | list[str]
    features: str | list[str | list[str]] = "all"
    layers: str | list[str | list[str]] = "all"
    normalise: Literal["unit", "raw", "standard"] | list[Literal["unit", "raw", "standard"]] = "unit"
    loss: str | list[str] = "mse"
    seed: int | list[int] = 0
    folds: int = Field(default=5, ge=1)
    calibration: Literal["auto", "affine", "none"] = "auto"
    options: dict[str, Any] = Field(default_factory=dict)


class SelectRecipe(recipe.Recipe):
    """``[select]``: a rule, the sets whose truth it may look at, and its parameters.

    ``metric``: utt_SRCC, utt_LCC, utt_KTAU, utt_MSE or the same with sys_. ``options``: of a plug-in's rule.
    """

    rule: str = "average"
    on: str | list[str] | None = None
    k: int | None = Field(default=None, ge=1)
    metric: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("on")
    @classmethod
    def _not_eval(cls, on: str | list[str] | None) -> str | list[str] | None:
        if "eval" in ([on] if isinstance(on, str) else on or []):
            raise ValueError("the evaluation set is never selected on; use pam, dev or oof (out-of-fold)")
        if on is not None and not on:
            raise ValueError("names no set; use pam, dev or oof (out-of-fold)")
        return on

    def parameters(self) -> dict[str, Any]:
        """The rule's keyword arguments."""
        given = {"on": self.on, "k": self.k, "metric": self.metric}
        return {key: value for key, value in given.items() if value is not None} | self.options


class EnsembleRecipe(recipe.Recipe):
    """``ensembles/*.toml``: the sets to train on, the grid of heads, the selection rule."""

    description: str = ""
    train: list[str] = Field(default=["train"], min_length=1)
    axes: list[str] = Field(default=list(AXES), min_length=1)
    grid: list[GridEntry] = Field(min_length=1)
    select: SelectRecipe = SelectRecipe()

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

    def specs(
        self, feature_sets: Collection[str] | Mapping[str, Collection[str]], file: str = "recipe"
    ) -> list[HeadSpec]:
        """All different heads of the grid in order, for the feature sets at hand, or for their layers by set name.

        Raises ``RecipeError`` for unknown heads, losses, options, feature sets or layers, naming the grid table.
        """
        layers = feature_sets if isinstance(feature_sets, Mapping) else {}
        specs: dict[HeadSpec, None] = {}
        problems: list[str] = []
        for number, entry in enumerate(self.grid, start=1):
            try:
                if entry.folds == 1 and "dev" in self.train:
                    raise UsageError("folds = 1 holds out the set dev, which this recipe trains on; use folds of 2 up")
                found = dict.fromkeys(_expand(entry, list(feature_sets), tuple(self.axes)))
                for spec in found:
                    _check_layers(spec, layers)
                specs |= found
            except UsageError as error:
                problems.append(f"{file}: [[grid]] number {number}: {error}")
        if problems:
            raise RecipeError(problems)
        return list(specs)


def read_recipe(name: str, workspace: str = ".") -> EnsembleRecipe:
    """An ensemble recipe by name or path."""
    return recipe.read(recipe.find("ensembles", name, workspace), EnsembleRecipe)


def _expand(entry: GridEntry, feature_sets: list[str], axes: tuple[str, ...]) -> Iterator[HeadSpec]:
    empty = [name for name, value in (dict(entry) | entry.options).items() if value == [] or value == [[]]]
    if empty:
        raise UsageError(f"the list of alternatives of {empty[0]!r} is empty")
    for head in _alternatives(entry.head):
        head_class = registry.load("heads", head)
        choices = product(
            _feature_choices(entry.features, feature_sets),
            _alternatives(entry.layers),
            _alternatives(entry.normalise),
            _alternatives(entry.loss),
            _alternatives(entry.seed),
            _options(head, head_class.Options, entry.options),
        )
        for features, layers, normalise, loss, seed, options in choices:
            _check(head, head_class, layers, loss)
            yield HeadSpec(
                head=head,
                features=features,
                layers=layers if isinstance(layers, str) else tuple(layers),
                normalise=normalise,
                loss=loss,
                axes=axes,
                seed=seed,
                folds=entry.folds,
                calibration=entry.calibration,
                options=options,
            )


def _check(head: str, head_class: Any, layers: Any, loss: str) -> None:
    if loss not in registry.names("losses") and ".py:" not in loss:
        raise UnknownName("loss", loss, registry.names("losses"))
    if head_class.own_loss and loss != "mse":
        raise UsageError(f"the head {head!r} has a criterion of its own; leave loss out (got {loss!r})")
    if head_class.own_loss and layers == "weighted":
        raise UsageError(f"the head {head!r} learns no layer weights; use layers = all, last, mean or names")


def _check_layers(spec: HeadSpec, known: Mapping[str, Collection[str]]) -> None:
    """Raise ``UnknownName`` for a layer that one of the spec's feature sets lacks."""
    if spec.layers in LAYER_CHOICES:
        return
    wanted = (spec.layers,) if isinstance(spec.layers, str) else spec.layers
    for name in spec.features:
        options = known.get(name, wanted)
        for layer in wanted:
            if layer not in options:
                raise UnknownName(f"layer of {name}", layer, [*options, *LAYER_CHOICES])


def _alternatives(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _feature_choices(features: str | list[str | list[str]], known: list[str]) -> list[tuple[str, ...]]:
    if features == "all":
        return [tuple(known)]
    if features == "each":
        return [(name,) for name in known]
    choices = [(choice,) if isinstance(choice, str) else tuple(choice) for choice in _alternatives(features)]
    for name in (name for choice in choices for name in choice):
        if name not in known:
            raise UnknownName("feature set", name, known)
    return choices


def _options(head: str, model: type[recipe.Recipe], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Every combination of option values, checked and filled with defaults by the head's model."""
    combinations = [
        dict(zip(options, values, strict=True)) for values in product(*map(_alternatives, options.values()))
    ]
    try:
        return [model.model_validate(combination).model_dump() for combination in combinations]
    except ValidationError as error:
        raise UsageError(" ".join(recipe.sentences(error, model, f"options of {head}"))) from None
