"""Leaderboards: ranking, intervals and tests against brute force, files that are harmless and the same each time."""

import csv
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pandas as pd
import pytest

from mmmos.axes import AXES
from mmmos.errors import InputError
from mmmos.metrics import by_system, evaluate, srcc, summary
from mmmos.statistics import holm, sampling
from mmmos.submissions.board import for_people, verdict, write_leaderboard
from mmmos.submissions.leaderboard import compare, leaderboard
from mmmos.submissions.pages import format_number, format_p, visible

HOSTILE = [
    "<script>alert(1)</script>",
    "=cmd()|'/C calc'!A0",
    "a|b\n*c*",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.exe",
    "\udc80",
]


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    ids = pd.Index([f"clip{i:03d}" for i in range(60)], name="id")
    frame = pd.DataFrame(rng.uniform(1, 9, (60, 4)).round(1), index=ids, columns=list(AXES))
    return frame.assign(system=[f"sys{i % 10}" for i in range(60)])


@pytest.fixture
def predictions(truth):
    rng = np.random.default_rng(1)
    return {f"noise {s}": truth[list(AXES)[::-1]] + rng.normal(0, s, (60, 4)) for s in (4.0, 0.5, 1.5)}


def test_models_are_ranked_by_mean_system_srcc(predictions, truth):
    table = leaderboard(predictions, truth, intervals=20)
    assert table["model"].iloc[0] == "noise 0.5"
    assert table["sys_SRCC"].is_monotonic_decreasing
    assert set(table["n_clips"]) == {60}
    assert set(table["n_systems"]) == {10}
    assert list(table.columns[:5]) == ["model", "score_test", "eval_metric", "sys_SRCC", "sys_SRCC_low"]
    assert set(table["eval_metric"]) == {"sys_SRCC"} and table["score_test"].equals(table["sys_SRCC"])


def test_scores_are_those_of_evaluate(predictions, truth):
    row = leaderboard({"a": predictions["noise 1.5"]}, truth, intervals=0).iloc[0]
    table = evaluate(predictions["noise 1.5"], truth)
    for name, value in summary(table).items():
        assert row[name] == pytest.approx(value, abs=1e-12)
    cells = table.set_index(["axis", "level", "metric"])["value"]
    assert row["CE_sys_KTAU"] == cells["CE", "system", "KTAU"]
    assert not [name for name in row.index if name.endswith("_low")]


def means(frame, truth):
    return {axis: by_system(frame.loc[truth.index, axis], truth["system"]).to_numpy() for axis in AXES}


def test_intervals_of_the_mean_over_axes_are_joint_and_paired(predictions, truth):
    table = leaderboard(predictions, truth, intervals=50, seed=3).set_index("model")
    samples, values = sampling(10, resamples=50, seed=3), {}
    for name, frame in predictions.items():
        x, y = means(frame, truth), means(truth, truth)
        values[name] = np.array(
            [np.mean([srcc(np.repeat(x[a], c), np.repeat(y[a], c)) for a in AXES]) for c in samples.counts]
        )
    for name, found in values.items():
        row = table.loc[name]
        ends = samples.interval(found, "SRCC")
        assert [row["sys_SRCC_low"], row["sys_SRCC_high"]] == pytest.approx(ends, abs=1e-12)
        ends = samples.interval(values[table.index[0]] - found)
        assert [row["behind_low"], row["behind_high"]] == pytest.approx(ends, abs=1e-12)
    assert table["behind"].iloc[0] == 0


def test_every_level_metric_and_axis_has_an_interval_that_holds_it(predictions, truth):
    table = leaderboard(predictions, truth)
    for level, metric, axis in product(("sys", "utt"), ("SRCC", "LCC", "KTAU", "MSE"), ("", *AXES)):
        name = f"{axis}_{level}_{metric}" if axis else f"{level}_{metric}"
        assert (table[f"{name}_low"] <= table[name]).all() and (table[name] <= table[f"{name}_high"]).all()


