"""Bootstrap by multiplicities, against scipy on every resample written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmmos.errors import UnknownName
from mmmos.statistics import bootstrap, interval, is_constant, resample_counts

CORRELATIONS = {
    "LCC": lambda x, y: stats.pearsonr(x, y).statistic,
    "SRCC": lambda x, y: stats.spearmanr(x, y).statistic,
    "KTAU": lambda x, y: stats.kendalltau(x, y).statistic,
}
tied = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25)


def brute_force(metric, x, y, counts):
    values = []
    for row in counts:
        a, b = np.repeat(x, row), np.repeat(y, row)
        if metric == "MSE":
            values.append(np.mean((a - b) ** 2))
        else:
            constant = len(set(a)) == 1 or len(set(b)) == 1
            values.append(np.nan if constant else CORRELATIONS[metric](a, b))
    return np.array(values)


@pytest.mark.parametrize("metric", ["MSE", "LCC", "SRCC", "KTAU"])
@given(pairs=tied, seed=st.integers(0, 99))
def test_every_resample_equals_scipy_on_the_resample_written_out(metric, pairs, seed):
    x, y = np.array(pairs, float).T * 0.7 + 1.1
    counts = resample_counts(len(x), 8, seed)
    np.testing.assert_allclose(bootstrap(metric, x, y, counts), brute_force(metric, x, y, counts), rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", ["LCC", "SRCC", "KTAU"])
def test_long_inputs_are_computed_in_blocks_with_the_same_numbers(metric, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 90)).round(1)
    counts = resample_counts(90, 7)
    whole = bootstrap(metric, x, y, counts)
    monkeypatch.setattr("mmmos.statistics._BLOCK", 200)
    monkeypatch.setattr("mmmos.statistics._PRODUCT", 2000)
    np.testing.assert_allclose(bootstrap(metric, x, y, counts), whole, rtol=0, atol=1e-14)


def test_counts_are_reproducible_and_every_row_is_a_full_resample():
    counts = resample_counts(30, 50, seed=3)
    assert counts.shape == (50, 30)
    assert (counts.sum(axis=1) == 30).all()
    assert (counts == resample_counts(30, 50, seed=3)).all()
    assert (counts != resample_counts(30, 50, seed=4)).any()


def test_interval_is_the_percentile_interval():
    assert interval(np.arange(1001), 0.95) == pytest.approx((25.0, 975.0))


def test_interval_leaves_out_few_undefined_resamples_and_refuses_many():
    samples = np.r_[np.arange(96.0), [np.nan] * 4]
    assert interval(samples) == interval(np.arange(96.0))
    assert np.isnan(interval(np.r_[np.arange(94.0), [np.nan] * 6])).all()
    assert np.isnan(interval([np.nan])).all()


def test_interval_of_correlated_normals_covers_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        x = rng.normal(size=80)
        y = 0.6 * x + 0.8 * rng.normal(size=80)
        low, high = interval(bootstrap("LCC", x, y, resample_counts(80, 300, seed)))
        covered += low <= 0.6 <= high
    assert covered >= 87


def test_rounding_is_no_ranking():
    means = np.array([np.mean([0.1] * n) for n in (1, 3, 7, 85)])
    assert len(set(means)) > 1
    assert is_constant(means.min(), means.max())
    assert np.isnan(bootstrap("SRCC", means, np.arange(4.0), np.ones((1, 4), int))).all()


@pytest.mark.parametrize("x", [[1.0, np.nan], [1.0, 2.0, 3.0], [[1.0, 2.0]]])
def test_values_that_are_not_finite_or_do_not_fit_are_refused(x):
    with pytest.raises(ValueError, match="must be"):
        bootstrap("LCC", x, [1.0, 2.0], resample_counts(2, 3))


def test_an_unknown_metric_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="SRCC"):
        bootstrap("SRC", [1.0, 2.0], [1.0, 2.0], resample_counts(2, 3))


def test_an_empty_bootstrap_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        resample_counts(0, 10)
