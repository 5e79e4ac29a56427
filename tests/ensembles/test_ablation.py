"""Contributions against pools whose true effects are known, brute force, and simulations."""

from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmmos.ensembles import ablation
from mmmos.ensembles.ablation.contrasts import factors_of, marginal
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import UnknownName, UsageError

AXES = ("PQ", "CE")
SETS = {"dev": 30, "pam": 40, "eval": 10}
LOSS = {"mse": 0.1, "ccc": 0.4, "dcq": 0.9}


def spec(features=("a",), head="mlp", **fields):
    return HeadSpec(head=head, features=tuple(features), axes=AXES, **fields)


def make_pool(specs, predict, sets=SETS, seed=0):
    """A pool whose runs predict ``predict(spec, set, truth, rng)`` (clips, axes)."""
    rng = np.random.default_rng(seed)
    truth = {name: rng.normal(5, 1, (clips, len(AXES))) for name, clips in sets.items()}
    scores = {
        name: np.stack([predict(each, name, own, rng) for each in specs]).astype(np.float32)
        for name, own in truth.items()
    }
    truth.pop("eval", None)
    ids = {name: tuple(f"{name}{i}" for i in range(clips)) for name, clips in sets.items()}
    systems = {name: np.array([f"s{i % 5}" for i in range(clips)], object) for name, clips in sets.items()}
    keys = tuple(f"key{run}" for run in range(len(specs)))
    return Pool("p", None, "data", AXES, tuple(specs), keys, ids, scores, truth, systems)


def of_error(error):
    """Predictions whose MSE is exactly what ``error(spec, set)`` says."""
    return lambda each, name, truth, rng: truth + np.sqrt(error(each, name))


def effects(table, **where):
    """Effect by level, of all clips and the mean over axes of pam."""
    where = {"set": "pam", "domain": "all", "axis": "mean"} | where
    for name, value in where.items():
        table = table[table[name] == value]
    return table.set_index("level")["effect"]


def test_an_added_amount_is_found_exactly():
    specs = [spec(loss=loss, seed=seed) for loss, seed in product(LOSS, range(3))]
    pool = make_pool(specs, of_error(lambda each, _: 0.2 + LOSS[each.loss] + 0.05 * each.seed))
    found = effects(ablation.contributions(pool, metric="utt_MSE", factors=["loss"]))
    assert found.to_dict() == pytest.approx({"mse": -0.55, "ccc": -0.1, "dcq": 0.65}, abs=1e-5)


def test_only_matched_runs_are_compared():
    """Seeds of very different quality, not the same ones for every loss, leave the losses' effects as they are."""
    kept = {("mse", 0), ("ccc", 0), ("mse", 1), ("dcq", 1), ("ccc", 1), ("dcq", 0), ("mse", 9), ("dcq", 7)}
    specs = [spec(loss=loss, seed=seed) for loss, seed in kept]
    pool = make_pool(specs, of_error(lambda each, _: LOSS[each.loss] + each.seed))
    table = ablation.contributions(pool, metric="utt_MSE", factors=["loss"])
    assert effects(table).to_dict() == pytest.approx({"mse": -0.55, "ccc": -0.1, "dcq": 0.65}, abs=1e-5)
    assert set(table["runs"]) == {2}


def test_what_cannot_be_matched_is_undefined_and_says_so():
    pool = make_pool([spec(loss="mse", seed=0), spec(loss="ccc", seed=1)], of_error(lambda *_: 1.0))
    table = ablation.contributions(pool, factors=["loss", "encoder"])
    loss = table[table["factor"] == "loss"]
    assert loss[["effect", "low", "high"]].isna().all(axis=None)
    assert set(loss["note"]) == {"no head of another level is the same in all other factors"} and not loss["runs"].any()
    specs = [spec(["a"]), spec(["a", "b"])]
    table = ablation.contributions(make_pool(specs, of_error(lambda *_: 1.0)), factors=["encoder"])
    assert table["effect"].isna().all() and table["note"].str.contains('features = "subsets"').all()


