"""Windows as samples: a head learns from one window of each clip at a time; a clip's score is the mean of theirs."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from mmmos.ensembles import runs
from mmmos.ensembles.training.train import train
from mmmos.errors import UsageError
from mmmos.features.table import Features


@dataclass(frozen=True)
class Rows:
    unit: np.ndarray
    norm: np.ndarray
    span: np.ndarray
    clip: np.ndarray


class Stored:
    """A feature set in memory: for each key its windows (windows, layers, dim), of 10 s but for a last one of 5 s."""

    def __init__(self, windows, seconds=10.0):
        self.windows, self.seconds = windows, seconds

    def gather(self, keys):
        parts = [self.windows[key] for key in keys]
        raw = np.concatenate(parts)
        norm = np.linalg.norm(raw, axis=-1)
        span = [
            (self.seconds * n, self.seconds * (n + 1 - 0.5 * (n + 1 == len(part))))
            for part in parts
            for n in range(len(part))
        ]
        clip = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return Rows((raw / norm[..., None]).astype(np.float32), norm.astype(np.float32), np.array(span), clip)

    def frames(self, key):
        raise NotImplementedError


@pytest.fixture(scope="module")
def long_world(build):
    """The world of the other tests, each clip being the mean of one to four windows."""
    world = build.world(noise=0.2)
    rng, sets = np.random.default_rng(1), {}
    for name, array in world.features.sets.items():
        windows = {}
        for place, key in enumerate(world.features.keys):
            count = 1 + place % 4
            share = np.array([1.0] * (count - 1) + [0.5]) / (count - 0.5)
            noise = rng.normal(size=(count, *array.raw.shape[1:]))
            windows[key] = array.raw[place] + noise - np.tensordot(share, noise, 1)
        sets[name] = replace(array, source=Stored(windows))
    return replace(world, features=replace(world.features, sets=sets))


GRID = {"head": "linear", "samples": "windows", "normalise": "raw", "options": {"lr": 0.03, "epochs": 40}}


@pytest.mark.parametrize("head", ["linear", "mlp", "ridge"])
def test_a_clip_s_score_is_the_mean_of_its_windows_by_seconds(build, long_world, tmp_path, head):
    entry = {**GRID, "head": head} if head != "ridge" else {"head": "ridge", "samples": "windows"}
    pool = train(build.recipe(entry), long_world.features, long_world.clips, folder=tmp_path)
    assert pool.measure("dev").mean() > 0.6
    run = runs.load_run(pool.folder, pool.keys[0])
    one = long_world.features.of([pool.ids["eval"][3]])
    windows = one.windows(["a", "b"])
    assert len(windows.share) == windows.first[1] > 1 and windows.share.sum() == pytest.approx(1)
    blocks = [array.raw for array in windows.arrays]
    if head == "ridge":
        blocks = [block / np.linalg.norm(block, axis=-1, keepdims=True) for block in blocks]
    scores = [each.head.predict(each.standardise(blocks)).T @ windows.share for each in run.members]
    wanted = run.calibration(np.mean(scores, axis=0)[None] * run.scale[1] + run.scale[0])
    assert run.predict(one) == pytest.approx(wanted, abs=1e-4)


def test_windows_are_read_when_a_recipe_asks_for_them_alone(build, world, long_world, tmp_path):
    train(build.recipe({"head": "ridge"}), world.features, world.clips, folder=tmp_path)
    with pytest.raises(UsageError, match="No head could be trained"):
        train(build.recipe(GRID), world.features, world.clips, folder=tmp_path)
    with pytest.raises(UsageError, match="come from no store"):
        world.features.windows(["a"])


def test_feature_sets_with_other_windows_cannot_be_samples_together(long_world):
    features: Features = long_world.features
    shorter = Stored(features["b"].source.windows, 5.0)
    mixed = replace(features, sets={"a": features["a"], "b": replace(features["b"], source=shorter)})
    with pytest.raises(UsageError, match="a and b cut clips into different windows"):
        mixed.windows(["a", "b"])
