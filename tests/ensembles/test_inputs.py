"""What heads see: chosen layers, normalised by the fitted clips alone."""

import numpy as np
import pytest

from mmmos.ensembles.heads.inputs import Standardiser, pooled
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.folds import grouped_folds
from mmmos.errors import UnknownName


def spec(**fields):
    return HeadSpec(**{"head": "ridge", "features": ("a", "b"), **fields})


def test_raw_layers_are_the_stored_numbers(world):
    a, b = pooled(spec(normalise="raw"), world.features).blocks
    assert (a == world.features["a"].raw).all() and (b == world.features["b"].raw).all()


def test_unit_vectors_have_length_one_and_zeros_stay(build):
    raw = np.random.default_rng(0).normal(size=(5, 2, 3))
    raw[2, 1] = 0
    (block,) = pooled(spec(features=("x",)), build.features({"x": raw}, list("abcde"))).blocks
    lengths = np.linalg.norm(block, axis=-1)
    assert lengths[2, 1] == 0 and np.delete(lengths.ravel(), 5) == pytest.approx(1)
    assert block[0] == pytest.approx(raw[0] / np.linalg.norm(raw[0], axis=-1, keepdims=True), abs=1e-6)


def test_layers_are_chosen_by_name(world):
    (block,) = pooled(spec(features=("a",), layers=("a2", "a0"), normalise="raw"), world.features).blocks
    assert (block == world.features["a"].raw[:, [2, 0]]).all()
    with pytest.raises(UnknownName, match="no layer of a 'a3'"):
        pooled(spec(features=("a",), layers=("a3",)), world.features)


def test_standardised_fitted_clips_have_mean_zero_and_deviation_one():
    rng = np.random.default_rng(0)
    fitted = rng.normal(3, 2, (50, 2, 4)).astype(np.float32)
    fitted[:, 0, 0] = 7
    standardise = Standardiser.fit([fitted])
    (done,) = standardise([fitted])
    assert done.mean(0) == pytest.approx(0, abs=1e-5)
    assert done.std(0).ravel()[1:] == pytest.approx(1, abs=1e-5) and (done[:, 0, 0] == 0).all()
    stored = Standardiser.from_state(standardise.state())
    assert (stored([fitted * 2])[0] == standardise([fitted * 2])[0]).all()


def test_standardisation_never_sees_held_out_clips(world, build):
    from mmmos.ensembles.training.data import gather
    from mmmos.ensembles.training.fitting import fit

    clips, recipe = world.clips, build.recipe({"head": "ridge", "normalise": "standard", "folds": 3})
    data = gather(recipe, world.features, clips)
    (head_spec,) = recipe.specs(["a", "b"])
    folds = grouped_folds(data.groups, 3)
    ((_, run),) = fit([head_spec], data)
    for fold, member in enumerate(run.members):
        inside = world.features["a"].raw[data.rows[folds != fold]]
        assert member.standardise.means[0] == pytest.approx(inside.mean(0, dtype=np.float64), abs=1e-6)
