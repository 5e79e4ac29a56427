"""The space that a ``[[grid]]`` table spans: all of its points, or some drawn at random.

A space holds, by name, a list of alternatives or a ``Range``; a point is one value of each.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Self

from pydantic import ValidationError, model_validator

from mmmos import recipe

# Steps that a range is drawn from; digits of a drawn number that is not an integer.
LEVELS, DIGITS = 1000, 3


class Range(recipe.Recipe):
    """Numbers from ``low`` to ``high``, integers where both are; ``log``: every factor is as likely as any other."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be a number below high; got {self.low!r} and {self.high!r}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0; got {self.low!r}")
        return self

    @property
    def whole(self) -> bool:
        """True for a range of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __len__(self) -> int:
        return int(self.high - self.low) + 1 if self.whole and not self.log else LEVELS

    def __getitem__(self, step: int) -> float:
        """The value at a step, 0 being ``low`` and the last one ``high``."""
        share = step / (len(self) - 1)
        if self.log:
            return self.near(self.low * (self.high / self.low) ** share)
        return self.low + step if self.whole else self.near(self.low + (self.high - self.low) * share)

    def near(self, value: float) -> float:
        """The nearest number of the range that is written in a few digits."""
        rounded = round(value) if self.whole else float(f"{value:.{DIGITS}g}")
        return min(max(rounded, self.low), self.high)


Choices = Sequence[Any] | Range
Space = Mapping[str, Choices]
Point = dict[str, Any]


def is_range(value: object) -> bool:
    """True for a table that is meant as a ``Range``."""
    return isinstance(value, dict) and bool({"low", "high"} & set(value))


def ranges(options: dict[str, Any]) -> dict[str, Any]:
    """Options with every table that is meant as a range made one. Raises ``ValueError`` in one sentence."""
    found = dict(options)
    for name, value in options.items():
        if isinstance(value, list) and any(map(is_range, value)):
            raise ValueError(f"{name}: a range stands alone, not in a list of alternatives")
        if is_range(value):
            try:
                found[name] = Range.model_validate(value)
            except ValidationError as error:
                text = " ".join(recipe.sentences(error, Range, name)).replace("the recipe: ", "")
                raise ValueError(text.rstrip(".")) from None
    return found


def every(space: Space) -> Iterator[Point]:
    """All points, the last name's alternatives changing first."""
    for values in product(*space.values()):
        yield dict(zip(space, values, strict=True))


def drawn(space: Space, seed: int) -> Iterator[Point]:
    """All points in a random order that the space and the seed decide; steps of a range may repeat a value."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    size = math.prod(len(choices) for choices in space.values())
    moved: dict[int, int] = {}
    # A shuffle that holds only the places it has moved.
    for place in range(size):
        other = chance.randrange(place, size)
        number = moved.get(other, other)
        moved[other] = moved.pop(place, place)
        yield _at(space, number)


def edges(space: Space, first: str) -> Iterator[Point]:
    """For each value of the name ``first``, the first point, and those that differ from it in one other name; of a
    range, its ends.
    """
    shown = {name: [each.low, each.high] if isinstance(each, Range) else each for name, each in space.items()}
    for value in shown[first]:
        origin = {name: choices[0] for name, choices in shown.items()} | {first: value}
        yield origin
        for name, choices in shown.items():
            yield from (origin | {name: other} for other in choices[1:] if name != first)


def _at(space: Space, number: int) -> Point:
    """The point with a number of 0 up to the size of the space."""
    point = {}
    for name, choices in space.items():
        number, step = divmod(number, len(choices))
        point[name] = choices[step]
    return point
