"""Formats: what an answer file must look like, read from TOML on the shelf ``submissions`` (or a path).

Conventions
    Columns are named, and axes found by any of their names; a format's column order is the order in the file, and
    nothing else depends on it. Encoding is UTF-8 without a byte order mark, always.
"""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mmmos.axes import AXES, find_axis
from mmmos.errors import UsageError
from mmmos.recipe import Recipe, find, read

PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Format(Recipe):
    """Rules of one answer file; every field is a key of the TOML."""

    title: str = ""
    file: str = Field(pattern=r"^[\w-][\w.-]*$")
    """Name of the answer file."""
    archive: str | None = Field(default=None, pattern=r"^[\w-][\w.-]*\.zip$")
    """Name of a zip that holds the answer file at its root, or none."""
    id: str = Field(default="sample_id", min_length=1)
    """Name of the id column, which comes first."""
    columns: tuple[str, ...] = ("sample_id", *AXES)
    """Names of all columns, in the order of the file."""
    header: Literal["required", "optional", "forbidden"] = "required"
    write_header: bool = True
    """Whether an optional header is written unless asked otherwise."""
    delimiter: Literal[",", ";", "\t", " "] = ","
    quoting: bool = False
    """Whether a field may stand in double quotes (RFC 4180), so that ids may hold the delimiter; never a newline."""
    decimals: int = Field(default=6, ge=0, le=15)
    range: tuple[float, float] = (0.0, 10.0)
    """Lowest and highest score allowed."""
    outside: Literal["error", "clip"] = "error"
    """What the writer does with scores outside ``range``."""
    id_pattern: str | None = None
    """Regular expression that a whole id matches; with ``rows`` it stands in where no list of clips is given."""
    rows: int | None = Field(default=None, ge=1)
    """Number of clips in the challenge's list."""
    order: Literal["list", "any"] = "any"
    """Whether rows stand in the order of the list."""
    newline: Literal["lf", "crlf", "any"] = "lf"
    """Line ends; "any" is written as LF."""
    encoding: Literal["utf-8"] = "utf-8"

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
        if not bounds[0] < bounds[1]:
            raise ValueError(f"the lower end must come first and be lower, got {list(bounds)}")
        return bounds

    @model_validator(mode="after")
    def _columns_are_the_id_and_axes(self) -> Self:
        if self.columns[:1] != (self.id,):
            raise ValueError(f"the first of columns must be the id column {self.id!r}, got {list(self.columns)}")
        axes = [find_axis(name) for name in self.columns[1:]]
        if not axes or None in axes or len(set(axes)) < len(axes):
            raise ValueError(
                f"after the id, columns must be different axes of {', '.join(AXES)}, got {list(self.columns)}"
            )
        return self

    @property
    def axes(self) -> tuple[str, ...]:
        """Short names of the axes in the order of the file."""
        return tuple(axis for name in self.columns[1:] if (axis := find_axis(name)))

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
    """A format by name (workspace first, then the package), by path of a ``.toml``, or as it is.

    Raises ``UnknownName``, ``UsageError`` or ``RecipeError``, as ``mmmos.recipe.find`` and ``read``.
    """
    if isinstance(name, Format):
        return name
    return read(find("submissions", str(name), workspace), Format)
