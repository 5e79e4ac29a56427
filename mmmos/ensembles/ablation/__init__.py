"""Ablation: what each encoder, layer, loss, head and size contributes, read from a pool's predictions alone.

Conventions
    Numbers are in the metric's own units, so that a contribution to an MSE helps where it is below 0. A run whose
    predictions are constant has correlation 0. Intervals are of 95 %, from a bootstrap over clips (over systems for a
    metric that begins with sys_) that all runs share; they say nothing of other training clips or seeds.
    ``domain`` "all" is the whole set, ``axis`` "mean" the mean over axes. ``by_domain``: each domain too, where
    a set has several.
"""

from mmmos.ensembles.ablation.answers import axis_correlations, generalisation, learning_curve, sizes
from mmmos.ensembles.ablation.contrasts import factors_of
from mmmos.ensembles.ablation.contributions import METRIC, contributions

__all__ = ["METRIC", "axis_correlations", "contributions", "factors_of", "generalisation", "learning_curve", "sizes"]
