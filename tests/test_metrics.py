"""Metrics against numpy and scipy, and the alignment of predictions with truth."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmmos.axes import AXES, LONG_NAMES
from mmmos.errors import InputError, UnknownName
from mmmos.metrics import by_system, evaluate, ktau, lcc, mse, srcc, summary
from mmmos.predictions import read_predictions
from mmmos.statistics import confidence, resample_counts

RATINGS = Path(__file__).parents[2] / "shared/data/audiomos2025_track2/audiomos2025_track2_human_annotations.jsonl"
pairs = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=2, max_size=40)


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    ids = pd.Index([f"sys{i % 6}-utt{i:02d}" for i in range(48)], name="id")
    frame = pd.DataFrame(rng.uniform(1, 9, (48, 4)).round(1), index=ids, columns=list(AXES))
    return frame.assign(system=[clip.split("-")[0] for clip in ids])


@pytest.fixture
def predictions(truth):
    noise = np.random.default_rng(1).normal(size=(48, 4))
    return (truth[list(AXES)] + noise).sample(frac=1, random_state=0)[["CU", "PC", "PQ", "CE"]]


@given(pairs)
def test_metrics_equal_numpy_and_scipy(values):
    x, y = np.array(values, float).T / 10
    assert mse(x, y) == pytest.approx(np.mean((x - y) ** 2), abs=1e-12)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan([lcc(x, y), srcc(x, y), ktau(x, y)]).all()
    else:
        assert lcc(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
        assert srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert ktau(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("metric", [mse, lcc, srcc, ktau])
@pytest.mark.parametrize("bad", [([1, 2], [1, 2, 3]), ([], []), ([1, np.nan], [1, 2]), ([[1, 2]], [[1, 2]])])
def test_metrics_refuse_what_they_cannot_compare(metric, bad):
    with pytest.raises(ValueError, match="Scores must be"):
        metric(*bad)


def test_system_scores_are_plain_means_over_clips():
    means = by_system([1, 2, 6, 4], ["b", "a", "b", "a"])
    assert means.to_dict() == {"a": 3.0, "b": 3.5}


def test_evaluate_gives_the_32_metrics_by_axis_name(predictions, truth):
    table = evaluate(predictions, truth)
    assert list(table.columns) == ["axis", "level", "metric", "value", "n"]
    assert len(table) == 32
    value = table.set_index(["axis", "level", "metric"])["value"]
    aligned = predictions.loc[truth.index]
    for axis in AXES:
        assert value[axis, "utterance", "SRCC"] == pytest.approx(
            stats.spearmanr(aligned[axis], truth[axis]).statistic, abs=1e-12
        )
        x, y = (frame[axis].groupby(truth["system"]).mean() for frame in (aligned, truth))
        assert value[axis, "system", "KTAU"] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert set(table.loc[table.level == "system", "n"]) == {6}


def test_without_systems_there_is_no_system_level(predictions, truth):
    assert set(evaluate(predictions, truth[list(AXES)]).level) == {"utterance"}


@pytest.mark.parametrize("kind", [pd.Series, dict, list])
def test_systems_are_given_by_id_or_in_the_order_of_the_truth(predictions, truth, kind):
    systems = list(truth["system"]) if kind is list else kind(truth["system"])
    scores = truth[list(AXES)]
    pd.testing.assert_frame_equal(evaluate(predictions, scores, systems=systems), evaluate(predictions, truth))


@pytest.mark.parametrize("method", ["auto", "jackknife", "bca", "percentile"])
def test_intervals_hold_the_value_and_are_reproducible(predictions, truth, method):
    table = evaluate(predictions, truth, intervals=200, method=method, seed=5)
    clips = table[table.level == "utterance"]
    assert ((clips.ci_low <= clips.value) & (clips.value <= clips.ci_high)).all()
    pd.testing.assert_frame_equal(table, evaluate(predictions, truth, intervals=200, method=method, seed=5))


def test_percentile_intervals_equal_a_plain_bootstrap_of_the_system_means(predictions, truth):
    table = evaluate(predictions, truth, intervals=50, method="percentile", seed=2)
    x = by_system(predictions.loc[truth.index, "PQ"], truth["system"]).to_numpy()
    y = by_system(truth["PQ"], truth["system"]).to_numpy()
    brute = [np.mean((np.repeat(x, c) - np.repeat(y, c)) ** 2) for c in resample_counts(6, 50, 2)]
    row = table.set_index(["axis", "level", "metric"]).loc[("PQ", "system", "MSE")]
    assert [row.ci_low, row.ci_high] == pytest.approx(np.quantile(brute, [0.025, 0.975]).tolist(), abs=1e-12)


def test_systems_are_drawn_with_all_their_clips_unless_clips_are_asked_for(predictions, truth):
    biased = predictions.add(truth["system"].map(lambda name: int(name[3:]) - 2.5), axis=0)
    ends = {}
    for unit in ("system", "clip"):
        table = evaluate(biased, truth, intervals=200, unit=unit).set_index(["axis", "level", "metric"])
        x, y = biased.loc[truth.index, "PQ"], truth["PQ"]
        units = truth["system"] if unit == "system" else None
        row = table.loc[("PQ", "utterance", "MSE")]
        assert (row.ci_low, row.ci_high) == pytest.approx(confidence("MSE", x, y, units=units), abs=1e-12)
        ends[unit] = row.ci_high
        assert table.loc[("PQ", "system", "MSE")].notna().all()
    assert ends["system"] > ends["clip"]
    with pytest.raises(UnknownName, match="clip"):
        evaluate(biased, truth, unit="clips")


def test_every_domain_has_the_rows_of_its_own_clips(predictions, truth):
    domains = truth["system"].map(lambda name: "music" if name < "sys3" else None)
    table = evaluate(predictions, truth.assign(domain=domains), by="domain", intervals=50)
    assert list(table["domain"].unique()) == ["all", "music", "unknown", "within"]
    keys = ["axis", "level", "metric", "value", "n", "ci_low", "ci_high"]
    pooled = table[table.domain == "all"][keys].reset_index(drop=True)
    pd.testing.assert_frame_equal(pooled, evaluate(predictions, truth, intervals=50))
    music = truth[domains == "music"]
    alone = evaluate(predictions.loc[music.index], music, intervals=50)
    pd.testing.assert_frame_equal(table[table.domain == "music"][keys].reset_index(drop=True), alone)


def test_within_is_the_mean_over_domains_by_their_sizes(predictions, truth):
    domains = truth["system"].map(lambda name: "music" if name < "sys2" else "speech")
    table = evaluate(predictions, truth.assign(domain=domains), by="domain", intervals=200)
    value = table.set_index(["domain", "axis", "level", "metric"])["value"]
    for level, weight in (("utterance", 16 / 48), ("system", 2 / 6)):
        mean = weight * value["music", "CE", level, "MSE"] + (1 - weight) * value["speech", "CE", level, "MSE"]
        assert value["within", "CE", level, "MSE"] == pytest.approx(mean)
    clips = table[(table.domain == "within") & (table.level == "utterance")]
    assert (clips.n == 48).all()
    assert ((clips.ci_low < clips.value) & (clips.value < clips.ci_high)).all()


def test_domain_gaps_inflate_the_pooled_correlation_and_not_the_one_within():
    rng = np.random.default_rng(0)
    gap = np.repeat([0.0, 4.0], 100)
    ids = [f"c{i}" for i in range(200)]
    truth = pd.DataFrame({"PQ": gap + rng.normal(size=200), "domain": np.where(gap, "music", "speech")}, index=ids)
    table = evaluate(pd.DataFrame({"PQ": gap + rng.normal(size=200)}, index=ids), truth, by="domain")
    value = table[table.metric == "SRCC"].set_index("domain")["value"]
    assert value["all"] > 0.6 and abs(value["within"]) < 0.25


@pytest.mark.parametrize(("column", "by", "message"), [("domain", "genre", "no column 'genre'"), ("x", "x", "'all'")])
def test_columns_that_cannot_divide_the_clips_are_errors(predictions, truth, column, by, message):
    with pytest.raises(InputError, match=message):
        evaluate(predictions, truth.assign(**{column: "all"}), by=by)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.drop("sys0-utt00"), "1 clip without a prediction: 'sys0-utt00'"),
        (lambda p: pd.concat([p, p.tail(1)]), "1 clip predicted more than once"),
        (lambda p: p.rename(index={"sys0-utt00": "SYS0-utt00"}), "not in the truth: 'SYS0-utt00'"),
        (lambda p: p.assign(PC=p.PC.where(p.index != "sys1-utt01")), "prediction on PC is not a finite number"),
        (lambda p: p.drop(columns="CE"), "no column CE"),
        (lambda p: p.assign(Production_Quality=1.0), "Two columns name one axis"),
        (lambda p: p.astype(object).assign(PQ="high"), "must hold numbers"),
    ],
)
def test_predictions_that_do_not_match_the_truth_are_errors(predictions, truth, change, message):
    with pytest.raises(InputError, match=message):
        evaluate(change(predictions), truth)


def test_many_missing_ids_are_counted_and_a_few_named(predictions, truth):
    with pytest.raises(InputError, match=r"48 clips without a prediction: .* … and 43 more"):
        evaluate(predictions.rename(index="x{}".format), truth)


def test_an_axis_without_truth_is_left_out_and_said(predictions, truth, caplog):
    table = evaluate(predictions, truth.assign(CU=np.nan))
    assert set(table.axis) == {"PQ", "PC", "CE"}
    assert "No clip has a true score on CU" in caplog.text
    assert table.attrs["notes"] == ["No clip has a true score on CU: left out."]


def test_a_truth_with_gaps_is_an_error(predictions, truth):
    truth.loc["sys0-utt00", "PQ"] = np.nan
    with pytest.raises(InputError, match="true score on PQ"):
        evaluate(predictions, truth)
    with pytest.raises(InputError, match="nothing to compare with"):
        evaluate(predictions, truth[["system"]])


def test_clips_with_and_without_a_system_have_no_system_level_and_that_is_said(predictions, truth, caplog):
    truth.loc["sys0-utt00", "system"] = None
    assert set(evaluate(predictions, truth).level) == {"utterance"}
    assert "the system level is left out" in caplog.text
    with pytest.raises(InputError, match="without a system"):
        evaluate(predictions, truth, systems=truth["system"])
    with pytest.raises(InputError, match="3 systems for 48 clips"):
        evaluate(predictions, truth, systems=["a", "b", "c"])


def test_constant_predictions_have_no_correlation_at_either_level(truth):
    constant = truth[list(AXES)] * 0 + 0.1
    values = evaluate(constant, truth, intervals=20)
    correlations = values[values.metric != "MSE"]
    assert correlations[["value", "ci_low", "ci_high"]].isna().all(axis=None)


def test_summary_is_the_mean_over_axes(predictions, truth):
    table = evaluate(predictions, truth)
    means = summary(table)
    assert list(means) == [f"{level}_{m}" for level in ("utt", "sys") for m in ("MSE", "LCC", "SRCC", "KTAU")]
    chosen = table[(table.level == "system") & (table.metric == "SRCC")]
    assert means["sys_SRCC"] == pytest.approx(chosen.value.mean())
    assert list(summary(table[table.level == "utterance"])) == ["utt_MSE", "utt_LCC", "utt_SRCC", "utt_KTAU"]


@pytest.mark.parametrize("header", ["sample_id,PQ,PC,CE,CU\n", "\ufeffsample_id,PQ,PC,CE,CU\r\n", ""])
def test_answer_files_are_read_with_and_without_a_header(tmp_path, header):
    (tmp_path / "answer.txt").write_text(header + "a,1,2,3,4\nb,5,6,7,8\n", encoding="utf-8")
    frame = read_predictions(tmp_path / "answer.txt")
    assert frame.loc["b"].to_dict() == {"PQ": 5.0, "PC": 6.0, "CE": 7.0, "CU": 8.0}


def test_columns_of_an_answer_file_go_by_their_names(tmp_path):
    path = tmp_path / "answer.csv"
    path.write_text(f"id,note,{LONG_NAMES['CU']},PQ\n007,x,4,1\n", encoding="utf-8")
    assert read_predictions(path).loc["007"].to_dict() == {"CU": 4.0, "PQ": 1.0}


@pytest.mark.parametrize("text", ["", "a,1,2,3\n", "a,1,2,3,x\n"])
def test_answer_files_that_cannot_be_read_are_errors(tmp_path, text):
    (tmp_path / "answer.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"answer\.txt"):
        read_predictions(tmp_path / "answer.txt")


@pytest.mark.skipif(not RATINGS.is_file(), reason="the ratings of the evaluation set are not here")
def test_oracle_system_means_reach_the_measured_ceiling_of_the_evaluation_set():
    rows = [json.loads(line) for line in RATINGS.read_text(encoding="utf-8").splitlines()]
    ids = [row["data_path"] for row in rows]
    truth = pd.DataFrame({axis: [np.mean(row[LONG_NAMES[axis]]) for row in rows] for axis in AXES}, index=ids)
    systems = pd.Series([clip.split("-")[2] for clip in ids], index=ids)
    oracle = truth.groupby(systems).transform("mean")
    value = evaluate(oracle, truth, systems=systems).set_index(["axis", "level", "metric"])["value"]
    assert [round(value["PQ", "utterance", m], 3) for m in ("MSE", "LCC", "SRCC", "KTAU")] == [
        0.889,
        0.765,
        0.761,
        0.576,
    ]
    assert value["CU", "system", "SRCC"] == pytest.approx(1)


def test_an_answer_file_is_compared_with_a_manifest_by_path(tmp_path):
    answer, truth = tmp_path / "answer.txt", tmp_path / "truth.csv"
    answer.write_text("sample_id,PQ,PC,CE,CU\nb,2,2,2,2\na,1,1,1,1\nc,3,3,3,4\n", encoding="utf-8")
    header = ",".join(["sample_id", "data_path", *reversed(LONG_NAMES.values())])
    rows = [f"{clip},{clip}.wav,{score},{score},{score},{score}" for clip, score in (("a", 1), ("b", 2), ("c", 3))]
    truth.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    value = evaluate(answer, truth).set_index(["axis", "level", "metric"])["value"]
    assert value["PQ", "utterance", "MSE"] == 0
    assert value["CU", "utterance", "MSE"] == pytest.approx(1 / 3)
