"""A calibration brings predictions to the scale of the scores and keeps their order, on clips it was not fitted to."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load
from scipy.stats import spearmanr

from mmmos.axes import AXES
from mmmos.ensembles import calibration
from mmmos.ensembles.ensemble import select
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import UnknownName, UsageError
from mmmos.files import tensor_bytes

FITTED = ("affine", "isotonic")


def curved(clips=400, seed=0, axes=3):
    """Scores, and predictions that follow them on a curve, shifted and with another spread."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(clips, axes))
    return np.tanh(signal) * [2, 0.3, 9][:axes] - 40, 5 + signal + 0.3 * rng.normal(size=signal.shape)


def error(kind, axis=0):
    prediction, truth = curved()
    new, expected = curved(seed=1)
    return ((calibration.fit(kind, prediction, truth)(new) - expected)[:, axis] ** 2).mean()


def pooled(p, y):
    """Centres of the blocks, with loops: bins of equally many clips, neighbours merged until their means ascend."""
    order = np.argsort(p)
    blocks = [[p[part].mean(), y[part].mean(), len(part)] for part in np.split(order, len(p) // 20)]
    i = 0
    while i < len(blocks) - 1:
        (px, py, pw), (qx, qy, qw) = blocks[i], blocks[i + 1]
        if py >= qy:
            weight = pw + qw
            blocks[i : i + 2] = [[(px * pw + qx * qw) / weight, (py * pw + qy * qw) / weight, weight]]
            i = max(i - 1, 0)
        else:
            i += 1
    return np.array(blocks)[:, :2].T


def test_affine_is_the_least_squares_line():
    prediction, truth = curved()
    for axis, column in enumerate(calibration.fit("affine", prediction, truth)(prediction).T):
        slope, offset = np.polyfit(prediction[:, axis], truth[:, axis], 1)
        assert column == pytest.approx(slope * prediction[:, axis] + offset, abs=1e-9)


def test_isotonic_passes_through_the_centres_of_the_pooled_blocks_and_goes_on_by_the_line():
    rng = np.random.default_rng(0)
    p = rng.normal(size=400)
    y = p + 2 * rng.normal(size=400)
    x, levels = pooled(p, y)
    assert 3 < len(x) < 20
    fitted = calibration.fit("isotonic", p[:, None], y[:, None])
    assert fitted(x[:, None])[:, 0] == pytest.approx(levels, abs=1e-9)
    assert fitted((x[:-1, None] + x[1:, None]) / 2)[:, 0] == pytest.approx((levels[:-1] + levels[1:]) / 2, abs=1e-9)
    outside = fitted(np.array([[x[0] - 2], [x[-1] + 3]]))[:, 0]
    assert outside == pytest.approx([levels[0], levels[-1]] + np.polyfit(p, y, 1)[0] * np.array([-2, 3]), abs=1e-9)


def test_isotonic_of_few_clips_is_the_line():
    prediction, truth = curved(39)
    fitted = [calibration.fit(kind, prediction, truth)(prediction) for kind in FITTED]
    assert fitted[0] == pytest.approx(fitted[1], abs=1e-9)


def test_clips_that_are_predicted_alike_share_a_bin():
    prediction = np.repeat([0.0, 1.0, 2.0], [190, 9, 1])[:, None]
    truth = np.arange(200.0)[:, None]
    found = calibration.fit("isotonic", prediction, truth)(np.array([[0.0], [1.0]]))[:, 0]
    assert found[0] == pytest.approx(truth[:190].mean()) and found[1] > found[0]
    order = np.random.default_rng(0).permutation(200)
    shuffled = calibration.fit("isotonic", prediction[order], truth[order])(prediction)
    assert shuffled == pytest.approx(calibration.fit("isotonic", prediction, truth)(prediction), abs=1e-9)


def test_isotonic_follows_a_curve_that_a_line_does_not():
    assert error("isotonic") < 0.8 * error("affine") < 0.1 * error("none")


@pytest.mark.parametrize("kind", FITTED)
def test_calibrated_predictions_have_the_mean_of_the_scores_and_do_not_depend_on_offset_and_scale(kind):
    prediction, truth = curved()
    calibrated = calibration.fit(kind, prediction, truth)(prediction)
    assert calibrated.mean(0) == pytest.approx(truth.mean(0), abs=0.01)
    moved = prediction * 7 + 1000
    assert calibration.fit(kind, moved, truth)(moved) == pytest.approx(calibrated, abs=1e-6)


@pytest.mark.parametrize("kind", FITTED)
def test_every_rank_is_kept_within_and_beyond_the_range_of_the_fit(kind):
    prediction, truth = curved(80)
    wide = np.random.default_rng(2).normal(-40, 12, size=(500, 3))
    calibrated = calibration.fit(kind, prediction, truth)(wide)
    assert (np.argsort(calibrated, axis=0) == np.argsort(wide, axis=0)).all()
    assert spearmanr(calibrated[:, 0], wide[:, 0])[0] == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10, width=32), st.floats(0, 10)), min_size=1, max_size=30))
