"""``bundle.json``: what a bundle is made of, as one frozen model with a format number of its own."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from mmmos.axes import AXES
from mmmos.ensembles.recipe import SelectRecipe
from mmmos.ensembles.spec import HeadSpec
from mmmos.features.spec import NAME as SET_NAME
from mmmos.features.spec import EncoderRecipe, EncoderSpec, FeatureSpec
from mmmos.files import key_of
from mmmos.recipe import Recipe

# Grows when a reader of the last one would misread a bundle.
FORMAT = 1

ABOUT, CARD, ANCHORING = "bundle.json", "README.md", "anchoring.safetensors"
NAME = r"^\w[\w.-]{0,99}$"
KEY, SHA256 = r"^[0-9a-f]{16}$", r"^[0-9a-f]{64}$"
QUANTILES = 21
# Seconds of a window, and how many windows there may be in the time of one.
LONGEST, OVERLAP = 3600.0, 1000
# By how much the weights of all members may miss 1.
SUM = 1e-6


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"holds characters that cannot be shown: {text[:40]!a}")
    return text


# Text that is shown as it is.
Line = Annotated[str, Field(max_length=500), AfterValidator(_on_one_line)]


class EncoderFacts(Recipe):
    """``EncoderSpec`` as JSON, where the units and the meaning of each field are."""

    name: Line
    family: Line
    rate: int = Field(ge=1, le=1_000_000)
    layers: int = Field(ge=1, le=10_000)
    dim: int = Field(ge=1, le=1_000_000)
    hop: float = Field(ge=0)
    minimum: int
    licence: Line
    weights: Line = ""
    revision: Line = ""
    sha256: Line = ""
    config: Line = ""
    code: Line = "1"
    front: Line = ""
    precision: Line = "float32"
    layer_names: tuple[Line, ...] = ()
    maximum: int = 0
    resampler: Line = "soxr-hq"

    @model_validator(mode="after")
    def _named(self) -> "EncoderFacts":
        if self.layer_names and len(set(self.layer_names)) != self.layers:
            raise ValueError(f"layer_names names {len(set(self.layer_names))} layers, of {self.layers}")
        return self


class FeatureSet(Recipe):
    """A feature set that members read: its ``FeatureSpec``, and how its encoder is loaded.

    ``encoder``: the encoder's registered name. ``weights``: a hub id or an address, the base name of a local file or
    folder, or "" for an encoder without weights. ``window`` and ``hop``: s; ``frames``: layers whose frames are kept.
    ``facts``: of the encoder that the members were trained on. ``commercial``: whether its licence allows such use.
    """

    name: str = Field(pattern=SET_NAME)
    encoder: Line
    weights: Line = ""
    revision: Line = ""
    precision: Literal["float32", "bfloat16"] | None = None
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    window: float = Field(gt=0, le=LONGEST)
    hop: float = Field(gt=0, le=LONGEST)
    dtype: Literal["float16", "float32"]
    frames: tuple[str, ...] = ()
    facts: EncoderFacts
    fingerprint: str = Field(pattern=SHA256)
    commercial: bool

    @model_validator(mode="after")
    def _not_endless(self) -> "FeatureSet":
        if self.hop * OVERLAP < self.window:
            raise ValueError(f"a hop of {self.hop:g} s makes over {OVERLAP} windows of every {self.window:g} s")
        return self

    def spec(self) -> FeatureSpec:
        """The feature set that members were trained on."""
        facts = EncoderSpec(**self.facts.model_dump())
        return FeatureSpec(self.name, facts, self.window, self.hop, self.dtype, self.frames)

    def table(self, weights: str | None) -> EncoderRecipe:
        """The recipe that gives this feature set, with its weights at some place."""
        return EncoderRecipe(
            encoder=self.encoder,
            name=self.name,
            weights=weights,
            revision=self.revision or None,
            window=self.window,
            hop=self.hop,
            dtype=self.dtype,
            frames=list(self.frames) or None,
            precision=self.precision,
            options=self.options,
        )


def encoder_facts(spec: EncoderSpec, weights: str) -> EncoderFacts:
    """The facts of an encoder whose weights go by another name."""
    return EncoderFacts(**asdict(spec) | {"weights": weights})


class Member(Recipe):
    """A run: its spec, the digest of its training data, (best, trained) epochs of each head, its weight on each axis,
    and the file of its arrays.
    """

    key: str = Field(pattern=KEY)
    spec: HeadSpec
    data: str = Field(pattern=SHA256)
    epochs: tuple[tuple[int, int], ...] = Field(min_length=1, max_length=1000)
    weights: dict[str, float]
    file: str

    @model_validator(mode="after")
    def _its_file(self) -> "Member":
        if self.file != f"{self.key}.safetensors":
            raise ValueError(f"the arrays of {self.key} are in {self.key}.safetensors; got {self.file!r}")
        return self


class Lines(Recipe):
    """What scores are brought to the scale of: the labelled set, and the domains that have lines of their own, in the
    order of their arrays, of which those of all clips are number 0.
    """

    on: str
    domains: tuple[str, ...] = ()


class Number(Recipe):
    """A measured value with its 95 % interval; None where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Quality(Recipe):
    """How good the ensemble is on a labelled set: ``scores`` by metric (utt_SRCC, sys_MSE, …) and axis, or "mean".

    ``seen``: the rule looked at this set, or scores were brought to its scale, so that the numbers flatter.
    """

    set: str
    clips: int
    systems: int
    seen: bool
    scores: dict[str, dict[str, Number]]


