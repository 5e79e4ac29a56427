"""The figures of the report, each a function of plain arrays and tables that gives one SVG element."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from mmmos.axes import LONG_NAMES, SCALE
from mmmos.submissions.report.excerpts import Excerpt, mel
from mmmos.submissions.report.svg import Plot, nice_ticks

Array = NDArray[np.float64]

SYSTEMS = 60  # that a ranking shows, the best and the worst
_ROW = 14.0  # px
_NAME = 13  # letters of a name that fit beside a ranking


class Means(NamedTuple):
    """Systems: their names, and the means of true and predicted scores (systems,)."""

    names: tuple[str, ...]
    true: Array
    predicted: Array


def scatter(axis: str, true: Array, predicted: Array, means: Means | None) -> Markup:
    """Predictions (clips,) against truth (clips,) on the score scale, systems as rings; on the diagonal both agree."""
    low = min(SCALE[0], np.floor(predicted.min(initial=0)))
    high = max(SCALE[1], np.ceil(predicted.max(initial=0)))
    plot = Plot((low, high), (low, high))
    steps = nice_ticks(low, high)
    plot.ticks(steps, steps)
    plot.labels(f"true {axis}", f"predicted {axis}")
    plot.line([low, high], [low, high], "rule")
    plot.dots(true, predicted)
    if means is not None:
        plot.rings(means.true, means.predicted, means.names)
    return plot.svg(f"Predicted against true {axis}")


def ranks(axis: str, group: str, true: Array, predicted: Array, srcc: float, ceiling: float) -> Markup:
    """Ranks (items,) by prediction against ranks by truth, both from 0 to 1.

    Ranks that agree with a Spearman correlation ρ lie √((1 − ρ) / 6) from the diagonal, as the root of a mean of
    squares. The band is as wide as that for the ceiling, the lines for the correlation found.
    """
    plot = Plot((0, 1), (0, 1), height=250, margins=(10, 10, 20, 24))
    diagonal = np.array([0.0, 1.0])
    if np.isfinite(ceiling):
        _parallel(plot, distance(ceiling), "band")
    plot.line(diagonal, diagonal, "rule")
    if np.isfinite(srcc):
        for side in (-1, 1):
            plot.line(*_clipped(side * distance(srcc)), "dash")
    plot.dots(_fractions(true), _fractions(predicted))
    plot.labels("true rank")
    plot.text(10, 12, f"predicted rank of {axis}")
    return plot.svg(f"Ranks of {axis} by prediction against truth, {group}")


def distance(srcc: float) -> float:
    """Root mean square distance between two rankings in [0, 1] of many items that agree with a Spearman correlation."""
    return float(np.sqrt(max(0.0, 1 - srcc) / 6))


def _fractions(values: Array) -> Array:
    mid = pd.Series(values).rank().to_numpy(np.float64)
    return np.asarray((mid - 0.5) / len(values))


def _clipped(shift: float) -> tuple[Array, Array]:
    """The diagonal moved up, within the square."""
    x = np.array([max(0.0, -shift), min(1.0, 1 - shift)])
    return x, x + shift


def _parallel(plot: Plot, width: float, kind: str) -> None:
    x = np.array(sorted({0.0, width, 1 - width, 1.0}))
    plot.area(x, np.clip(x - width, 0, 1), np.clip(x + width, 0, 1), kind)


def ranking(axis: str, systems: pd.DataFrame) -> Markup:
    """Systems by their true mean, best on top: the prediction as a dot, the truth as a ring, both with intervals.

    ``systems``: indexed by name, sorted; columns true, true_low, true_high, predicted, predicted_low, predicted_high.
    """
    ends = systems.to_numpy(np.float64)
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    count = len(systems)
    margins = (86.0, 10.0, 4.0, 36.0)
    plot = Plot((low, high), (count - 0.5, -0.5), height=count * _ROW + 40, margins=margins)
    steps = nice_ticks(low, high, 4)
    places = np.arange(count)
    digits = 0 if all(float(step).is_integer() for step in steps) else 1
    for place, name in zip(plot.at_y(places), systems.index, strict=True):
        plot.text(78, float(place) + 4, shorter(str(name)), "end", full=str(name))
    plot.ticks(steps, digits=digits)
    plot.labels(f"mean {axis}")
    plot.spans(systems["true_low"], systems["true_high"], places + 0.18, "thin")
    plot.spans(systems["predicted_low"], systems["predicted_high"], places - 0.12, "bar")
    plot.rings(systems["true"], places + 0.18, radius=3)
    plot.dots(systems["predicted"], places - 0.12, "point")
    return plot.svg(f"Systems by true mean {axis}, with predictions")


def shorter(name: str, most: int = _NAME) -> str:
    """A name of at most so many letters: its end, which tells systems apart, is kept."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[-(most - most // 3 - 1) :]}"


