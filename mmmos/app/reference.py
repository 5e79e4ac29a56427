"""Where a score lies among the ratings that a bundle was trained on."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmmos.axes import SCALE

Quantiles = Sequence[float]
Reference = Mapping[str, Mapping[str, Quantiles]]

ALL = ""  # the name of the reference over all domains


class Spread(NamedTuple):
    """The middle of a distribution: its 5, 25, 50, 75 and 95 % quantiles, score units."""

    low: float
    lower: float
    median: float
    upper: float
    high: float


def share_below(score: float, quantiles: Quantiles) -> float:
    """Share of ratings below a score, 0 to 1, from quantiles at equal steps from 0 to 100 %.

    Between two quantiles the share rises linearly; where several are equal it is the lowest of theirs, since equal
    ratings are not below.
    """
    values = np.asarray(quantiles, np.float64)
    shares = np.linspace(0, 1, len(values))
    right = int(np.searchsorted(values, score, side="left"))
    if right == 0:
        return 0.0
    if right == len(values):
        return 1.0
    left = right - 1
    return float(np.interp(score, values[[left, right]], shares[[left, right]]))


def place_in_words(score: float, quantiles: Quantiles) -> str:
    """Where a score lies: "higher than 73 % of the rated clips". Not "better": more complexity is not better."""
    if score < min(quantiles):
        return "lower than all rated clips"
    if score > max(quantiles):
        return "higher than all rated clips"
    percent = round(100 * share_below(score, quantiles))
    return f"higher than {percent} % of the rated clips"


def middle(quantiles: Quantiles) -> Spread:
    """The quantiles that a bar shows."""
    values = np.asarray(quantiles, np.float64)
    found = np.interp([0.05, 0.25, 0.5, 0.75, 0.95], np.linspace(0, 1, len(values)), values)
    return Spread(*map(float, found))


def domains(reference: Reference) -> list[str]:
    """Names of the references to choose from, all domains first; one domain alone is all there is."""
    named = sorted(name for name in reference if name != ALL)
    if ALL not in reference:
        return named
    return [ALL, *named] if len(named) > 1 else [ALL]


def shown_range(reference: Reference, scores: Sequence[float] = ()) -> tuple[float, float]:
    """Whole numbers that all ratings and some scores lie between, for the axis of a curve; the scale where unknown."""
    ratings = [value for axes in reference.values() for quantiles in axes.values() for value in quantiles]
    if not ratings:
        ratings = list(SCALE)
    values = [*ratings, *scores]
    return float(np.floor(min(values))), float(np.ceil(max(values)))