def test_clips_of_a_system_are_left_out_together(predictions, truth):
    """Where a system's clips share one error, intervals over clips alone would be too narrow."""
    error = truth["system"].map(dict(zip(truth["system"].unique(), np.linspace(-4, 4, 10)[::-1], strict=True)))
    shared = {"a": truth[list(AXES)].add(error, axis=0)}
    width = [
        float((table["utt_SRCC_high"] - table["utt_SRCC_low"]).iloc[0])
        for table in (leaderboard(shared, truth), leaderboard(shared, truth[list(AXES)]))
    ]
    assert width[0] > 1.3 * width[1]


def test_p_is_the_share_of_swaps_of_whole_systems_adjusted_by_holm(predictions, truth):
    table = leaderboard(predictions, truth, intervals=2000)

    def unit(values):
        ranks = pd.Series(values).rank().to_numpy() - (len(values) + 1) / 2
        return ranks / np.linalg.norm(ranks)

    y = means(truth, truth)
    lost = {
        name: np.mean([(unit(means(frame, truth)[a]) - unit(y[a])) ** 2 for a in AXES], axis=0)
        for name, frame in predictions.items()
    }
    first, *others = table["model"]
    assert 1 - lost[first].sum() / 2 == pytest.approx(table["sys_SRCC"].iloc[0], abs=1e-12)
    signs = np.array(list(product((-1, 1), repeat=10)))
    p = []
    for name in others:
        difference = lost[first] - lost[name]
        p.append(np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12))
    assert np.isnan(table["p"].iloc[0])
    assert table["p"].iloc[1:].tolist() == pytest.approx(holm(p).tolist())


def test_equal_models_are_not_told_apart_and_noise_is_worse(truth):
    rng = np.random.default_rng(2)
    good = truth[list(AXES)] + rng.normal(0, 0.3, (60, 4))
    noise = pd.DataFrame(rng.normal(5, 1, (60, 4)), index=truth.index, columns=list(AXES))
    table = leaderboard({"good": good, "scaled": 100 * good - 7, "noise": noise}, truth).set_index("model")
    assert table.loc["scaled", "p"] == 1 and table.loc["noise", "p"] < 0.05
    words = dict(for_people(table.reset_index())[["model", "p"]].to_numpy())
    assert words["scaled"] == "not told apart, p 1.00" and words["noise"].startswith("worse, p")


def test_without_intervals_nothing_is_said_of_chance(predictions, truth):
    shown = for_people(leaderboard(predictions, truth, intervals=0))
    assert "sys_SRCC" in shown and not {"p", "sys_SRCC_low", "behind_low"} & set(shown)


def test_what_is_known_of_a_model_is_shown_where_it_is_known(predictions, truth, tmp_path):
    about = pd.DataFrame({"members": [3.0, np.nan], "fit_time": [12.5, np.nan]}, index=["noise 0.5", "noise 4.0"])
    table = leaderboard(predictions, truth, about=about)
    assert table.set_index("model").loc["noise 0.5", "fit_time"] == 12.5
    line = write_leaderboard(table, tmp_path)[1].read_text(encoding="utf-8").splitlines()
    assert line[4].endswith("| runs | training, s |") and line[6].endswith("| 3 | 12.5 |")
    assert line[7].endswith("| – | – |") and "pred_time_test" not in table


def test_without_systems_clips_rank_the_models(predictions, truth):
    table = leaderboard(predictions, truth[list(AXES)])
    assert not [name for name in table.columns if "sys_" in name and name != "n_systems"]
    assert set(table["n_systems"]) == {0}
    assert table["utt_SRCC"].is_monotonic_decreasing


