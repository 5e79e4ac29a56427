"""The whole data flow on a tiny corpus: resumable, sealed, the same bytes whatever happened on the way."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

import mmmos
from mmmos import pipeline
from mmmos.axes import LONG_NAMES
from mmmos.challenge import read
from mmmos.ensembles.training import work as heads
from mmmos.errors import InputError, UsageError
from mmmos.features.extraction import settle
from mmmos.pipeline import answer, boards, shards
from mmmos.submissions.write import write_submission

RECIPE = """
[[grid]]
head = ["ridge", "svr"]
normalise = "standard"
folds = 3
[[grid]]
head = "linear"
normalise = "standard"
loss = ["mse", "dcq"]
folds = 3
options = { epochs = 4 }
[select]
rule = "top_k"
on = "pam"
k = 2
"""
FILES = ("answer.txt", "answer.zip", "provenance.json", "leaderboard.csv", "leaderboard.html", "report.html")


def lay_out(folder: Path) -> Path:
    path = mmmos.make_corpus(folder, size="tiny")
    path.write_text(path.read_text().replace('"quick"', '"light"'))
    (folder / "ensembles").mkdir(exist_ok=True)
    (folder / "ensembles" / "light.toml").write_text(RECIPE)
    return path


def products(folder: Path, *names: str) -> dict[str, bytes]:
    paths = [folder / "ensembles" / "demo.json", *(folder / "ensembles").rglob("*/*.*")]
    paths += [folder / "submissions" / "demo" / name for name in names]
    visible = [path for path in paths if path.is_file() and "/." not in str(path) and path.parent.name != "boards"]
    visible = [path for path in visible if path.name != "times.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in visible}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace after its first run; the tests that change it copy it."""
    path = lay_out(tmp_path_factory.mktemp("finished"))
    pipeline.run(path, jobs=1, intervals=20)
    return path


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished.parent, tmp_path / "copy")) / "challenge.toml"


@pytest.fixture
def work(monkeypatch):
    """Counts of what was really encoded and trained."""
    counts = {"encoded": 0, "trained": 0}

    def count(module, name, key):
        real = getattr(module, name)

        def counted(*arguments):
            counts[key] += 1
            return real(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(heads, "fit", "trained")
    count(settle, "encode_chunk", "encoded")
    return counts


def test_a_run_leaves_a_checked_answer_leaderboards_and_a_report(finished):
    folder = finished.parent / "submissions" / "demo"
    assert {path.name for path in folder.iterdir()} == {*FILES, "leaderboard.md"}
    clips = mmmos.read_manifest(finished.parent / "test.csv")
    assert mmmos.check_submission(folder, clips=clips) == []
    assert len(mmmos.evaluate(str(folder / "answer.txt"), clips)) == 32


def test_the_second_run_computes_nothing_and_changes_nothing(copy, work, monkeypatch):
    before = products(copy.parent, *FILES)

    def never(*_, **__):
        raise AssertionError("a leaderboard was computed again")

    monkeypatch.setattr(boards, "leaderboard", never)
    outcome = pipeline.run(copy, jobs=1, intervals=20)
    assert work == {"encoded": 0, "trained": 0} and products(copy.parent, *FILES) == before
    assert list(outcome.files()) == ["answer", "leaderboard", "report"]
    assert set(outcome.scores["set"]) == {"dev", "pam", "oof", "eval"}


def test_the_number_of_processes_does_not_change_a_byte(finished, tmp_path):
    path = lay_out(tmp_path)
    pipeline.run(path, jobs=2, intervals=20)
    assert products(tmp_path, *FILES) == products(finished.parent, *FILES)


def test_the_plan_says_what_is_there_before_half_way_and_after(finished, tmp_path):
    path = lay_out(tmp_path)

    def there(path):
        return {stage: list(part["there"]) for stage, part in pipeline.plan(path).groupby("stage")}

    assert there(path) == {"manifest": [24, 10, 12, 18], "features": [0], "ensembles": [0], "submissions": [0]}
    assert not (tmp_path / "submissions").exists()
    shutil.copytree(finished.parent / "features", tmp_path / "features", dirs_exist_ok=True)
    runs = sorted((finished.parent / "ensembles" / "light").iterdir())
    shutil.copytree(runs[0], tmp_path / "ensembles" / "light" / runs[0].name)
    assert there(path) == {"manifest": [24, 10, 12, 18], "features": [64], "ensembles": [1], "submissions": [0]}
    assert there(finished)["ensembles"] == [4] and there(finished)["submissions"] == [1]


def test_an_answer_of_another_ensemble_is_not_taken_for_done(copy):
    recipe = copy.parent / "ensembles" / "light.toml"
    recipe.write_text(RECIPE.replace("k = 2", "k = 1"))
    assert pipeline.plan(copy).iloc[-1]["to_do"] == 1
    with pytest.raises(UsageError, match="holds no answer of the ensemble that is chosen now"):
        pipeline.report(copy)
    before = (copy.parent / "submissions" / "demo" / "answer.txt").read_bytes()
    pipeline.run(copy, jobs=1, intervals=0)
    assert (copy.parent / "submissions" / "demo" / "answer.txt").read_bytes() != before


def test_an_answer_that_was_edited_is_not_taken_for_done(copy):
    path = copy.parent / "submissions" / "demo" / "answer.txt"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*rest, first]))
    assert pipeline.plan(copy).iloc[-1]["to_do"] == 1


