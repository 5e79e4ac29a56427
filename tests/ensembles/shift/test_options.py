"""The options against shift: what they do to what heads learn from, and what they may not look at."""

from dataclasses import replace

import numpy as np
import pytest

from mmmos.axes import AXES
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.shift.anchoring import anchored
from mmmos.ensembles.shift.importance import bounded, importance, repeated
from mmmos.ensembles.shift.leaving_out import displacement
from mmmos.ensembles.training.data import gather
from mmmos.ensembles.training.fitting import pose
from mmmos.ensembles.training.train import train
from mmmos.ensembles.training.wanted import keyed_specs
from mmmos.errors import RecipeError, UnknownName, UsageError

SIZES = {"train": 160, "dev": 40, "pam": 80, "eval": 80}
IMPORTANCE = {"target": "eval", "importance": True}
LEAVE_OUT = {"target": "eval", "leave_out": 0.25, "normalise": "standard"}


@pytest.fixture(scope="module")
def world(build):
    """Eval lies off in the first two of the eight dimensions of "a": one by its mean, one by its deviation."""
    world = build.world(sizes=SIZES)
    a, rows = world.features["a"].raw.copy(), world.clips["set"] == "eval"
    a[rows, :, 0] += 1.5
    a[rows, :, 1] *= 5
    return type(world)(build.features({"a": a, "b": world.features["b"].raw}, list(world.clips.index)), world.clips)


def posed(build, world, entry, clips=None):
    recipe = build.recipe({"head": "ridge", "features": "a"} | entry)
    data = gather(recipe, world.features, world.clips if clips is None else clips)
    (spec,) = recipe.specs({"a": ["a0", "a1", "a2"]})
    return spec, data, pose(spec, data)


def test_rows_are_repeated_as_their_weights_say():
    weights = np.random.default_rng(0).gamma(1, size=200)
    rows = np.arange(20, 120)
    found = repeated(rows, weights)
    counts, wanted = np.bincount(found, minlength=200)[rows], 100 * weights[rows] / weights[rows].sum()
    assert len(found) == 100
    assert (np.abs(counts - wanted) < 1).all()
    assert (repeated(rows, np.ones(200)) == rows).all()


def test_weights_are_bounded_around_one():
    weights = bounded(np.linspace(-60, 60, 400))
    assert weights.mean() == pytest.approx(1)
    assert weights.max() / weights.min() <= 16 * (1 + 1e-12)
    assert (np.diff(weights) >= 0).all()


def test_importance_brings_a_covariate_towards_the_target(build, world):
    _, data, problem = posed(build, world, IMPORTANCE)
    _, _, plain = posed(build, world, {})
    x = world.features["a"].raw[:, 0, 0]
    target = x[data.unlabelled["eval"].rows].mean()
    for (fitted, held), (before, same) in zip(problem.splits, plain.splits, strict=True):
        assert len(fitted) == len(before) and set(fitted) <= set(before)
        np.testing.assert_array_equal(held, same)
        gap, was = target - x[data.rows[fitted]].mean(), target - x[data.rows[before]].mean()
        assert was > 1.2 and gap < 0.85 * was


def test_importance_is_the_same_each_time_and_of_learned_clips_alone(build, world):
    spec, data, problem = posed(build, world, IMPORTANCE | {"share": 0.5})
    weights = importance(spec, data, problem.learned)
    np.testing.assert_array_equal(weights, importance(spec, data, problem.learned))
    assert set(np.flatnonzero(weights)) == set(problem.learned)


def test_leave_out_hides_the_dimensions_that_moved_and_no_others(build, world):
    _, _, problem = posed(build, world, LEAVE_OUT)
    for standardise in problem.standardisers:
        hidden = np.isinf(standardise.scales[0])
        assert hidden.shape == (3, 8) and hidden[:, :2].all() and not hidden[:, 2:].any()
        (block,) = standardise(problem.inputs.blocks)
        assert np.isfinite(block).all() and (block[:, hidden] == 0).all()