def test_a_head_without_a_loss_is_compared_with_every_loss_and_other_options():
    specs = [spec(loss=loss, options={"lr": lr}) for loss, lr in product(("mse", "ccc"), (0.1, 0.2))]
    specs += [spec(head="ridge", options={"alpha": 1.0})]
    levels = factors_of(specs)
    assert levels["loss"] == ["mse", "mse", "ccc", "ccc", None] and set(levels) == {"head", "loss", "options.lr"}
    mlp, ridge = marginal(levels, "head")
    assert ridge.weights.tolist() == pytest.approx([-0.25] * 4 + [1, 0])
    assert mlp.weights.tolist() == pytest.approx([0.25] * 4 + [-1, 0])
    assert marginal(levels, "loss")[0].weights.tolist() == pytest.approx([0.5, 0.5, -0.5, -0.5, 0, 0])


def all_subsets(names, **fields):
    return [spec(choice, **fields) for size in range(1, len(names) + 1) for choice in combinations(names, size)]


def brute_shapley(value, names):
    """Mean gain of each name over all orders in which they may come."""
    gains = dict.fromkeys(names, 0.0)
    orders = list(permutations(names))
    for order in orders:
        for place, name in enumerate(order):
            gains[name] += (value[frozenset(order[: place + 1])] - value[frozenset(order[:place])]) / len(orders)
    return gains


def test_shapley_values_are_mean_gains_over_all_orders_and_add_up():
    names, rng = ["a", "b", "c"], np.random.default_rng(1)
    specs = [each for seed in range(2) for each in all_subsets(names, seed=seed)]
    error = {each: rng.uniform(0.1, 2) for each in specs}
    pool = make_pool(specs, of_error(lambda each, _: error[each]))
    found = effects(ablation.contributions(pool, metric="utt_MSE", factors=["encoder"], resamples=0))
    nothing = pool.truth["pam"].var(axis=0).mean()
    value = {frozenset(choice.features): 0.0 for choice in specs} | {frozenset(): nothing}
    for each in specs:
        value[frozenset(each.features)] += error[each] / 2
    assert found.to_dict() == pytest.approx(brute_shapley(value, names), abs=1e-5)
    assert found.sum() == pytest.approx(value[frozenset(names)] - nothing, abs=1e-5)


def test_an_encoder_that_carries_one_axis_gets_all_of_it_and_noise_nothing():
    def predict(each, name, truth, rng):
        scores = np.full(truth.shape, 5.0)
        if "a" in each.features:
            scores[:, 0] = truth[:, 0]
        if {"b", "twin"} & set(each.features):
            scores[:, 1] = truth[:, 1]
        return scores

    pool = make_pool(all_subsets(["a", "b", "twin", "noise"]), predict)
    table = ablation.contributions(pool, factors=["encoder"], resamples=20)
    assert effects(table, axis="PQ").to_dict() == pytest.approx({"a": 1, "b": 0, "twin": 0, "noise": 0}, abs=1e-9)
    assert effects(table, axis="CE").to_dict() == pytest.approx({"a": 0, "b": 0.5, "twin": 0.5, "noise": 0}, abs=1e-9)


@pytest.mark.parametrize("metric", ["utt_SRCC", "utt_KTAU", "sys_LCC", "sys_MSE"])
def test_two_runs_differ_by_what_the_pool_measures(metric):
    pool = make_pool(
        [spec(loss="mse"), spec(loss="ccc")], lambda s, n, truth, rng: truth + rng.normal(size=truth.shape)
    )
    table = ablation.contributions(pool, metric=metric, factors=["loss"], resamples=0)
    sign = -1 if metric.endswith("MSE") else 1
    for name in ("dev", "pam"):
        quality = sign * pool.measure(name, metric)
        for column, axis in enumerate(AXES):
            expected = quality[0, column] - quality[1, column]
            assert effects(table, set=name, axis=axis)["mse"] == pytest.approx(expected)
    assert table["low"].isna().all()


def test_intervals_are_those_of_a_loop_over_resamples_written_out():
    pool = make_pool(
        [spec(loss="mse"), spec(loss="ccc")], lambda s, n, truth, rng: truth + rng.normal(size=truth.shape)
    )
    table = ablation.contributions(pool, on="pam", factors=["loss"], resamples=4000)
    row = table[(table["axis"] == "PQ") & (table["level"] == "mse")].iloc[0]
    rng, truth, (one, other) = np.random.default_rng(5), pool.truth["pam"][:, 0], pool.scores["pam"][:, :, 0]
    drawn = [rng.integers(40, size=40) for _ in range(2000)]
    loop = [stats.spearmanr(one[d], truth[d])[0] - stats.spearmanr(other[d], truth[d])[0] for d in drawn]
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(loop, [0.025, 0.975]), abs=0.02)


