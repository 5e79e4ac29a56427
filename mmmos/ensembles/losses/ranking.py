"""Losses on ranks. Experimental: no published system of the field is known to train with them."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from mmmos.ensembles.losses.agreement import correlation
from mmmos.ensembles.losses.base import Loss, pairs


def soft_spearman(p: Tensor, y: Tensor, temperature: float = 0.5) -> Tensor:
    """1 − Pearson correlation of soft ranks mean_j sigmoid(dp_ij / temperature) with the mid-ranks of y. Experimental.

    Range [0, 2], shift-invariant; 1 for constant targets or predictions and in a batch of one. With temperature → 0 it
    is 1 − SRCC. Its optimum, 0, is at evenly spaced soft ranks in the right order, whatever their spread.
    ``temperature``: in standard deviations of the scores, 0.001 at least; ours.
    """
    ranks = logsigmoid(pairs(p) / max(temperature, 1e-3)).exp().mean(-1)
    return 1 - correlation(ranks, pairs(y).sign().mean(-1))


SOFT_SPEARMAN = Loss("soft_spearman", soft_spearman, anchored=False)
