"""Runs on disk: the first that is written stays, and what is read is the run that was asked for."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from mmmos.ensembles import runs
from mmmos.ensembles.training.data import gather
from mmmos.ensembles.training.fitting import fit
from mmmos.errors import StoreError


@pytest.fixture
def run(build, world):
    recipe = build.recipe({"head": "ridge", "folds": 2})
    ((_, run),) = fit(recipe.specs(["a", "b"]), gather(recipe, world.features, world.clips))
    return run


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_run_that_is_there_stays(run, tmp_path):
    runs.save_run(run, tmp_path, 1.0)
    written = files(tmp_path)
    runs.save_run(run, tmp_path, 2.0)
    assert files(tmp_path) == written and runs.times(tmp_path, run.key) == {"fit": 1.0}


def test_the_run_that_another_process_wrote_meanwhile_stays(run, tmp_path, monkeypatch):
    runs.save_run(run, tmp_path / "other", 1.0)

    def overtaken(folder, key):
        shutil.copytree(tmp_path / "other" / key, folder / key)

    monkeypatch.setattr(runs, "delete_run", overtaken)
    runs.save_run(run, tmp_path / "own", 2.0)
    assert files(tmp_path / "own") == files(tmp_path / "other")


def test_a_run_that_cannot_take_its_place_is_an_error_and_leaves_nothing_behind(run, tmp_path, monkeypatch):
    (tmp_path / run.key).mkdir()
    (tmp_path / run.key / "notes.txt").write_text("mine")
    monkeypatch.setattr(runs, "delete_run", lambda folder, key: None)
    with pytest.raises(OSError, match="not empty"):
        runs.save_run(run, tmp_path)
    assert list(files(tmp_path)) == [f"{run.key}/notes.txt"]


def test_a_run_under_another_name_is_refused(run, tmp_path):
    runs.save_run(run, tmp_path)
    shutil.copytree(tmp_path / run.key, tmp_path / ("0" * 16))
    with pytest.raises(StoreError, match=rf"holds another run \({run.key}\)\. Delete its folder and train again"):
        runs.load_run(tmp_path, "0" * 16)


def test_predictions_are_made_once_for_a_digest_and_are_finite(run, world, tmp_path, monkeypatch):
    runs.save_run(run, tmp_path)
    first = runs.predictions(tmp_path, run.key, world.features, "digest")
    broken = replace(
        world.features, sets={name: replace(each, raw=each.raw * np.inf) for name, each in world.features.sets.items()}
    )
    again = runs.predictions(tmp_path, run.key, broken, "digest")
    assert again.scores.tobytes() == first.scores.tobytes()
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="its predictions are not finite"):
        runs.predictions(tmp_path, run.key, broken, "another digest")
