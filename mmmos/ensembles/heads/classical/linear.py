"""Linear models: coefficients and an intercept for each axis."""

import math
from importlib import import_module
from typing import Any

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from mmmos.ensembles.heads.classical.base import Classical, Matrix, State
from mmmos.errors import UnknownName
from mmmos.recipe import Recipe

# Estimators of scikit-learn whose predictions are linear, by the module that holds them; ARDRegression and
# TheilSenRegressor are left out, since thousands of features take them minutes to hours.
ESTIMATORS = {
    "BayesianRidge": "linear_model",
    "ElasticNet": "linear_model",
    "ElasticNetCV": "linear_model",
    "HuberRegressor": "linear_model",
    "Lasso": "linear_model",
    "LassoCV": "linear_model",
    "LinearRegression": "linear_model",
    "LinearSVR": "svm",
    "MultiTaskElasticNet": "linear_model",
    "MultiTaskLasso": "linear_model",
    "OrthogonalMatchingPursuit": "linear_model",
    "PLSRegression": "cross_decomposition",
    "QuantileRegressor": "linear_model",
    "SGDRegressor": "linear_model",
}
# Those that fit all axes together; the others fit one after another.
JOINT = frozenset({"MultiTaskElasticNet", "MultiTaskLasso", "PLSRegression"})
# Parameters that change how it is computed, or that the head sets.
RESERVED = frozenset(
    {
        "compute_score",
        "copy",
        "copy_X",
        "n_jobs",
        "precompute",
        "random_state",
        "solver_options",
        "verbose",
        "warm_start",
    }
)


class _Linear(Classical):
    def _predict(self, x: Matrix) -> Matrix:
        values: Matrix = x @ self.arrays["coefficients"].T + self.arrays["intercept"]
        return values


class RidgeOptions(Recipe):
    """The penalty."""

    alpha: float = Field(0.0, ge=0)
    """Penalty as a multiple of the mean squared singular value of the centred features; 0: the best of 1e-3, 10^-2.5,
    … 1e3 by leave-one-out error over all axes."""


class Ridge(_Linear):
    """Linear regression with an L2 penalty, the same for all axes."""

    Options = RidgeOptions

    def _fit(self, x: Matrix, y: Matrix) -> State:
        from sklearn.linear_model import RidgeCV

        unit = max(x.var(axis=0).sum() * len(x) / min(x.shape), 1e-12)
        alphas = [self.options.alpha] if self.options.alpha else np.logspace(-3, 3, 13)
        model = RidgeCV(np.asarray(alphas) * unit).fit(x, y)
        # With one axis scikit-learn leaves its dimension out.
        coefficients = np.asarray(model.coef_).reshape(y.shape[1], -1)
        return {"coefficients": coefficients, "intercept": np.asarray(model.intercept_).reshape(-1)}


class SklearnLinearOptions(Recipe):
    """Which regressor, and its parameters."""

    estimator: str = "LinearSVR"
    """A linear regressor of scikit-learn, by its class. One that ends in CV chooses its penalty by folds that know no
    groups."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The regressor's own parameters: numbers, true and false."""

    @field_validator("estimator")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ESTIMATORS:
            raise ValueError(str(UnknownName("estimator", name, ESTIMATORS)))
        return name

    @field_validator("parameters")
    @classmethod
    def _accepted(cls, parameters: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        estimator = info.data.get("estimator")
        known = _parameters(estimator) if estimator and parameters else []
        for name, value in parameters.items() if known else ():
            if name not in known:
                raise ValueError(str(UnknownName(f"parameter of {estimator}", name, known)))
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} of {estimator} is a finite number, true or false; got {value!r}")
        return parameters


class SklearnLinear(_Linear):
    """Any linear regressor of scikit-learn. An axis with constant targets is predicted by that constant."""

    Options = SklearnLinearOptions

    def _fit(self, x: Matrix, y: Matrix) -> State:
        coefficients, intercept = np.zeros((y.shape[1], x.shape[1])), y.mean(axis=0)
        varied = np.flatnonzero(np.ptp(y, axis=0) * np.ptp(x, axis=0).any())
        together = max(len(varied), 1) if self.options.estimator in JOINT else 1
        for axes in varied.reshape(-1, together):
            coefficients[axes], intercept[axes] = self._fit_axes(x, y[:, axes])
        return {"coefficients": coefficients, "intercept": intercept}

    def _fit_axes(self, x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
        """Coefficients (axes, features) and intercepts (axes,), these from the prediction at the mean clip."""
        model = _estimator(self.options.estimator)
        model.set_params(**self.options.parameters)
        if "random_state" in model.get_params():
            model.set_params(random_state=self.seed)
        model.fit(x, y if self.options.estimator in JOINT else y[:, 0])
        coefficients, centre = np.reshape(model.coef_, (y.shape[1], x.shape[1])), x.mean(axis=0)
        return coefficients, np.ravel(model.predict(centre[None])) - coefficients @ centre


def _estimator(name: str) -> Any:
    """An estimator of scikit-learn with its usual parameters."""
    return getattr(import_module(f"sklearn.{ESTIMATORS[name]}"), name)()


def _parameters(estimator: str) -> list[str]:
    """Names of the parameters that may be numbers."""
    usual = _estimator(estimator).get_params().items()
    return [name for name, value in usual if name not in RESERVED and not isinstance(value, str)]
