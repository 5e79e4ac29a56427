"""Grids become heads, mistakes become sentences, and a run's key changes with what changes its numbers alone."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from mmmos.ensembles.data import gather
from mmmos.ensembles.grid import EnsembleRecipe
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training import keyed_specs
from mmmos.errors import RecipeError
from mmmos.recipe import parse

SETS = {"a": ("a0", "a1", "a2"), "b": ("b0",)}


def test_lists_are_alternatives_and_all_combinations_are_meant(build):
    recipe = build.recipe(
        {
            "head": ["mlp", "linear"],
            "features": ["a", ["a", "b"]],
            "layers": ["all", "mean"],
            "loss": ["mse", "ccc"],
            "seed": [0, 1, 2],
            "options": {"lr": [0.1, 0.2], "epochs": 3},
        }
    )
    specs = recipe.specs(SETS)
    assert len(specs) == len(set(specs)) == 2 * 2 * 2 * 2 * 3 * 2
    assert {spec.features for spec in specs} == {("a",), ("a", "b")}
    assert {(spec.options["lr"], spec.options["epochs"]) for spec in specs} == {(0.1, 3), (0.2, 3)}


def test_each_and_all_feature_sets(build):
    assert [s.features for s in build.recipe({"head": "ridge", "features": "each"}).specs(SETS)] == [("a",), ("b",)]
    assert [s.features for s in build.recipe({"head": "ridge"}).specs(SETS)] == [("a", "b")]


def test_equal_heads_of_two_tables_are_trained_once_in_the_order_of_the_recipe(build):
    explicit = {"head": "linear", "options": {"lr": 0.001}, "layers": "all", "loss": "mse"}
    specs = build.recipe({"head": ["svr", "linear"]}, explicit, {"head": ["ridge", "svr"]}).specs(SETS)
    assert [spec.head for spec in specs] == ["svr", "linear", "ridge"]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"head": "rigde"}, "no head 'rigde'. Did you mean 'ridge'?"),
        ({"head": "mlp", "loss": "cccc"}, "no loss 'cccc'. Did you mean 'ccc'?"),
        ({"head": "mlp", "options": {"hiden": 3}}, "unknown key 'hiden'. Did you mean 'hidden'?"),
        ({"head": "mlp", "options": {"hidden": [8, -1]}}, "options of mlp: hidden: input should be greater"),
        ({"head": "ridge", "features": ["aa"]}, "no feature set 'aa'. Did you mean 'a'?"),
        ({"head": "ridge", "features": "a", "layers": [["a1", "a7"]]}, "no layer of a 'a7'. Known: a0, a1, a2, all,"),
        ({"head": "ridge", "layers": ["lasst"]}, "no layer of a 'lasst'. Did you mean 'last'?"),
        ({"head": "ridge", "loss": "ccc"}, "'ridge' has a criterion of its own"),
        ({"head": "svr", "layers": "weighted"}, "'svr' learns no layer weights"),
        ({"head": "mlp", "loss": []}, "the list of alternatives of 'loss' is empty"),
        ({"head": "mlp", "layers": [[]]}, "the list of alternatives of 'layers' is empty"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_its_table(build, table, sentence):
    with pytest.raises(RecipeError) as caught:
        build.recipe({"head": "ridge"}, table).specs(SETS, "quick.toml")
    (problem,) = caught.value.problems
    assert problem.startswith("quick.toml: [[grid]] number 2: ") and sentence in problem


def test_all_mistaken_tables_are_named_at_once(build):
    with pytest.raises(RecipeError) as caught:
        build.recipe({"head": "x"}, {"head": "ridge"}, {"head": "y"}).specs(SETS)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('train = ["eval"]\n[[grid]]\nhead = "ridge"', "recipe:1: train: the evaluation set is never trained on"),
        (
            '[[grid]]\nhead = "ridge"\n[select]\non = "eval"',
            "recipe:4: select.on: the evaluation set is never selected",
        ),
        ('[[grid]]\nhead = "ridge"\n[select]\non = ["dev", "eval"]', "the evaluation set is never selected on"),
        ('[[grid]]\nhead = "ridge"\n[select]\non = []', "names no set"),
        ('axes = ["PQ", "CX"]\n[[grid]]\nhead = "ridge"', "no axis 'CX'"),
        ('[[grid]]\nhead = "ridge"\nlayer = "all"', "unknown key 'grid.0.layer'. Did you mean 'layers'?"),
    ],
)
def test_the_recipe_itself_is_checked(text, sentence):
    with pytest.raises(RecipeError) as caught:
        parse(text, EnsembleRecipe)
    assert len(caught.value.problems) == 1 and sentence.split("grid.0.")[-1] in caught.value.problems[0]


def test_holding_out_dev_while_training_on_it_is_refused(build):
    recipe = build.recipe({"head": "ridge", "folds": 1}, train=["train", "dev"])
    with pytest.raises(RecipeError, match="number 1: folds = 1 holds out the set dev"):
        recipe.specs(SETS)


def test_axes_go_by_any_of_their_names_and_count_once(build):
    assert build.recipe(axes=["Production_Quality", "PQ", "cu"]).axes == ["PQ", "CU"]


def test_specs_are_frozen_and_hashable():
    spec = HeadSpec(head="mlp", features=("a",), options={"hidden": 3})
    assert {spec: 1}[spec.model_copy()] == 1
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3


def test_the_key_changes_with_every_field():
    base = HeadSpec(head="mlp", features=("a", "b"))
    others = {
        "head": "linear",
        "features": ("b", "a"),
        "layers": ("a1",),
        "normalise": "raw",
        "samples": "windows",
        "loss": "ccc",
        "loss_options": {"margin": 0.2},
        "axes": ("PQ",),
        "seed": 1,
        "folds": 3,
        "calibration": "none",
        "options": {"hidden": 3},
    }
    assert set(others) == set(HeadSpec.model_fields)
    changed = [base.model_copy(update={name: value}) for name, value in others.items()]
    keys = {spec.key("data") for spec in [base, *changed]} | {base.key("other data")}
    assert len(keys) == len(others) + 2


def keys(build, world, features=None, **fields):
    recipe = build.recipe({"head": "ridge", **fields})
    return set(keyed_specs(recipe, gather(recipe, features or world.features, world.clips)))


@pytest.mark.parametrize("change", ["target", "group", "audio", "encoder", "order", "fewer clips"])
def test_the_key_changes_with_the_training_data(build, change):
    world = build.world()
    before, clips = keys(build, world), world.clips
    features = world.features
    if change == "target":
        clips.iloc[0, 0] += 0.5
    elif change == "group":
        clips.loc[clips.index[0], "group"] = "other"
    elif change == "audio":
        features = type(features)(features.ids, ("x", *features.keys[1:]), features.sets, features.status)
    elif change == "encoder":
        from dataclasses import replace

        sets = features.sets | {"a": replace(features["a"], fingerprint="other")}
        features = replace(features, sets=sets)
    elif change == "order":
        world = type(world)(features, clips.iloc[::-1])
    else:
        clips.loc[clips.index[0], "PQ"] = np.nan
    assert keys(build, world, features).isdisjoint(before)


@pytest.mark.parametrize("change", ["path", "system", "eval target", "eval audio", "pam target", "dev target"])
def test_the_key_does_not_change_with_what_no_head_learns_from(build, change):
    world = build.world()
    before, clips, features = keys(build, world), world.clips, world.features
    kind = change.split()[0]
    if change in ("path", "system"):
        clips[change] = "elsewhere"
    elif change == "eval audio":
        features = type(features)(features.ids, (*features.keys[:-1], "x"), features.sets, features.status)
    else:
        clips.loc[clips["set"] == kind, "PQ"] = 0.0
    assert keys(build, world, features) == before


def test_the_held_out_set_is_part_of_the_key_where_it_stops_training(build):
    world = build.world()
    before = keys(build, world, folds=1)
    world.clips.loc[world.clips["set"] == "dev", "PQ"] = 1.0
    assert keys(build, world, folds=1).isdisjoint(before)


def test_the_data_for_fitting_holds_no_other_clips_and_has_the_same_digest(build, world):
    recipe = build.recipe({"head": "ridge", "folds": 1}, train=["pam"])
    data = gather(recipe, world.features, world.clips)
    slim, (spec,) = data.for_fitting(), recipe.specs(SETS)
    assert set(slim.features.ids) == set(world.clips.index[world.clips["set"].isin(["pam", "dev"])])
    assert slim.digest(spec) == data.digest(spec)
    assert [slim.features.ids[row] for row in slim.rows] == [data.features.ids[row] for row in data.rows]


def test_clips_that_share_no_group_are_groups_of_their_own(build):
    world = build.world()
    world.clips["group"] = pd.Series([None, "g"] * (len(world.clips) // 2), index=world.clips.index, dtype=object)
    groups = gather(build.recipe(), world.features, world.clips).groups
    assert len(set(groups)) == 31 and all(isinstance(group, str) for group in groups)
