"""Selectors: which runs of a pool are averaged, and with which weights. They read a pool's predictions and truth only.

Each is a function of a ``Pool`` and keyword parameters that gives a ``Selection``. ``on`` names the sets whose truth
is looked at: pam (synthetic proxy), dev (natural) or oof (out-of-fold); the evaluation set is sealed. ``metric`` names
what is measured there (utt_SRCC by default). Both are a name, several, or weights by name. Ties go to the earlier run.

``average``, ``best``, ``top_k`` and ``intersect`` rank runs, ``greedy`` and ``stack`` weigh them.
"""

from mmmos.ensembles.selectors.forward import greedy
from mmmos.ensembles.selectors.objective import METRIC, quality
from mmmos.ensembles.selectors.ranking import average, best, intersect, top_k
from mmmos.ensembles.selectors.selection import Selection
from mmmos.ensembles.selectors.stacking import stack

__all__ = ["METRIC", "Selection", "average", "best", "greedy", "intersect", "quality", "stack", "top_k"]
