"""Formats: what an answer file must look like, read from TOML on the shelf ``submissions`` (or a path), or registered
by a plug-in in the entry-point group ``mmmos.formats``: a ``Format``, or the absolute path of a TOML file.

Conventions
    The columns after the id are scores. One that is an axis goes by the axis's short name and is found by any of its
    names; any other goes by its own name and is found in any case. The order of a format's columns is the order in the
    file, and nothing else depends on it. Encoding is UTF-8 without a byte order mark, always.
"""

import math
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mmmos import recipe, registry
from mmmos.axes import AXES, find_axis
from mmmos.errors import SetupError, UnknownName, UsageError
from mmmos.manifest.readers import is_audio
from mmmos.recipe import Recipe

SHELF = "submissions"
PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Format(Recipe):
    """Rules of one answer file; every field is a key of the TOML."""

    title: str = ""
    """What it is, in one line."""
    file: str = Field(pattern=r"^[\w-][\w.-]*$")
    """Name of the answer file."""
    archive: str | None = Field(default=None, pattern=r"^[\w-][\w.-]*\.zip$")
    """Name by which a zip with the answer file at its root is written, or none; one of any name is accepted."""
    id: str = Field(default="sample_id", min_length=1)
    """Name of the id column, which comes first."""
    columns: tuple[str, ...] = ("sample_id", *AXES)
    """Names of all columns, in the order of the file: the id, then the scores."""
    header: Literal["required", "optional", "forbidden"] = "required"
    """Whether the first line names the columns."""
    write_header: bool = True
    """Whether an optional header is written unless asked otherwise."""
    delimiter: Literal[",", ";", "\t", " "] = ","
    """What stands between the fields of a line."""
    quoting: bool = False
    """Whether a field may stand in double quotes (RFC 4180), so that ids may hold the delimiter; never a newline."""
    decimals: int = Field(default=6, ge=0, le=15)
    """Decimals of a score that is written."""
    fewest_decimals: int = Field(default=0, ge=0)
    """Least decimals that a score may have."""
    most_decimals: int | None = Field(default=None, ge=0)
    """Most decimals that a score may have; by default any number."""
    range: tuple[float, float] = (0.0, 10.0)
    """Lowest and highest score allowed."""
    outside: Literal["error", "clip"] = "error"
    """What the writer does with scores outside ``range``."""
    id_pattern: str | None = None
    """Regular expression that a whole id matches; with ``rows`` it stands in where no list of clips is given."""
    id_extension: Literal["allowed", "forbidden"] = "allowed"
    """Whether an id may end in the extension of an audio file, such as ``.wav``."""
    rows: int | None = Field(default=None, ge=1)
    """Number of clips in the challenge's list."""
    order: Literal["list", "any"] = "any"
    """Whether rows stand in the order of the list."""
    newline: Literal["lf", "crlf", "any"] = "lf"
    """Line ends; "any" is written as LF."""
    encoding: Literal["utf-8"] = "utf-8"
    """UTF-8 without a byte order mark."""

    @field_validator("id_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @field_validator("range")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if not (bounds[0] < bounds[1] and all(map(math.isfinite, bounds))):
            raise ValueError(f"the lower end must come first and be lower, both finite, got {list(bounds)}")
        return bounds

    @model_validator(mode="after")
    def _columns_are_the_id_and_scores(self) -> Self:
        if self.columns[:1] != (self.id,):
            raise ValueError(f"the first of columns must be the id column {self.id!r}, got {list(self.columns)}")
        if not self.axes:
            raise ValueError(f"columns must hold a score after the id, got {list(self.columns)}")
        found = [(find_axis(name) or name).lower() for name in self.columns]
        if len(set(found)) < len(found):
            raise ValueError(f"columns must be different from each other in any case, got {list(self.columns)}")
        if bad := [name for name in self.columns if not self._can_head(name)]:
            raise ValueError(
                f"a column's name must be text, not a number, without {self.delimiter!r}, quotes and outer spaces, "
                f"got {bad[0]!r}"
            )
        return self

    @model_validator(mode="after")
    def _decimals_are_allowed(self) -> Self:
        most = self.decimals if self.most_decimals is None else self.most_decimals
        if not self.fewest_decimals <= self.decimals <= most:
            raise ValueError(f"decimals must lie from fewest_decimals to most_decimals, got {self.decimals}")
        if any(round(end, self.decimals) != end for end in self.range):
            raise ValueError(f"the ends of range must have at most {self.decimals} decimals, got {list(self.range)}")
        return self

    def _can_head(self, name: str) -> bool:
        """Whether a column's name can be read back from a header line."""
        try:
            float(name)
        except ValueError:
            return bool(name) and name == name.strip() and name.isprintable() and not {self.delimiter, '"'} & set(name)
        return False

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the scores in the order of the file: an axis's short name, else the column's own."""
        return tuple(find_axis(name) or name for name in self.columns[1:])

    def axis_of(self, name: str) -> str | None:
        """Which of ``axes`` a column of predictions holds, by its name; None for any other column."""
        wanted = (find_axis(name) or name.strip()).lower()
        return next((axis for axis in self.axes if axis.lower() == wanted), None)

    def allows_id(self, clip: str) -> bool:
        """False for an id with an audio file's extension where the format forbids one."""
        return self.id_extension == "allowed" or not is_audio(clip)

    @property
    def line_end(self) -> str:
        r"""What the writer ends a line with: ``"\n"`` or ``"\r\n"``."""
        return "\r\n" if self.newline == "crlf" else "\n"

    def has_header(self, wanted: bool | None = None) -> bool:
        """Whether a header is written; ``wanted`` None means as the format says.

        Raises ``UsageError`` for a header that the format forbids, or its lack where one is required.
        """
        if self.header == "optional":
            return self.write_header if wanted is None else wanted
        required = self.header == "required"
        if wanted is not None and wanted != required:
            raise UsageError(
                f"In this format the header is {self.header}; leave out the option, or use another format."
            )
        return required


def read_format(name: str | Path | Format, workspace: str | Path = ".") -> Format:
    """A format by name (workspace first, then those of MMMOS, then plug-ins), by path of a ``.toml``, in a local file
    (``mine.py:NAME``), or as it is.

    Raises ``UnknownName``, ``UsageError`` or ``RecipeError``, as ``mmmos.recipe.find`` and ``read``; ``SetupError`` for
    a plug-in that cannot be imported or has the name of another format.
    """
    if isinstance(name, Format):
        return name
    name = str(name)
    if registry.is_local(name):
        return _of_plugin(name)
    if name.endswith(".toml"):
        return recipe.read(recipe.find(SHELF, name, workspace), Format)
    if name not in format_names(workspace):
        raise UnknownName(recipe.SHELVES[SHELF], name, format_names(workspace))
    if name in recipe.names(SHELF, workspace):
        return recipe.read(recipe.find(SHELF, name, workspace), Format)
    return _of_plugin(name)


def format_names(workspace: str | Path = ".") -> list[str]:
    """Names of all formats on the workspace's shelf, of MMMOS and of plug-ins, sorted. Raises ``SetupError``."""
    return sorted({*recipe.names(SHELF, workspace), *_plugins()})


def _plugins() -> list[str]:
    """Names of registered formats. Raises ``SetupError`` for a name of one of MMMOS's own."""
    own, found = {path.stem for path in recipe.packaged_files(SHELF)}, registry.names("formats")
    for name in found:
        if name in own:
            package = registry.package_of("formats", name)
            raise SetupError(
                f"The package {package} registers the format {name!r}, which is a name of MMMOS's own."
                f" Uninstall {package}, or ask its author for another name."
            )
    return found


def _of_plugin(name: str) -> Format:
    """The format that a plug-in registers, or that a local file holds."""
    found = registry.load("formats", name)
    if isinstance(found, str | Path) and Path(found).is_absolute():
        return recipe.read(found, Format)
    if isinstance(found, Format):
        return found
    got = f"the relative path {str(found)!r}" if isinstance(found, str | Path) else type(found).__name__
    raise UsageError(
        f"The format {name!r} is {got}; it is a mmmos.submissions.formats.Format, or the absolute path of a TOML file"
        ' such as Path(__file__).with_name("mine.toml").'
    )
