"""What an encoder is, what a feature set is, and the recipe that asks for them.

A feature set is one encoder over windows of audio, pooled and stored in one way. Its fingerprint is the SHA-256 of
everything that changes its numbers, and nothing else: not the path of the weights, the device or the batch size.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from mmmos import recipe, registry
from mmmos.audio import POLICY
from mmmos.errors import UnknownName, UsageError
from mmmos.files import key_of

SCHEMA = 2
WINDOW = 10.0
NAME = r"^\w[\w.+-]*$"


@dataclass(frozen=True)
class EncoderSpec:
    """Facts of a loaded encoder.

    ``rate`` Hz, ``minimum`` and ``maximum`` samples of its input (0: of any length), ``resampler`` that makes it;
    ``layers`` × ``dim`` of its output; ``hop`` s between frames;
    ``family`` and ``code`` name the code that runs it; ``front`` is what happens to the waveform first; ``sha256`` is
    of the weights file and ``config`` of the settings that shape its model ("" without weights).

    An encoder's author changes ``code`` when it gives other numbers, or stored vectors of the old code are served. For
    one in a local file (``mine.py:Mine``) nobody has to: the file's SHA-256 joins its ``code``.
    """

    name: str
    family: str
    rate: int
    layers: int
    dim: int
    hop: float
    minimum: int
    licence: str
    weights: str = ""
    revision: str = ""
    sha256: str = ""
    config: str = ""
    code: str = "1"
    front: str = ""
    precision: str = "float32"
    layer_names: tuple[str, ...] = field(default=())
    maximum: int = 0
    resampler: str = "soxr-hq"

    def names(self) -> tuple[str, ...]:
        """One name a layer; hidden states are named by their index, 0 being the input of the first block."""
        return self.layer_names or tuple(str(index) for index in range(self.layers))


@dataclass(frozen=True)
class FeatureSpec:
    """A feature set: an encoder, its windows (s), the dtype of the stored unit vectors, the layers that keep frames."""

    name: str
    encoder: EncoderSpec
    window: float = WINDOW
    hop: float = WINDOW
    dtype: str = "float16"
    frames: tuple[str, ...] = ()

    def numbers(self) -> dict[str, object]:
        """Everything that changes the stored numbers."""
        # Weights say which encoder it is; without weights its name does. ``maximum`` is a bound on the window.
        ignored = {"licence", "weights", "revision", "maximum", "resampler"}
        ignored |= {"name"} if self.encoder.sha256 else set()
        encoder = {key: value for key, value in asdict(self.encoder).items() if key not in ignored}
        return {
            "schema": SCHEMA,
            "audio": POLICY | {"resampler": self.encoder.resampler},
            "encoder": encoder | {"hop": float(self.encoder.hop), "layer_names": list(self.encoder.names())},
            "window": float(self.window),
            "hop": float(self.hop),
            "pooling": "mean",
            "dtype": self.dtype,
            "frames": list(self.frames),
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of ``numbers()``."""
        return key_of(self.numbers())


class EncoderRecipe(recipe.Recipe):
    """One encoder of a feature recipe."""

    encoder: str
    """An encoder."""
    name: str | None = Field(default=None, pattern=NAME)
    """Name of the feature set; by default the encoder's."""
    weights: str | None = None
    """A hub id, a file or a folder in place of the encoder's own weights."""
    revision: str | None = None
    """A commit of the hub repository; by default the encoder's pinned one."""
    window: float | None = Field(default=None, gt=0)
    """Length of a window in s; by default the recipe's."""
    hop: float | None = Field(default=None, gt=0)
    """Step from window to window in s; by default the recipe's."""
    dtype: Literal["float16", "float32"] | None = None
    """Of the stored unit vectors; by default the recipe's."""
    frames: Literal["all", "last"] | list[str | int] | None = None
    """Layers, by name or number, whose single frames are kept besides the means of windows."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the encoder computes in; by default float32. It refuses what it does not know."""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Options of the encoder; it refuses what it does not know."""

    @property
    def set_name(self) -> str:
        """Name of the feature set, safe in a file name: its own, the encoder's, or the one behind a plug-in's file."""
        return self.name or re.sub(r"[^\w.+-]", "_", self.encoder.rpartition(":")[2])


class FeatureRecipe(recipe.Recipe):
    """``features/*.toml``: encoders, and defaults for their windows and stored dtype."""

    encoders: list[str | EncoderRecipe] = Field(min_length=1)
    """Encoders by name or as tables."""
    window: float = Field(default=WINDOW, gt=0)
    """Length of a window in s."""
    hop: float | None = Field(default=None, gt=0)
    """Step from window to window in s, at most ``window``; by default ``window``, so that windows do not overlap."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the stored unit vectors; their norms are float32."""

    @field_validator("encoders")
    @classmethod
    def _distinct(cls, encoders: list[str | EncoderRecipe]) -> list[str | EncoderRecipe]:
        names = [(EncoderRecipe(encoder=e) if isinstance(e, str) else e).set_name for e in encoders]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two feature sets are called {twice[0]!r}; give one of them a name of its own")
        return encoders

    @model_validator(mode="after")
    def _without_gaps(self) -> Self:
        for table in self.tables():
            if table.window and table.hop and table.hop > table.window:
                raise ValueError(
                    f"{table.set_name}: a hop of {table.hop:g} s leaves audio out between windows of {table.window:g} s"
                )
        return self

    def tables(self) -> list[EncoderRecipe]:
        """Every encoder as a table with this recipe's defaults filled in."""
        filled = []
        for entry in self.encoders:
            table = EncoderRecipe(encoder=entry) if isinstance(entry, str) else entry
            window = table.window or self.window
            defaults = {"window": window, "hop": self.hop or window, "dtype": self.dtype}
            missing = {key: value for key, value in defaults.items() if getattr(table, key) is None}
            filled.append(table.model_copy(update=missing))
        return filled

    def beside(self, folder: Path) -> "FeatureRecipe":
        """This recipe with relative weights that exist in a folder made absolute."""
        entries = [
            entry.model_copy(update={"weights": str(folder / entry.weights)})
            if isinstance(entry, EncoderRecipe) and entry.weights and (folder / entry.weights).exists()
            else entry
            for entry in self.encoders
        ]
        return self.model_copy(update={"encoders": entries})


def read_recipe(name: str, workspace: str = ".") -> FeatureRecipe:
    """A feature recipe by name or path."""
    return recipe.read(recipe.find("features", name, workspace), FeatureRecipe)


Encoders = str | FeatureRecipe | Iterable[str | EncoderRecipe]


def resolve(encoders: Encoders, workspace: str | Path = ".") -> FeatureRecipe:
    """A feature recipe from its name or path, from an encoder's name, or from a list of encoders.

    Raises ``UnknownName`` for a name that is neither, ``RecipeError`` and ``UsageError`` for what is no recipe.
    """
    if isinstance(encoders, FeatureRecipe):
        return encoders
    if isinstance(encoders, str):
        recipes, known = recipe.names("features", workspace), registry.names("encoders")
        if encoders.endswith(".toml") or encoders in recipes:
            return read_recipe(encoders, str(workspace))
        if encoders not in known and not registry.is_local(encoders):
            raise UnknownName("feature recipe or encoder", encoders, dict.fromkeys([*recipes, *known]))
        encoders = [encoders]
    try:
        return FeatureRecipe(encoders=list(encoders))
    except ValidationError as error:
        raise UsageError(" ".join(recipe.sentences(error, FeatureRecipe, "extract"))) from None
