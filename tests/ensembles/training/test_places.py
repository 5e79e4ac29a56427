"""Wherever heads are trained, and in whatever parts, the runs are the same bytes; what is killed costs its group."""

import shutil
from importlib.util import find_spec

import pytest

from mmmos.ensembles import runs
from mmmos.ensembles.training import predicting, work
from mmmos.ensembles.training import train as training
from mmmos.ensembles.training.engine.groups import Group, plan
from mmmos.ensembles.training.train import train, train_shard
from mmmos.ensembles.training.wanted import wanted_heads
from mmmos.errors import UsageError
from mmmos.parallel import Shard, Workers

FAST = {"options": {"epochs": 3, "lr": 0.02}, "folds": 2}


@pytest.fixture(scope="module")
def recipe(build):
    return build.recipe({"head": ["ridge", "knn"], "folds": 2}, {"head": "linear", "seed": [0, 1, 2, 3, 4], **FAST})


@pytest.fixture(scope="module")
def whole(build, world, recipe, tmp_path_factory):
    """The runs as one process makes them."""
    folder = tmp_path_factory.mktemp("whole")
    train(recipe, world.features, world.clips, folder=folder, jobs=1)
    return bytes_below(folder)


def bytes_below(folder):
    paths = [path for path in sorted(folder.rglob("*.*")) if path.is_file() and path.name != "times.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def without_predictions(found):
    return {name: data for name, data in found.items() if runs.PREDICTIONS not in name}


@pytest.mark.skipif(find_spec("distributed") is None, reason="needs the extra dask")
def test_a_dask_cluster_makes_the_same_runs(world, recipe, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workers = Workers("dask", jobs=2, logs="logs")
    pool = train(recipe, world.features, world.clips, folder="runs", jobs=workers, device="auto")
    assert bytes_below(tmp_path / "runs") == whole and len(pool) == 7
    assert len(list((tmp_path / "logs").iterdir())) == 2


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 1, 1, 2, 3]])
def test_shards_in_any_order_and_repeated_make_the_same_runs(world, recipe, whole, tmp_path, fits, order):
    parts = [
        train_shard(recipe, world.features, world.clips, shard=f"{number}/3", folder=tmp_path, jobs=1)
        for number in order
    ]
    assert len(fits) == 7 and parts[-1].there == parts[-1].wanted == 7
    assert without_predictions(bytes_below(tmp_path)) == without_predictions(whole)
    train(recipe, world.features, world.clips, folder=tmp_path, jobs=1)
    assert len(fits) == 7 and bytes_below(tmp_path) == whole


def test_a_shard_says_how_far_it_is_and_how_far_all_are(world, recipe, tmp_path):
    given = {"folder": tmp_path, "jobs": 1, "name": "seven"}
    assert (
        str(train_shard(recipe, world.features, world.clips, shard="2/4", **given))
        == "shard 2/4: 2 heads trained; 2 of 7 heads of seven are there."
    )
    part = train_shard(recipe, world.features, world.clips, shard=Shard(4, 4), **given)
    assert (part.trained, part.there) == (1, 3)
    assert train_shard(recipe, world.features, world.clips, shard="9/9", **given).trained == 0


def test_a_shard_whose_heads_all_fail_is_an_error_and_others_are_not(build, world, tmp_path, caplog):
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from mmmos.ensembles.heads.classical import Ridge\n\nclass Bad(Ridge):\n"
        "    def _fit(self, x, y):\n        raise ValueError('no')\n"
    )
    given = {"folder": tmp_path / "runs", "jobs": 1}
    recipe = build.recipe({"head": ["ridge", f"{plugin}:Bad"], "folds": 2})
    assert train_shard(recipe, world.features, world.clips, shard="1/2", **given).trained == 1
    with pytest.raises(UsageError, match="No head could be trained"):
        train_shard(recipe, world.features, world.clips, shard="2/2", **given)
    assert caplog.text.count("failed and is left out: no") == 1


# Its process is killed when it is trained for the first time; each training adds a letter to a file.
MORTAL = """
import os, signal
from pathlib import Path
from mmmos.ensembles.heads.classical import Ridge

class Mortal(Ridge):
    def _fit(self, x, y):
        counted = Path(__file__).with_suffix(".txt")
        with counted.open("a") as file:
            file.write("x")
        if counted.stat().st_size == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._fit(x, y)
"""


def test_a_killed_worker_costs_its_group_and_no_other(build, world, tmp_path):
    plugin = tmp_path / "mortal.py"
    plugin.write_text(MORTAL)
    recipe = build.recipe({"head": ["ridge", f"{plugin}:Mortal", "knn"], "folds": 2})
    workers = Workers(jobs=2, logs=str(tmp_path / "logs"))
    pool = train(recipe, world.features, world.clips, folder=tmp_path / "killed", jobs=workers)
    assert len(pool) == 3 and (tmp_path / "mortal.txt").stat().st_size == 1 + 2
    begun = sum(log.read_text().count(" begins") for log in (tmp_path / "logs").iterdir())
    # Three groups, one of them twice, and the predictions of three heads.
    assert begun == 3 + 1 + 3
    train(recipe, world.features, world.clips, folder=tmp_path / "whole", jobs=1)
    assert bytes_below(tmp_path / "killed") == bytes_below(tmp_path / "whole")


