"""Calibration: a head's predictions brought to the scale of the scores, per axis, on clips it was not fitted to."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def affine(prediction: Array, truth: Array) -> Array:
    """Slope and offset (2, axes) of the least-squares line from predictions to truth, both (clips, axes).

    A slope below 0 becomes 0: a head that ranks backwards predicts the mean, it is not turned round.
    Clips without truth are left out; an axis with fewer than two of them, or a constant prediction, gets slope 1.
    """
    result = identity(truth.shape[1])
    for column in range(truth.shape[1]):
        known = np.isfinite(truth[:, column])
        p, y = prediction[known, column], truth[known, column]
        if len(p) < 2:
            continue
        spread = p.var()
        slope = max(((p - p.mean()) * (y - y.mean())).mean() / spread, 0.0) if spread > 0 else 1.0
        result[:, column] = slope, y.mean() - slope * p.mean()
    return result


def identity(axes: int) -> Array:
    """The line (2, axes) that changes nothing."""
    return np.array([np.ones(axes), np.zeros(axes)])


def apply(line: Array, prediction: Array) -> Array:
    """Predictions (…, axes) on the calibrated scale."""
    return prediction * line[0] + line[1]
