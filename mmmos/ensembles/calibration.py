"""Calibration: a head's predictions brought to the scale of the scores, per axis, on clips it was not fitted to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mmmos.errors import UnknownName

Array = NDArray[np.float64]
Kind = Literal["affine", "isotonic", "none"]
KINDS: tuple[Kind, ...] = ("affine", "isotonic", "none")

# Clips of a bin that isotonic regression sees as one point; fewer follow the noise at both ends.
BIN = 20

# Predictions that differ by less than this part of their size are constant up to the rounding of float32.
CONSTANT = 1e-6


@dataclass(frozen=True, eq=False)
class Calibration:
    """A non-decreasing, piecewise linear map for each axis.

    ``x`` and ``y`` (axes, knots): calibrated predictions at some predictions, ascending; a row with fewer knots repeats
    its last one. ``slope`` (axes,), 0 up: of the line before the first knot and behind the last. One knot is a line.
    """

    x: Array
    y: Array
    slope: Array

    def __call__(self, prediction: NDArray[np.floating[Any]]) -> Array:
        """Predictions (…, axes) on the calibrated scale, float64."""
        result = np.asarray(prediction, dtype=np.float64).copy()
        for axis, (x, y, slope) in enumerate(zip(self.x, self.y, self.slope, strict=True)):
            p = result[..., axis]
            result[..., axis] = np.interp(p, x, y) + slope * (p - np.clip(p, x[0], x[-1]))
        return result

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        return {"x": self.x, "y": self.y, "slope": self.slope}

    @classmethod
    def from_state(cls, state: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        return cls(state["x"], state["y"], state["slope"])


def identity(axes: int) -> Calibration:
    """The calibration that changes nothing."""
    return Calibration(np.zeros((axes, 1)), np.zeros((axes, 1)), np.ones(axes))


def fit(kind: Kind, prediction: Array, truth: Array) -> Calibration:
    """The calibration from predictions to truth, both (clips, axes); clips without truth (NaN) are left out.

    ``affine``: the least-squares line. ``isotonic``: isotonic regression of bins of 20 clips, joined through the
    centres of its blocks (Oron and Flournoy, 2017) and continued by that line's slope, with fewer than 40 clips the
    line. Both increase strictly, so that every rank is kept; plain steps would tie what the head told apart.

    A slope below 0 becomes 0: a head that ranks backwards predicts the mean, it is not turned round. An axis with fewer
    than two known clips, or a constant prediction, is shifted alone, with slope 1. Raises ``UnknownName`` for the kind.
    """
    if kind not in KINDS:
        raise UnknownName("calibration", kind, KINDS)
    if kind == "none":
        return identity(truth.shape[1])
    fitted = []
    for p, y in zip(np.asarray(prediction, np.float64).T, np.asarray(truth, np.float64).T, strict=True):
        known = np.isfinite(y)
        fitted.append(_fit_axis(kind, p[known], y[known]))
    x, y, slope = zip(*fitted, strict=True)
    return Calibration(_padded(x), _padded(y), np.array(slope))


def cross_fitted(kind: Kind, prediction: Array, truth: Array, fold: NDArray[np.int64]) -> Array:
    """Predictions (clips, axes), those of each ``fold`` (clips,) calibrated by a fit on the clips of all others.

    With fewer than two folds, all are calibrated by one fit on all.
    """
    return of_other_folds(partial(fit, kind), prediction, truth, fold)


def of_other_folds(
    fitted: Callable[[Array, Array], Calibration], prediction: Array, truth: Array, fold: NDArray[np.int64]
) -> Array:
    """The same with any way to fit a calibration to predictions and truth."""
    folds = np.unique(fold)
    if len(folds) < 2:
        return fitted(prediction, truth)(prediction)
    result = np.empty(prediction.shape)
    for number in folds:
        held = fold == number
        result[held] = fitted(prediction[~held], truth[~held])(prediction[held])
    return result


def _fit_axis(kind: Kind, p: Array, y: Array) -> tuple[Array, Array, float]:
    """Knots x and y, and the slope outside them, for predictions p and truth y, both (clips,)."""
    if not len(p):
        return np.zeros(1), np.zeros(1), 1.0
    centre = np.array([p.mean()]), np.array([y.mean()])
    if np.ptp(p) <= CONSTANT * np.abs(p).max():
        return *centre, 1.0
    slope = max(float((p - centre[0]) @ (y - centre[1])) / (len(p) * float(p.var())), 0.0)
    return (*centre, slope) if kind == "affine" else (*_block_centres(p, y), slope)


def _padded(rows: Sequence[Array]) -> Array:
    """Rows of different lengths in one array, the shorter ones filled with their last value."""
    longest = max(map(len, rows))
    return np.array([np.pad(row, (0, longest - len(row)), "edge") for row in rows])


def _block_centres(p: Array, y: Array) -> tuple[Array, Array]:
    """Mean prediction and mean truth of each block that pooling adjacent violators makes of the bins, ascending."""
    from sklearn.isotonic import isotonic_regression

    lower = np.searchsorted(np.sort(p), p)
    _, place, weight = np.unique(lower * max(len(p) // BIN, 1) // len(p), return_inverse=True, return_counts=True)
    x, means = np.bincount(place, p) / weight, np.bincount(place, y) / weight
    levels, block = np.unique(isotonic_regression(means, sample_weight=weight), return_inverse=True)
    return np.bincount(block, weight * x) / np.bincount(block, weight), levels
