"""``rank`` and what the report keeps: runs, ensembles and answers of a challenge beside each other, computed once."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mmmos
from mmmos import cli, pipeline
from mmmos.axes import AXES
from mmmos.errors import UnknownName, UsageError
from mmmos.metrics import evaluate, summary
from mmmos.pipeline import evidence
from mmmos.pipeline.ranking import best_runs, rank

RECIPE = '[[grid]]\nhead = ["ridge", "svr"]\nlayers = ["mean", "last"]\nfolds = 2\n'
RECIPE += '[select]\nrule = "top_k"\non = "pam"\nk = 2\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace after its run; not to be changed."""
    folder = tmp_path_factory.mktemp("ranking")
    path = mmmos.make_corpus(folder, size="tiny")
    path.write_text(path.read_text().replace('"quick"', '"light"'))
    (folder / "ensembles").mkdir()
    (folder / "ensembles" / "light.toml").write_text(RECIPE)
    pipeline.run(path, jobs=1, intervals=10)
    return path


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished.parent, tmp_path / "copy")) / "challenge.toml"


def test_runs_ensembles_and_answers_stand_on_one_leaderboard(copy):
    pipeline.choose(copy, name="wide", rule="top_k", k=3, on="pam")
    answer = copy.parent / "submissions" / "demo" / "answer.txt"
    table, notes = rank(copy, on="eval", top=3, answers=[answer], intervals=20)
    table = table.set_index("model")
    runs = [name for name in table.index if name.startswith(("ridge", "svr"))]
    assert len(runs) == 3 and set(table.index) == {*runs, "ensemble", "wide", "mean of all heads", "demo"}
    assert table.loc["demo", "sys_SRCC"] == pytest.approx(table.loc["ensemble", "sys_SRCC"], abs=1e-4)
    members = table["members"].dropna().astype(int).to_dict()
    assert members == {**dict.fromkeys(runs, 1), "ensemble": 2, "wide": 3, "mean of all heads": 4}
    assert "The best 3 of 4 runs are shown" in notes[0]


def test_scores_are_those_of_evaluate_and_times_those_of_the_members(finished):
    table = rank(finished, on="eval", intervals=0)[0].set_index("model")
    pool, _ = pipeline.finished_pool(finished)
    ensemble = mmmos.select(pool, rule="top_k", k=2, on="pam")
    expected = summary(evaluate(ensemble.predict("eval"), mmmos.read_manifest(finished.parent / "test.csv")))
    assert {name: table.loc["ensemble", name] for name in expected} == pytest.approx(expected, abs=1e-9)
    taken = [json.loads((pool.folder / key / "times.json").read_text()) for key in ensemble.members()["key"]]
    assert table.loc["ensemble", "fit_time"] == pytest.approx(sum(each["fit"] for each in taken))
    predict = sum(each["predict"] * 18 / each["clips"] for each in taken)
    assert table.loc["ensemble", "pred_time_test"] == pytest.approx(predict)


def test_the_truth_of_the_evaluation_set_does_not_say_which_runs_are_shown(copy):
    def shown():
        table, notes = rank(copy, on="eval", top=2, intervals=0)
        assert "nothing is chosen on eval" in notes[0]
        return {name: score for name, score in table.set_index("model")["utt_SRCC"].items() if "[" in name}

    before = shown()
    truth = pd.read_csv(copy.parent / "test.csv", dtype=str)
    turned = truth.rename(columns=str.strip)
    columns = [name for name in truth.columns if pd.to_numeric(truth[name], errors="coerce").notna().all()]
    turned[columns] = 10 - truth[columns].astype(float)
    turned.to_csv(copy.parent / "test.csv", index=False)
    after = shown()
    assert set(before) == set(after) and len(before) == 2
    assert all(after[name] == pytest.approx(-before[name]) for name in before)


def test_a_calibrated_ensemble_is_ranked_by_what_it_would_submit(copy):
    ensemble, _ = pipeline.choose(copy, name="scaled", rule="top_k", k=2, on="pam", calibrate="pam")
    table = rank(copy, on="eval", intervals=0)[0].set_index("model")
    expected = summary(evaluate(ensemble.predict("eval"), mmmos.read_manifest(copy.parent / "test.csv")))
    assert table.loc["scaled", "utt_MSE"] == pytest.approx(expected["utt_MSE"], abs=1e-9)
    assert table.loc["scaled", "utt_MSE"] != pytest.approx(table.loc["ensemble", "utt_MSE"], abs=1e-3)
    assert table.loc["scaled", "utt_SRCC"] == pytest.approx(table.loc["ensemble", "utt_SRCC"], abs=1e-9)


def test_unknown_times_are_unknown_and_change_no_score(copy):
    before = rank(copy, intervals=0)[0]
    for path in (copy.parent / "ensembles" / "light").glob("*/times.json"):
        path.write_text("nonsense")
    after = rank(copy, intervals=0)[0]
    assert before["fit_time"].notna().all() and after["fit_time"].isna().all()
    times = ["fit_time", "pred_time_test"]
    pd.testing.assert_frame_equal(before.drop(columns=times), after.drop(columns=times))


