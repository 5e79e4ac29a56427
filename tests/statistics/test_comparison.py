"""Paired tests against scipy, published examples, and cases worked by hand."""

import numpy as np
import pytest
from scipy import stats

from mmmos.statistics import (
    METRICS,
    bootstrap,
    holm,
    interval,
    measure,
    paired_bootstrap,
    permutation_test,
    resample_counts,
    steiger_test,
    williams_test,
)


def models(n, seed=0, gap=0.0):
    """Two predictions and their truth; the second one is worse by ``gap``."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n).round(1)
    return truth + 0.5 * rng.normal(size=n), truth + (0.5 + gap) * rng.normal(size=n), truth


@pytest.mark.parametrize("metric", METRICS)
def test_all_swaps_of_few_items_are_tried_and_equal_scipys(metric):
    a, b, truth = models(9)
    prepare = {
        "MSE": lambda x: x,
        "LCC": lambda x: (x - x.mean()) / x.std(),
        "SRCC": stats.rankdata,
        "KTAU": stats.rankdata,
    }[metric]

    def difference(x, y):
        return measure(metric, [x], truth)[0] - measure(metric, [y], truth)[0]

    scipys = stats.permutation_test(
        (prepare(a), prepare(b)), lambda x, y: abs(difference(x, y)), permutation_type="samples", alternative="greater"
    )
    assert permutation_test(metric, a, b, truth) == pytest.approx(scipys.pvalue, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_random_swaps_agree_with_all_swaps(metric):
    a, b, truth = models(11, gap=0.6)
    exact = permutation_test(metric, a, b, truth, resamples=2**11)
    assert permutation_test(metric, a, b, truth, resamples=2000, seed=1) == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("metric", METRICS)
def test_a_clear_difference_is_found_and_equal_models_are_not_told_apart(metric):
    a, b, truth = models(60, gap=3.0)
    assert permutation_test(metric, a, b, truth) == pytest.approx(1 / 2001)
    assert permutation_test(metric, b, a, truth) == pytest.approx(1 / 2001)
    assert permutation_test(metric, a, a, truth) == 1


@pytest.mark.parametrize("metric", ["LCC", "SRCC", "KTAU"])
def test_scale_and_offset_of_a_model_do_not_count_for_correlations(metric):
    a, b, truth = models(40, gap=0.3)
    p = permutation_test(metric, a, b, truth)
    assert permutation_test(metric, a, 100 + 7 * b, truth) == pytest.approx(p, abs=1e-3)


def test_the_permutation_test_holds_its_level():
    p = [permutation_test("SRCC", *models(30, seed), resamples=199) for seed in range(300)]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.09


def test_a_model_that_is_constant_cannot_be_compared():
    a, _, truth = models(20)
    assert np.isnan(permutation_test("LCC", a, np.ones(20), truth))
    assert np.isnan(paired_bootstrap("SRCC", a, np.ones(20), truth, resample_counts(20, 99)).p)


@pytest.mark.parametrize("metric", METRICS)
def test_paired_bootstrap_is_the_interval_of_differences_on_equal_resamples(metric):
    a, b, truth = models(50, gap=0.5)
    counts = resample_counts(50, 400)
    found = paired_bootstrap(metric, a, b, truth, counts)
    samples = bootstrap(metric, a, truth, counts) - bootstrap(metric, b, truth, counts)
    assert (found.low, found.high) == pytest.approx(interval(samples), abs=1e-12)
    assert found.value == pytest.approx(measure(metric, [a], truth)[0] - measure(metric, [b], truth)[0])
    assert found.p == pytest.approx(min(1, 2 * (1 + min((samples <= 0).sum(), (samples >= 0).sum())) / 401))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.4, 0.9]) == pytest.approx([1, 1, 1])
    assert holm([0.02]) == pytest.approx([0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert len(holm([])) == 0


def test_williams_gives_the_published_example():
    # Howell, Statistical Methods for Psychology, 6th edition, p. 262
    t, p = williams_test(0.80, 0.72, 0.89, 26)
    assert (round(t, 3), round(p, 3)) == (1.361, 0.187)
    assert williams_test(0.72, 0.80, 0.89, 26) == pytest.approx((-t, p))


@pytest.mark.parametrize(
    ("correlations", "z"), [((0.0228, 0.3522, 0.3718), -7.1345), ((0.2493, 0.3395, 0.4082), -2.0660)]
)
def test_steiger_gives_what_the_r_package_cocor_prints(correlations, z):
    found, p = steiger_test(*correlations, 553)
    assert found == pytest.approx(z, abs=5e-4)
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.01)


@pytest.mark.parametrize("test", [williams_test, steiger_test])
def test_tests_of_correlations_hold_their_level(test):
    rng = np.random.default_rng(0)
    rejected = []
    for _ in range(400):
        truth, a, b = rng.multivariate_normal(np.zeros(3), [[1, 0.7, 0.7], [0.7, 1, 0.8], [0.7, 0.8, 1]], 40).T
        r = np.corrcoef([truth, a, b])
        rejected.append(test(r[0, 1], r[0, 2], r[1, 2], 40)[1] <= 0.05)
    assert 0.02 <= np.mean(rejected) <= 0.09


@pytest.mark.parametrize("test", [williams_test, steiger_test])
@pytest.mark.parametrize("arguments", [(0.5, 0.4, 0.3, 3), (1.0, 0.4, 0.3, 30), (0.9, -0.9, 0.9, 30)])
def test_correlations_that_cannot_be_are_refused(test, arguments):
    with pytest.raises(ValueError, match="at least 4 items"):
        test(*arguments)
