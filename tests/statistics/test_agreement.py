"""One metric of many models at once, against the metrics of one model."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmos import metrics
from mmmos.errors import UnknownName
from mmmos.statistics import METRICS, is_constant, measure

tables = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 5), min_size=n, max_size=n), min_size=2, max_size=6)
)


@pytest.mark.parametrize("metric", METRICS)
@given(table=tables)
def test_every_model_equals_the_metric_of_that_model(metric, table):
    truth, *models = np.array(table) * 0.7 + 1.1
    expected = [metrics.METRICS[metric](model, truth) for model in models]
    np.testing.assert_allclose(measure(metric, models, truth), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_many_models_of_many_clips(metric):
    rng = np.random.default_rng(0)
    truth = rng.integers(10, 100, 400) / 10
    models = truth + rng.normal(size=(20, 400)) * np.linspace(0.1, 9, 20)[:, None]
    expected = [metrics.METRICS[metric](model, truth) for model in models]
    np.testing.assert_allclose(measure(metric, models, truth), expected, rtol=0, atol=1e-12)
    assert len(measure(metric, models[:0], truth)) == 0


@pytest.mark.parametrize(
    ("predictions", "truth"),
    [([1.0, 2.0], [1.0, 2.0]), ([[1.0, 2.0]], [1.0]), (np.ones((2, 0)), []), ([[1.0, np.nan]], [1.0, 2.0])],
)
def test_scores_that_do_not_fit_or_are_not_finite_are_refused(predictions, truth):
    with pytest.raises(ValueError, match="must be"):
        measure("SRCC", predictions, truth)


def test_an_unknown_metric_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="SRCC"):
        measure("SRC", [[1.0, 2.0]], [1.0, 2.0])


def test_rounding_is_no_ranking():
    means = np.array([np.mean([0.1] * n) for n in (1, 3, 7, 85)])
    assert len(set(means)) > 1
    assert is_constant(means.min(), means.max())
    assert np.isnan([measure(metric, [means], np.arange(4.0))[0] for metric in METRICS[1:]]).all()


def test_importing_the_statistics_imports_neither_numba_nor_scipy():
    code = "import sys, mmmos.statistics; print(*sorted({'numba', 'scipy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
