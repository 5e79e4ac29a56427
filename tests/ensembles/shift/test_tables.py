"""The tables of shift: a planted shift is found, none is invented, and the scores of eval are in none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmmos.axes import AXES
from mmmos.ensembles.shift.features import feature_shift
from mmmos.ensembles.shift.predictions import prediction_shift
from mmmos.ensembles.shift.runs import qualities, ranking_agreement, run_shift
from mmmos.ensembles.training.train import train
from mmmos.errors import UnknownName, UsageError

SIZES = {"train": 160, "dev": 60, "pam": 60, "eval": 60}


@pytest.fixture(scope="module")
def shifted(build):
    """A world whose pam and eval lie two deviations off in a quarter of the dimensions of "a"."""
    world = build.world(sizes=SIZES)
    a = world.features["a"].raw.copy()
    a[world.clips["set"].isin(["pam", "eval"]), :, :2] += 2
    features = build.features({"a": a, "b": world.features["b"].raw}, list(world.clips.index))
    return type(world)(features, world.clips)


@pytest.fixture(scope="module")
def pool(build, shifted, tmp_path_factory):
    recipe = build.recipe({"head": "ridge", "features": "each", "layers": "each"}, {"head": "ridge"})
    return train(recipe, shifted.features, shifted.clips, folder=tmp_path_factory.mktemp("pool"))


def test_a_planted_shift_is_found_where_it_is_and_nowhere_else(shifted):
    table = feature_shift(shifted.features, shifted.clips).set_index(["feature_set", "set"])
    assert list(table.index) == [(each, name) for each in "ab" for name in ("dev", "pam", "eval")]
    for place, row in table.iterrows():
        planted = place[0] == "a" and place[1] != "dev"
        assert (row["auc"] > max(0.95, row["auc_equal"])) == planted
        assert (row["frechet"] > 2 * row["frechet_equal"]) == planted
        assert row["moved"] == pytest.approx(0.25 if planted else 0)
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    assert (table["auc_equal"] < 0.75).all()


def test_the_table_of_features_reads_no_scores_and_is_repeatable(shifted):
    one = feature_shift(shifted.features, shifted.clips, splits=3)
    other = feature_shift(shifted.features, shifted.clips.drop(columns=list(AXES)), splits=3)
    pd.testing.assert_frame_equal(one, other)


def test_small_sets_are_left_out_and_unknown_ones_named(build):
    world = build.world(sizes={"train": 30, "dev": 7, "pam": 12, "eval": 12})
    assert set(feature_shift(world.features, world.clips, splits=2)["set"]) == {"pam", "eval"}
    with pytest.raises(UnknownName, match="trian"):
        feature_shift(world.features, world.clips, train=["trian"])


def test_changes_of_predictions_are_plain_differences_with_intervals_that_hold_them():
    rng = np.random.default_rng(0)
    truth = pd.DataFrame({"PQ": rng.normal(6, 1, 300), "CE": rng.normal(5, 1, 300)})
    oof, pam = truth + rng.normal(0, 0.5, truth.shape), truth.iloc[:100] - [0, 1.5]
    table = prediction_shift({"m": {"oof": oof, "pam": pam}}, truth).set_index(["set", "axis"])
    for axis in truth:
        row = table.loc["pam", axis]
        assert row["change"] == pytest.approx(pam[axis].mean() - truth[axis].mean())
        assert row["ks"] == pytest.approx(stats.ks_2samp(pam[axis], oof[axis]).statistic)
        assert row["change_low"] < row["change"] < row["change_high"]
    assert table.loc[("pam", "CE"), "change_high"] < -1 < table.loc[("pam", "PQ"), "change_low"]
    assert table.loc["oof", "ks"].isna().all()
    width = table.loc[("pam", "PQ"), "change_high"] - table.loc[("pam", "PQ"), "change_low"]
    expected = 2 * 1.96 * np.sqrt(pam["PQ"].var() / 100 + truth["PQ"].var() / 300)
    assert width == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("metric", ["SRCC", "MSE"])
def test_qualities_begin_with_those_of_the_pool(pool, metric):
    found = qualities(pool, "pam", metric, resamples=20)
    assert found.shape == (21, len(pool), 4)
    np.testing.assert_allclose(found[0], pool.measure("pam", f"utt_{metric}"), atol=1e-12)


def test_runs_that_read_what_moved_lose_most(pool):
    table = run_shift(pool, "oof", "pam", metric="MSE")
    assert set(table["name"]) == {spec.name for spec in pool.specs}
    assert (np.diff(table["change"]) >= 0).all()
    assert ["a:a1" in name or "a+b" in name for name in table["name"]][:2] == [True, True]
    worst, best = table.iloc[0], table.iloc[-1]
    assert worst["change_high"] < 0 < best["change"] and worst["beyond"] < 0 < best["beyond"]
    assert table["change"].to_numpy() == pytest.approx((table["pam"] - table["oof"]).to_numpy())
    assert table["beyond"].mean() == pytest.approx(0, abs=1e-12)


def test_rankings_agree_with_scipy(pool):
    table = ranking_agreement(pool, ["oof", "dev", "pam"], k=2, resamples=30)
    assert len(table) == 3 * 5
    first, second = (pool.measure(name).mean(axis=1) for name in ("oof", "dev"))
    row = table[(table["second"] == "dev") & (table["axis"] == "mean")].iloc[0]
    assert row["tau"] == pytest.approx(stats.kendalltau(first, second).statistic)
    assert row["rho"] == pytest.approx(stats.spearmanr(first, second).statistic)
    assert row["shared"] == len(set(np.argsort(-first)[:2]) & set(np.argsort(-second)[:2]))
    assert row["shared_by_chance"] == pytest.approx(4 / len(pool))


def test_an_axis_without_truth_and_a_run_without_numbers_cost_themselves_only(pool):
    truth, scores = pool.truth["pam"].copy(), pool.scores["pam"].copy()
    truth[:, 2], scores[1, 0, 0] = np.nan, np.inf
    less = replace(pool, truth=pool.truth | {"pam": truth}, scores=pool.scores | {"pam": scores})
    table = run_shift(less, "oof", "pam", resamples=20)
    assert table["change"].isna().sum() == table["beyond"].isna().sum() == 1
    assert table["pam"].iloc[-1] != table["pam"].iloc[-1]
    ranked = ranking_agreement(less, ["oof", "pam"], resamples=20)
    assert ranked.set_index("axis")["tau"].isna().to_dict() == dict.fromkeys(AXES, False) | {"CE": True, "mean": False}


def test_the_evaluation_set_has_no_quality(pool):
    with pytest.raises(UsageError, match="sealed"):
        run_shift(pool, "oof", "eval")
    with pytest.raises(UsageError, match="twice"):
        run_shift(pool, "pam", "pam")


def test_sets_without_a_common_axis_are_not_compared(pool):
    truth = {name: pool.truth[name].copy() for name in ("dev", "pam")}
    truth["dev"][:, :2] = truth["pam"][:, 2:] = np.nan
    with pytest.raises(UsageError, match="No axis has scores on both dev and pam"):
        ranking_agreement(replace(pool, truth=pool.truth | truth), ["dev", "pam"], resamples=2)
