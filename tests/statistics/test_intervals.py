"""Intervals: percentile and BCa against scipy, the jackknife against textbook cases, and whether they cover."""

import numpy as np
import pytest
from scipy import stats

from mmmos.errors import UnknownName
from mmmos.statistics import (
    METRICS,
    bca_interval,
    bootstrap,
    confidence,
    interval,
    jackknife_interval,
    sampling,
)


def scores(n=40, seed=0, rho=0.8):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=n)


def test_interval_is_the_percentile_interval():
    assert interval(np.arange(1001), 0.95) == pytest.approx((25.0, 975.0))


def test_interval_leaves_out_few_undefined_resamples_and_refuses_many():
    samples = np.r_[np.arange(96.0), [np.nan] * 4]
    assert interval(samples) == interval(np.arange(96.0))
    assert np.isnan(interval(np.r_[np.arange(94.0), [np.nan] * 6])).all()
    assert np.isnan(interval([np.nan])).all()


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("metric", ["LCC", "SRCC"])
def test_bca_equals_scipy_on_scipys_own_resamples(metric, level):
    x, y = scores()
    function = {"LCC": stats.pearsonr, "SRCC": stats.spearmanr}[metric]
    scipys = stats.bootstrap(
        (x, y),
        lambda a, b: function(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=400,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(0),
    )
    value = function(x, y).statistic
    left_out = [function(np.delete(x, i), np.delete(y, i)).statistic for i in range(len(x))]
    found = bca_interval(scipys.bootstrap_distribution, value, left_out, level)
    assert found == pytest.approx(tuple(scipys.confidence_interval), abs=1e-12)


def test_bca_of_the_sampling_is_near_scipys():
    x, y = scores()
    scipys = stats.bootstrap(
        (x, y),
        lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic,
        paired=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
    )
    found = confidence("LCC", x, y, method="bca", resamples=4000)
    assert found == pytest.approx(tuple(scipys.confidence_interval), abs=0.02)


def test_bca_without_a_correction_is_the_percentile_interval():
    samples = np.arange(1.0, 101)
    assert bca_interval(samples, 0.0, [0.0, 1.0, 2.0]) == interval(samples)
    assert np.isnan(bca_interval(samples, np.nan, [0.0, 1.0])).all()


def test_samples_lack_each_unit_and_each_pair_with_all_its_items():
    units = ["a", "b", "a", "c"]
    samples = sampling(4, units, method="jackknife")
    assert samples.units == 3 and samples.pairs == 3
    assert samples.counts.tolist() == [
        [1, 1, 1, 1],
        *([0, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]),
        *([0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 1, 0]),
    ]


def test_many_units_are_left_out_in_groups_and_pairs_are_not():
    samples = sampling(1003, np.arange(1003), method="jackknife")
    assert samples.counts.shape == (201, 1003) and samples.pairs == 0
    lacking = (samples.counts[1:] == 0).sum(axis=1)
    assert lacking.sum() == 1003 and set(lacking) <= {5, 6}


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.array([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0])  # flat: full degrees of freedom
    samples = sampling(9, method="jackknife")
    means = samples.counts @ values / samples.counts.sum(axis=1)
    expected = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert samples.interval(means) == pytest.approx(expected)


def test_the_variance_is_corrected_where_a_statistic_is_not_linear():
    x, y = scores(36, rho=0.95)
    samples = sampling(36, method="jackknife")
    values = bootstrap("KTAU", x, y, samples.counts)
    low, high = jackknife_interval(values, 36, "KTAU")
    rough_low, rough_high = jackknife_interval(values[:37], 36, "KTAU")
    assert rough_low < low < values[0] < high < rough_high


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", ["auto", "jackknife", "bca", "percentile"])
def test_intervals_hold_the_value_and_stay_on_the_scale(metric, method):
    x, y = scores(25, rho=0.97)
    low, high = confidence(metric, x, y, method=method, resamples=300)
    value = bootstrap(metric, x, y, np.ones((1, 25), int))[0]
    assert (0 if metric == "MSE" else -1) <= low < value < high
    assert metric == "MSE" or high <= 1
    assert (low, high) == confidence(metric, x, y, method=method, resamples=300)


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_predictions_have_an_interval_of_no_width(metric):
    x, _ = scores(12)
    best = 0 if metric == "MSE" else 1
    assert confidence(metric, x, x) == pytest.approx((best, best), abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_a_single_error_still_has_a_finite_interval(metric):
    x = np.arange(8.0)
    low, high = confidence(metric, x, np.r_[x[:-2], 7.0, 6.0], method="jackknife")
    value = bootstrap(metric, x, np.r_[x[:-2], 7.0, 6.0], np.ones((1, 8), int))[0]
    assert np.isfinite([low, high]).all() and low < value <= high


@pytest.mark.parametrize("method", ["auto", "jackknife", "bca", "percentile"])
def test_what_is_undefined_has_no_interval(method):
    x = np.arange(6.0)
    assert np.isnan(confidence("KTAU", x, np.ones(6), method=method)).all()
    assert np.isnan(confidence("LCC", x, np.r_[np.zeros(5), 1.0], method=method)).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", ["auto", "jackknife", "bca", "percentile"])
def test_two_units_say_nothing_of_a_third(metric, method):
    x, y = scores(40)
    assert np.isnan(confidence(metric, x, y, units=np.arange(40) % 2, method=method)).all()
    assert np.isfinite(confidence(metric, x, y, units=np.arange(40) % 4, method=method)).all()


def test_clips_of_few_systems_are_less_certain_than_as_many_single_clips():
    rng = np.random.default_rng(0)
    system = np.repeat(np.arange(10), 20)
    truth = rng.normal(size=10)[system] + rng.normal(size=200)
    predicted = truth + rng.normal(size=10)[system]
    widths = [np.ptp(confidence("MSE", predicted, truth, units=units)) for units in (system, None)]
    assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_of_36_systems_cover(metric):
    rho, held = 0.9, 0
    true = {"MSE": 0.2, "LCC": rho, "SRCC": 6 / np.pi * np.arcsin(rho / 2), "KTAU": 2 / np.pi * np.arcsin(rho)}[metric]
    samples = sampling(36, resamples=500)
    for seed in range(300):
        x, y = scores(36, seed, rho)
        low, high = samples.interval(bootstrap(metric, x, y, samples.counts), metric)
        held += low <= true <= high
    assert 0.91 <= held / 300 <= 0.985


def test_strata_keep_their_sizes_and_their_units():
    units, strata = np.arange(12) // 2, np.arange(12) // 6
    counts = sampling(12, units, strata=strata, method="percentile", resamples=50).counts[7:]
    assert (counts[:, :6].sum(axis=1) == 6).all() and (counts[:, 6:].sum(axis=1) == 6).all()
    assert (counts[:, ::2] == counts[:, 1::2]).all() and len(np.unique(counts, axis=0)) > 10
    with pytest.raises(ValueError, match="strata must name"):
        sampling(12, strata=strata[1:])


def test_an_unknown_method_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="jackknife"):
        sampling(5, method="jacknife")


def test_units_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="units must name"):
        sampling(5, ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        sampling(0)


def test_bca_is_wider_where_units_hold_several_items():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=60)
    predicted = truth + rng.normal(size=60)
    units = np.repeat(np.arange(12), 5)
    samples = sampling(60, units, method="bca", resamples=400)
    values = bootstrap("SRCC", predicted, truth, samples.counts)
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, 11) * np.sqrt(12 / 11)) - 1
    assert 0.95 < level < 0.98
    assert samples.interval(values, "SRCC") == bca_interval(values[13:], values[0], values[1:13], level)
    single = sampling(60, method="bca", resamples=400)
    values = bootstrap("SRCC", predicted, truth, single.counts)
    assert single.interval(values, "SRCC") == bca_interval(values[61:], values[0], values[1:61], 0.95)