class About(Recipe):
    """Everything of a bundle but its arrays.

    ``digest``: SHA-256 (hex) of the canonical JSON of all other fields. ``mmmos``: the version that wrote it. ``pool``:
    number of runs that ``rule`` chose from, all of the ensemble recipe ``recipe``. ``licences``: of the weights, by
    feature set. ``clips``: counts by set. ``training_data``: digest of the training clips' ids and scores.
    ``manifests``: digests of the sets' ids and scores, of the evaluation set its ids alone. ``reference``: by domain
    ("": all), 21 quantiles (0, 5, … 100 %) of the training clips' ratings (0–10) for each axis. ``files``: SHA-256 by
    name of all files but this one and the card.
    """

    format: int
    digest: str = Field(pattern=SHA256)
    name: str = Field(pattern=NAME)
    mmmos: Line
    axes: tuple[str, ...] = Field(min_length=1)
    members: tuple[Member, ...] = Field(min_length=1, max_length=1000)
    recipe: Line
    pool: int
    rule: SelectRecipe
    anchoring: Lines | None = None
    encoders: tuple[FeatureSet, ...] = Field(min_length=1, max_length=100)
    licences: dict[str, str]
    metrics: tuple[Quality, ...] = ()
    clips: dict[str, int] = Field(default_factory=dict)
    training_data: str = ""
    manifests: dict[str, str] = Field(default_factory=dict)
    reference: dict[str, dict[str, list[float]]] = Field(default_factory=dict)
    files: dict[str, str]

    @property
    def commercial(self) -> bool:
        """True when the weights of every encoder may be used commercially."""
        return all(each.commercial for each in self.encoders)

    @field_validator("axes")
    @classmethod
    def _known(cls, axes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(axes)) < len(axes) or not set(axes) <= set(AXES):
            raise ValueError(f"axes are some of {', '.join(AXES)}, each once; got {', '.join(axes)}")
        return axes

    @model_validator(mode="after")
    def _consistent(self) -> "About":
        """Members fit the axes, the feature sets and the files."""
        keys, sets = [member.key for member in self.members], [each.name for each in self.encoders]
        if len(set(keys)) < len(keys) or len(set(sets)) < len(sets):
            raise ValueError("two members have the same key, or two feature sets the same name")
        for member in self.members:
            where = f"the member {member.key}"
            if member.spec.axes != self.axes or set(member.weights) != set(self.axes):
                raise ValueError(f"{where} is not of the axes {', '.join(self.axes)}")
            if absent := sorted(set(member.spec.features) - set(sets)):
                raise ValueError(f"{where} reads the feature set {absent[0]!r}, which the bundle does not describe")
        if unread := sorted(set(sets).difference(*(member.spec.features for member in self.members))):
            raise ValueError(f"no member reads the feature set {unread[0]!r}")
        for axis in self.axes:
            total = sum(member.weights[axis] for member in self.members)
            if abs(total - 1) > SUM:
                raise ValueError(f"the weights of the members on {axis} sum to {total:g} and not to 1")
        wanted = {member.file for member in self.members} | ({ANCHORING} if self.anchoring else set())
        if wanted != set(self.files):
            different = sorted(wanted ^ set(self.files))
            raise ValueError(f"files and members name different files: {', '.join(different[:3])}")
        for domain, table in self.reference.items():
            if set(table) != set(self.axes) or any(len(values) != QUANTILES for values in table.values()):
                raise ValueError(f"reference: {domain!r} needs {QUANTILES} numbers for each axis")
        return self


def digest_of(fields: dict[str, Any]) -> str:
    """The digest that belongs to the other fields of ``bundle.json``."""
    return key_of({name: value for name, value in fields.items() if name != "digest"})
