"""Heads fitted by scikit-learn and stored as plain arrays: linear models, kernel machines, neighbours and trees."""

from mmmos.ensembles.heads.classical.base import Classical
from mmmos.ensembles.heads.classical.kernels import SVR, GaussianProcess, KernelRidge, NearestNeighbours
from mmmos.ensembles.heads.classical.linear import LinearModel, Ridge
from mmmos.ensembles.heads.classical.trees import ExtraTrees, GradientBoosting, RandomForest

__all__ = [
    "SVR",
    "Classical",
    "ExtraTrees",
    "GaussianProcess",
    "GradientBoosting",
    "KernelRidge",
    "LinearModel",
    "NearestNeighbours",
    "RandomForest",
    "Ridge",
]
