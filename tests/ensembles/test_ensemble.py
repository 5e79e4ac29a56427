"""An ensemble is the weighted mean of its members, and its record is the same for the same choice."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mmmos.ensembles.ensemble import check_rule, looks_at, select
from mmmos.ensembles.recipe import EnsembleRecipe, SelectRecipe
from mmmos.ensembles.training.train import train
from mmmos.errors import UnknownName, UsageError
from mmmos.recipe import parse
from mmmos.statistics import bootstrap, sampling


@pytest.fixture(scope="module")
def pool(tmp_path_factory, build, world):
    recipe = build.recipe({"head": ["ridge", "svr", "kernel_ridge"], "features": "each"})
    return train(recipe, world.features, world.clips, folder=tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("rule", ["average", "best", "top_k", "intersect", "greedy", "stack"])
def test_predictions_are_the_weighted_mean_of_the_members(pool, rule):
    ensemble = select(pool, rule)
    for name in pool.ids:
        expected = np.zeros(pool.scores[name].shape[1:])
        for member, weights in zip(ensemble.selection.members, ensemble.selection.weights, strict=True):
            expected += pool.scores[name][member].astype(float) * weights
        assert ensemble.predict(name).to_numpy() == pytest.approx(expected, abs=1e-12)


def test_predictions_come_for_any_clips_of_the_pool_in_the_order_asked_for(pool, world):
    ensemble = select(pool, "top_k", k=2)
    some = [*world.clips.index[world.clips["set"] == "eval"][::-1], world.clips.index[0]]
    expected = pd.concat([ensemble.predict("eval").iloc[::-1], ensemble.predict("train").iloc[:1]])
    pd.testing.assert_frame_equal(ensemble.predict(some), expected, check_index_type=False)
    pd.testing.assert_frame_equal(ensemble.predict(world.clips.loc[some]), expected, check_index_type=False)
    assert list(expected.columns) == list(pool.axes) and expected.index.name == "id"


def test_clips_and_sets_that_are_not_in_the_pool_are_sentences(pool):
    with pytest.raises(UsageError, match="1 clips have no prediction, among them 'nobody'"):
        select(pool).predict(["nobody"])
    with pytest.raises(UnknownName, match=r"no set 'evil'\. Did you mean 'eval'"):
        select(pool).predict("evil")


def test_the_record_is_json_that_names_rule_data_members_and_weights(pool, tmp_path):
    ensemble = select(pool, "top_k", k=2, on="pam")
    path, again = ensemble.write(tmp_path / "a.json"), select(pool, "top_k", k=2, on="pam").write(tmp_path / "b.json")
    assert path.read_bytes() == again.read_bytes()
    record = json.loads(path.read_text())
    assert record["rule"] == {
        "rule": "top_k",
        "on": "pam",
        "k": 2,
        "metric": None,
        "calibrate": None,
        "calibrate_by": "set",
        "options": {},
    }
    assert [m["key"] for m in record["members"]] == [pool.keys[i] for i in ensemble.selection.members]
    assert all(m["weights"] == dict.fromkeys(pool.axes, 0.5) for m in record["members"])
    assert str(tmp_path) not in path.read_text() and str(pool.folder) not in path.read_text()


def test_weights_of_sets_and_metrics_and_options_are_read_from_a_recipe_and_stand_in_the_record(pool):
    text = """
