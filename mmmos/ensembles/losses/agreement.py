"""Losses on the agreement of a whole batch with its targets."""

from torch import Tensor

from mmmos.ensembles.losses.base import Loss


def ccc(p: Tensor, y: Tensor) -> Tensor:
    """1 − 2 cov(p, y) / (var p + var y + (mean p − mean y)²), all moments with ddof 0. Range [0, 2].

    0 for a perfect prediction. A batch of equal targets and equal, matching predictions gives 1.
    """
    mean_p, mean_y = p.mean(-1), y.mean(-1)
    p, y = p - mean_p.unsqueeze(-1), y - mean_y.unsqueeze(-1)
    spread = p.square().mean(-1) + y.square().mean(-1) + (mean_p - mean_y).square()
    return 1 - 2 * (p * y).mean(-1) / spread.clamp_min(1e-12)


CCC = Loss("ccc", ccc)
