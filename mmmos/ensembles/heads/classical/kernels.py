"""Heads that predict from distances to training clips: kernel machines and nearest neighbours."""

import numpy as np
from pydantic import Field

from mmmos.ensembles.heads.classical.base import Classical, Matrix, State
from mmmos.recipe import Recipe

# Squared distances that differ by less than this part of the clips' squared lengths are equal.
TIED = 1e-10


def squared_distances(x: Matrix, others: Matrix) -> Matrix:
    """‖a − b‖² of all pairs, (clips, others)."""
    values: Matrix = (x**2).sum(1)[:, None] + (others**2).sum(1) - 2 * x @ others.T
    return np.maximum(values, 0)


def mean_squared_distance(x: Matrix) -> float:
    """Mean of ‖a − b‖² over all pairs of clips; positive also where they do not differ."""
    return max(2 * float(x.var(axis=0).sum()), 1e-12)


class _Kernel(Classical):
    """A weighted sum of Gaussian kernels exp(−γ‖a − b‖²) at training clips, and an intercept, for each axis."""

    def _predict(self, x: Matrix) -> Matrix:
        distances = squared_distances(x, self.arrays["support"].astype(np.float64))
        values: Matrix = np.exp(-self.arrays["gamma"] * distances) @ self.arrays["dual"] + self.arrays["intercept"]
        return values


def _ridge(x: Matrix, y: Matrix, alpha: float, gamma: float) -> State:
    """The arrays of kernel ridge regression with penalty ``alpha``, the targets centred."""
    from sklearn.kernel_ridge import KernelRidge as Machine

    mean = y.mean(axis=0)
    dual = Machine(kernel="rbf", alpha=alpha, gamma=gamma).fit(x, y - mean).dual_coef_
    return {"support": x.astype(np.float32), "dual": np.asarray(dual), "intercept": mean, "gamma": np.array(gamma)}


class KernelRidgeOptions(Recipe):
    """Penalty and kernel."""

    alpha: float = Field(0.1, gt=0)
    """Penalty."""
    gamma: float = Field(0.3, gt=0)
    """γ of the kernel as a multiple of 1 / mean squared distance of clips."""


class KernelRidge(_Kernel):
    """Ridge regression with a Gaussian kernel exp(−γ‖a − b‖²)."""

    Options = KernelRidgeOptions

    def _fit(self, x: Matrix, y: Matrix) -> State:
        return _ridge(x, y, self.options.alpha, self.options.gamma / mean_squared_distance(x))


class GaussianProcessOptions(Recipe):
    """What the kernel is set on."""

    sample: int = Field(500, ge=2)
    """Training clips, drawn by the seed, whose marginal likelihood sets the kernel; all where there are fewer."""


class GaussianProcess(_Kernel):
    """Mean of a Gaussian process: amplitude × Gaussian kernel + noise, the same for all axes, all clips its data.

    Amplitude, γ and noise maximise the marginal likelihood of all axes. Given them, the mean is kernel ridge regression
    with noise / amplitude as penalty (Rasmussen and Williams, 2006, 2.7).
    """

    Options = GaussianProcessOptions

    def _fit(self, x: Matrix, y: Matrix) -> State:
        drawn = np.random.default_rng(self.seed).permutation(len(x))[: self.options.sample]
        alpha, gamma = self._likeliest(x[drawn], (y - y.mean(axis=0))[drawn])
        return _ridge(x, y, alpha, gamma)

    def _likeliest(self, x: Matrix, y: Matrix) -> tuple[float, float]:
        """Noise / amplitude, and γ, from 1/500 to 100 divided by the mean squared distance."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        length = np.sqrt(mean_squared_distance(x) / 2)
        gaussian = RBF(length / np.sqrt(0.3), length * np.array([0.1, np.sqrt(500)]))
        kernel = ConstantKernel(1.0, (1e-3, 1e3)) * gaussian + WhiteKernel(0.3, (1e-3, 1e1))
        found = GaussianProcessRegressor(kernel).fit(x, y).kernel_
        return float(found.k2.noise_level / found.k1.k1.constant_value), float(0.5 / found.k1.k2.length_scale**2)


class SVROptions(Recipe):
    """Penalty, tube and kernel."""

    C: float = Field(1.0, gt=0)
    """Weight of errors against the norm."""
    epsilon: float = Field(0.2, ge=0)
    """Error that costs nothing, in standard deviations of the scores."""
    gamma: float = Field(0.2, gt=0)
    """γ of the kernel as a multiple of 1 / mean squared distance of clips."""


class SVR(_Kernel):
    """Support vector regression with a Gaussian kernel exp(−γ‖a − b‖²), one for each axis."""

    Options = SVROptions

    def _fit(self, x: Matrix, y: Matrix) -> State:
        from sklearn.svm import SVR as Machine

        gamma = self.options.gamma / mean_squared_distance(x)
        dual = np.zeros((len(x), y.shape[1]))
        intercept = np.zeros(y.shape[1])
        for column in range(y.shape[1]):
            machine = Machine(C=self.options.C, epsilon=self.options.epsilon, gamma=gamma)
            # Else it draws a number that it does not use from the process.
            machine.random_state = self.seed
            machine.fit(x, y[:, column])
            dual[machine.support_, column] = machine.dual_coef_[0]
            intercept[column] = machine.intercept_[0]
        used = dual.any(axis=1)
        support = x[used].astype(np.float32)
        return {"support": support, "dual": dual[used], "intercept": intercept, "gamma": np.array(gamma)}


class KNNOptions(Recipe):
    """How many neighbours count."""

    neighbours: int = Field(15, ge=1)
    """Neighbours k; all clips where there are fewer."""


class KNN(Classical):
    """Mean targets of the k nearest training clips; clips as far as the k-th share what it would count."""

    Options = KNNOptions

    def _fit(self, x: Matrix, y: Matrix) -> State:
        return {"clips": x.astype(np.float32), "targets": y.astype(np.float32)}

    def _predict(self, x: Matrix) -> Matrix:
        clips, targets = (self.arrays[name].astype(np.float64) for name in ("clips", "targets"))
        k = min(self.options.neighbours, len(clips))
        distances = squared_distances(x, clips)
        beyond = distances - np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
        margin = TIED * ((x**2).sum(1)[:, None] + (clips**2).sum(1).max())
        nearer, tied = beyond < -margin, np.abs(beyond) <= margin
        shares = nearer + tied * (k - nearer.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
        values: Matrix = shares @ targets / k
        return values
