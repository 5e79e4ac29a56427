"""Importance: training clips that look like the clips to be predicted count more, without a score of these.

A head of any kind can learn so, since a clip that counts more is repeated. The weight is the odds of the target under a
domain classifier (Sugiyama et al., "Density Ratio Estimation in Machine Learning", 2012), tempered, since a classifier
of a few hundred clips is surer than it should be.
"""

import numpy as np

from mmmos.ensembles.heads import flat
from mmmos.ensembles.heads.inputs import Rows, pooled
from mmmos.ensembles.shift.domains import Array, reduced, target_odds
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.data import Data

# The power of the odds, and the bounds of a weight, whose mean is 1.
TEMPER = 0.5
LEAST, MOST = 0.25, 4.0


def importance(spec: HeadSpec, data: Data, learned: Rows) -> Array:
    """Weights (training clips,) by what a spec's target looks like, mean 1 over the ``learned`` ones; 0 for the others.

    From the pooled vectors of the spec's feature sets and layers, classified in grouped folds.
    """
    vectors = pooled(spec.model_copy(update={"samples": "clips", "normalise": "raw"}), data.features)
    target = data.unlabelled[str(spec.target)]
    rows = np.concatenate([data.rows[learned], target.rows])
    groups = [*(data.groups[place] for place in learned), *target.groups]
    odds = target_odds(reduced(flat(vectors.at(rows).blocks)), np.arange(len(rows)) >= len(learned), groups)
    weights = np.zeros(len(data.rows))
    weights[learned] = bounded(odds[: len(learned)])
    return weights


def bounded(odds: Array) -> Array:
    """Log odds (clips,) as weights with mean 1: tempered, scaled, cut at ¼ and 4, scaled again."""
    weights = np.exp(TEMPER * (odds - odds.max()))
    weights = np.clip(weights / weights.mean(), LEAST, MOST)
    return np.asarray(weights / weights.mean())


def repeated(rows: Rows, weights: Array) -> Rows:
    """As many of some rows, each there ⌊n w / Σ w⌋ or ⌈n w / Σ w⌉ times; ``weights`` are of all rows.

    Systematic resampling (Kitagawa, 1996) that begins in the middle: no chance is in it.
    """
    shares = np.cumsum(weights[rows])
    ends = np.floor(shares / shares[-1] * len(rows) + 0.5).astype(np.int64)
    return np.asarray(np.repeat(rows, np.diff(ends, prepend=0)))
