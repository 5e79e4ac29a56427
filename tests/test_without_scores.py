"""A challenge with one head and no set whose scores say how good it is: an answer, and sentences for the rest."""

import shutil

import pytest

from mmmos import pipeline
from mmmos.errors import UnknownName, UsageError
from mmmos.pipeline.ablation import Ablation
from mmmos.pipeline.bundles import export
from mmmos.pipeline.ranking import rank
from mmmos.pipeline.shift import shift

CHALLENGE = """
[data]
train = "train.csv"
dev = "dev.csv"
eval = "eval.csv"
[features]
recipe = "melstats"
[ensembles]
recipe = "one.toml"
[submission]
name = "demo"
"""
RECIPE = '[[grid]]\nhead = "ridge"\nfolds = 1\n[select]\nrule = "average"\n'


@pytest.fixture(scope="module")
def finished(tiny_workspace, tmp_path_factory):
    """A workspace after its run: ``dev`` is one clip, and nobody knows the scores of ``eval``. Not to be changed."""
    folder = tmp_path_factory.mktemp("alone")
    for part in ("audio", "features"):
        shutil.copytree(tiny_workspace / part, folder / part)
    shutil.copy(tiny_workspace / "train.csv", folder)
    dev = (tiny_workspace / "dev.csv").read_text().splitlines(keepends=True)
    (folder / "dev.csv").write_text("".join(dev[:2]))
    rows = [line.split(",")[:2] for line in (tiny_workspace / "test.csv").read_text().splitlines()[:7]]
    (folder / "eval.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    path = folder / "challenge.toml"
    path.write_text(CHALLENGE)
    (folder / "one.toml").write_text(RECIPE)
    return path, pipeline.run(path, jobs=1, intervals=0)


def test_the_answer_is_written_and_nothing_is_said_of_its_quality(finished):
    _, outcome = finished
    assert outcome.boards == {} and outcome.scores.empty
    assert {path.name for path in outcome.folder.iterdir()} == {"answer.txt", "answer.zip", "provenance.json"}
    assert len(outcome.answer.read_text().splitlines()) >= 6


def test_a_bundle_of_it_names_no_metric(finished, tmp_path):
    about = export(finished[0], to=tmp_path / "bundle").about
    assert about.metrics == () and about.clips == {"train": 24, "dev": 1, "eval": 6}


def test_one_clip_ranks_nothing(finished):
    with pytest.raises(UsageError, match="The set 'dev' has 1 clips with scores; at least 2 are needed"):
        rank(finished[0], on="dev")


def test_tables_of_shift_that_cannot_be_made_are_sentences_among_those_that_can(finished, tmp_path):
    found = shift(finished[0], intervals=2)
    files = found.write(tmp_path)
    assert [file.name for file in files[:3]] == ["shift-summary.csv", "shift-features.csv", "shift-predictions.csv"]
    assert [file.name for file in files[3:]] == ["shift.md"]
    text = files[-1].read_text()
    assert "Heads are compared between two sets with scores; there are dev" in text
    assert "two sets with scores and two heads; there are dev, which may be looked at, and 1 heads" in text
    assert "tau" not in found.summary
    with pytest.raises(UnknownName, match=r"no table 'ranking'\. Did you mean 'rankings'\?"):
        found.table("ranking")


def test_tables_of_an_ablation_that_cannot_be_made_are_sentences(finished):
    pool, _ = pipeline.finished_pool(finished[0])
    found = Ablation(pool, intervals=0)
    with pytest.raises(UsageError, match="All heads are alike but for their features"):
        found.table("generalisation")
    with pytest.raises(UsageError, match="there is one with truth"):
        found.table("sizes")
    with pytest.raises(UnknownName, match=r"no table 'size'\. Did you mean 'sizes'\?"):
        found.table("size")
