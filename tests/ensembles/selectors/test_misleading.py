"""Pools in which one set misleads: what looks good there is not good on the clips to predict."""

import numpy as np
import pytest

from mmmos.ensembles import selectors

TRUE, FALSE = slice(0, 6), slice(6, 12)

RULES = {
    "best": selectors.best,
    "top_k": selectors.top_k,
    "greedy": selectors.greedy,
    "nnls": lambda pool, on: selectors.stack(pool, on=on, method="nnls"),
    "ridge": selectors.stack,
}


def misled(pools, liar, seed=0, clips=200):
    """Six runs that are good everywhere, and six that are better on the set ``liar`` and worthless elsewhere."""
    rng = np.random.default_rng(seed)
    truth = {name: rng.normal(5, 1, (clips, 2)) for name in ("dev", "pam", "eval")}
    noise = {name: np.full((12, 1, 1), 1.0) for name in truth}
    for name in truth:
        noise[name][FALSE] = 0.3 if name == liar else 6.0
    scores = {name: np.float32(truth[name] + noise[name] * rng.normal(size=(12, clips, 2))) for name in truth}
    return pools.of(scores, {name: truth[name] for name in ("dev", "pam")}), truth["eval"]


def error(pool, selection, truth):
    return float(np.mean((pool.mean("eval", selection.members, selection.weights).to_numpy() - truth) ** 2))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("liar", "honest"), [("dev", "pam"), ("pam", "dev")])
def test_every_rule_believes_the_set_that_it_looks_at(pools, rule, liar, honest):
    pool, truth = misled(pools, liar)
    good, bad = RULES[rule](pool, on=honest), RULES[rule](pool, on=liar)
    assert error(pool, good, truth) < 0.5 * error(pool, bad, truth)
    weights = np.zeros((12, 2))
    weights[bad.members] = bad.weights
    assert weights[FALSE].sum() > 1.5


@pytest.mark.parametrize("liar", ["dev", "pam"])
def test_intersect_and_a_weighted_mix_hold_whichever_set_misleads(pools, liar):
    pool, truth = misled(pools, liar)
    honest = "pam" if liar == "dev" else "dev"
    wrong = error(pool, selectors.top_k(pool, on=liar, k=4), truth)
    assert error(pool, selectors.intersect(pool, on=["dev", "pam"], k=4), truth) < wrong
    mix = {honest: 3, liar: 1}
    assert np.sum(selectors.top_k(pool, on=mix, k=4).members < 6) >= 3
    for rule in (selectors.greedy, selectors.stack):
        assert error(pool, rule(pool, on=mix), truth) < 0.6 * error(pool, rule(pool, on=liar), truth)


def test_a_mix_of_metrics_is_their_weighted_mean(pools):
    pool = pools.make(1)
    srcc, mse = (selectors.quality(pool, "pam", metric) for metric in ("utt_SRCC", "utt_MSE"))
    assert selectors.quality(pool, "pam", {"utt_SRCC": 3, "utt_MSE": 1}) == pytest.approx((3 * srcc + mse) / 4)
    assert selectors.quality(pool, "pam", ["utt_SRCC", "utt_MSE"]) == pytest.approx((srcc + mse) / 2)


def test_ranks_are_mixed_by_the_weights_of_the_sets(pools):
    pool = pools.make(2)
    order = {name: np.argsort(-selectors.quality(pool, name), kind="stable") for name in ("dev", "pam")}
    ranks = {name: np.argsort(each) for name, each in order.items()}
    expected = np.argsort(5 * ranks["dev"] + 2 * ranks["pam"], kind="stable")[:3]
    assert selectors.top_k(pool, on={"dev": 5, "pam": 2}, k=3).members.tolist() == sorted(expected.tolist())
    assert selectors.top_k(pool, on={"dev": 1e-9, "pam": 1}, k=3).members.tolist() == sorted(order["pam"][:3].tolist())


def test_a_system_needs_only_some_clips_with_truth(pools):
    pool = pools.make(3)
    pool.truth["pam"][0] = np.nan
    whole = pools.make(3).resampled({"pam": np.arange(1, 15)})
    assert selectors.quality(pool, "pam", "sys_LCC") == pytest.approx(selectors.quality(whole, "pam", "sys_LCC"))
