"""Losses on the agreement of a whole batch with its targets."""

from torch import Tensor

from mmmos.ensembles.losses.base import Loss
from mmmos.ensembles.losses.pointwise import mse


def ccc(p: Tensor, y: Tensor) -> Tensor:
    """1 − 2 cov(p, y) / (var p + var y + (mean p − mean y)²), all moments with ddof 0. Range [0, 2].

    Computed as the equal MSE(p, y) / (var p + var y + (mean p − mean y)²), which is exactly 0 for a perfect
    prediction, also of constant targets and of a batch of one.
    """
    spread = p.var(-1, correction=0) + y.var(-1, correction=0) + (p.mean(-1) - y.mean(-1)).square()
    return mse(p, y) / spread.clamp_min(1e-12)


CCC = Loss("ccc", ccc)