def test_an_answer_that_is_not_what_was_written_is_an_error(copy, monkeypatch):
    def lose_a_line(*given, **options):
        folder = write_submission(*given, **options)
        path = Path(options["to"]) / "answer.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        return folder

    shutil.rmtree(copy.parent / "submissions")
    monkeypatch.setattr(answer, "write_submission", lose_a_line)
    with pytest.raises(InputError, match=r"answer\.txt"):
        pipeline.run(copy, jobs=1, intervals=0)


def test_provenance_does_not_say_where_weights_lie():
    encoders = ["melstats", {"encoder": "wavlm", "weights": "/home/me/tiny.pt"}, {"encoder": "m2d", "weights": "o/m"}]
    recipe = answer._without_folders({"encoders": encoders})
    assert [each["weights"] for each in recipe["encoders"][1:]] == ["tiny.pt", "o/m"]


def test_a_report_never_stands_beside_the_answer_of_another_ensemble(copy, monkeypatch):
    (copy.parent / "ensembles" / "light.toml").write_text(RECIPE.replace("k = 2", "k = 1"))

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "boards_of", die)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(copy, jobs=1)
    folder = copy.parent / "submissions" / "demo"
    assert {path.name for path in folder.iterdir()} == {"answer.txt", "answer.zip", "provenance.json"}


@pytest.mark.parametrize("how", ["permuted", "shifted", "deleted", "corrupt"])
def test_the_evaluation_scores_change_leaderboards_and_nothing_else(finished, copy, how):
    path = copy.parent / "test.csv"
    table = pd.read_csv(path, dtype=object)
    scores = list(LONG_NAMES.values())
    if how == "permuted":
        table[scores] = table[scores].to_numpy()[::-1]
    elif how == "shifted":
        table[scores] = (table[scores].astype(float) / 2).astype(str)
    elif how == "deleted":
        table = table.drop(columns=scores)
    else:
        table[scores] = "nonsense"
    table.to_csv(path, index=False)
    shutil.rmtree(copy.parent / "ensembles" / "light")
    shutil.rmtree(copy.parent / "submissions")
    outcome = pipeline.run(copy, jobs=1, intervals=20)
    assert products(copy.parent, *FILES[:3]) == products(finished.parent, *FILES[:3])
    assert ("eval" in outcome.boards) == (how in ("permuted", "shifted"))
    changed = products(copy.parent, "leaderboard.csv") != products(finished.parent, "leaderboard.csv")
    assert changed and (outcome.folder / "report.html").is_file()


def spoil(path: Path, name: str) -> str:
    """Make one clip of a set unreadable; its id."""
    clips = mmmos.read_manifest(path.parent / name)
    Path(clips["path"].iloc[0]).write_bytes(b"no audio")
    return str(clips.index[0])


def test_an_unusable_training_clip_costs_that_clip(copy):
    clip = spoil(copy, "train.csv")
    outcome = pipeline.run(copy, jobs=1, intervals=0)
    assert list(outcome.rejected.index) == [clip] and outcome.answer.is_file()
    assert len(outcome.ensemble.pool.ids["oof"]) == 23


def test_an_unusable_clip_to_predict_is_an_error_unless_the_mean_may_answer_for_it(copy):
    clip = spoil(copy, "test.csv")
    before = products(copy.parent, *FILES)
    with pytest.raises(InputError, match="1 of 18 clips to predict are unusable") as caught:
        pipeline.run(copy, jobs=1, intervals=0)
    assert clip in str(caught.value)
    assert products(copy.parent, *FILES[3:])["submissions/demo/report.html"] == before["submissions/demo/report.html"]
    copy.write_text(copy.read_text() + 'missing = "mean"\n')
    outcome = pipeline.run(copy, jobs=1, intervals=0)
    record = json.loads((outcome.folder / "provenance.json").read_text())
    assert record["made_from"]["answered_with_training_mean"] == [clip]
    answer = pd.read_csv(outcome.answer, index_col=0)
    mean = mmmos.read_manifest(copy.parent / "train.csv")[["PQ", "PC", "CE", "CU"]].mean()
    assert len(answer) == 18 and answer.loc[clip].to_numpy() == pytest.approx(mean.to_numpy(), abs=1e-5)
    assert "1 unusable clips are answered with the training mean" in (outcome.folder / "report.html").read_text()