def test_calibration_never_turns_two_predictions_round(pairs):
    p, y = (np.array(column)[:, None] for column in zip(*pairs, strict=True))
    points = np.linspace(-20, 20, 301)[:, None]
    for kind in FITTED:
        calibrated = calibration.fit(kind, p, y)(points)[:, 0]
        assert np.isfinite(calibrated).all() and (np.diff(calibrated) >= -1e-9).all()


@pytest.mark.parametrize("kind", FITTED)
def test_a_backward_head_predicts_the_mean_and_is_not_turned_round(kind):
    truth = np.arange(20.0)[:, None]
    assert calibration.fit(kind, -truth, truth)(truth * 3)[:, 0] == pytest.approx(9.5)


@pytest.mark.parametrize("kind", FITTED)
def test_an_axis_without_two_different_predictions_of_known_clips_is_only_shifted(kind):
    points = np.array([[3.0], [4.0]])
    unknown, one = np.full((3, 1), np.nan), np.array([[np.nan], [6.0], [np.nan]])
    constant = np.full((3, 1), 7.0) + np.array([[0], [1e-7], [0]])
    truth = np.array([[1.0], [2.0], [3.0]])
    assert calibration.fit(kind, truth, unknown)(points).tolist() == points.tolist()
    assert calibration.fit(kind, truth, one)(points).tolist() == [[7.0], [8.0]]
    assert calibration.fit(kind, constant, truth)(points)[:, 0] == pytest.approx([-2, -1])


@pytest.mark.parametrize("kind", FITTED)
def test_clips_without_truth_are_left_out_on_their_axis_alone(kind):
    prediction, truth = curved(50)
    gaps = truth.copy()
    gaps[10:30, 1] = np.nan
    some = np.r_[0:10, 30:50]
    found = calibration.fit(kind, prediction, gaps)(prediction)
    assert (found[:, [0, 2]] == calibration.fit(kind, prediction, truth)(prediction)[:, [0, 2]]).all()
    assert (found[:, 1] == calibration.fit(kind, prediction[some], truth[some])(prediction)[:, 1]).all()


