"""What a selector gives back, and the checks of its parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.pool import Pool
from mmmos.errors import UsageError


@dataclass(frozen=True)
class Selection:
    """Positions of the chosen runs in the pool, ascending, and weights (members, axes) that sum to 1 for each axis."""

    members: NDArray[np.int64]
    weights: NDArray[np.float64]


def equal(pool: Pool, members: Sequence[int]) -> Selection:
    """Some runs, equally."""
    weights = np.full((len(members), len(pool.axes)), 1 / len(members))
    return Selection(np.array(sorted(members), dtype=np.int64), weights)


def weighted(weights: NDArray[np.float64]) -> Selection:
    """The runs that have a weight on any axis; ``weights`` (runs, axes)."""
    members = np.flatnonzero((weights != 0).any(axis=1))
    return Selection(members, weights[members] / weights[members].sum(axis=0))


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise ``UsageError`` unless a parameter is a whole number from ``least`` up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number, {least} or more; got {value!r}.")


def check_number(name: str, value: Any, low: float, high: float = float("inf"), *, above: bool = False) -> None:
    """Raise ``UsageError`` unless a parameter is a finite number from ``low``, or ``above`` it, to ``high``."""
    allowed = f"{'above' if above else 'from'} {low:g}" + (f" to {high:g}" if np.isfinite(high) else " up")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or not low <= value <= high or (above and value == low):
        raise UsageError(f"{name} must be a number {allowed}; got {value!r}.")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise ``UsageError`` unless a parameter is one of some values."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise UsageError(f"{name} must be {' or '.join(map(repr, choices))}; got {value!r}.")