def test_displacement_is_of_mean_and_deviation_and_knows_constants():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 1, 5)), rng.normal(size=(4000, 1, 5))
    y[..., 1] += 1
    y[..., 2] *= np.e
    x[..., 3] = y[..., 3] = 2.0
    x[..., 4], y[..., 4] = 2.0, 3.0
    apart = displacement(np.float32(x), np.float32(y))[0]
    assert apart[:4] == pytest.approx([0, 1, 1, 0], abs=0.1)
    assert apart[4] > 1e3


@pytest.mark.parametrize("option", [IMPORTANCE, LEAVE_OUT], ids=["importance", "leave_out"])
def test_every_kind_of_head_learns_with_the_options_and_eval_scores_change_nothing(build, world, tmp_path, option):
    heads = [{"head": "ridge"}, {"head": ["linear", "mlp"], "options": {"epochs": 2}}, {"head": "ridge", "folds": 1}]
    recipe = build.recipe(*({"features": "a"} | head | option for head in heads))
    clips = world.clips.copy()
    clips.loc[clips["set"] == "eval", list(AXES)] = clips.loc[clips["set"] == "eval", list(AXES)].to_numpy()[::-1]
    one, other = (
        train(recipe, world.features, table, folder=tmp_path / name)
        for name, table in (("a", world.clips), ("b", clips))
    )
    assert one.keys == other.keys and len(one) == 4
    for name in one.scores:
        np.testing.assert_array_equal(one.scores[name], other.scores[name])
    plain = train(
        build.recipe(*({"features": "a"} | head | {"normalise": option.get("normalise", "unit")} for head in heads)),
        world.features,
        world.clips,
        folder=tmp_path / "c",
    )
    assert set(plain.keys).isdisjoint(one.keys)
    assert not np.array_equal(plain.scores["eval"], one.scores["eval"])


def test_targets_are_in_the_key_when_they_are_looked_at_and_only_then(build, world):
    fewer = world.clips.drop(index=world.clips.index[world.clips["set"] == "eval"][:5])
    features = world.features.of(list(fewer.index))

    def keys(option):
        recipe = build.recipe({"head": "ridge", "features": "a"} | option)
        return [
            list(keyed_specs(recipe, gather(recipe, *each)))
            for each in ((world.features, world.clips), (features, fewer))
        ]

    whole, part = keys({})
    assert whole == part
    for option in (IMPORTANCE, LEAVE_OUT):
        whole, part = keys(option)
        assert whole != part


def test_names_say_which_options_are_used(build):
    entry = {"head": "ridge", "target": "pam", "importance": [False, True], "leave_out": [0, 0.2]}
    specs = build.recipe(entry | {"normalise": "standard"}).specs({"a": ["a0"]})
    ends = ["", " leave_out 0.2 for pam", " importance for pam", " importance leave_out 0.2 for pam"]
    assert [spec.name for spec in specs] == [f"ridge a:all standard{end}" for end in ends]
    assert specs[0].target is None


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"importance": True}, "need target"),
        ({"leave_out": 0.2, "normalise": "standard"}, "need target"),
        ({"target": "pam"}, "nothing looks at the target 'pam'"),
        ({"target": "pam", "leave_out": 0.2}, 'use normalise = "standard"'),
        (
            {"head": "blstm_t", "target": "pam", "leave_out": 0.2, "normalise": "standard"},
            "reads frames, and leave_out looks at pooled vectors",
        ),
    ],
)
def test_mistakes_in_a_table_are_sentences(build, entry, words):
    with pytest.raises(RecipeError, match=words):
        build.recipe({"head": "ridge"} | entry).specs({"a": ["a0"]})


def test_a_target_is_a_set_that_is_there_and_not_trained_on(build, world):
    with pytest.raises(UnknownName, match="evil"):
        gather(build.recipe({"head": "ridge", "target": "evil", "importance": True}), world.features, world.clips)
    with pytest.raises(UsageError, match="'pam' is a set to train on"):
        gather(
            build.recipe({"head": "ridge", "target": "pam", "importance": True}, train=["train", "pam"]),
            world.features,
            world.clips,
        )