def test_no_calibration_changes_nothing():
    prediction, truth = curved()
    assert calibration.fit("none", prediction, truth)(prediction).tobytes() == prediction.tobytes()
    assert calibration.identity(3)(prediction).tobytes() == prediction.tobytes()


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_a_stored_calibration_gives_the_same_bits_for_any_leading_dimensions(kind):
    prediction, truth = curved()
    fitted = calibration.fit(kind, prediction, truth)
    assert not any("." in name for name in fitted.state())
    stored = calibration.Calibration.from_state(load(tensor_bytes(fitted.state())))
    expected = fitted(prediction)
    assert stored(prediction).tobytes() == expected.tobytes()
    assert stored(prediction.reshape(4, 5, 20, 3)).tobytes() == expected.tobytes()
    assert (stored(prediction[7]) == expected[7]).all() and expected.dtype == np.float64


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match=r"no calibration 'isotonik'\. Did you mean 'isotonic'"):
        calibration.fit("isotonik", np.zeros((2, 1)), np.zeros((2, 1)))


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_a_cross_fitted_prediction_does_not_know_the_truth_of_its_fold(kind):
    prediction, truth = curved(60)
    fold = np.arange(60) % 3
    found = calibration.cross_fitted(kind, prediction, truth, fold)
    other = truth.copy()
    other[fold == 1] = np.random.default_rng(1).normal(size=(20, 3))
    changed = calibration.cross_fitted(kind, prediction, other, fold)
    assert (changed[fold == 1] == found[fold == 1]).all()
    assert (changed[fold != 1] == found[fold != 1]).all() == (kind == "none")
    alone = calibration.fit(kind, prediction[fold != 2], truth[fold != 2])
    assert (found[fold == 2] == alone(prediction[fold == 2])).all()


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_cross_fitting_within_one_fold_is_an_ordinary_fit(kind):
    prediction, truth = curved(60)
    found = calibration.cross_fitted(kind, prediction, truth, np.zeros(60, int))
    assert (found == calibration.fit(kind, prediction, truth)(prediction)).all()


def test_cross_fitting_takes_back_what_a_fit_gains_on_noise():
    rng = np.random.default_rng(0)
    prediction, truth = rng.normal(size=(2, 200, 40))
    for kind in FITTED:
        own = calibration.fit(kind, prediction, truth)(prediction)
        honest = calibration.cross_fitted(kind, prediction, truth, np.arange(200) % 5)
        spread = ((truth - truth.mean(0)) ** 2).mean()
        assert ((own - truth) ** 2).mean() < spread * 1.001 < ((honest - truth) ** 2).mean()


def pool_of(*specs):
    """A pool of heads that were never trained, with predictions of two clips."""
    specs = tuple(HeadSpec(features=("a",), **spec) for spec in specs)
    scores = np.random.default_rng(0).normal(size=(len(specs), 2, 4)).astype(np.float32)
    keys, truth = tuple(f"run{i}" for i in range(len(specs))), np.arange(8.0).reshape(2, 4)
    ids, systems = {"dev": ("x", "y")}, {"dev": None}
    return Pool("test", Path(), "", AXES, specs, keys, ids, {"dev": scores}, {"dev": truth}, systems)


@pytest.mark.parametrize("loss", ["contrastive", "dcq", "dcq_released", "soft_spearman"])
def test_a_loss_without_a_scale_is_averaged_only_when_calibrated(loss):
    pool = pool_of({"head": "ridge"}, {"head": "linear", "loss": loss, "calibration": "none"})
    with pytest.raises(UsageError) as caught:
        select(pool, "average")
    assert str(caught.value) == (
        f"The head {pool.specs[1].name!r} cannot be averaged with others: its loss {loss!r} leaves the scale of its"
        ' predictions open, and calibration = "none". Train it with calibration = "affine" or "isotonic".'
    )
    for kind in ("auto", "affine", "isotonic"):
        assert len(select(pool_of({"head": "ridge"}, {"head": "linear", "loss": loss, "calibration": kind}))) == 2


def test_heads_without_a_scale_stand_alone_and_those_with_one_need_no_calibration():
    loose = {"head": "linear", "loss": "contrastive", "calibration": "none"}
    assert len(select(pool_of(loose), "average")) == 1
    assert len(select(pool_of(loose, {"head": "ridge"}), "best", on="dev")) == 1
    anchored = [{"head": "ridge", "calibration": "none"}, {"head": "mlp", "loss": "utmos", "calibration": "none"}]
    assert len(select(pool_of(*anchored), "average")) == 2
    with pytest.raises(UsageError, match=r"linear a:all unit contrastive' \(and 1 more\) cannot be averaged"):
        select(pool_of(loose, {**loose, "seed": 1}, *anchored), "average")
