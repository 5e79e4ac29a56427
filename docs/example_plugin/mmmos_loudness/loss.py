"""The loss ``log_cosh``: squared error for small differences, absolute error for large ones, smooth in between."""

import math

from torch import Tensor
from torch.nn.functional import softplus

from mmmos.ensembles.losses import Loss


def log_cosh(p: Tensor, y: Tensor) -> Tensor:
    """mean log cosh(p − y) (P. J. Green, IEEE Trans. Med. Imaging 9(1), 1990). Range [0, ∞), optimum p = y.

    p and y (…, B) in standard deviations of the scores; gives (…).
    """
    error = (p - y).abs()
    return (error + softplus(-2 * error) - math.log(2)).mean(-1)


LOG_COSH = Loss("log_cosh", log_cosh)
