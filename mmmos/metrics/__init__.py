"""The metrics of the challenge: how well predicted scores agree with mean ratings, for clips and for systems.

Conventions
    Scores are 1-D arrays of equal length, or DataFrames indexed by clip id whose columns are axes (PQ, PC, CE, CU,
    in any order). Level "utterance" compares clips; level "system" compares the plain means over each system's clips,
    for truth and prediction separately. The challenge ranks by system-level SRCC.
    A correlation with a constant is undefined: nan, without a warning.

Metrics
    ``mse`` mean squared error [0, inf), ``lcc`` Pearson's r [-1, 1], ``srcc`` Spearman's rho [-1, 1],
    ``ktau`` Kendall's tau-b [-1, 1]; numbers as numpy and scipy give them (arXiv 2509.01336, section IV-A).

``evaluate`` makes the table of all 32, ``summary`` its means over the axes. Where the scorers of past challenges keep
only the ids that both files hold, a missing, unknown, repeated or NaN id is an error here.
"""

from mmmos.metrics.alignment import Aligned, Systems, align
from mmmos.metrics.definitions import METRICS, by_system, ktau, lcc, mse, srcc, validate
from mmmos.metrics.evaluation import LEVELS, UNITS, evaluate, summary

__all__ = [
    "LEVELS",
    "METRICS",
    "UNITS",
    "Aligned",
    "Systems",
    "align",
    "by_system",
    "evaluate",
    "ktau",
    "lcc",
    "mse",
    "srcc",
    "summary",
    "validate",
]
