"""Stacking: weights that sum to 1, fitted by least squares (Wolpert, 1992; Breiman, 1996)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.pool import Pool
from mmmos.ensembles.selectors.objective import Names, Term, finite, terms
from mmmos.ensembles.selectors.selection import Selection, check_choice, check_number, weighted

Array = NDArray[np.float64]

# Smaller non-negative weights are rounding, and make no member.
NEGLIGIBLE = 1e-6


def stack(
    pool: Pool, *, on: Names = "pam", method: str = "ridge", alpha: float = 1.0, per_axis: bool = True
) -> Selection:
    """Weights that sum to 1, by least squares between centred predictions and truth of clips.

    ``method`` = "ridge" shrinks them towards equal weights: ``alpha`` = 1 takes it that weights differ from 1 / runs
    by that much, and the truth from the mean of all runs by what is seen; a larger ``alpha`` shrinks more. Weights may
    be negative. "nnls": none is negative, most are 0; ``alpha`` plays no part. With ``per_axis`` each axis has weights
    of its own, otherwise all have the same; so has an axis on which nothing is known. Several sets count by weight,
    each centred for itself. Raises ``UsageError`` for a parameter out of range, and where no run is finite on the sets.
    """
    check_choice("method", method, ("ridge", "nnls"))
    check_number("alpha", alpha, 0, above=True)
    check_choice("per_axis", per_axis, (True, False))
    some = terms(pool, on, "utt_MSE")
    runs = finite(some)

    def weights(own: Sequence[Term]) -> Array:
        residuals, rows = _residuals(own, runs)
        found = _ridge(residuals, rows, alpha) if method == "ridge" else _simplex(residuals)
        result = np.zeros(len(pool))
        result[runs] = found
        return result

    by_axis = [[term for term in some if term.axis == axis] if per_axis else [] for axis in range(len(pool.axes))]
    together = weights(some) if not all(by_axis) else np.zeros(len(pool))
    return weighted(np.stack([weights(own) if own else together for own in by_axis], axis=1))


def _residuals(own: Sequence[Term], runs: NDArray[np.int64]) -> tuple[Array, float]:
    """Centred truth minus predictions (n, runs), squared sums being weighted MSEs, and the number of rows that count.

    That number is Kish's effective sample size. As weights w sum to 1, the ensemble's residual is residuals @ w.
    """
    total = sum(term.weights["MSE"] for term in own)
    parts, shares = [], []
    for term in own:
        residuals = term.truth - term.predictions[runs]
        share = term.weights["MSE"] / total / len(term.truth)
        parts.append(np.sqrt(share) * (residuals - residuals.mean(axis=1, keepdims=True)).T)
        shares.append(np.full(len(term.truth), share))
    return np.concatenate(parts), float(1 / np.sum(np.concatenate(shares) ** 2))


def _ridge(residuals: Array, rows: float, alpha: float) -> Array:
    """1 / runs + d with the least |residuals @ w|² + penalty |d|², solved in the smaller of both dimensions.

    penalty = alpha · variance / rows · runs²: of a prior of deviation 1 / runs and the equal mean's residual variance.
    """
    count = residuals.shape[1]
    rest = residuals.mean(axis=1)
    apart = residuals - rest[:, None]
    penalty = max(alpha * float(rest @ rest) / rows * count**2, np.finfo(float).tiny)
    if len(residuals) < count:
        d = -apart.T @ np.linalg.solve(apart @ apart.T + penalty * np.eye(len(residuals)), rest)
    else:
        d = -np.linalg.solve(apart.T @ apart + penalty * np.eye(count), apart.T @ rest)
    return 1 / count + d - d.mean()


def _simplex(residuals: Array) -> Array:
    """The weights of the simplex with the least |residuals @ w|.

    Non-negative least squares with one more row that asks for a sum of 1 differs from them by a factor alone.
    """
    from scipy.optimize import nnls

    scale = float(np.sqrt((residuals**2).sum(axis=0).mean())) or 1.0
    count = residuals.shape[1]
    rows = np.concatenate([residuals / scale, np.ones((1, count))])
    found, _ = nnls(rows, np.append(np.zeros(len(residuals)), 1.0))
    found[found < NEGLIGIBLE * found.sum()] = 0
    return np.asarray(found / found.sum(), np.float64)
