"""The torchmetrics class: means over batches, resets, bad waves counted."""

import sys

import numpy as np
import pytest
import torch

from mmmos.errors import SetupError, UsageError


@pytest.fixture
def metric(scorer):
    pytest.importorskip("torchmetrics")
    from mmmos.scoring.metric import Aesthetics

    return Aesthetics(scorer)


def test_means_over_batches_are_those_of_all_waves(metric, scorer, noise):
    waves = np.stack([noise(seed=seed) for seed in range(5)])
    expected = scorer(list(waves), 8000)[["PQ", "PC", "CE", "CU"]].mean()
    metric.update(torch.from_numpy(waves[:3]), 8000)
    metric.update(torch.from_numpy(waves[3:4]).double(), 8000)
    metric.update(torch.from_numpy(waves[4]).requires_grad_(), rate=8000)
    means = metric.compute()
    assert list(means) == ["PQ", "PC", "CE", "CU"]
    for axis, mean in means.items():
        assert mean.dtype == torch.float32 and mean.item() == pytest.approx(expected[axis], abs=1e-5)
    metric.reset()
    metric.update(torch.zeros(2, 10), 8000)
    with pytest.raises(UsageError, match="Nothing was scored yet, and 2 waves"):
        metric.compute()


def test_what_a_batch_adds_is_what_forward_returns(metric, noise):
    first, second = (torch.from_numpy(noise(seed=seed))[None] for seed in (1, 2))
    alone = metric(first, 8000), metric(second, 8000)
    for axis, mean in metric.compute().items():
        assert mean.item() == pytest.approx((alone[0][axis] + alone[1][axis]).item() / 2, abs=1e-5)


def test_waves_that_cannot_be_scored_are_counted_and_left_out(metric, scorer, noise):
    good = torch.from_numpy(noise())
    metric.update(torch.stack([good, torch.full_like(good, float("nan"))]), 8000)
    assert (int(metric.scored), int(metric.rejected)) == (1, 1)
    assert metric.compute()["PQ"].item() == pytest.approx(scorer(good, 8000)["PQ"], abs=1e-5)


def test_waves_are_mono(metric):
    with pytest.raises(UsageError, match=r"got \(1, 2, 800\)"):
        metric.update(torch.zeros(1, 2, 800), 8000)


def test_without_torchmetrics_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "mmmos.scoring.metric", raising=False)
    with pytest.raises(SetupError, match=r"pip install 'mmmos\[metrics\]'"):
        import mmmos.scoring.metric  # noqa: F401