def bias(axis: str, bins: pd.DataFrame) -> Markup:
    """Mean of prediction minus truth over the true score: columns score, mean, low, high; zero is right."""
    reach = max(1.6 * float(bins["mean"].abs().max()), 0.5)
    plot = Plot((SCALE[0], SCALE[1]), (-reach, reach), height=170)
    plot.line(list(SCALE), [0, 0], "rule")
    steps = nice_ticks(-reach, reach, 4)
    plot.ticks(range(0, 11, 2), steps, digits=0 if all(float(step).is_integer() for step in steps) else 1)
    plot.spans(bins["low"].clip(-reach, reach), bins["high"].clip(-reach, reach), bins["score"], "bar", upright=True)
    plot.line(bins["score"], bins["mean"], "mark")
    plot.dots(bins["score"], bins["mean"], "point")
    plot.labels(f"true {axis}", "predicted − true")
    return plot.svg(f"Bias of {axis} by true score")


def scores(axes: Sequence[str], true: Array, predicted: Array) -> Markup:
    """One clip: its true (ring) and predicted (dot) score on each axis, (axes,) each."""
    count = len(axes)
    high = max(SCALE[1], float(np.ceil(predicted.max())))
    low = min(SCALE[0], float(np.floor(predicted.min())))
    margins = (28.0, 8.0, 2.0, 20.0)
    plot = Plot((low, high), (count - 0.5, -0.5), width=220, height=count * 16 + 22, margins=margins)
    places = np.arange(count)
    for axis, place in zip(axes, plot.at_y(places), strict=True):
        plot.text(0, float(place) + 4, axis)
    plot.spans(np.full(count, low), np.full(count, high), places, "thin faint")
    plot.spans(np.minimum(true, predicted), np.maximum(true, predicted), places, "bar")
    plot.rings(true, places, radius=3.5)
    plot.dots(predicted, places, "point")
    plot.ticks(nice_ticks(low, high))
    return plot.svg("True and predicted scores of this clip")


def spectrogram(found: Excerpt, source: str) -> Markup:
    """An excerpt's picture between its axes: kHz on the mel scale, seconds. ``source``: the picture as a data URI."""
    width, height, margins = 340.0, 132.0, (26.0, 10.0, 6.0, 24.0)
    highest = float(mel(found.top))
    plot = Plot((0, found.seconds), (0, highest), width=width, height=height, margins=margins)
    plot.image(source, width - margins[0] - margins[1], height - margins[2] - margins[3])
    for kilohertz in (0.5, 1, 2, 4, 8, 12):
        place = float(mel(1000 * kilohertz))
        if place <= highest * 1.001:
            plot.text(22, float(plot.at_y(place)) + 4, f"{kilohertz:g}", "end")
    steps = nice_ticks(0, found.seconds, 5)
    plot.ticks(steps, digits=0 if all(float(step).is_integer() for step in steps) else 1)
    return plot.svg("Spectrogram: kHz up, seconds across")


def title(axis: str) -> str:
    """An axis in words."""
    return LONG_NAMES[axis].replace("_", " ")
