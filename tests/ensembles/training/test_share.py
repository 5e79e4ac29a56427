"""Subsets of feature sets and shares of the training groups: what a grid spells, and what a head then learns from."""

from dataclasses import replace

import numpy as np
import pytest

from mmmos.ensembles.training.data import gather
from mmmos.ensembles.training.fitting import fit, pose
from mmmos.ensembles.training.folds import grouped_folds, part
from mmmos.errors import RecipeError, UsageError

SETS = {"a": ("a0", "a1", "a2"), "b": ("b0",)}
SHARES = (0.05, 0.2, 0.5, 0.51, 1.0)


def test_subsets_are_all_non_empty_choices_by_size(build):
    specs = build.recipe({"head": "ridge", "features": "subsets"}).specs(["x", "a", "m"])
    names = [("x",), ("a",), ("m",), ("x", "a"), ("x", "m"), ("a", "m"), ("x", "a", "m")]
    assert [spec.features for spec in specs] == names


def test_subsets_of_too_many_feature_sets_are_refused(build):
    recipe = build.recipe({"head": "ridge", "features": "subsets"})
    assert len(recipe.specs(list("abcdefgh"))) == 255
    with pytest.raises(RecipeError, match="8 feature sets at most, not 9, which have 511 subsets"):
        recipe.specs(list("abcdefghi"))


def test_shares_are_alternatives_and_named_where_they_are_not_all(build):
    specs = build.recipe({"head": "ridge", "share": [0.25, 1], "seed": [0, 2]}).specs(SETS)
    start = "ridge a+b:all unit"
    assert {spec.name for spec in specs} == {
        start + end for end in ("", " seed 2", " share 0.25", " share 0.25 seed 2")
    }


@pytest.mark.parametrize("share", [0, -0.1, 1.5, "half", [0.5, 0]])
def test_a_share_is_above_0_and_at_most_1(build, share):
    with pytest.raises(ValueError, match="share"):
        build.recipe({"head": "ridge", "share": share})


@pytest.mark.parametrize("seed", range(3))
def test_a_larger_share_has_all_groups_of_a_smaller_one(seed):
    groups = [f"g{i // 3}" for i in range(120)]
    fold = grouped_folds(groups, 4)
    kept = [part(groups, share, seed, fold) for share in SHARES]
    for share, smaller, larger in zip(SHARES, kept, kept[1:], strict=False):
        assert not (smaller & ~larger).any()
        assert len({group for group, own in zip(groups, smaller, strict=True) if own}) == np.ceil(share * 40)
        assert np.ptp(np.bincount(fold[smaller], minlength=4)) <= 3
    assert kept[-1].all()


def test_whole_groups_are_drawn_by_the_seed_whatever_the_order_of_the_clips():
    groups = np.array([f"g{i % 17}" for i in range(60)])
    fold = np.array(grouped_folds(list(groups), 3))
    kept, other = part(list(groups), 0.4, 0, fold), part(list(groups), 0.4, 1, fold)
    order = np.random.default_rng(0).permutation(60)
    assert (part(list(groups[order]), 0.4, 0, fold[order]) == kept[order]).all()
    assert len(set(zip(groups, kept, strict=True))) == 17 and (kept != other).any()


@pytest.fixture
def data(build, world):
    return gather(build.recipe(), world.features, world.clips)


def run_of(data, build, **fields):
    """A run of one head, and the mask of the training clips that it may learn from."""
    (spec,) = build.recipe({"head": "ridge", "normalise": "standard", "folds": 3, **fields}).specs(SETS)
    ((_, run),) = fit([spec], data)
    return run, np.isin(np.arange(len(data.rows)), pose(spec, data).learned)


@pytest.mark.parametrize("fields", [{}, {"calibration": "isotonic"}, {"folds": 1, "calibration": "affine"}])
def test_nothing_is_learned_from_the_other_groups(data, build, world, fields, one_thread):
    run, kept = run_of(data, build, share=0.4, **fields)
    changed = data.targets.copy()
    changed[~kept] = 9 - changed[~kept]
    again, _ = run_of(replace(data, targets=changed), build, share=0.4, **fields)
    assert 0.3 < kept.mean() < 0.5
    assert (run.predict(world.features) == again.predict(world.features)).all()
    assert (run.out_of_fold == again.out_of_fold).all()


def test_every_training_clip_is_predicted_out_of_the_same_folds(data, build, one_thread):
    small, _ = run_of(data, build, share=0.3)
    (spec,) = build.recipe({"head": "ridge", "folds": 3, "share": 0.3}).specs(SETS)
    whole, part_of = pose(spec.model_copy(update={"share": 1.0}), data), pose(spec, data)
    assert small.out_of_fold.shape == data.targets.shape and np.isfinite(small.out_of_fold).all()
    for (fitted, held), (some, same) in zip(whole.splits, part_of.splits, strict=True):
        assert (held == same).all() and set(some) < set(fitted)


def test_seeds_of_one_stack_learn_from_their_own_groups(data, build, one_thread):
    table = {"head": "linear", "share": 0.5, "seed": [0, 1], "folds": 2, "options": {"epochs": 3}}
    specs = build.recipe(table).specs(SETS)
    together = dict(fit(specs, data))
    assert set(pose(specs[0], data).learned) != set(pose(specs[1], data).learned)
    for spec in specs:
        ((_, alone),) = fit([spec], data)
        assert (alone.out_of_fold == together[spec].out_of_fold).all()


def test_a_share_that_leaves_a_fold_without_clips_is_a_sentence(data, build):
    (spec,) = build.recipe({"head": "ridge", "folds": 3, "share": 0.01}).specs(SETS)
    with pytest.raises(UsageError, match=r"share = 0\.01 leaves a fold with too little to fit \(clips: 0"):
        pose(spec, data)
