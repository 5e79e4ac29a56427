"""Losses on the agreement of a whole batch with its targets."""

from torch import Tensor

from mmmos.ensembles.losses.base import Loss
from mmmos.ensembles.losses.pairwise import contrastive
from mmmos.ensembles.losses.pointwise import mae, mse

# A variance below this counts as this, so that gradients stay finite where nothing varies: a deviation of 0.001.
LEAST_VARIANCE = 1e-6


def ccc(p: Tensor, y: Tensor) -> Tensor:
    """1 − 2 cov(p, y) / (var p + var y + (mean p − mean y)²), all moments with ddof 0. Range [0, 2], optimum p = y.
    One minus the concordance correlation coefficient (Lin, 1989).

    Computed as the equal MSE(p, y) / (var p + var y + (mean p − mean y)²), which is exactly 0 for a perfect
    prediction, also of constant targets and of a batch of one; any other prediction of one clip costs 1.
    """
    spread = p.var(-1, correction=0) + y.var(-1, correction=0) + (p.mean(-1) - y.mean(-1)).square()
    return mse(p, y) / spread.clamp_min(1e-12)


def correlation(p: Tensor, y: Tensor) -> Tensor:
    """Pearson's coefficient. Range [−1, 1], invariant to offset and scale; 0 where p or y is constant."""
    p, y = p - p.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    spread = p.square().mean(-1).clamp_min(LEAST_VARIANCE) * y.square().mean(-1).clamp_min(LEAST_VARIANCE)
    return (p * y).mean(-1) / spread.sqrt()


def highratemos(p: Tensor, y: Tensor, margin: float = 0.1) -> Tensor:
    """mean |p − y| + ``contrastive`` + 1 − LCC, the correlation of the batch. After HighRateMOS (arXiv 2506.21951),
    whose own rank term is not published: this is the sum that its public replication (SOTA-MOS) uses.

    Range [0, ∞), optimum p = y; the last term is 1 for constant targets and in a batch of one.
    """
    return mae(p, y) + contrastive(p, y, margin) + 1 - correlation(p, y)


CCC = Loss("ccc", ccc)
HIGHRATEMOS = Loss("highratemos", highratemos)