def test_scores_outside_the_range_are_moved_to_its_ends_and_counted(copy, caplog):
    text = 'file = "answer.txt"\nrange = [5.0, 5.5]\narchive = "answer.zip"\n'
    (copy.parent / "narrow.toml").write_text(text)
    copy.write_text(copy.read_text().replace('"audiomos2025-track2"', '"narrow.toml"'))
    outcome = pipeline.run(copy, jobs=1, intervals=0)
    assert pd.read_csv(outcome.answer, index_col=0).to_numpy().max() == 5.5
    assert json.loads((outcome.folder / "provenance.json").read_text())["answer"]["clipped"] > 0
    assert "scores lay outside 5 to 5.5" in caplog.text


def test_without_clips_to_predict_there_are_leaderboards_and_no_answer(copy):
    lines = [line for line in copy.read_text().splitlines(keepends=True) if not line.startswith("eval")]
    copy.write_text("".join(lines))
    assert pipeline.run(copy, jobs=1, intervals=0).answer is None
    assert (copy.parent / "submissions" / "demo" / "answer.txt").is_file(), "it is of the same ensemble"
    shutil.rmtree(copy.parent / "submissions")
    outcome = pipeline.run(copy, jobs=1, intervals=0)
    assert outcome.answer is None and set(outcome.boards) == {"dev", "pam", "oof"}
    assert {path.suffix for path in outcome.folder.iterdir()} == {".csv", ".md", ".html"}
    assert pipeline.plan(copy).iloc[-1]["wanted"] == 0


def test_an_average_on_the_scale_of_a_set_is_the_whole_pool_and_says_so(copy):
    recipe = copy.parent / "ensembles" / "light.toml"
    recipe.write_text(RECIPE.partition("[select]")[0] + '[select]\nrule = "average"\ncalibrate = "dev"\n')
    outcome = pipeline.run(copy, jobs=1, intervals=0)
    assert len(outcome.ensemble) == 4 and "mean of all heads" not in set(outcome.boards["pam"]["model"])
    page = (outcome.folder / "report.html").read_text()
    assert "4 of 4 heads are averaged, by average." in page and "flatter the ensemble" not in page
    assert "Predictions are on the scale of dev" in page and "Would they be chosen again?" not in page


def test_choosing_by_another_rule_writes_another_record(copy):
    ensemble, path = pipeline.choose(copy, name="wide", rule="average")
    assert len(ensemble) == 4 and path.name == "wide.json"
    assert len(pipeline.choose(copy, name="one", k=1)[0]) == 1
    with pytest.raises(UsageError, match="An ensemble's name is letters"):
        pipeline.choose(copy, name="../wide")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_run_that_is_killed_at_each_stage_ends_in_the_same_bytes(finished, tmp_path):
    path = lay_out(tmp_path)
    # Every process is forked from one that has imported all: it starts at once.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["mmmos.pipeline", "mmmos.features.extraction.extract", "nnAudio.features"])
    for begun in (
        "features/melstats-*",
        "features/melstats-*/*.safetensors",
        "ensembles/light/*",
        "ensembles/demo.json",
        "submissions/demo/*",
    ):
        assert not list(tmp_path.glob(begun))
        process = processes.Process(target=pipeline.run, args=(path,), kwargs={"jobs": 1, "intervals": 20})
        process.start()
        while process.is_alive() and not list(tmp_path.glob(begun)):
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    pipeline.run(path, jobs=1, intervals=20)
    assert products(tmp_path, *FILES) == products(finished.parent, *FILES)


def test_shards_in_turn_leave_what_one_run_finishes_in_the_same_bytes(finished, copy):
    for name in ("features", "ensembles/light", "submissions"):
        shutil.rmtree(copy.parent / name)
    with pytest.raises(UsageError, match=r"no melstats features yet; .* mmmos run --shard 2/2"):
        shards.train_shard(copy, shard="2/2", jobs=1)
    first, second, third = (shards.run_shard(copy, shard=shard, jobs=1) for shard in ("1/2", "2/2", "1/2"))
    clips = len(read(copy).clips)
    assert first.heads is None and first.lacking == second.clips and first.clips + second.clips == clips
    assert second.lacking == 0 and (second.heads.trained, second.heads.there, second.heads.wanted) == (2, 2, 4)
    assert (third.heads.trained, third.heads.there) == (2, 4)
    assert not (copy.parent / "submissions").exists()
    pipeline.run(copy, jobs=1, intervals=20)
    assert products(copy.parent, *FILES) == products(finished.parent, *FILES)
