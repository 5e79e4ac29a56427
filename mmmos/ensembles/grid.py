"""One ``[[grid]]`` table of an ensemble recipe: the space it spans, and the heads that are meant."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations, islice
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from mmmos import recipe, registry
from mmmos.ensembles import heads, search
from mmmos.ensembles.losses import loss as find_loss
from mmmos.ensembles.search import Choices, Point, Range
from mmmos.ensembles.spec import LAYER_CHOICES, Calibration, HeadSpec, Layers, LeaveOut, Normalise, Samples, Share
from mmmos.errors import UnknownName, UsageError

# Each layer of a feature set alone, as a value of ``layers``.
EACH = "each"

# Most feature sets of which all subsets are meant: 255 subsets.
MOST_OF_SUBSETS = 8

# Points that give no new head, one after another, after which a draw gives up.
MISSES = 10_000

# Feature sets at hand by name, with the names of their layers where these are known.
Sets = Collection[str] | Mapping[str, Collection[str]]


class GridEntry(recipe.Recipe):
    """One ``[[grid]]`` table: a list is alternatives, and all combinations are meant."""

    head: str | list[str]
    """A head."""
    features: str | list[str | list[str]] = "all"
    """"all" feature sets together, "each" alone, "subsets" (every choice of some or all, smaller ones first), or
    names."""
    layers: str | list[str | list[str]] = "all"
    """"all" side by side, "last", "mean", "weighted" (a learned softmax), "each" alone, or names."""
    normalise: Normalise | list[Normalise] = "unit"
    """Each layer's vector has length 1, is as it is, or has mean 0 and deviation 1 over the training clips."""
    samples: Samples | list[Samples] = "clips"
    """Whether a clip is one vector, or each of its windows is."""
    loss: str | list[str] = "mse"
    """A loss, for heads that have none of their own."""
    draw: int | None = Field(default=None, ge=1)
    """So many different combinations, drawn at random, in place of all. ``options`` and ``loss_options`` may then be
    ranges, as in ``{ low = 1e-5, high = 1e-2, log = true }``."""
    draw_seed: int = Field(default=0, ge=0)
    """Which are drawn; of a larger draw they come first."""
    loss_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the loss."""
    seed: int | list[int] = 0
    """Decides all that is random in a head: initial parameters, the order of clips, what is drawn."""
    folds: int = Field(default=5, ge=1)
    """2 up: a head for each grouped fold, averaged; 1: one head on all training clips, held out on dev."""
    share: Share | list[Share] = 1.0
    """Part of the training groups that is learned from, drawn by the seed; a larger one holds all of a smaller one."""
    target: str | list[str] | None = None
    """The set whose clips, without their scores, ``importance`` and ``leave_out`` look at."""
    importance: bool | list[bool] = False
    """Whether training clips count more that lie near the target's."""
    leave_out: LeaveOut | list[LeaveOut] = 0.0
    """Share of the dimensions that is hidden, those that differ most between training and target."""
    calibration: Calibration = "auto"
    """How predictions are brought to the scale of the scores: "auto" for losses that are not anchored alone."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the head."""

    @field_validator("loss_options", "options")
    @classmethod
    def _ranges(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        found = search.ranges(options)
        named = [name for name, value in found.items() if isinstance(value, Range)]
        if named and info.data.get("draw", 1) is None:
            raise ValueError(f"{named[0]} is a range; say with draw = how many heads to draw from it")
        return found

    def targets(self) -> list[str]:
        """The sets whose clips heads look at without their scores."""
        return [str(name) for name in _alternatives(self.target) if name is not None]


def space_of(entry: GridEntry, feature_sets: Sets) -> dict[str, Choices]:
    """What a table leaves open. Its points have "inputs" (feature sets and layers), and "options.lr" for an option.

    Raises ``UsageError`` for an empty list of alternatives, ``UnknownName`` for a feature set or a layer.
    """
    every = dict(entry) | entry.options | entry.loss_options
    empty = [name for name, value in every.items() if value in ([], [[]])]
    if empty:
        raise UsageError(f"the list of alternatives of {empty[0]!r} is empty")
    adapts = any(_alternatives(entry.importance)) or any(_alternatives(entry.leave_out))
    if adapts != (entry.target is not None):
        raise UsageError(
            'importance = true and leave_out need target = "eval", "pam" or another set that is not trained on'
            if adapts
            else f"nothing looks at the target {entry.target!r}; say importance = true, or leave_out = 0.2"
        )
    heads = [entry.head] if isinstance(entry.head, str) else entry.head
    for head in heads:
        registry.load("heads", head)
    return {
        "head": heads,
        "inputs": [
            pair for each in _feature_choices(entry, feature_sets) for pair in _inputs(entry, each, feature_sets)
        ],
        "normalise": _alternatives(entry.normalise),
        "samples": _alternatives(entry.samples),
        "loss": _alternatives(entry.loss),
        **{f"loss_options.{name}": _alternatives(value) for name, value in entry.loss_options.items()},
        "seed": _alternatives(entry.seed),
        "share": _alternatives(entry.share),
        "target": _alternatives(entry.target),
        "importance": _alternatives(entry.importance),
        "leave_out": _alternatives(entry.leave_out),
        **{f"options.{name}": _alternatives(value) for name, value in entry.options.items()},
    }


def options_of(point: Point, kind: str) -> dict[str, Any]:
    """The "options" or "loss_options" of a point."""
    return {name.removeprefix(f"{kind}."): value for name, value in point.items() if name.startswith(f"{kind}.")}


def spell(entry: GridEntry, feature_sets: Sets, axes: tuple[str, ...]) -> Iterator[HeadSpec]:
    """The heads of a table; a table that draws is checked at every value before."""
    space = space_of(entry, feature_sets)
    if entry.draw is None:
        yield from (_spec(entry, point, axes) for point in search.every(space))
        return
    for point in search.edges(space, "head"):
        _spec(entry, point, axes)
    points = search.drawn(space, entry.draw_seed)
    yield from islice(_different(_spec(entry, point, axes) for point in points), entry.draw)


def _different(specs: Iterable[HeadSpec]) -> Iterator[HeadSpec]:
    found: set[HeadSpec] = set()
    misses = 0
    for spec in specs:
        misses = misses + 1 if spec in found else 0
        if misses > MISSES:
            return
        if not misses:
            found.add(spec)
            yield spec


def _spec(entry: GridEntry, point: Point, axes: tuple[str, ...]) -> HeadSpec:
    """The head at a point of a table's space. Raises ``UsageError`` for what the head does not take."""
    head, (features, layers) = point["head"], point["inputs"]
    head_class = registry.load("heads", head)
    spec = HeadSpec(
        head=head,
        features=features,
        layers=layers,
        normalise=point["normalise"],
        samples=point["samples"],
        loss=point["loss"],
        loss_options=options_of(point, "loss_options"),
        axes=axes,
        seed=point["seed"],
        folds=entry.folds,
        share=point["share"],
        target=point["target"] if point["importance"] or point["leave_out"] else None,
        importance=point["importance"],
        leave_out=point["leave_out"],
        calibration=entry.calibration,
        options=_options(head, head_class.Options, options_of(point, "options")),
    )
    _check(spec, head_class)
    return spec


def _check(spec: HeadSpec, head_class: Any) -> None:
    """Raise ``UsageError`` for a loss or a choice of inputs that the head does not take."""
    name = spec.head
    if spec.loss not in registry.names("losses") and not registry.is_local(spec.loss):
        raise UnknownName("loss", spec.loss, registry.names("losses"))
    if head_class.own_loss and (spec.loss != "mse" or spec.loss_options):
        raise UsageError(f"the head {name!r} has a criterion of its own; leave loss out (got {spec.loss!r})")
    if spec.layers == "weighted" and not getattr(head_class, "learns_layers", False):
        raise UsageError(f"the head {name!r} learns no layer weights; use layers = all, last, mean or names")
    if heads.reads(name) == "frames" and spec.samples == "windows":
        raise UsageError(f"the head {name!r} reads the frames of whole clips; leave samples out")
    if spec.leave_out and heads.reads(name) == "frames":
        raise UsageError(f"the head {name!r} reads frames, and leave_out looks at pooled vectors; leave it out")
    if spec.leave_out and spec.normalise != "standard":
        raise UsageError(f'leave_out hides standardised dimensions: use normalise = "standard", not {spec.normalise!r}')
    if head_class.own_loss:
        return
    loss = find_loss(spec.loss, spec.loss_options)
    if loss.embedding is not None and not getattr(head_class, "embeds", False):
        raise UsageError(f"the loss {spec.loss!r} looks at an embedding, which {name!r} lacks; take mlp or aesa")
    heads.make_of(spec)


def _alternatives(value: Any) -> Choices:
    return value if isinstance(value, list | Range) else [value]


def _feature_choices(entry: GridEntry, feature_sets: Sets) -> list[tuple[str, ...]]:
    known = list(feature_sets)
    if entry.features == "all":
        return [tuple(known)]
    if entry.features == "each":
        return [(name,) for name in known]
    if entry.features == "subsets":
        return _subsets(known)
    choices = [(choice,) if isinstance(choice, str) else tuple(choice) for choice in _alternatives(entry.features)]
    for name in (name for choice in choices for name in choice):
        if name not in known:
            raise UnknownName("feature set", name, known)
    return choices


def _subsets(known: list[str]) -> list[tuple[str, ...]]:
    """All choices of some feature sets or all, by size. Raises ``UsageError`` for too many sets."""
    if len(known) > MOST_OF_SUBSETS:
        raise UsageError(
            f'features = "subsets" takes {MOST_OF_SUBSETS} feature sets at most, not {len(known)}, which have'
            f" {2 ** len(known) - 1} subsets; list those that are meant"
        )
    return [choice for size in range(1, len(known) + 1) for choice in combinations(known, size)]


def _inputs(
    entry: GridEntry, features: tuple[str, ...], feature_sets: Sets
) -> Iterator[tuple[tuple[str, ...], Layers]]:
    """Some feature sets with each choice of their layers."""
    known = feature_sets if isinstance(feature_sets, Mapping) else {}
    for choice in _alternatives(entry.layers):
        if choice == EACH:
            yield from ((features, layers) for layers in _each_layer(features, known))
            continue
        if choice not in LAYER_CHOICES:
            _check_layers(features, [choice] if isinstance(choice, str) else choice, known)
        yield features, choice if isinstance(choice, str) else tuple(choice)


def _each_layer(features: tuple[str, ...], known: Mapping[str, Collection[str]]) -> list[Layers]:
    """Every layer of a feature set alone; ``EACH`` itself where they are not known."""
    if len(features) != 1:
        together = " and ".join(features)
        raise UsageError(f'layers = "each" takes one feature set at a time, not {together}; write features = "each"')
    layers = known.get(features[0], [EACH])
    return [(name,) if name in LAYER_CHOICES else name for name in layers]


def _check_layers(features: tuple[str, ...], wanted: Collection[str], known: Mapping[str, Collection[str]]) -> None:
    """Raise ``UnknownName`` for a layer that one of some feature sets lacks."""
    for name in features:
        options = known.get(name, wanted)
        for layer in wanted:
            if layer not in options:
                raise UnknownName(f"layer of {name}", layer, [*options, *LAYER_CHOICES, EACH])


def _options(head: str, model: type[recipe.Recipe], options: dict[str, Any]) -> dict[str, Any]:
    """Option values, checked and filled with defaults by the head's model."""
    try:
        return model.model_validate(options).model_dump()
    except ValidationError as error:
        raise UsageError(" ".join(recipe.sentences(error, model, f"options of {head}"))) from None