def pool_of(scores, truth):
    ids = {name: tuple(f"{name}{i}" for i in range(each.shape[1])) for name, each in scores.items()}
    systems = dict.fromkeys(ids)
    return Pool("p", None, "", ("PQ", "CE"), (None,), ("k",), ids, scores, truth, systems)


def test_anchoring_brings_predictions_to_the_scale_of_a_set_and_does_not_show_its_own_fit():
    rng = np.random.default_rng(0)
    truth = rng.normal(4, 1, (200, 2))
    told = truth * [0.5, 1] + [3, 1.2] + rng.normal(0, 0.1, truth.shape)
    scores = {"pam": np.float32(told[None]), "eval": np.float32(told[None, :50])}
    pool = pool_of(scores, {"pam": truth})
    members, weights = np.array([0]), np.ones((1, 2))
    found = anchored(pool, members, weights, "eval", "pam")
    assert list(found.index) == list(pool.ids["eval"]) and list(found) == ["PQ", "CE"]
    assert ((found.to_numpy() - truth[:50]) ** 2).mean(axis=0) == pytest.approx([0.04, 0.01], rel=0.5)
    own = anchored(pool, members, weights, "pam", "pam")
    changed = truth.copy()
    changed[7] += 5
    other = anchored(pool_of(scores, {"pam": changed}), members, weights, "pam", "pam")
    assert own.iloc[7].to_numpy() == pytest.approx(other.iloc[7].to_numpy())
    assert not np.allclose(own, other)


def test_an_axis_that_the_set_ranks_backwards_is_shifted_and_keeps_its_ranks():
    told = np.random.default_rng(2).normal(5, 1, (30, 2))
    truth = np.stack([8 - told[:, 0], 2 * told[:, 1]], axis=1)
    scores = {"pam": np.float32(told[None]), "eval": np.float32(told[None])}
    found = anchored(pool_of(scores, {"pam": truth}), np.array([0]), np.ones((1, 2)), "eval", "pam").to_numpy()
    assert found[:, 0] - told[:, 0] == pytest.approx(np.full(30, truth[:, 0].mean() - told[:, 0].mean()), abs=1e-5)
    assert found[:, 1] == pytest.approx(truth[:, 1], abs=1e-5)


def test_domains_are_anchored_each_for_itself_where_they_hold_clips_enough():
    rng = np.random.default_rng(1)
    domain = np.array(["speech"] * 60 + ["music"] * 60 + ["rare"] * 5 + [""] * 20, dtype=object)
    truth = rng.normal(5, 1, (len(domain), 2))
    told = truth - np.where(domain == "music", 2, 0)[:, None]
    scores = {"pam": np.float32(told[None]), "eval": np.float32(told[None])}
    pool = replace(pool_of(scores, {"pam": truth}), domains={"pam": domain, "eval": domain})
    chosen = np.array([0]), np.ones((1, 2)), "eval", "pam"
    found, whole = anchored(pool, *chosen, by_domain=True).to_numpy(), anchored(pool, *chosen).to_numpy()
    large = np.isin(domain, ["speech", "music"])
    assert np.abs(found - truth)[large].max() < 1e-5 < np.abs(whole - truth)[large].min(axis=0).max()
    assert (found[~large] == whole[~large]).all()
    own = anchored(pool, *chosen[:2], "pam", "pam", by_domain=True).to_numpy()
    assert np.abs(own - truth)[large].max() < 1e-5


def test_nothing_is_anchored_on_the_evaluation_set():
    pool = pool_of({"eval": np.zeros((1, 4, 2), np.float32)}, {"eval": np.zeros((4, 2))})
    with pytest.raises(UsageError, match="sealed"):
        anchored(pool, np.array([0]), np.ones((1, 2)), "eval", "eval")
    with pytest.raises(UnknownName, match="dev"):
        anchored(pool, np.array([0]), np.ones((1, 2)), "eval", "dev")