def test_a_true_effect_is_in_most_intervals():
    specs, hits = [spec(loss="mse"), spec(loss="ccc")], 0
    for number in range(100):
        pool = make_pool(
            specs, lambda s, n, y, rng: y + (1 + (s.loss == "ccc") / 4) * rng.normal(size=y.shape), {"pam": 80}, number
        )
        table = ablation.contributions(pool, metric="utt_MSE", factors=["loss"])
        row = table[(table["axis"] == "mean") & (table["level"] == "mse")].iloc[0]
        hits += row["low"] <= 1 - 1.25**2 <= row["high"]
    assert 88 <= hits <= 100


def test_domains_are_told_apart():
    pool = make_pool([spec(loss="mse"), spec(loss="ccc")], of_error(lambda *_: 0.0))
    speech = np.arange(40) < 20
    pool.scores["pam"][1, speech] += 1
    pool = replace(pool, domains={"pam": np.where(speech, "speech", "music").astype(object)})
    table = ablation.contributions(pool, metric="utt_MSE", factors=["loss"])
    found = {domain: effects(table, domain=domain)["ccc"] for domain in ("all", "speech", "music")}
    assert found == pytest.approx({"all": 0.5, "speech": 1, "music": 0}, abs=1e-5)
    assert set(table.loc[table["set"] == "dev", "domain"]) == {"all"}


def test_axes_without_different_scores_are_undefined_and_left_out_of_the_mean():
    pool = make_pool(
        [spec(loss="mse"), spec(loss="ccc")], lambda s, n, truth, rng: truth + rng.normal(size=truth.shape)
    )
    pool.truth["pam"][:, 1] = np.nan
    table = ablation.contributions(pool, on="pam", factors=["loss"])
    assert effects(table, axis="CE").isna().all()
    assert effects(table).to_dict() == effects(table, axis="PQ").to_dict()


def test_the_evaluation_set_is_not_looked_at():
    pool = make_pool([spec(loss="mse"), spec(loss="ccc")], of_error(lambda *_: 1.0))
    hidden = replace(pool, scores=pool.scores | {"eval": np.full_like(pool.scores["eval"], np.nan)})
    pd.testing.assert_frame_equal(ablation.contributions(pool), ablation.contributions(hidden))
    with pytest.raises(UsageError, match="'eval' is sealed"):
        ablation.contributions(pool, on="eval")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"on": "pan"}, "no labelled set 'pan'. Did you mean 'pam'?"),
        ({"metric": "utt_SRC"}, "no metric 'utt_SRC'. Did you mean 'utt_SRCC'?"),
        ({"factors": ["los"]}, "no factor that varies in this pool 'los'. Did you mean 'loss'?"),
    ],
)
def test_unknown_names_are_sentences(given, sentence):
    pool = make_pool([spec(loss="mse"), spec(loss="ccc")], of_error(lambda *_: 1.0))
    with pytest.raises(UnknownName) as caught:
        ablation.contributions(pool, **given)
    assert sentence in str(caught.value)


def test_axis_correlations_are_of_labels_and_of_the_mean_prediction():
    pool = make_pool(
        [spec(seed=0), spec(seed=1)], lambda s, n, truth, rng: truth[:, ::-1] + rng.normal(size=truth.shape)
    )
    table = ablation.axis_correlations(pool, on="pam", resamples=100).set_index("of")
    mean = pool.scores["pam"].mean(axis=0)
    assert table.loc["labels", "value"] == pytest.approx(stats.spearmanr(*pool.truth["pam"].T).statistic)
    assert table.loc["predictions", "value"] == pytest.approx(stats.spearmanr(*mean.T).statistic)
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    with pytest.raises(UsageError, match="utt_MSE is no correlation"):
        ablation.axis_correlations(pool, metric="utt_MSE")


