"""What each level of each factor contributes to the quality of a pool's runs, by set, domain and axis."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmmos.ensembles.ablation.contrasts import ENCODER, Contrast, factors_of, marginal, shapley
from mmmos.ensembles.ablation.measured import check_sets, ends, measured
from mmmos.ensembles.pool import Pool
from mmmos.errors import UnknownName

METRIC = "utt_SRCC"
COLUMNS = ["factor", "level", "set", "domain", "axis", "metric", "effect", "low", "high", "runs", "note"]


def contributions(
    pool: Pool,
    *,
    on: str | Sequence[str] | None = None,
    metric: str | Sequence[str] = METRIC,
    factors: Sequence[str] | None = None,
    by_domain: bool = True,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """A row for each factor, level, set, domain, axis and metric: the effect with its interval [low, high].

    ``encoder``: the Shapley value of a feature set, which add up to the quality of all together minus that of none.
    Other factors: the mean quality of a level's runs minus that of the runs of other levels that are the same in all
    else. NaN with a note where nothing can be compared. ``runs``: how many of the level have a part. ``on``: labelled
    sets, all of them for None; ``resamples`` of 0 gives no intervals. Raises ``UnknownName`` for a set, a metric or a
    factor, ``UsageError`` for the evaluation set.
    """
    contrasts = contrasts_of(pool, factors)
    weights = np.array([each.weights for each in contrasts])
    rows = []
    for measure in [metric] if isinstance(metric, str) else metric:
        for name in check_sets(pool, on, measure):
            for part in measured(pool, name, measure, by_domain=by_domain, resamples=resamples, seed=seed):
                effects, samples = weights @ part.values, weights @ part.samples
                rows += [
                    (
                        each.factor,
                        each.level,
                        name,
                        part.domain,
                        part.axis,
                        measure,
                        effect,
                        *ends(own),
                        each.runs,
                        each.note,
                    )
                    for each, effect, own in zip(contrasts, effects, samples, strict=True)
                ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = {name: place for place, name in enumerate(dict.fromkeys(each.factor for each in contrasts))}
    return table.sort_values("factor", key=lambda own: own.map(order), kind="stable", ignore_index=True)


def contrasts_of(pool: Pool, factors: Sequence[str] | None = None) -> list[Contrast]:
    """The contrasts of some factors, of all that vary for None."""
    levels = factors_of(pool.specs)
    known = [ENCODER, *levels]
    for name in factors or []:
        if name not in known:
            raise UnknownName("factor that varies in this pool", name, known)
    wanted = known if factors is None else list(dict.fromkeys(factors))
    found = {name: marginal(levels, name) for name in wanted if name != ENCODER}
    if ENCODER in wanted:
        found[ENCODER] = shapley(pool.specs, levels)
    return [each for name in wanted for each in found[name]]
