"""Statistics of predicted scores: how sure a number is, whether two models differ, and what raters' noise allows.

Conventions
    Metrics are "MSE", "LCC", "SRCC" and "KTAU" (tau-b) of scores (n,); a correlation is undefined (nan) where one side
    is constant, see ``is_constant``. Items are clips or systems; ``units`` group items that were drawn together.
    ``counts`` is an integer array (samples, n): how often each of the n items occurs in each sample. Scores that share
    one ``counts`` are *paired*: subtract their values sample by sample.

Contents
    ``measure`` one metric of many models; ``bootstrap``, ``bootstrap_many`` one metric in every sample of ``counts``,
    which ``resample_counts`` draws.
    ``confidence`` the interval of one metric; ``sampling`` its parts, for means, differences and many models:
    ``values = bootstrap(…, samples.counts)``, then ``samples.interval(values, metric)``. ``jackknife_interval``,
    ``bca_interval`` and ``interval`` (percentile) are the three methods.
    ``paired_bootstrap``, ``permutation_test``, ``williams_test``, ``steiger_test`` compare two models; ``holm``
    corrects for many comparisons.
    ``ceilings``, ``ceiling_table`` what a perfect model reaches against few raters.
"""

from mmmos.statistics.agreement import METRICS, FloatArray, is_constant, measure
from mmmos.statistics.comparison import (
    Difference,
    holm,
    paired_bootstrap,
    permutation_test,
    steiger_test,
    williams_test,
)
from mmmos.statistics.intervals import (
    Sampling,
    bca_interval,
    confidence,
    interval,
    jackknife_interval,
    sampling,
)
from mmmos.statistics.multiplicities import IntArray, bootstrap, bootstrap_many, resample_counts
from mmmos.statistics.raters import ceiling_table, ceilings

__all__ = [
    "METRICS",
    "Difference",
    "FloatArray",
    "IntArray",
    "Sampling",
    "bca_interval",
    "bootstrap",
    "bootstrap_many",
    "ceiling_table",
    "ceilings",
    "confidence",
    "holm",
    "interval",
    "is_constant",
    "jackknife_interval",
    "measure",
    "paired_bootstrap",
    "permutation_test",
    "resample_counts",
    "sampling",
    "steiger_test",
    "williams_test",
]
