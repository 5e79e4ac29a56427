"""Sums of regression trees, walked together: forests over all axes at once, boosted trees for each axis."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmmos.ensembles.heads.classical.base import Classical, Matrix, State
from mmmos.recipe import Recipe


class _Trees(Classical):
    """An intercept and, for each tree, the values of the leaf that a clip ends in."""

    def _predict(self, x: Matrix) -> Matrix:
        arrays, x32 = self.arrays, x.astype(np.float32)
        node = np.repeat(arrays["starts"][None, :], len(x), axis=0)
        rows = np.arange(len(x))[:, None]
        for _ in range(int(arrays["depth"])):
            goes_left = x32[rows, arrays["feature"][node]] <= arrays["threshold"][node]
            node = np.where(goes_left, arrays["left"][node], arrays["right"][node])
        values: Matrix = arrays["intercept"] + arrays["value"].astype(np.float64)[node].sum(axis=1)
        return values


def _joined(trees: Sequence[Any], values: Sequence[Matrix], intercept: Matrix) -> State:
    """The arrays of scikit-learn's ``tree_`` structures in a row, with values (nodes, axes) for each tree."""
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
    offset = np.repeat(starts, [tree.node_count for tree in trees])
    own = np.arange(len(offset))

    def all_of(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    left, right = all_of("children_left"), all_of("children_right")
    return {
        "starts": starts.astype(np.int32),
        # A leaf points to itself, so that a walk of the greatest depth ends in the leaf.
        "left": np.where(left < 0, own, left + offset).astype(np.int32),
        "right": np.where(left < 0, own, right + offset).astype(np.int32),
        "feature": np.maximum(all_of("feature"), 0).astype(np.int32),
        "threshold": all_of("threshold"),
        "value": np.concatenate(values).astype(np.float32),
        "intercept": intercept,
        "depth": np.array(max(tree.max_depth for tree in trees), dtype=np.int32),
    }


class ForestOptions(Recipe):
    """Number and size of the trees."""

    trees: int = Field(60, ge=1)
    """Trees."""
    leaf: int = Field(4, ge=1)
    """Least clips in a leaf."""
    features: float = Field(0.4, gt=0, le=1)
    """Share of the features tried at a split."""


class _Forest(_Trees):
    """The mean of trees over all axes at once."""

    estimator: ClassVar[str]

    def _fit(self, x: Matrix, y: Matrix) -> State:
        from sklearn import ensemble

        options = self.options
        forest = getattr(ensemble, self.estimator)(
            options.trees, min_samples_leaf=options.leaf, max_features=options.features, random_state=self.seed
        ).fit(x.astype(np.float32), y)
        trees = [tree.tree_ for tree in forest.estimators_]
        return _joined(trees, [tree.value[:, :, 0] / len(trees) for tree in trees], np.zeros(y.shape[1]))


class ExtraTrees(_Forest):
    """Mean of extremely randomised trees over all axes at once (Geurts et al., 2006)."""

    Options = ForestOptions
    estimator = "ExtraTreesRegressor"


class RandomForestOptions(ForestOptions):
    """Number and size of the trees."""

    features: float = Field(0.1, gt=0, le=1)
    """Share of the features tried at a split, each at all of its thresholds."""


class RandomForest(_Forest):
    """Mean of trees on bootstrap samples over all axes at once (Breiman, 2001)."""

    Options = RandomForestOptions
    estimator = "RandomForestRegressor"


class GradientBoostingOptions(Recipe):
    """Number and size of the trees."""

    trees: int = Field(200, ge=1)
    """Trees for each axis."""
    lr: float = Field(0.05, gt=0, le=1)
    """Scale of each tree."""
    depth: int = Field(4, ge=1)
    """Splits from root to leaf, at most."""
    leaf: int = Field(4, ge=1)
    """Least clips in a leaf."""
    features: float = Field(0.02, gt=0, le=1)
    """Share of the features tried at a split."""
    sample: float = Field(0.5, gt=0, le=1)
    """Share of the clips for each tree."""


class GradientBoosting(_Trees):
    """Stochastic gradient boosting of the squared error (Friedman, 2002), from the mean, one for each axis."""

    Options = GradientBoostingOptions

    def _fit(self, x: Matrix, y: Matrix) -> State:
        from sklearn.ensemble import GradientBoostingRegressor

        options = self.options
        trees, values = [], []
        for axis in range(y.shape[1]):
            model = GradientBoostingRegressor(
                n_estimators=options.trees,
                learning_rate=options.lr,
                max_depth=options.depth,
                min_samples_leaf=options.leaf,
                max_features=options.features,
                subsample=options.sample,
                random_state=self.seed,
            ).fit(x.astype(np.float32), y[:, axis])
            for tree in (each.tree_ for each in model.estimators_[:, 0]):
                trees.append(tree)
                values.append(options.lr * tree.value[:, 0] * np.eye(y.shape[1])[axis])
        return _joined(trees, values, y.mean(axis=0))
