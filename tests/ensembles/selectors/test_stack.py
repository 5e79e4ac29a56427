"""Stacked weights against the constrained least squares written out."""

import numpy as np
import pytest
from scipy import optimize

from mmmos.ensembles import selectors
from mmmos.errors import UsageError


def residuals(pool, axis, name="pam"):
    y, p = pool.truth[name][:, axis], pool.scores[name][:, :, axis].astype(float)
    known = np.isfinite(y)
    found = y[known] - p[:, known]
    return (found - found.mean(axis=1, keepdims=True)).T / np.sqrt(known.sum())


def least(function, runs, bounds=None):
    """The weights that sum to 1 at which a function is least."""
    one = {"type": "eq", "fun": lambda w: w.sum() - 1}
    start = np.full(runs, 1 / runs)
    found = optimize.minimize(
        function, start, constraints=one, bounds=bounds, method="SLSQP", options={"ftol": 1e-14, "maxiter": 1000}
    )
    assert found.success
    return found.x


@pytest.mark.parametrize(("runs", "clips"), [(4, 30), (12, 8)])
@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_ridge_weights_are_those_of_the_penalised_problem(pools, runs, clips, alpha):
    pool = pools.make(1, runs=runs, clips=clips)
    selection = selectors.stack(pool, alpha=alpha)
    assert selection.members.tolist() == list(range(runs))
    for axis in (0, 1):
        e = residuals(pool, axis)
        penalty = alpha * np.sum(e.mean(axis=1) ** 2) / clips * runs**2
        expected = least(lambda w, e=e, p=penalty: np.sum((e @ w) ** 2) + p * np.sum((w - 1 / runs) ** 2), runs)
        assert selection.weights[:, axis] == pytest.approx(expected, abs=1e-4)
    assert selection.weights.sum(axis=0) == pytest.approx(1)


def test_a_strong_ridge_is_the_average_and_a_weak_one_least_squares(pools):
    pool = pools.make(2, runs=4, clips=40)
    assert selectors.stack(pool, alpha=1e9).weights == pytest.approx(0.25, abs=1e-6)
    expected = least(lambda w: np.sum((residuals(pool, 0) @ w) ** 2), 4)
    assert selectors.stack(pool, alpha=1e-9).weights[:, 0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_nnls_weights_are_the_best_of_the_simplex(pools, seed):
    pool = pools.make(seed, runs=6, clips=25)
    selection = selectors.stack(pool, method="nnls")
    assert (selection.weights >= 0).all() and selection.weights.sum(axis=0) == pytest.approx(1)
    for axis in (0, 1):
        e = residuals(pool, axis)
        weights = np.zeros(6)
        weights[selection.members] = selection.weights[:, axis]
        expected = least(lambda w, e=e: np.sum((e @ w) ** 2), 6, bounds=[(0, 1)] * 6)
        assert np.sum((e @ weights) ** 2) == pytest.approx(np.sum((e @ expected) ** 2), rel=1e-6)


def test_one_weight_may_serve_all_axes_and_sets_count_by_weight(pools):
    pool = pools.make(3, runs=5, clips=20)
    joint = selectors.stack(pool, method="nnls", per_axis=False)
    assert (joint.weights[:, 0] == joint.weights[:, 1]).all()
    both = selectors.stack(pool, on={"pam": 3, "dev": 1}, alpha=1e-9)
    e = np.concatenate([np.sqrt(3) * residuals(pool, 0), residuals(pool, 0, "dev")])
    assert both.weights[:, 0] == pytest.approx(least(lambda w: np.sum((e @ w) ** 2), 5), abs=1e-4)


def test_axes_without_truth_and_runs_that_are_not_finite(pools):
    pool = pools.make(4, runs=5, clips=20)
    pool.truth["pam"][:, 1] = np.nan
    pool.scores["pam"][2, 0, 0] = np.nan
    for method in ("ridge", "nnls"):
        selection = selectors.stack(pool, method=method)
        assert 2 not in selection.members and selection.weights.sum(axis=0) == pytest.approx(1)
        assert (selection.weights[:, 0] == selection.weights[:, 1]).all()


@pytest.mark.parametrize("method", ["ridge", "nnls"])
def test_a_perfect_run_and_equal_runs_are_no_trouble(pools, method):
    pool = pools.make(5, runs=4)
    pool.scores["pam"][2] = np.float32(pool.truth["pam"]) + 1
    assert selectors.stack(pool, method="nnls").members.tolist() == [2]
    pool.scores["pam"][:] = pool.scores["pam"][:1]
    assert selectors.stack(pool, method=method).weights.sum(axis=0) == pytest.approx(1)
    pool.scores["pam"][:] = np.float32(pool.truth["pam"])
    assert np.isfinite(selectors.stack(pool, method=method).weights).all()


@pytest.mark.parametrize("runs", [3, 30, 300])
def test_the_default_strength_is_no_worse_than_the_average_on_new_clips(pools, runs):
    gains = []
    for seed in range(6):
        pool = pools.make(seed, runs=runs, clips=60)
        pool.truth["new"], pool.scores["new"] = pool.truth.pop("dev"), pool.scores.pop("dev")
        errors = []
        for selection in (selectors.average(pool), selectors.stack(pool)):
            e = residuals(pool, 0, "new")[:, selection.members] @ selection.weights[:, 0]
            errors.append(np.sum(e**2))
        gains.append(errors[0] - errors[1])
    assert np.mean(gains) > 0


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"method": "lasso"}, "method must be 'ridge' or 'nnls'; got 'lasso'"),
        ({"alpha": 0}, "alpha must be a number above 0 up; got 0"),
        ({"alpha": "1"}, "alpha must be a number"),
        ({"per_axis": 1}, "per_axis must be True or False; got 1"),
    ],
)
def test_parameters_out_of_range_are_sentences(pools, parameters, sentence):
    with pytest.raises(UsageError, match=sentence):
        selectors.stack(pools.make(), **parameters)
