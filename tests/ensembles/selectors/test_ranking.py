"""Ranking selectors against brute force over small pools, with ties, constants and sets that are not there."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mmmos.ensembles import selectors
from mmmos.errors import UnknownName, UsageError


@pytest.fixture
def make_pool(pools):
    return pools.make


def brute_quality(pool, name):
    found = []
    for run in pool.scores[name]:
        both = [stats.spearmanr(run[:, axis], pool.truth[name][:, axis]).statistic for axis in range(2)]
        found.append(np.mean(both))
    return np.array(found)


def ranks(pool, name):
    """Place of every run, 0 the best; of equal ones the earlier first."""
    quality = brute_quality(pool, name)
    return np.array(
        [sum((q > own) or (q == own and j < i) for j, q in enumerate(quality)) for i, own in enumerate(quality)]
    )


@pytest.mark.parametrize("seed", range(5))
def test_top_k_takes_the_best_runs(make_pool, seed):
    pool = make_pool(seed)
    expected = set(np.argsort(-brute_quality(pool, "pam"))[:3])
    assert set(selectors.top_k(pool, on="pam", k=3).members) == expected
    assert selectors.best(pool, on="dev").members.tolist() == [int(brute_quality(pool, "dev").argmax())]


@pytest.mark.parametrize("seed", range(5))
def test_top_k_on_two_sets_goes_by_the_mean_rank(make_pool, seed):
    pool = make_pool(seed)
    total = ranks(pool, "dev") + ranks(pool, "pam")
    expected = sorted(range(7), key=lambda run: (total[run], run))[:3]
    assert selectors.top_k(pool, on=["dev", "pam"], k=3).members.tolist() == sorted(expected)


@pytest.mark.parametrize(("seed", "k"), list(itertools.product(range(5), (1, 3, 6))))
def test_intersect_takes_the_smallest_common_top(make_pool, seed, k):
    pool = make_pool(seed)
    dev, pam = ranks(pool, "dev"), ranks(pool, "pam")
    for size in range(1, 8):
        common = [run for run in range(7) if dev[run] < size and pam[run] < size]
        if len(common) >= k:
            break
    expected = sorted(sorted(common, key=lambda run: (dev[run] + pam[run], run))[:k])
    assert selectors.intersect(pool, k=k).members.tolist() == expected


def test_weights_are_equal_and_sum_to_one_for_every_axis(make_pool):
    for selection in (
        selectors.average(make_pool()),
        selectors.top_k(make_pool(), k=4),
        selectors.intersect(make_pool()),
    ):
        assert selection.weights.shape == (len(selection.members), 2)
        assert selection.weights.sum(axis=0) == pytest.approx(1)
        assert np.ptp(selection.weights) == 0 and (np.diff(selection.members) > 0).all()


@pytest.mark.parametrize("rule", [selectors.top_k, selectors.intersect])
def test_more_than_there_are_gives_all(make_pool, rule):
    assert rule(make_pool(), k=99).members.tolist() == list(range(7))


def test_ties_go_to_the_earlier_run(make_pool):
    pool = make_pool(pam=lambda scores: np.repeat(scores[:1], 7, axis=0))
    assert selectors.top_k(pool, k=2).members.tolist() == [0, 1]


@pytest.mark.parametrize(
    "metric", ["utt_SRCC", "utt_LCC", "utt_KTAU", "utt_MSE", "sys_SRCC", "sys_LCC", "sys_KTAU", "sys_MSE"]
)
def test_quality_is_the_named_metric_and_higher_is_better(make_pool, metric):
    level, kind = metric.split("_")
    pool = make_pool()
    functions = {"SRCC": stats.spearmanr, "LCC": stats.pearsonr, "KTAU": stats.kendalltau}
    for run, got in zip(pool.scores["pam"], selectors.quality(pool, "pam", metric), strict=True):
        values = []
        for axis in range(2):
            p, y = run[:, axis].astype(float), pool.truth["pam"][:, axis]
            if level == "sys":
                p, y = ([column[pool.systems["pam"] == f"s{i}"].mean() for i in range(5)] for column in (p, y))
            values.append(-np.mean(np.subtract(p, y) ** 2) if kind == "MSE" else functions[kind](p, y).statistic)
        assert got == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize("metric", ["utt_SRCC", "utt_MSE"])
def test_a_constant_or_broken_run_is_never_the_best(make_pool, metric):
    def spoil(scores):
        scores[0], scores[1, 3] = 30.0, np.nan
        return scores

    pool = make_pool(pam=spoil)
    assert not {0, 1} & set(selectors.top_k(pool, k=2, metric=metric).members)
    assert selectors.quality(pool, "pam")[0] == 0


def test_clips_and_axes_without_truth_are_left_out(make_pool):
    pool = make_pool()
    pool.truth["pam"][:4, 0] = np.nan
    pool.truth["pam"][:, 1] = np.nan
    expected = [stats.spearmanr(run[4:, 0], pool.truth["pam"][4:, 0]).statistic for run in pool.scores["pam"]]
    assert selectors.quality(pool, "pam") == pytest.approx(expected)
    assert selectors.quality(pool, "pam", "utt_MSE").shape == (7,)


def test_truth_that_does_not_vary_is_a_sentence(make_pool):
    pool = make_pool()
    pool.truth["pam"][:] = 4.0
    with pytest.raises(UsageError, match="needs at least two clips with different scores"):
        selectors.top_k(pool)


def test_the_evaluation_set_and_unknown_sets_and_metrics_are_sentences(make_pool):
    pool = make_pool()
    with pytest.raises(UsageError, match=r"'eval' is sealed: nothing is selected on it. Use dev or pam\."):
        selectors.best(pool, on="eval")
    with pytest.raises(UnknownName, match=r"no labelled set 'pan'\. Did you mean 'pam'"):
        selectors.top_k(pool, on="pan")
    with pytest.raises(UnknownName, match="no metric 'SRCC'"):
        selectors.top_k(pool, metric="SRCC")
    pool.systems["pam"] = None
    with pytest.raises(UsageError, match="have no system"):
        selectors.top_k(pool, metric="sys_SRCC")
