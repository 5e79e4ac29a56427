"""Choices over resamples: deterministic, honest about clips that were not looked at, and equal to the rule by hand."""

import numpy as np
import pytest

from mmmos.ensembles.diversity import diversity
from mmmos.ensembles.ensemble import select
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import SelectRecipe
from mmmos.ensembles.selectors import Selection
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.stability import honest, resample, stability
from mmmos.errors import UsageError

TOP = SelectRecipe(rule="top_k", k=2, on="pam")


@pytest.fixture
def pool():
    """Run 0 is far better than all others; 1 to 5 are alike."""
    rng = np.random.default_rng(0)
    truth = {name: rng.normal(5, 1, (40, 2)) for name in ("dev", "pam", "eval")}
    noise = np.array([0.3, 1.5, 1.5, 1.5, 1.5, 1.5])[:, None, None]
    scores = {name: np.float32(truth[name] + noise * rng.normal(size=(6, 40, 2))) for name in truth}
    specs = tuple(HeadSpec(head="ridge", features=("a",), axes=("PQ", "PC"), seed=seed) for seed in range(6))
    ids = {name: tuple(f"{name}{i}" for i in range(40)) for name in truth}
    systems = {name: np.array([f"s{i % 4}" for i in range(40)], object) for name in truth}
    del truth["eval"]
    keys = tuple("abcdef")
    return Pool("p", None, "data", ("PQ", "PC"), specs, keys, ids, scores, truth, systems)


def test_a_run_that_is_far_better_is_always_chosen_and_equals_share_the_rest(pool):
    table = stability(pool, TOP, resamples=60)
    assert table["key"][0] == "a" and table["chosen"][0] == 1 and table["weight"][0] == 0.5
    assert table["chosen"].sum() == pytest.approx(2) and table["weight"].sum() == pytest.approx(1)
    assert (table["chosen"][1:] < 0.9).all() and table["chosen"].is_monotonic_decreasing
    assert {pool.keys[member] for member in select(pool, TOP).selection.members} <= set(table["key"])


def test_a_member_that_no_resample_chooses_has_a_row(pool):
    rule = SelectRecipe(rule="best", on="pam")
    pool.scores["pam"][1] = pool.scores["pam"][0]
    assert stability(pool, rule, resamples=5)["key"].tolist() == ["a"]
    found = resample(pool, rule, resamples=5)
    found.chosen[:], found.weights[:] = False, 0
    assert found.stability().to_dict("records") == [
        {"key": "a", "name": pool.specs[0].name, "chosen": 0.0, "weight": 0.0}
    ]


@pytest.mark.parametrize("rule", ["top_k", "best", "average", "intersect"])
def test_the_same_seed_says_the_same_in_any_number_of_processes(pool, rule):
    chosen = SelectRecipe(rule=rule)
    one = stability(pool, chosen, resamples=8, seed=3)
    assert one.equals(stability(pool, chosen, resamples=8, seed=3))
    if rule == "top_k":
        assert one.equals(stability(pool, chosen, resamples=8, seed=3, jobs=2))
        assert not one.equals(stability(pool, chosen, resamples=8, seed=4))


def test_scores_of_clips_without_truth_and_a_sealed_set_play_no_part(pool):
    first = stability(pool, TOP, resamples=5)
    pool.scores["eval"][:] = pool.scores["eval"][::-1] + 1
    assert first.equals(stability(pool, TOP, resamples=5))


def test_honest_quality_is_of_clips_that_were_left_out(pool):
    table = honest(pool, TOP, resamples=30).set_index(["set", "ensemble"])
    assert list(table.index) == [(n, e) for n in ("dev", "pam") for e in ("top_k", "best", "average")]
    assert (table["low"] <= table["quality"]).all() and (table["quality"] <= table["high"]).all()
    assert table.loc[("pam", "best"), "quality"] > table.loc[("pam", "average"), "quality"]
    gain = table.loc[("pam", "top_k"), "quality"] - table.loc[("pam", "average"), "quality"]
    assert table.loc[("pam", "average"), "gain"] == pytest.approx(gain)
    assert table.loc[("pam", "top_k"), ["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]


def test_where_truth_is_noise_choosing_does_not_help_and_that_is_seen(pool):
    pool.truth["pam"] = np.random.default_rng(5).normal(5, 1, (40, 2))
    seen = pool.measure("pam")[select(pool, "best", on="pam").selection.members].mean()
    table = honest(pool, SelectRecipe(rule="best", on="pam"), resamples=60).set_index(["set", "ensemble"])
    assert table.loc[("pam", "best"), "quality"] < 0.5 * seen


def test_a_broken_run_is_never_chosen_and_keeps_its_place(pool, caplog):
    pool.scores["eval"][0, 3, 1] = np.nan
    assert "a" not in set(stability(pool, SelectRecipe(rule="average"), resamples=3)["key"])
    assert caplog.text.count("cannot be chosen") == 1
    assert select(pool, "top_k", k=6).selection.members.tolist() == [1, 2, 3, 4, 5]
    pool.scores["eval"][:, 0] = np.inf
    with pytest.raises(UsageError, match="No head of the pool predicts finite numbers"):
        select(pool)


def test_mistakes_are_sentences(pool):
    with pytest.raises(UsageError, match="resamples must be a whole number, 1 or more; got 0"):
        stability(pool, TOP, resamples=0)
    pool.truth.clear()
    with pytest.raises(UsageError, match="no labelled set"):
        stability(pool, SelectRecipe(), resamples=2)


def test_a_resample_takes_clips_with_all_that_is_known_of_them(pool):
    rows = np.array([3, 3, 0])
    some = pool.resampled({"pam": rows})
    assert some.ids["pam"] == ("pam3", "pam3", "pam0") and some.systems["pam"].tolist() == ["s3", "s3", "s0"]
    assert (some.scores["pam"] == pool.scores["pam"][:, rows]).all() and (
        some.truth["pam"] == pool.truth["pam"][rows]
    ).all()
    assert some.scores["dev"] is pool.scores["dev"] and len(pool.ids["pam"]) == 40
    assert pool.resampled({"eval": rows}).labelled() == ["dev", "pam"]


def test_ambiguity_is_what_averaging_gains(pool):
    pool.truth["pam"][:7, 0] = np.nan
    weights = np.array([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]])
    selection = Selection(np.array([0, 2, 5]), weights)
    table = diversity(pool, selection, "pam")
    assert table["axis"].tolist() == ["PQ", "PC"]
    assert table["ensemble_MSE"].to_numpy() == pytest.approx((table["member_MSE"] - table["ambiguity"]).to_numpy())
    mean = pool.mean("pam", selection.members, weights).to_numpy()
    assert table["ensemble_MSE"].to_numpy() == pytest.approx(np.nanmean((mean - pool.truth["pam"]) ** 2, axis=0))
    members = pool.scores["pam"][selection.members, :, 1].astype(float)
    between = np.corrcoef(members)[np.triu_indices(3, 1)].mean()
    assert table["pairwise_LCC"][1] == pytest.approx(between)
    alone = diversity(pool, Selection(np.array([1]), np.ones((1, 2))), "pam")
    assert np.isnan(alone["pairwise_LCC"]).all() and (alone["ambiguity"] == 0).all()