def test_a_model_whose_scores_do_not_match_is_named(predictions, truth):
    predictions["broken"] = predictions["noise 0.5"].iloc[1:]
    with pytest.raises(InputError, match="Model 'broken': 1 clip without a prediction"):
        leaderboard(predictions, truth)
    with pytest.raises(InputError, match="at least one model"):
        leaderboard({}, truth)


def test_a_constant_model_comes_last_and_its_correlation_is_shown_as_undefined(predictions, truth, tmp_path):
    table = leaderboard({"constant": truth[list(AXES)] * 0 + 5, **predictions}, truth, intervals=10)
    assert list(table["model"])[-1] == "constant"
    write_leaderboard(table, tmp_path)
    last = (tmp_path / "leaderboard.md").read_text(encoding="utf-8").splitlines()[-1]
    assert last.startswith("| constant | – |")
    assert ",nan" not in (tmp_path / "leaderboard.csv").read_text(encoding="utf-8")


def test_answer_files_are_compared_under_the_names_of_their_folders(predictions, truth, tmp_path):
    answers = [
        tmp_path / "first" / "answer.txt",
        tmp_path / "mine.csv",
        tmp_path / "a" / "x.csv",
        tmp_path / "b" / "x.csv",
    ]
    for path in answers:
        path.parent.mkdir(exist_ok=True)
        predictions["noise 0.5"].to_csv(path)
    table = compare(answers, truth, intervals=0)
    assert list(table["model"]) == ["first", "mine", str(answers[2]), str(answers[3])]
    assert table["sys_SRCC"].nunique() == 1


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)


def test_hostile_names_are_harmless_in_every_file(truth, predictions, tmp_path):
    named = dict(zip(HOSTILE, [predictions["noise 0.5"]] * len(HOSTILE), strict=True))
    paths = write_leaderboard(leaderboard(named, truth, intervals=5), tmp_path, title="<b>Board</b>")
    assert [path.name for path in paths] == ["leaderboard.csv", "leaderboard.md", "leaderboard.html"]
    page = Page(paths[2].read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on")}
    assert {"<b>Board</b>", *map(visible, HOSTILE)} <= set(page.texts)
    with paths[0].open(encoding="utf-8", newline="") as file:
        names = {row["model"] for row in csv.DictReader(file)}
    assert names == {visible(name) if not name.startswith("=") else f"'{name}" for name in HOSTILE}
    lines = paths[1].read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6 + len(HOSTILE)
    assert not any("<script" in line or "<b>" in line for line in lines)
    assert r"| a\|b \*c\* |" in "\n".join(lines)


def test_files_need_no_network_and_have_the_same_bytes_each_time(predictions, truth, tmp_path):
    table = leaderboard(predictions, truth, intervals=10)
    first, second = (write_leaderboard(table, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    page = first[2].read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert "src=" not in page.replace("img-src", "")


def test_the_csv_holds_every_number_at_full_precision(predictions, truth, tmp_path):
    table = leaderboard(predictions, truth, intervals=10)
    path = write_leaderboard(table, tmp_path)[0]
    pd.testing.assert_frame_equal(pd.read_csv(path), table, check_dtype=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.500"),
        (-0.25, "\u22120.250"),
        (-0.0001, "0.000"),
        (float("nan"), "–"),
        (None, "–"),
        (3, "3"),
        ("a", "a"),
    ],
)
def test_numbers_are_written_for_reading(value, text):
    assert format_number(value) == text


def test_p_values_are_written_for_reading():
    assert [format_p(p) for p in (0.0004, 0.031, 0.5)] == ["p < 0.001", "p 0.031", "p 0.50"]
    assert (verdict(float("nan")), verdict(0.05), verdict(0.01)) == ("", "not told apart, p 0.050", "worse, p 0.010")


def test_letters_that_hide_are_escapes_and_others_stay():
    assert visible("a\u202eb\x00\udc80") == "a\\u202eb\\x00\\udc80"
    assert visible("schön 音楽 אבג\n") == "schön 音楽 אבג\n"
