"""Bootstrap by multiplicities, against scipy on every resample written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmmos.errors import UnknownName
from mmmos.statistics import METRICS, bootstrap, bootstrap_many, resample_counts

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


@pytest.mark.parametrize("metric", METRICS)
@given(pairs=tied, seed=st.integers(0, 99))
def test_every_resample_equals_scipy_on_the_resample_written_out(metric, pairs, seed):
    x, y = np.array(pairs, float).T * 0.7 + 1.1
    counts = resample_counts(len(x), 8, seed)
    np.testing.assert_allclose(bootstrap(metric, x, y, counts), brute_force(metric, x, y, counts), rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_many_models_share_their_resamples(metric):
    rng = np.random.default_rng(3)
    models, truth = rng.normal(size=(5, 60)).round(1), rng.normal(size=60).round(1)
    counts = resample_counts(60, 30, units=np.arange(60) // 4)
    expected = [brute_force(metric, model, truth, counts) for model in models]
    np.testing.assert_allclose(bootstrap_many(metric, models, truth, counts), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", ["MSE", "LCC"])
def test_long_inputs_are_computed_in_blocks_with_the_same_numbers(metric, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 90)).round(1)
    counts = resample_counts(90, 7)
    whole = bootstrap(metric, x, y, counts)
    monkeypatch.setattr("mmmos.statistics.multiplicities._BLOCK", 200)
    np.testing.assert_allclose(bootstrap(metric, x, y, counts), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("metric", METRICS)
def test_a_sample_of_no_items_has_no_value(metric):
    counts = np.array([[0, 0, 0], [1, 1, 1]])
    values = bootstrap(metric, [1.0, 2.0, 4.0], [1.0, 3.0, 2.0], counts)
    assert np.isnan(values[0]) and np.isfinite(values[1])


def test_counts_are_reproducible_and_every_row_is_a_full_resample():
    counts = resample_counts(30, 50, seed=3)
    assert counts.shape == (50, 30)
    assert (counts.sum(axis=1) == 30).all()
    assert (counts == resample_counts(30, 50, seed=3)).all()
    assert (counts != resample_counts(30, 50, seed=4)).any()


def test_units_are_drawn_with_all_their_items():
    units = np.array(["b", "a", "b", "c", "a", "b"])
    counts = resample_counts(6, 40, units=units)
    of_unit = np.stack([counts[:, units == name][:, 0] for name in "abc"], axis=1)
    assert (counts == of_unit[:, [1, 0, 1, 2, 0, 1]]).all()
    assert (of_unit.sum(axis=1) == 3).all()
    with pytest.raises(ValueError, match="units must name"):
        resample_counts(6, 40, units=units[:5])


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
