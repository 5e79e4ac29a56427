"""Leaderboards: ranking, joint intervals against brute force, and files that are harmless and the same each time."""

import csv
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from mmmos.axes import AXES
from mmmos.errors import InputError
from mmmos.metrics import by_system, evaluate, srcc, summary
from mmmos.statistics import resample_counts
from mmmos.submissions.leaderboard import compare, format_number, leaderboard, write_leaderboard

HOSTILE = ["<script>alert(1)</script>", "=cmd()|'/C calc'!A0", "a|b\n*c*", '"><img src=x onerror=alert(1)>']


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
    head = ["model", "sys_SRCC", "sys_SRCC_low", "sys_SRCC_high", "utt_SRCC", "utt_SRCC_low", "utt_SRCC_high"]
    assert list(table.columns[:7]) == head


def test_scores_are_those_of_evaluate(predictions, truth):
    row = leaderboard({"a": predictions["noise 1.5"]}, truth, intervals=0).iloc[0]
    table = evaluate(predictions["noise 1.5"], truth)
    for name, value in summary(table).items():
        assert row[name] == pytest.approx(value, abs=1e-12)
    cells = table.set_index(["axis", "level", "metric"])["value"]
    assert row["CE_sys_KTAU"] == cells["CE", "system", "KTAU"]
    assert not [name for name in row.index if name.endswith("_low")]


def test_intervals_of_the_mean_over_axes_are_joint_and_paired(predictions, truth):
    table = leaderboard(predictions, truth, intervals=40, seed=3).set_index("model")
    samples = {}
    for name, frame in predictions.items():
        x, y = ({a: by_system(f.loc[truth.index, a], truth["system"]).to_numpy() for a in AXES} for f in (frame, truth))
        samples[name] = np.array(
            [np.mean([srcc(np.repeat(x[a], c), np.repeat(y[a], c)) for a in AXES]) for c in resample_counts(10, 40, 3)]
        )
    for name, values in samples.items():
        row = table.loc[name]
        low, high = np.quantile(values, [0.025, 0.975])
        assert [row["sys_SRCC_low"], row["sys_SRCC_high"]] == pytest.approx([low, high], abs=1e-12)
        low, high = np.quantile(samples[table.index[0]] - values, [0.025, 0.975])
        assert [row["behind_low"], row["behind_high"]] == pytest.approx([low, high], abs=1e-12)
    assert table["behind"].iloc[0] == 0


def test_without_systems_clips_rank_the_models(predictions, truth):
    table = leaderboard(predictions, truth[list(AXES)], intervals=10)
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
    assert {"<b>Board</b>", *HOSTILE} <= set(page.texts)
    with paths[0].open(encoding="utf-8", newline="") as file:
        names = {row["model"] for row in csv.DictReader(file)}
    assert names == {name if not name.startswith("=") else f"'{name}" for name in HOSTILE}
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
    ("value", "text"), [(0.5, "0.500"), (-0.25, "\u22120.250"), (float("nan"), "–"), (None, "–"), (3, "3"), ("a", "a")]
)
def test_numbers_are_written_for_reading(value, text):
    assert format_number(value) == text
