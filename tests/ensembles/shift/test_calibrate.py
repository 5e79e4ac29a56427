"""What a recipe says against the shift reaches training and selection."""

import numpy as np
import pytest

from mmmos.ensembles.ensemble import check_rule, select, select_recipe
from mmmos.ensembles.training.train import train
from mmmos.errors import UnknownName, UsageError


def test_a_recipe_may_hold_heads_with_and_without_the_options(build, tmp_path):
    world = build.world()
    entry = {"head": "ridge", "normalise": "standard", "target": ["pam", "eval"]}
    recipe = build.recipe(entry | {"importance": [False, True], "leave_out": [0, 0.2]})
    pool = train(recipe, world.features, world.clips, folder=tmp_path)
    assert len(pool) == 1 + 2 * 3 and {spec.target for spec in pool.specs} == {None, "pam", "eval"}
    assert len({scores.tobytes() for scores in pool.scores["eval"]}) == 7


def test_a_calibrated_choice_moves_the_scale_and_keeps_ranks_and_members(build, tmp_path):
    world = build.world()
    clips = world.clips.copy()
    clips.loc[clips["set"] == "pam", ["CE", "CU"]] -= 1
    pool = train(build.recipe({"head": ["ridge", "svr"]}), world.features, clips, folder=tmp_path)
    plain = select(pool, "top_k", k=1)
    moved = select(pool, select_recipe(plain.rule, calibrate="pam"))
    assert moved.selection.members == plain.selection.members and moved.record()["rule"]["calibrate"] == "pam"
    before, after = plain.predict("eval"), moved.predict("eval")
    for axis in pool.axes:
        assert (np.argsort(before[axis]) == np.argsort(after[axis])).all()
    assert (after["CE"] - before["CE"]).mean() < -0.5 < (after["PQ"] - before["PQ"]).mean()
    assert moved.predict("pam")["CE"].mean() == pytest.approx(clips.loc[clips["set"] == "pam", "CE"].mean(), abs=0.3)


def test_nothing_is_calibrated_on_a_sealed_or_an_unknown_set():
    with pytest.raises(UsageError, match="nothing is calibrated on the evaluation set"):
        select_recipe("average", calibrate="eval")
    with pytest.raises(UnknownName, match="pan"):
        check_rule(select_recipe("average", calibrate="pan"), ["pam", "dev"])