def test_what_does_not_fit_costs_itself_only(copy, caplog):
    folder = copy.parent / "ensembles"
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text(json.dumps({"recipe": "light", "members": [{"key": "f" * 16, "weights": {}}]}))
    answer = copy.parent / "submissions" / "demo" / "answer.txt"
    table, _ = rank(copy, on="pam", answers=[answer], intervals=0)
    assert set(table["model"]) >= {"ensemble", "mean of all heads"} and "demo" not in set(table["model"])
    assert "demo is left out: it has no scores of 12 clips" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"on": "pan"}, UnknownName, "no set 'pan'. Did you mean 'pam'?"),
        ({"on": "train"}, UsageError, "The set 'train' has no scores to compare with"),
        ({"top": 0}, UsageError, "top is how many runs are shown"),
    ],
)
def test_mistakes_are_sentences(finished, options, error, sentence):
    with pytest.raises(error, match=sentence):
        rank(finished, intervals=0, **options)


def test_five_thousand_runs_are_ranked_in_seconds(finished):
    pool, _ = pipeline.finished_pool(finished)
    rng = np.random.default_rng(0)
    runs, clips = 5000, 200
    ids = tuple(f"clip{i}" for i in range(clips))
    truth = pd.DataFrame(rng.normal(5, 1, (clips, 4)), index=list(ids), columns=list(AXES))
    noise = rng.permutation(np.linspace(0.1, 3, runs))
    scores = truth.to_numpy()[None] + noise[:, None, None] * rng.normal(size=(runs, clips, 4))
    large = replace(
        pool,
        keys=tuple(map(str, range(runs))),
        specs=(pool.specs[0],) * runs,
        ids={"pam": ids},
        scores={"pam": np.float32(scores)},
    )
    begun = time.monotonic()
    order = best_runs(large, "pam", truth.assign(system=[f"s{i % 20}" for i in range(clips)]))
    assert time.monotonic() - begun < 30
    assert sorted(order) == list(range(runs))
    assert noise[order[:20]].mean() < 0.3 and noise[order[-20:]].mean() > 1.5


def test_the_report_is_made_again_without_audio_and_without_computing(copy, monkeypatch):
    report = copy.parent / "submissions" / "demo" / "report.html"
    before = report.read_bytes()
    assert before.count(b"<image") == 18 and b"Would they be chosen again?" in before
    shutil.rmtree(copy.parent / "ensembles" / "light" / "boards")
    pipeline.report(copy, intervals=10)
    assert report.read_bytes() == before

    def never(*_, **__):
        raise AssertionError("computed again")

    for name in ("excerpt", "stability", "contributions"):
        monkeypatch.setattr(evidence, name, never)
    pipeline.report(copy, intervals=10)
    assert report.read_bytes() == before


def test_where_the_audio_is_gone_the_report_does_without(copy):
    shutil.rmtree(copy.parent / "ensembles" / "light" / "boards")
    inputs = pipeline.challenge.read(copy)
    clips = inputs.clips[inputs.clips["set"] == "eval"].iloc[:2]
    features = pipeline.finished(inputs)[0]
    Path(clips["path"].iloc[0]).unlink()
    found = evidence.excerpts(copy.parent / "kept", clips, features)
    assert list(found) == [clips.index[1]]
    assert evidence.excerpts(copy.parent / "kept", clips, features) == found


def test_what_would_take_long_is_left_out_of_the_report_of_a_large_pool(finished, tmp_path, monkeypatch):
    pool, _ = pipeline.finished_pool(finished)
    ensemble = mmmos.select(pool, rule="top_k", k=2, on="pam")
    monkeypatch.setattr(evidence, "CHEAP", 10)
    assert evidence.chosen_again(tmp_path, ensemble) is None and evidence.contributed(tmp_path, ensemble) is None
    assert not list(tmp_path.iterdir())


def test_what_a_rule_does_not_allow_is_left_out_of_the_report(finished, tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise UsageError("Too few clips to draw from.")

    pool, _ = pipeline.finished_pool(finished)
    monkeypatch.setattr(evidence, "stability", refuse)
    caplog.set_level("INFO", "mmmos")
    assert evidence.chosen_again(tmp_path, mmmos.select(pool, rule="top_k", k=2, on="pam")) is None
    assert "Left out of the report: Too few clips to draw from." in caplog.text


def test_ceilings_appear_where_a_manifest_lists_ratings(copy):
    folder = copy.parent
    rated = {json.loads(line)["data_path"]: line for line in (folder / "annotations.jsonl").read_text().splitlines()}
    truth = mmmos.read_manifest(folder / "test.csv")
    lines = []
    for clip, row in truth.iterrows():
        line = json.loads(rated[clip]) | {"sample_id": clip, "data_path": row["path"]}
        lines.append(json.dumps(line))
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    copy.write_text(copy.read_text().replace("test.csv", "test.jsonl"))
    outcome = pipeline.run(copy, jobs=1, intervals=10)
    page = (outcome.folder / "report.html").read_text()
    assert "a perfect model would rank clips with" in page and 'class="band"' in page


def test_the_command_compares_runs_or_answers(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished.parent)

    def call(line):
        capsys.readouterr()
        code = cli._call(line.split(), False)
        return code, *capsys.readouterr()

    code, out, err = call("submissions leaderboard --challenge challenge.toml --on dev --top 2 --json")
    assert code == 0 and len(json.loads(out)) == 4 and "The best 2 of 4 runs" in err
    code, out, err = call("submissions leaderboard submissions/demo/answer.txt --challenge challenge.toml --on eval")
    assert code == 0 and "training, s" in out.splitlines()[0] and "not told apart" in out
    code, _, err = call("submissions leaderboard submissions/demo/answer.txt")
    assert code == 2 and "Give either --truth" in err