def test_a_learning_curve_is_of_heads_that_are_there_with_every_share():
    specs = [spec(share=share, seed=seed) for share, seed in product((1.0, 0.1, 0.5), range(2))] + [spec(seed=5)]
    pool = make_pool(specs, of_error(lambda each, _: 1 / each.share + 100 * (each.seed == 5)))
    table = ablation.learning_curve(pool, on="pam", metric="utt_MSE")
    table = table[table["axis"] == "mean"]
    assert table["share"].tolist() == [0.1, 0.5, 1.0] and set(table["runs"]) == {2}
    assert table["value"].tolist() == pytest.approx([10, 2, 1], rel=1e-5)
    with pytest.raises(UsageError, match="same share"):
        ablation.learning_curve(pool.only([0]))


def test_the_drop_from_natural_to_synthetic_is_found():
    specs = [spec(loss=loss, seed=seed) for loss, seed in product(("mse", "ccc"), range(2))]
    pool = make_pool(specs, of_error(lambda each, name: 0.5 if name == "dev" else 1.0 + (each.loss == "ccc")))
    table = ablation.generalisation(pool, "loss", metric="utt_MSE")
    mean = table[table["axis"] == "mean"].set_index("level")
    assert mean["natural"].tolist() == pytest.approx([0.5, 0.5], rel=1e-5)
    assert mean["drop"].to_dict() == pytest.approx({"mse": -0.5, "ccc": -1.5}, rel=1e-5)
    assert (mean["drop_low"] <= mean["drop"] + 1e-6).all() and (mean["drop"] <= mean["drop_high"] + 1e-6).all()
    with pytest.raises(UnknownName, match="factor"):
        ablation.generalisation(pool, "head")


def test_sizes_are_means_of_the_best_on_another_set():
    specs = [spec(head="ridge", seed=seed) for seed in range(6)]
    pool = make_pool(specs, lambda s, n, truth, rng: truth + (1 + s.seed) * rng.normal(size=truth.shape))
    table = ablation.sizes(pool, chosen_on="dev", on="pam")
    table = table[table["axis"] == "mean"]
    assert table["k"].tolist() == [1, 2, 4, 6]
    order = np.argsort(-pool.measure("dev").mean(axis=1))
    for k, value in zip(table["k"], table["value"], strict=True):
        mean = pool.scores["pam"][order[:k]].mean(axis=0)
        both = [stats.spearmanr(mean[:, axis], pool.truth["pam"][:, axis]).statistic for axis in range(2)]
        assert value == pytest.approx(np.mean(both))
    assert table["gain"].tolist()[1:] == pytest.approx(np.diff(table["value"]))


def test_a_level_without_a_match_is_undefined_beside_others_that_have_one():
    specs = [spec(loss="mse"), spec(loss="ccc"), spec(loss="dcq", seed=5)]
    pool = make_pool(specs, of_error(lambda each, _: LOSS[each.loss]))
    table = ablation.contributions(pool, metric="utt_MSE", factors=["loss"])
    assert effects(table).to_dict() == pytest.approx({"mse": -0.3, "ccc": 0.3, "dcq": np.nan}, abs=1e-5, nan_ok=True)
    assert table.groupby("level")["runs"].max().to_dict() == {"mse": 1, "ccc": 1, "dcq": 0}


def test_a_correlation_over_one_clip_is_undefined():
    pool = make_pool([spec(seed=0), spec(seed=1)], lambda s, n, truth, rng: truth)
    pool.truth["pam"][1:, 0] = np.nan
    table = ablation.axis_correlations(pool, resamples=20).set_index("set")
    assert table.loc["pam", ["value", "low", "high"]].isna().all(axis=None) and table.loc["dev", "value"].notna().all()


def test_a_metric_of_systems_asks_for_systems():
    pool = make_pool([spec(seed=0), spec(seed=1)], lambda s, n, truth, rng: truth)
    pool.systems["pam"] = None
    given = {"metric": "sys_SRCC", "factors": ["seed"], "resamples": 0}
    assert set(ablation.contributions(pool, **given)["set"]) == {"dev"}
    with pytest.raises(UsageError, match="clips of 'pam' have no system; use a metric that begins with utt_"):
        ablation.contributions(pool, on="pam", **given)
    pool.systems["dev"] = None
    with pytest.raises(UsageError, match="No set of the pool has what sys_SRCC needs"):
        ablation.contributions(pool, **given)