[[grid]]
head = "ridge"
[select]
rule = "greedy"
k = 5
on = { pam = 2, dev = 1 }
metric = { utt_SRCC = 1, utt_KTAU = 1, utt_MSE = 0.5 }
options = { bags = 3, per_axis = true }
"""
    rule = parse(text, EnsembleRecipe).select
    ensemble = select(pool, rule)
    assert json.loads(json.dumps(ensemble.record()))["rule"] == {
        "rule": "greedy",
        "on": {"pam": 2, "dev": 1},
        "k": 5,
        "metric": {"utt_SRCC": 1, "utt_KTAU": 1, "utt_MSE": 0.5},
        "calibrate": None,
        "calibrate_by": "set",
        "options": {"bags": 3, "per_axis": True},
    }
    assert select(pool, rule, bags=1).rule.options == {"bags": 1, "per_axis": True}
    assert ensemble.selection.weights.sum(axis=0) == pytest.approx(1)


def test_members_are_shown_with_their_quality_on_every_labelled_set(pool):
    table = select(pool, "average").members()
    assert list(table["key"]) == list(pool.keys)
    assert table["pam_utt_SRCC"].to_numpy() == pytest.approx(pool.measure("pam").mean(axis=1))


def test_the_quality_of_members_has_the_interval_of_its_mean_over_axes(pool):
    table = select(pool, "average").members(intervals=60)
    samples = sampling(len(pool.ids["pam"]), pool.systems["pam"], method="bca", resamples=60)
    for run in (0, len(pool) - 1):
        drawn = [
            bootstrap("SRCC", pool.scores["pam"][run, :, axis], pool.truth["pam"][:, axis], samples.counts)
            for axis in range(len(pool.axes))
        ]
        ends = samples.interval(np.mean(drawn, axis=0), "SRCC")
        assert table.loc[run, ["pam_utt_SRCC_low", "pam_utt_SRCC_high"]].tolist() == pytest.approx(ends)
        assert ends[0] <= table.loc[run, "pam_utt_SRCC"] <= ends[1]


def test_parameters_of_a_call_go_before_the_recipes(pool):
    recipe = SelectRecipe(rule="top_k", k=4, on="dev")
    assert len(select(pool, recipe)) == 4
    changed = select(pool, recipe, k=2)
    assert len(changed) == 2 and changed.rule.on == "dev"


@pytest.mark.parametrize(
    ("rule", "parameters", "sentence"),
    [
        ("top", {}, "no selector 'top'"),
        ("average", {"k": 3}, "no parameter of the rule 'average' 'k'. Known: none."),
        ("top_k", {"kk": 3}, "no parameter of the rule 'top_k' 'kk'. Did you mean 'k'?"),
        ("top_k", {"k": 0}, "k: input should be greater than or equal to 1"),
        ("top_k", {"k": "many"}, "k: input should be a valid integer"),
        ("top_k", {"on": "eval"}, "the evaluation set is never selected on"),
        ("top_k", {"on": []}, "names no set"),
        ("top_k", {"on": "pan"}, "no labelled set 'pan'"),
        ("top_k", {"metric": "utt_SRC"}, "no metric 'utt_SRC'. Did you mean 'utt_SRCC'?"),
        ("top_k", {"metric": {"utt_SRC": 1}}, "no metric 'utt_SRC'. Did you mean 'utt_SRCC'?"),
        ("top_k", {"metric": ["utt_SRCC", "KTAU"]}, "no metric 'KTAU'"),
        ("top_k", {"metric": {}}, "names no metric"),
        ("top_k", {"on": {"pam": 1, "eval": 1}}, "the evaluation set is never selected on"),
        ("top_k", {"on": {}}, "names no set"),
        ("top_k", {"on": {"pam": 0}}, "on.pam: input should be greater than 0"),
        ("top_k", {"on": {"pam": "2"}}, "on.pam: input should be a valid number"),
        ("greedy", {"on": {"pan": 1}}, "no labelled set 'pan'. Did you mean 'pam'?"),
        ("greedy", {"bag": 3}, "no parameter of the rule 'greedy' 'bag'. Did you mean 'bags'?"),
        ("greedy", {"bags": 0}, "bags must be a whole number, 1 or more; got 0."),
        ("stack", {"metric": "utt_MSE"}, "no parameter of the rule 'stack' 'metric'"),
    ],
)
def test_a_wrong_rule_is_one_sentence(pool, rule, parameters, sentence):
    with pytest.raises(UsageError) as caught:
        select(pool, rule, **parameters)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_the_sets_that_a_rule_looks_at_are_known_before_anything_is_trained():
    check_rule(SelectRecipe(rule="average"), [])
    check_rule(SelectRecipe(rule="top_k", on="dev"), ["dev"])
    with pytest.raises(UnknownName, match=r"no labelled set 'pam'\. Known: dev"):
        check_rule(SelectRecipe(rule="top_k"), ["dev"])
    with pytest.raises(UnknownName, match="no labelled set 'pam'"):
        check_rule(SelectRecipe(rule="intersect"), ["dev", "oof"])
    with pytest.raises(UnknownName, match="no labelled set 'oof'"):
        check_rule(SelectRecipe(rule="greedy", on={"dev": 1, "oof": 2}), ["dev"])
    assert looks_at(SelectRecipe(rule="intersect")) == {"dev": 1, "pam": 1}
    assert looks_at(SelectRecipe(rule="top_k", on={"dev": 2})) == {"dev": 2}
    assert looks_at(SelectRecipe(rule="average")) == {}


def test_members_are_ordered_by_the_first_of_pam_dev_and_out_of_fold_that_has_truth(pool):
    ensemble = select(pool, "average")
    for kept, name in ((("oof", "dev", "pam"), "pam"), (("oof", "dev"), "dev"), (("oof",), "oof")):
        part = replace(pool, truth={each: pool.truth[each] for each in kept})
        expected = np.argsort(-pool.measure(name).mean(axis=1), kind="stable")
        assert replace(ensemble, pool=part).members_by_quality() == expected.tolist()
    assert replace(ensemble, pool=replace(pool, truth={})).members_by_quality() == list(range(len(pool)))
