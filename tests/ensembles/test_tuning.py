"""Tuning finds good heads, trains nothing twice, goes on where it stopped, and leaves a recipe like any other."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from mmmos.ensembles import runs, tuning
from mmmos.ensembles.ensemble import select
from mmmos.ensembles.recipe import EnsembleRecipe
from mmmos.ensembles.training import work
from mmmos.ensembles.training.train import train
from mmmos.ensembles.tuning import tune
from mmmos.errors import RecipeError, SetupError, UnknownName, UsageError
from mmmos.recipe import parse

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra tune")

LINEAR = {
    "head": "linear",
    "features": ["a", ["a", "b"]],
    "layers": ["all", "mean"],
    "loss": ["mse", "ccc"],
    "seed": [0, 1],
    "folds": 2,
    "draw": 3,
    "options": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "epochs": {"low": 2, "high": 4}},
}
RIDGE = {"head": "ridge", "features": "each", "layers": "each", "folds": 2}


@pytest.fixture
def recipe(build):
    return build.recipe(LINEAR, RIDGE, select={"rule": "top_k", "on": "pam", "k": 2})


def bytes_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.*"))
        if path.is_file() and path.name != "times.json"
    }


@needs_optuna
def test_trials_are_different_heads_of_the_recipe_judged_by_the_mean_over_seeds(world, recipe, tmp_path):
    found = tune(recipe, world.features, world.clips, trials=14, folder=tmp_path)
    tables = {trial.table.model_dump_json() for trial in found.trials}
    assert len(tables) == len(found.trials) == 14
    assert {trial.table.head for trial in found.trials} == {"linear", "ridge"}
    assert all(1e-4 <= trial.table.options["lr"] <= 0.1 for trial in found.trials if trial.table.head == "linear")
    qualities = [trial.quality for trial in found.trials]
    assert qualities == sorted(qualities, reverse=True)
    trial = next(trial for trial in found.trials if trial.table.head == "linear")
    alone = recipe.model_copy(update={"grid": [trial.table]})
    pool = train(alone, world.features, world.clips, folder=tmp_path / "alone")
    assert len(pool) == 2 and set(pool.keys) == set(trial.runs)
    assert trial.quality == pytest.approx(pool.measure("pam").mean())
    assert list(found.table()) == ["name", "pam_utt_SRCC"] and len(found.table()) == 14


@needs_optuna
def test_the_layer_that_holds_the_signal_is_found(build, world, tmp_path):
    found = tune(build.recipe(RIDGE), world.features, world.clips, trials=4, on="oof", folder=tmp_path)
    assert len(found.trials) == 4
    assert (found.trials[0].table.features, found.trials[0].table.layers) == ([["a"]], "a1")


@needs_optuna
def test_the_same_call_trains_nothing_and_writes_the_same(world, recipe, tmp_path, fits):
    first = tune(recipe, world.features, world.clips, trials=10, folder=tmp_path)
    trained, written = len(fits), bytes_below(tmp_path)
    assert trained == sum(len(trial.runs) for trial in first.trials)
    second = tune(recipe, world.features, world.clips, trials=10, folder=tmp_path)
    assert len(fits) == trained and bytes_below(tmp_path) == written and second.trials == first.trials


@needs_optuna
def test_an_interrupted_tuning_goes_on_and_ends_the_same(world, recipe, tmp_path, monkeypatch):
    whole = tune(recipe, world.features, world.clips, trials=12, folder=tmp_path / "whole")
    batches = iter([None, KeyboardInterrupt])

    def interrupted(*arguments, real=tuning.train, **keywords):
        if (error := next(batches)) is not None:
            raise error
        return real(*arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(tuning, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(recipe, world.features, world.clips, trials=12, folder=tmp_path / "cut")
    done = len(list((tmp_path / "cut" / "recipe").iterdir()))
    assert 0 < done < sum(len(trial.runs) for trial in whole.trials)
    assert tune(recipe, world.features, world.clips, trials=12, folder=tmp_path / "cut").trials == whole.trials
    assert bytes_below(tmp_path / "cut") == bytes_below(tmp_path / "whole")


@needs_optuna
def test_more_trials_go_on_from_fewer_and_another_seed_asks_otherwise(world, recipe, tmp_path, fits):
    few = tune(recipe, world.features, world.clips, trials=5, folder=tmp_path)
    trained = len(fits)
    many = tune(recipe, world.features, world.clips, trials=9, folder=tmp_path)
    assert {trial.runs for trial in few.trials} < {trial.runs for trial in many.trials}
    assert len(fits) == trained + sum(len(t.runs) for t in many.trials) - sum(len(t.runs) for t in few.trials)
    other = tune(recipe, world.features, world.clips, trials=5, seed=1, folder=tmp_path)
    assert {trial.runs for trial in other.trials} != {trial.runs for trial in few.trials}


@needs_optuna
def test_every_command_works_on_what_is_written_and_nothing_is_trained_again(world, recipe, tmp_path, fits):
    found = tune(recipe, world.features, world.clips, trials=9, keep=4, folder=tmp_path)
    assert found.recipe == tmp_path / "recipe-tuned.toml" and found.kept == 4
    written = parse(found.recipe.read_text(encoding="utf-8"), EnsembleRecipe)
    assert written.select == recipe.select and written.train == recipe.train and len(written.grid) == 4
    assert not [entry for entry in written.grid if entry.draw]
    trained = len(fits)
    pool = train(str(found.recipe), world.features, world.clips, folder=tmp_path)
    assert len(fits) == trained
    assert list(pool.keys) == [key for trial in found.trials[:4] for key in trial.runs]
    assert len(select(pool, written.select)) == 2


@needs_optuna
def test_the_evaluation_set_is_never_looked_at(build, tmp_path):
    world, written = build.world(), []
    recipe = build.recipe({**LINEAR, "seed": 0})
    for number in range(2):
        found = tune(recipe, world.features, world.clips, trials=8, folder=tmp_path / str(number))
        written.append(found.recipe.read_bytes())
        is_eval = world.clips["set"] == "eval"
        world.clips.loc[is_eval, ["PQ", "PC", "CE", "CU"]] = world.clips.loc[
            is_eval, ["CU", "CE", "PC", "PQ"]
        ].to_numpy()
    assert written[0] == written[1]
    with pytest.raises(UsageError, match="the evaluation set is never selected on"):
        tune(recipe, world.features, world.clips, on="eval", folder=tmp_path)


@needs_optuna
def test_heads_that_fail_cost_themselves(build, world, tmp_path, caplog):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from mmmos.ensembles.heads.classical import Ridge\n\nclass Bad(Ridge):\n"
        "    def _fit(self, x, y):\n        raise ValueError('no')\n"
    )
    recipe = build.recipe({"head": ["ridge", f"{plugin}:Bad"], "normalise": ["unit", "standard"], "folds": 2})
    found = tune(recipe, world.features, world.clips, trials=4, folder=tmp_path)
    assert [trial.table.head for trial in found.trials[:2]] == ["ridge", "ridge"] and found.kept == 2
    assert all(np.isnan(trial.quality) for trial in found.trials[2:])
    with pytest.raises(UsageError, match="No head could be trained"):
        tune(build.recipe({"head": f"{plugin}:Bad"}), world.features, world.clips, folder=tmp_path, name="bad")


@needs_optuna
def test_names_and_numbers_are_written_so_that_they_are_read_again(build, world, tmp_path):
    odd = tmp_path / 'so "odd"' / "ä.py"
    odd.parent.mkdir()
    odd.write_text(
        "from mmmos.ensembles.heads.classical import Ridge\n\nclass MyOptions(Ridge.Options):\n"
        "    more: dict[str, bool | float | str] = {}\n\nclass Mine(Ridge):\n    Options = MyOptions\n"
    )
    options = {"more": [{"x y": 1e-5, "b": True}, {"c": 'a "word"\n'}], "alpha": 1e-05}
    recipe = build.recipe(
        {"head": f"{odd}:Mine", "options": options, "folds": 2}, train=["train", "pam"], axes=["PQ", "CU"]
    )
    found = tune(recipe, world.features, world.clips, trials=2, on="oof", folder=tmp_path)
    written = parse(found.recipe.read_text(encoding="utf-8"), EnsembleRecipe)
    assert written.model_dump(exclude={"description", "grid"}) == recipe.model_dump(exclude={"description", "grid"})
    assert written.grid == [trial.table for trial in found.trials]


@needs_optuna
def test_damaged_runs_are_trained_again_where_they_are_needed(build, world, tmp_path, fits, caplog):
    recipe = build.recipe({"head": "ridge", "folds": 2})
    key = tune(recipe, world.features, world.clips, trials=1, folder=tmp_path).trials[0].runs[0]
    runs.delete_run(tmp_path / "recipe-tuned", key)
    (tmp_path / "recipe" / key / runs.ARRAYS).write_bytes(b"")
    found = tune(recipe, world.features, world.clips, trials=1, folder=tmp_path)
    train(str(found.recipe), world.features, world.clips, folder=tmp_path)
    assert runs.load_run(tmp_path / "recipe-tuned", key).key == key


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"on": "pan"}, "no labelled set 'pan'. Did you mean 'pam'?"),
        ({"on": "train"}, "no labelled set 'train'"),
        ({"metric": "utt_SRC"}, "no metric 'utt_SRC'. Did you mean 'utt_SRCC'?"),
        ({"trials": 0}, "trials and keep are 1 at least"),
        ({"seed": -1}, "trials and keep are 1 at least, seed 0"),
    ],
)
def test_mistakes_are_sentences_before_anything_is_trained(build, world, tmp_path, given, sentence):
    with pytest.raises(UsageError) as caught:
        tune(build.recipe(RIDGE), world.features, world.clips, folder=tmp_path, **given)
    assert sentence in str(caught.value) and not any(tmp_path.iterdir())


def test_heads_that_hold_out_dev_have_no_out_of_fold_set(build, world, tmp_path):
    with pytest.raises(UnknownName, match="no labelled set 'oof'"):
        tune(build.recipe({"head": "linear", "folds": 1}), world.features, world.clips, on="oof", folder=tmp_path)


@needs_optuna
def test_a_mistake_in_the_recipe_is_the_recipes(build, world, tmp_path):
    with pytest.raises(RecipeError, match="number 1: There is no loss"):
        tune(build.recipe({"head": "mlp", "loss": "no"}), world.features, world.clips, folder=tmp_path)


def test_without_optuna_the_extra_is_named(build, world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SetupError, match=r"pip install 'mmmos\[tune\]'"):
        tune(build.recipe(), world.features, world.clips, folder=tmp_path)
    assert not any(tmp_path.iterdir())


@needs_optuna
def test_tuning_ends_where_the_recipe_has_no_more_heads(build, world, tmp_path):
    recipe = build.recipe({"head": "ridge", "features": "each", "normalise": ["unit", "standard"], "folds": 2})
    found = tune(recipe, world.features, world.clips, trials=40, folder=tmp_path)
    assert len(found.trials) == len({trial.name for trial in found.trials}) == 4


@needs_optuna
def test_a_proposal_whose_seeds_were_not_all_trained_is_not_kept(build, world, tmp_path, monkeypatch):
    def fit(specs, *rest, real=work.fit, **keywords):
        if any(spec.seed == 1 for spec in specs):
            raise ValueError("no")
        return real(specs, *rest, **keywords)

    monkeypatch.setattr(work, "fit", fit)
    recipe = build.recipe({"head": "extra_trees", "options": {"trees": 2}, "seed": [0, 1], "folds": 2})
    with pytest.raises(UsageError, match="No head could be trained"):
        tune(recipe, world.features, world.clips, trials=1, folder=tmp_path, jobs=1)


@needs_optuna
def test_proposals_that_all_fail_after_others_cost_themselves(build, world, tmp_path, monkeypatch):
    asked = []

    def failing(recipe, real=tuning.train, **given):
        asked.append(recipe)
        if len(asked) > 1:
            raise UsageError("No head could be trained")
        return real(recipe, **given)

    monkeypatch.setattr(tuning, "train", failing)
    recipe = build.recipe({"head": "ridge", "options": {"alpha": {"low": 0.1, "high": 10.0}}, "folds": 2, "draw": 1})
    found = tune(recipe, world.features, world.clips, trials=9, folder=tmp_path)
    assert [np.isnan(trial.quality) for trial in found.trials] == [False] * 8 + [True] and found.kept == 8
