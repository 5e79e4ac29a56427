"""What a pool measures where there is little to measure."""

import numpy as np
import pytest

from mmmos.ensembles.pool import Pool
from mmmos.ensembles.spec import HeadSpec


@pytest.fixture
def pool():
    """Two runs on a set of which the first axis has truth."""
    rng = np.random.default_rng(0)
    truth = rng.normal(5, 1, (20, 2))
    scores = np.float32(truth + rng.normal(size=(2, 20, 2)))
    truth[:, 1] = np.nan
    specs = tuple(HeadSpec(head="ridge", features=("a",), axes=("PQ", "CE"), seed=seed) for seed in range(2))
    ids = tuple(map(str, range(20)))
    return Pool(
        "p", None, "", ("PQ", "CE"), specs, ("k0", "k1"), {"dev": ids}, {"dev": scores}, {"dev": truth}, {"dev": None}
    )


def test_a_run_that_is_not_finite_is_the_worst_and_has_no_interval(pool):
    pool.scores["dev"][1, 3, 0] = np.nan
    quality, ends = pool.measure("dev"), pool.confidence("dev", resamples=50)
    assert np.isfinite(quality[0, 0]) and quality[1, 0] == -np.inf and np.isnan(quality[:, 1]).all()
    assert ends[0, 0] < quality[0, 0] < ends[0, 1] and np.isnan(ends[1]).all()
    pool.scores["dev"][0, 0, 0] = np.inf
    assert (pool.measure("dev")[:, 0] == -np.inf).all() and np.isnan(pool.confidence("dev", resamples=50)).all()


def test_nothing_is_known_where_no_axis_has_truth(pool):
    pool.truth["dev"][:] = np.nan
    assert np.isnan(pool.measure("dev")).all() and np.isnan(pool.confidence("dev", resamples=50)).all()