def test_a_head_that_kills_its_workers_is_left_out_and_costs_no_other(world, recipe, tmp_path, monkeypatch, caplog):
    mapped = []

    def deadly(task, groups, *, jobs, lost, **rest):
        """Every group with the seed 2 is lost."""
        mapped.append(([len(group.specs) for group in groups if isinstance(group, Group)], jobs))
        for group in groups:
            yield lost(group) if any(spec.seed == 2 for spec in getattr(group, "specs", ())) else task(group)

    monkeypatch.setattr(work.parallel, "map", deadly)
    pool = train(recipe, world.features, world.clips, folder=tmp_path, jobs=Workers(jobs=1))
    assert {spec.seed for spec in pool.specs if spec.head == "linear"} == {0, 1, 3, 4} and len(pool) == 6
    assert "linear a+b:all unit mse" in caplog.text and "was killed 3 times" in caplog.text
    # The group of that head again head by head, in other processes, after an empty one.
    (first, _), (second, few), *_ = mapped
    assert sum(first) == 7 and second[0] == 0 and set(second[1:]) == {1} and few.jobs == 2
    # When it alone is missing it does not look as if no worker could live.
    train(recipe, world.features, world.clips, folder=tmp_path, jobs=Workers(jobs=2))
    assert [0, 1] in [sizes for sizes, _ in mapped]


def test_what_workers_wrote_where_nobody_else_sees_it_is_said(world, build, tmp_path, monkeypatch, caplog):
    def in_the_dark(folder, data, digest, run):
        return run[0], None

    monkeypatch.setattr(predicting, "predict", in_the_dark)
    with pytest.raises(UsageError, match="No head could be trained"):
        train(build.recipe(), world.features, world.clips, folder=tmp_path, jobs=1)
    assert "all hosts have to share that folder" in caplog.text


def test_what_auto_means_is_asked_where_heads_are_trained(world, recipe, tmp_path, monkeypatch):
    wanted, asked = wanted_heads(recipe, world.features, world.clips, folder=tmp_path), []

    def far_away(task, tasks, *, jobs, device):
        asked.append((len(task.args[0]), [len(specs) for specs in tasks], jobs.address, device))
        yield "cuda", [Group(tuple(tasks[0]), 1)]

    monkeypatch.setattr(training.parallel, "map", far_away)
    cluster = Workers("dask", "tcp://far:8786")
    assert training._planned(wanted, Shard(), set(), cluster, "auto", False).device == "cuda"
    assert asked == [(1, [7], "tcp://far:8786", "auto")]
    assert training._planned(wanted, Shard(), set(), cluster, "cpu", False).device == "cpu" and len(asked) == 1


def test_on_gpus_shards_are_whole_groups_of_the_whole_grid(world, recipe, tmp_path, monkeypatch):
    def with_a_gpu(features, exact, device, specs):
        return "cuda", plan(specs, features, "cpu", exact=exact, jobs=1)

    monkeypatch.setattr(training, "plan_there", with_a_gpu)
    wanted = wanted_heads(recipe, world.features, world.clips, folder=tmp_path)
    every = plan(wanted.specs.values(), world.features, "cpu", exact=False, jobs=1)
    parts = [training._planned(wanted, Shard(number, 3), set(), Workers(), "auto", False) for number in (1, 2, 3)]
    assert sorted(map(repr, every)) == sorted(repr(group) for part in parts for group in part.groups)
    assert sorted(key for part in parts for key in part.own) == sorted(wanted.specs)
    biggest = max(every, key=lambda group: len(group.specs))
    assert len(biggest.specs) > 1
    rest = {key for key, spec in wanted.specs.items() if spec != biggest.specs[0]}
    (left,) = [
        group
        for number in (1, 2, 3)
        for group in training._planned(wanted, Shard(number, 3), rest, Workers(), "auto", False).groups
    ]
    assert left == biggest


def test_predictions_of_a_cluster_are_awaited_until_a_late_folder_shows_them(world, build, tmp_path, monkeypatch):
    pool = train(build.recipe(), world.features, world.clips, folder=tmp_path, jobs=1)
    (key,), late, slept = pool.keys, tmp_path / "late", []
    kept = runs.predictions(pool.folder, key, world.features, "digest")

    def sleep(seconds):
        slept.append(seconds)
        shutil.copytree(pool.folder / key, late / key)

    monkeypatch.setattr(predicting.time, "sleep", sleep)
    assert predicting._stored(late, [key], "digest") == {} and not slept
    found = predicting._stored(late, [key], "digest", patience=60)
    assert found[key].scores.tobytes() == kept.scores.tobytes() and slept == [1]


def test_there_are_no_more_processes_than_gpus(world, recipe, tmp_path, monkeypatch):
    def on_a_gpu(features, exact, device, specs):
        return "cuda", plan(specs, features, "cpu", exact=exact, jobs=1)

    def asked_of(data, folder, device, groups, workers):
        asked.append((device, workers.jobs))
        yield from ()

    asked, wanted = [], wanted_heads(recipe, world.features, world.clips, folder=tmp_path)
    monkeypatch.setattr(training, "plan_there", on_a_gpu)
    monkeypatch.setattr(training, "processes", lambda device: 2)
    monkeypatch.setattr(training, "train_groups", asked_of)
    for jobs in (1, 0, 8):
        training._train_missing(wanted, Shard(), Workers(jobs=jobs), "auto", False)
    assert asked == [("cuda", 1), ("cuda", 2), ("cuda", 2)]
