"""Heads fitted by scikit-learn and stored as plain arrays: ridge, kernel ridge, support vectors, randomised trees.

Prediction is numpy on those arrays, so that a stored head does not depend on the version that fitted it.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmmos.ensembles.heads import Array, Blocks, flat
from mmmos.recipe import Recipe

State = dict[str, NDArray[Any]]


class _Classical(ABC):
    """Storage of options; subclasses fit ``(x, targets)`` into arrays ``self.arrays`` and predict from them."""

    Options: ClassVar[type[Recipe]]
    own_loss = True

    def __init__(self, *, options: dict[str, Any], weighted: bool = False, loss: str = "mse", seed: int = 0) -> None:
        self.options: Any = self.Options.model_validate(options)
        self.seed = seed
        self.arrays: State = {}

    def fit(self, blocks: Blocks, targets: Array, held_out: tuple[Blocks, Array]) -> Self:
        """Fit to (clips, axes) standardised targets; the held-out clips are not used."""
        self.arrays = self._fit(flat(blocks).astype(np.float64), targets.astype(np.float64))
        return self

    def predict(self, blocks: Blocks) -> Array:
        """Standardised predictions (clips, axes) float32."""
        return self._predict(flat(blocks).astype(np.float64)).astype(np.float32)

    def state(self) -> State:
        """The fitted arrays by name."""
        return self.arrays

    def restore(self, state: State) -> Self:
        """Take the arrays of a stored head."""
        self.arrays = state
        return self

    @abstractmethod
    def _fit(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> State: ...

    @abstractmethod
    def _predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]: ...


class RidgeOptions(Recipe):
    """``alpha`` > 0: penalty as a multiple of the mean squared singular value of the centred features.

    0: the best of 1e-3, 10^-2.5, … 1e3 by leave-one-out error over all axes.
    """

    alpha: float = Field(0.0, ge=0)


class Ridge(_Classical):
    """Linear regression with an L2 penalty, the same for all axes."""

    Options = RidgeOptions

    def _fit(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> State:
        from sklearn.linear_model import RidgeCV

        unit = max(x.var(axis=0).sum() * len(x) / min(x.shape), 1e-12)
        alphas = [self.options.alpha] if self.options.alpha else np.logspace(-3, 3, 13)
        model = RidgeCV(np.asarray(alphas) * unit).fit(x, y)
        return {"coefficients": np.asarray(model.coef_), "intercept": np.asarray(model.intercept_)}

    def _predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x @ self.arrays["coefficients"].T + self.arrays["intercept"]


class _Kernel(_Classical):
    """A weighted sum of Gaussian kernels exp(−γ‖a − b‖²) at training clips, and an intercept, for each axis."""

    def _gamma(self, x: NDArray[np.float64]) -> float:
        """The option ``gamma`` divided by the mean squared distance between clips."""
        return float(self.options.gamma / max(2 * x.var(axis=0).sum(), 1e-12))

    def _predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        support = self.arrays["support"].astype(np.float64)
        distance = (x**2).sum(1)[:, None] + (support**2).sum(1) - 2 * x @ support.T
        kernel = np.exp(-self.arrays["gamma"] * np.maximum(distance, 0))
        values: NDArray[np.float64] = kernel @ self.arrays["dual"] + self.arrays["intercept"]
        return values


class KernelRidgeOptions(Recipe):
    """``alpha`` > 0 penalty; γ = ``gamma`` / mean squared distance."""

    alpha: float = Field(0.1, gt=0)
    gamma: float = Field(0.3, gt=0)


class KernelRidge(_Kernel):
    """Kernel ridge regression, the targets centred."""

    Options = KernelRidgeOptions

    def _fit(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> State:
        from sklearn.kernel_ridge import KernelRidge as Machine

        gamma, mean = self._gamma(x), y.mean(axis=0)
        machine = Machine(kernel="rbf", alpha=self.options.alpha, gamma=gamma).fit(x, y - mean)
        dual = np.asarray(machine.dual_coef_)
        return {"support": x.astype(np.float32), "dual": dual, "intercept": mean, "gamma": np.array(gamma)}


class SVROptions(Recipe):
    """``C`` > 0 penalty, ``epsilon`` ≥ 0 tube in standard deviations; γ = ``gamma`` / mean squared distance."""

    C: float = Field(1.0, gt=0)
    epsilon: float = Field(0.2, ge=0)
    gamma: float = Field(0.2, gt=0)


class SVR(_Kernel):
    """Support vector regression, one for each axis."""

    Options = SVROptions

    def _fit(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> State:
        from sklearn.svm import SVR as Machine

        gamma = self._gamma(x)
        dual = np.zeros((len(x), y.shape[1]))
        intercept = np.zeros(y.shape[1])
        for column in range(y.shape[1]):
            machine = Machine(C=self.options.C, epsilon=self.options.epsilon, gamma=gamma).fit(x, y[:, column])
            dual[machine.support_, column] = machine.dual_coef_[0]
            intercept[column] = machine.intercept_[0]
        used = dual.any(axis=1)
        support = x[used].astype(np.float32)
        return {"support": support, "dual": dual[used], "intercept": intercept, "gamma": np.array(gamma)}


class TreeOptions(Recipe):
    """Number of ``trees``, least clips in a ``leaf``, share of ``features`` tried at a split (0 to 1]."""

    trees: int = Field(60, ge=1)
    leaf: int = Field(4, ge=1)
    features: float = Field(0.4, gt=0, le=1)


class ExtraTrees(_Classical):
    """Extremely randomised trees (Geurts et al., 2006) over all axes at once."""

    Options = TreeOptions

    def _fit(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> State:
        from sklearn.ensemble import ExtraTreesRegressor

        options = self.options
        forest = ExtraTreesRegressor(
            options.trees, min_samples_leaf=options.leaf, max_features=options.features, random_state=self.seed
        ).fit(x.astype(np.float32), y)
        trees = [tree.tree_ for tree in forest.estimators_]
        starts = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
        offset = np.repeat(starts, [tree.node_count for tree in trees])
        own = np.arange(len(offset))
        left, right = (
            np.concatenate([getattr(tree, f"children_{side}") for tree in trees]) for side in ("left", "right")
        )
        return {
            "starts": starts.astype(np.int32),
            # A leaf points to itself, so that a walk of the greatest depth ends in the leaf.
            "left": np.where(left < 0, own, left + offset).astype(np.int32),
            "right": np.where(left < 0, own, right + offset).astype(np.int32),
            "feature": np.concatenate([np.maximum(tree.feature, 0) for tree in trees]).astype(np.int32),
            "threshold": np.concatenate([tree.threshold for tree in trees]),
            "value": np.concatenate([tree.value[:, :, 0] for tree in trees]).astype(np.float32),
            "depth": np.array(max(tree.max_depth for tree in trees), dtype=np.int32),
        }

    def _predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = x.astype(np.float32)
        node = np.repeat(self.arrays["starts"][None, :], len(x), axis=0)
        rows = np.arange(len(x))[:, None]
        for _ in range(int(self.arrays["depth"])):
            goes_left = x[rows, self.arrays["feature"][node]] <= self.arrays["threshold"][node]
            node = np.where(goes_left, self.arrays["left"][node], self.arrays["right"][node])
        return self.arrays["value"].astype(np.float64)[node].mean(axis=1)
