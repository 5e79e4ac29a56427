"""Runs are written whole, survive damage and kills, are repeated bit for bit and cost nothing when they are there."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmmos.ensembles import runs
from mmmos.ensembles.training import work
from mmmos.ensembles.training.data import gather
from mmmos.ensembles.training.train import train, trained
from mmmos.ensembles.training.wanted import keyed_specs
from mmmos.errors import InputError, StoreError, UnknownName, UsageError
from mmmos.metrics import srcc

FAST = {"options": {"epochs": 4, "lr": 0.02}}


def grid(build, *more):
    return build.recipe({"head": ["ridge", "svr"]}, {"head": "linear", "seed": [0, 1], **FAST}, *more)


def bytes_below(folder, *names):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.*"))
        if path.is_file() and path.name != "times.json"
    }


def test_every_head_learns_and_predicts_all_sets(build, world, tmp_path):
    pool = train(grid(build), world.features, world.clips, folder=tmp_path)
    assert len(pool) == 4 and set(pool.scores) == {"train", "dev", "pam", "eval", "oof"}
    assert pool.scores["eval"].shape == (4, 16, 4) and pool.scores["eval"].dtype == np.float32
    truth = world.clips.loc[list(pool.ids["dev"]), "PQ"]
    assert srcc(pool.scores["dev"][0][:, 0], truth) > 0.6
    assert pool.measure("oof")[0].min() > 0.5


def test_out_of_fold_scores_come_from_heads_that_did_not_see_the_clip(build, tmp_path):
    world = build.world(noise=50.0)
    pool = train(
        build.recipe({"head": "extra_trees", "options": {"leaf": 1}}), world.features, world.clips, folder=tmp_path
    )
    truth = world.clips.loc[list(pool.ids["train"]), "PQ"].to_numpy()
    seen = runs.load_run(pool.folder, pool.keys[0]).predict(world.features.of(list(pool.ids["train"])))
    assert srcc(seen[:, 0], truth) > 0.8
    assert np.array_equal(pool.scores["train"], pool.scores["oof"])
    assert abs(srcc(pool.scores["oof"][0][:, 0], truth)) < 0.35


def test_one_fold_holds_out_dev_and_has_no_out_of_fold_set(build, world, tmp_path):
    pool = train(build.recipe({"head": "linear", "folds": 1, **FAST}), world.features, world.clips, folder=tmp_path)
    assert "oof" not in pool.ids and "dev" in pool.truth


def test_the_second_call_trains_nothing_and_gives_the_same(build, world, tmp_path, fits):
    first = train(grid(build), world.features, world.clips, folder=tmp_path)
    assert len(fits) == 4
    written = bytes_below(tmp_path)
    second = train(grid(build), world.features, world.clips, folder=tmp_path)
    assert len(fits) == 4 and bytes_below(tmp_path) == written
    assert all(first.scores[name].tobytes() == second.scores[name].tobytes() for name in first.scores)


def test_the_pool_of_what_is_trained_is_in_the_recipes_order(build, world, tmp_path):
    recipe = build.recipe({"head": "ridge", "options": {"alpha": [10.0**power for power in range(-4, 5)]}})
    pool = train(recipe, world.features, world.clips, folder=tmp_path, name="many")
    again = trained(recipe, world.features, world.clips, folder=tmp_path, name="many")
    assert again.keys == pool.keys and np.array_equal(again.scores["eval"], pool.scores["eval"])


def test_a_head_does_not_depend_on_its_grid_or_on_the_number_of_processes(build, world, tmp_path):
    together = train(grid(build), world.features, world.clips, folder=tmp_path / "one", jobs=1)
    train(grid(build), world.features, world.clips, folder=tmp_path / "two", jobs=2)
    assert bytes_below(tmp_path / "one") == bytes_below(tmp_path / "two")
    alone = build.recipe({"head": "linear", "seed": 1, **FAST})
    single = train(alone, world.features, world.clips, folder=tmp_path / "three")
    member = together.keys.index(single.keys[0])
    assert single.scores["eval"][0].tobytes() == together.scores["eval"][member].tobytes()


def test_a_stored_run_gives_its_predictions_again(build, world, tmp_path):
    pool = train(grid(build), world.features, world.clips, folder=tmp_path)
    for number, key in enumerate(pool.keys):
        run = runs.load_run(pool.folder, key)
        scores = pd.DataFrame(run.predict(world.features), index=list(world.features.ids))
        assert run.key == key
        for name in ("dev", "pam", "eval"):
            assert scores.loc[list(pool.ids[name])].to_numpy().tobytes() == pool.scores[name][number].tobytes()


@pytest.mark.parametrize("file", [runs.ABOUT, runs.ARRAYS, runs.PREDICTIONS])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_damage_is_noticed_and_mended(build, world, tmp_path, file, how, caplog):
    recipe = build.recipe({"head": "ridge"})
    pool = train(recipe, world.features, world.clips, folder=tmp_path)
    whole, path = bytes_below(tmp_path), pool.folder / pool.keys[0] / file
    data = path.read_bytes()
    flipped = data[:-9] + bytes([data[-9] ^ 255]) + data[-8:]
    path.unlink() if how == "gone" else path.write_bytes(data[:-9] if how == "cut" else flipped)
    if file != runs.PREDICTIONS:
        with pytest.raises(StoreError, match="Delete its folder"):
            runs.load_run(pool.folder, pool.keys[0])
        (pool.folder / pool.keys[0] / runs.PREDICTIONS).unlink()
    again = train(recipe, world.features, world.clips, folder=tmp_path)
    assert bytes_below(tmp_path) == whole and again.scores["eval"].tobytes() == pool.scores["eval"].tobytes()
    assert ("trained again" in caplog.text) == (file != runs.PREDICTIONS and how != "gone")


def test_predictions_are_kept_for_one_list_of_clips(build, world, tmp_path, fits):
    recipe = build.recipe({"head": "ridge"})
    pool = train(recipe, world.features, world.clips, folder=tmp_path)
    fewer = world.clips[world.clips["set"] != "pam"]
    part = train(recipe, world.features.of(list(fewer.index)), fewer, folder=tmp_path)
    assert len(fits) == 1 and "pam" not in part.ids
    assert part.scores["eval"] == pytest.approx(pool.scores["eval"], abs=1e-5)


def broken(build, world, tmp_path, text):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from mmmos.ensembles.heads.classical import Ridge\n\nclass Bad(Ridge):\n"
        f"    def _fit(self, x, y):\n        {text}\n"
    )
    return build.recipe({"head": ["ridge", f"{plugin}:Bad"]})


@pytest.mark.parametrize("text", ["raise KeyError('gone')", "raise ValueError('no')", "return {}"])
def test_a_failing_head_costs_that_head_only(build, world, tmp_path, caplog, text):
    pool = train(broken(build, world, tmp_path, text), world.features, world.clips, folder=tmp_path)
    assert [spec.head for spec in pool.specs] == ["ridge"]
    assert caplog.text.count("failed and is left out") == 1


def test_a_head_that_diverges_away_from_its_fold_is_left_out(build, world, tmp_path, caplog):
    text = "self.infinite = len(y) and None; return {**super()._fit(x, y), 'intercept': y.mean(0) / 0}"
    with np.errstate(divide="ignore"):
        pool = train(broken(build, world, tmp_path, text), world.features, world.clips, folder=tmp_path)
    assert len(pool) == 1 and "not finite" in caplog.text


def test_a_head_whose_loss_is_never_finite_is_left_out(build, world, tmp_path, caplog):
    recipe = build.recipe({"head": "linear", "folds": 2, "options": {"epochs": 2, "lr": [0.02, 1e30]}})
    pool = train(recipe, world.features, world.clips, folder=tmp_path)
    assert [spec.options["lr"] for spec in pool.specs] == [0.02] and "its loss is not finite" in caplog.text


def test_one_fold_without_dev_is_a_sentence(build, world, tmp_path, caplog):
    clips = world.clips[world.clips["set"] != "dev"]
    with pytest.raises(UsageError, match="No head could be trained"):
        train(build.recipe({"head": "ridge", "folds": 1}), world.features.of(clips.index), clips, folder=tmp_path)
    assert "folds = 1 holds out the set dev, which has no clips" in caplog.text


def test_a_group_that_breaks_is_trained_head_by_head(build, world, tmp_path, monkeypatch, caplog):
    real = work.fit

    def fit(specs, *rest, **keywords):
        if any(spec.seed == 1 for spec in specs):
            raise RuntimeError("out of memory")
        return real(specs, *rest, **keywords)

    monkeypatch.setattr(work, "fit", fit)
    recipe = build.recipe({"head": "linear", "seed": [0, 1, 2, 3], "folds": 2, **FAST})
    pool = train(recipe, world.features, world.clips, folder=tmp_path, jobs=1)
    assert [spec.seed for spec in pool.specs] == [0, 2, 3] and "RuntimeError: out of memory" in caplog.text


def test_what_cannot_be_trained_again_for_its_predictions_is_said(build, world, tmp_path):
    recipe = broken(build, world, tmp_path, "raise ValueError('no')")
    data = gather(recipe, world.features, world.clips)
    for (key, spec), told in zip(keyed_specs(recipe, data).items(), (None, "no"), strict=True):
        assert work.predict(tmp_path, data, "digest", (key, spec)) == (key, told)


def test_heads_that_fail_for_one_reason_are_named_once(build, tmp_path, caplog):
    world = build.world()
    world.clips["group"] = "same"
    with pytest.raises(UsageError, match="No head could be trained"):
        train(grid(build), world.features, world.clips, folder=tmp_path)
    (message,) = caplog.messages
    assert "and 3 more failed" in message and "belong to one group" in message


def test_what_cannot_be_trained_on_is_a_sentence(build, world, tmp_path):
    def call(clips=world.clips, features=world.features, **fields):
        train(build.recipe(**fields), features, clips, folder=tmp_path)

    with pytest.raises(UnknownName, match="no set to train on 'trian'"):
        call(train=["train", "trian"])
    with pytest.raises(UnknownName, match="no column of the clips 'PC'"):
        call(world.clips.drop(columns="PC"))
    with pytest.raises(UsageError, match="not in the table of clips"):
        call(world.clips.iloc[1:])
    with pytest.raises(InputError, match="There are 0 clips to train on"):
        call(world.clips.assign(PQ=np.nan))
    rejected = world.features.status.assign(status="rejected", reason="silent", detail="all zeros")
    without = replace(world.features.of(["clip100"]), status=rejected)
    with pytest.raises(InputError, match=r"of 60 listed.* 60 were rejected, the first as silent: all zeros\."):
        call(features=without)
    with pytest.raises(UsageError, match="listed more than once"):
        call(world.clips.iloc[[0, *range(len(world.clips))]])
    with pytest.raises(UsageError, match="give the set another name"):
        call(world.clips.assign(set=world.clips["set"].replace("pam", "oof")))
    assert not any(tmp_path.iterdir())


def test_leftovers_of_killed_processes_are_removed(build, world, tmp_path):
    recipe = build.recipe({"head": "ridge"})
    pool = train(recipe, world.features, world.clips, folder=tmp_path)
    old, young = pool.folder / ".abc.1-2.tmp", pool.folder / ".abd.1-2.tmp"
    for path in (old, young):
        path.mkdir()
        (path / "half").write_text("x")
    half = pool.folder / pool.keys[0] / ".predictions.safetensors.1-2.tmp"
    half.write_text("x")
    for path in (old, half):
        os.utime(path, (time.time() - 2 * runs.STALE,) * 2)
    gone = pool.folder / ".gone.tmp"
    gone.symlink_to("nothing")
    train(recipe, world.features, world.clips, folder=tmp_path)
    assert not old.exists() and not half.exists() and young.exists() and gone.is_symlink()


KILLED = """
    import sys
    sys.path.insert(0, {here!r})
    from conftest import make_recipe, make_world
    from mmmos.ensembles.training.train import train
    world = make_world()
    print("ready", flush=True)
    recipe = make_recipe({{"head": "mlp", "seed": list(range(12)), "options": {{"epochs": 40}}}})
    train(recipe, world.features, world.clips, folder={folder!r})
