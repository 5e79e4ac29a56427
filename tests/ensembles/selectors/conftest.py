"""Small pools of simulated predictions."""

import numpy as np
import pytest

from mmmos.ensembles.pool import Pool
from mmmos.ensembles.spec import HeadSpec

AXES = ("PQ", "PC")


def make_pool(seed=0, runs=7, clips=15, *, decimals=None, **changes):
    """Runs that are the truth and noise of their own; by set name, what to make of (runs, clips, axes) scores.

    ``decimals``: to which scores and truth are rounded, so that there are ties.
    """
    rng = np.random.default_rng(seed)
    names = ("dev", "pam", "eval")
    truth = {name: rng.normal(5, 1, (clips, len(AXES))) for name in names}
    noise = rng.uniform(0.2, 4, (runs, 1, 1))
    scores = {name: np.float32(truth[name] + noise * rng.normal(size=(runs, clips, len(AXES)))) for name in names}
    truth.pop("eval")
    if decimals is not None:
        truth = {name: values.round(decimals) for name, values in truth.items()}
        scores = {name: values.round(decimals) for name, values in scores.items()}
    for name, array in changes.items():
        scores[name] = np.float32(array(scores[name]))
    systems = {name: np.array([f"s{i % 5}" for i in range(clips)], object) for name in names}
    return pool_of(scores, truth, systems)


def pool_of(scores, truth, systems=None):
    """A pool of scores and truth by set name."""
    runs, sizes = len(next(iter(scores.values()))), {name: values.shape[1] for name, values in scores.items()}
    specs = tuple(HeadSpec(head="ridge", features=("a",), axes=AXES, seed=seed) for seed in range(runs))
    ids = {name: tuple(f"{name}{i}" for i in range(size)) for name, size in sizes.items()}
    keys = tuple(f"key{run}" for run in range(runs))
    return Pool("p", None, "data", AXES, specs, keys, ids, scores, truth, systems or dict.fromkeys(sizes))


@pytest.fixture(scope="session")
def pools():
    """The makers above."""

    class Pools:
        make, of = staticmethod(make_pool), staticmethod(pool_of)

    return Pools
