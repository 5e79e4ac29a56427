"""A spec is frozen, and a run's key changes with what changes its numbers alone."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.data import gather
from mmmos.ensembles.training.wanted import keyed_specs

SETS = {"a": ("a0", "a1", "a2"), "b": ("b0",)}


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
        "share": 0.5,
        "target": "pam",
        "importance": True,
        "leave_out": 0.2,
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
