"""Heads fitted by scikit-learn and stored as plain arrays: linear models, kernel machines, neighbours and trees."""

from mmmos.ensembles.heads.classical.base import Classical
from mmmos.ensembles.heads.classical.kernels import KNN, SVR, GaussianProcess, KernelRidge
from mmmos.ensembles.heads.classical.linear import Ridge, SklearnLinear
from mmmos.ensembles.heads.classical.trees import ExtraTrees, GradientBoosting, RandomForest

__all__ = [
    "KNN",
    "SVR",
    "Classical",
    "ExtraTrees",
    "GaussianProcess",
    "GradientBoosting",
    "KernelRidge",
    "RandomForest",
    "Ridge",
    "SklearnLinear",
]