"""


def test_a_killed_training_leaves_whole_runs_and_goes_on(build, world, tmp_path, fits):
    script = textwrap.dedent(KILLED).format(here=str(Path(__file__).parents[1]), folder=str(tmp_path / "killed"))
    for delay in (0.4, 1.0):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    recipe = build.recipe({"head": "mlp", "seed": list(range(12)), "options": {"epochs": 40}})
    wanted = keyed_specs(recipe, gather(recipe, world.features, world.clips))
    folder = tmp_path / "killed" / "recipe"
    done = [path.name for path in folder.glob("[!.]*")]
    assert set(done) <= set(wanted) and all(runs.load_run(folder, key).key == key for key in done)
    train(recipe, world.features, world.clips, folder=tmp_path / "killed", jobs=1)
    assert len(fits) == 12 - len(done)
    train(recipe, world.features, world.clips, folder=tmp_path / "whole", jobs=1)
    visible = {name: data for name, data in bytes_below(tmp_path / "killed").items() if "/." not in name}
    assert visible == bytes_below(tmp_path / "whole")


def test_nothing_is_said_without_a_reason(build, world, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="mmmos"):
        train(build.recipe(), world.features, world.clips, folder=tmp_path)
    assert not caplog.messages


def test_the_layout_of_a_table_in_memory_changes_no_bit(build, world, tmp_path):
    recipe = build.recipe({"head": ["ridge", "svr"], "features": "each"})
    axes = ["PQ", "PC", "CE", "CU"]
    columns = world.clips.drop(columns=axes)
    by_column = columns.assign(**{axis: world.clips[axis].to_numpy(copy=True) for axis in axes})
    rows = pd.DataFrame(world.clips[axes].to_numpy().copy(order="C"), index=columns.index, columns=axes)
    by_row = pd.concat([columns, rows], axis=1)
    for number, clips in enumerate((world.clips, by_column, by_row)):
        train(recipe, world.features, clips, folder=tmp_path / str(number))
    found = [
        {
            path.name + path.parent.name: path.read_bytes()
            for path in (tmp_path / str(number)).rglob("*.*")
            if path.name != "times.json"
        }
        for number in range(3)
    ]
    assert found[0] == found[1] == found[2]
    assert gather(recipe, world.features, by_row).targets.flags.c_contiguous


def test_times_are_kept_beside_a_run_and_heads_of_a_group_share_theirs(build, world, tmp_path):
    recipe = build.recipe({"head": "linear", "seed": [0, 1, 2, 3], "folds": 2, **FAST})
    pool = train(recipe, world.features, world.clips, folder=tmp_path, jobs=1)
    taken = [runs.times(pool.folder, key) for key in pool.keys]
    assert taken[0]["fit"] == taken[1]["fit"] > 0
    assert all(each["clips"] == len(world.clips) and each["predict"] >= 0 for each in taken)
    (pool.folder / pool.keys[0] / runs.TIMES).write_text("[]")
    assert runs.times(pool.folder, pool.keys[0]) == {}
    assert runs.load_run(pool.folder, pool.keys[0]).key == pool.keys[0]
