"""Heads that scikit-learn fits: stored as arrays, they predict what it predicts."""

import warnings

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load

from mmmos import recipe
from mmmos.ensembles.heads import classical
from mmmos.ensembles.heads.classical.linear import ESTIMATORS, SklearnLinearOptions
from mmmos.files import tensor_bytes

HEADS = {
    "ridge": classical.Ridge,
    "kernel_ridge": classical.KernelRidge,
    "svr": classical.SVR,
    "gaussian_process": classical.GaussianProcess,
    "knn": classical.KNN,
    "extra_trees": classical.ExtraTrees,
    "random_forest": classical.RandomForest,
    "gradient_boosting": classical.GradientBoosting,
    "sklearn_linear": classical.SklearnLinear,
}
# Parameters with which the estimators learn something from 12 features, other than their usual ones where these do not.
LINEAR = {name: {} for name in ESTIMATORS} | {
    "ElasticNet": {"alpha": 0.01, "l1_ratio": 0.2},
    "HuberRegressor": {"epsilon": 1.2, "max_iter": 200},
    "Lasso": {"alpha": 0.01},
    "LassoCV": {"cv": 3},
    "LinearSVR": {"epsilon": 0.05},
    "MultiTaskElasticNet": {"alpha": 0.01},
    "MultiTaskLasso": {"alpha": 0.01},
    "OrthogonalMatchingPursuit": {"n_nonzero_coefs": 6},
    "PLSRegression": {"n_components": 5},
    "QuantileRegressor": {"alpha": 0.001, "quantile": 0.5},
}
CASES = {name: (name, {}) for name in HEADS} | {
    estimator: ("sklearn_linear", {"estimator": estimator, "parameters": parameters})
    for estimator, parameters in LINEAR.items()
}
TREES = ("extra_trees", "random_forest", "gradient_boosting")
# Those whose numbers depend on the seed: with the features here the others use none.
SEEDED = (*TREES, "SGDRegressor", "LinearSVR", "sklearn_linear", "gaussian_process")


def make(case, seed=0, **options):
    name, usual = CASES[case]
    extra = {"sample": 100} if name == "gaussian_process" else {}
    return HEADS[name](options=extra | usual | options, seed=seed)


def data(clips, seed=0, layers=2, dim=6):
    """Blocks (clips, layers, dim) of random features, and scores of 4 axes that are linear in the last layer."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(clips, layers, dim)).astype(np.float32)
    y = x[:, -1] @ np.random.default_rng(99).normal(size=(dim, 4))
    return [x], (y / y.std()).astype(np.float32)


def flat(blocks):
    return blocks[0].reshape(len(blocks[0]), -1).astype(np.float64)


def fitted(case, seed=0, **options):
    (x, y), held = data(300, seed=1), data(80, seed=2)
    return make(case, seed, **options).fit(x, y, held)


@pytest.fixture(scope="module", params=CASES)
def trained(request):
    return request.param, fitted(request.param)


def test_a_head_recovers_a_planted_signal_on_clips_it_has_not_seen(trained):
    case, head = trained
    x, y = data(200, seed=3)
    found = [np.corrcoef(head.predict(x)[:, axis], y[:, axis])[0, 1] for axis in range(4)]
    assert min(found) > (0.6 if case in (*TREES, "knn") else 0.85), found


def test_a_restored_head_predicts_the_same_bits(trained):
    case, head = trained
    x, _ = data(50, seed=4)
    stored = load(tensor_bytes(head.state()))
    assert not any("." in name for name in stored)
    assert make(case).restore(stored).predict(x).tobytes() == head.predict(x).tobytes()


def test_predictions_are_float32_of_one_row_a_clip_and_do_not_depend_on_the_other_clips(trained):
    _, head = trained
    x, _ = data(50, seed=4)
    predicted = head.predict(x)
    assert predicted.dtype == np.float32 and predicted.shape == (50, 4)
    assert head.predict([x[0][7:8]]) == pytest.approx(predicted[7:8], abs=1e-5)
    many = [np.tile(x[0], (60, 1, 1))]
    assert head.predict(many) == pytest.approx(np.tile(predicted, (60, 1)), abs=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_one_other_numbers(trained):
    case, head = trained
    x, _ = data(20, seed=4)
    assert fitted(case).predict(x).tobytes() == head.predict(x).tobytes()
    assert (fitted(case, seed=1).predict(x).tobytes() != head.predict(x).tobytes()) == (case in SEEDED)


@pytest.mark.parametrize("case", ["random_forest", "gradient_boosting", "gaussian_process", "SGDRegressor"])
def test_fitting_leaves_the_random_state_of_the_process_alone(case):
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    fitted(case)
    assert np.random.rand() == expected


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("constant", ["features", "some features", "targets", "one axis", "both"])
def test_constants_do_no_harm(case, constant):
    (x, y), (hx, hy) = data(30, seed=1), data(10, seed=2)
    if constant in ("features", "both"):
        x, hx = [np.ones_like(x[0])], [np.ones_like(hx[0])]
    if constant == "some features":
        x[0][:, 0], hx[0][:, 0] = 3, 3
    if constant in ("targets", "both"):
        y = np.zeros_like(y)
    if constant == "one axis":
        y[:, 2] = 0
    head = make(case).fit(x, y, (hx, hy))
    predicted = make(case).restore(load(tensor_bytes(head.state()))).predict(hx)
    assert np.isfinite(predicted).all()
    if constant in ("targets", "both"):
        assert predicted == pytest.approx(0, abs=0.11)
    if constant == "one axis" and case != "svr":
        assert predicted[:, 2] == pytest.approx(0, abs=1e-5)
    if constant == "features" and case not in ("svr", "random_forest", "gradient_boosting"):
        assert predicted == pytest.approx(np.tile(y.mean(0), (10, 1)), abs=1e-3)


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("PLSRegression", "OrthogonalMatchingPursuit")])
def test_few_clips_of_many_features_are_enough(case):
    (x, y), held = data(12, seed=1, dim=50), data(4, seed=2, dim=50)
    assert np.isfinite(make(case).fit(x, y, held).predict(held[0])).all()


def joint(machine, x, y):
    return machine.fit(x, y).predict


def by_axis(machine, x, y):
    """What fits one target, for every axis."""
    from sklearn.base import clone

    machines = [clone(machine).fit(x, column) for column in y.T]
    return lambda points: np.stack([each.predict(points) for each in machines], axis=1)


def reference(case, x, y):
    """The same model by scikit-learn alone, from what the options say."""
    from sklearn import cross_decomposition, ensemble, kernel_ridge, linear_model, neighbors, svm

    if case in LINEAR:
        of = {"PLSRegression": cross_decomposition, "LinearSVR": svm}.get(case, linear_model)
        machine = getattr(of, case)(**LINEAR[case])
        if case in ("SGDRegressor", "LinearSVR"):
            machine.set_params(random_state=0)
        return (joint if case in ("PLSRegression", "MultiTaskLasso", "MultiTaskElasticNet") else by_axis)(machine, x, y)
    gamma = 0.5 / ((x[:, None] - x[None]) ** 2).sum(-1).mean()
    centred = y - y.mean(0)
    if case == "ridge":
        singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
        return joint(linear_model.Ridge(0.5 * (singular**2).mean()), x, y)
    if case == "kernel_ridge":
        predict = joint(kernel_ridge.KernelRidge(kernel="rbf", alpha=0.2, gamma=gamma), x, centred)
        return lambda points: predict(points) + y.mean(0)
    if case == "svr":
        return by_axis(svm.SVR(C=2.0, epsilon=0.05, gamma=gamma), x, y)
    if case == "knn":
        return joint(neighbors.KNeighborsRegressor(7, algorithm="brute"), x, y)
    if case == "gradient_boosting":
        settings = {"n_estimators": 40, "learning_rate": 0.1, "max_depth": 3, "min_samples_leaf": 3}
        more = {"max_features": 0.3, "subsample": 0.7, "random_state": 0}
        return by_axis(ensemble.GradientBoostingRegressor(**settings, **more), x.astype(np.float32), y)
    kind = {"extra_trees": ensemble.ExtraTreesRegressor, "random_forest": ensemble.RandomForestRegressor}[case]
    return joint(kind(40, min_samples_leaf=3, max_features=0.4, random_state=0), x.astype(np.float32), y)


OPTIONS = {
    "ridge": {"alpha": 0.5},
    "kernel_ridge": {"alpha": 0.2, "gamma": 0.5},
    "svr": {"C": 2.0, "epsilon": 0.05, "gamma": 0.5},
    "knn": {"neighbours": 7},
    "extra_trees": {"trees": 40, "leaf": 3, "features": 0.4},
    "random_forest": {"trees": 40, "leaf": 3, "features": 0.4},
    "gradient_boosting": {"trees": 40, "lr": 0.1, "depth": 3, "leaf": 3, "features": 0.3, "sample": 0.7},
    **{name: {} for name in LINEAR},
}


@pytest.mark.parametrize(("case", "options"), OPTIONS.items())
def test_a_head_predicts_as_scikit_learn_does(case, options):
    (x, y), (points, _) = data(120, seed=1), data(40, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = reference(case, flat(x), y.astype(np.float64))(flat(points))
    head = make(case, **options).fit(x, y, data(8))
    # In float64, before the rounding to float32 that every prediction gets; trees store float32 leaves.
    found = head._predict(flat(points))
    assert found == pytest.approx(expected, abs=1e-6 if case in (*TREES, "knn") else 1e-9)


def noisy(clips, seed):
    """Scores that bend, with noise of standard deviation 0.3."""
    x, _ = data(clips, seed)
    rng = np.random.default_rng(seed)
    y = np.stack([np.sin(x[0][:, 0, axis]) + x[0][:, 1, axis] for axis in range(4)], 1)
    return x, (y + 0.3 * rng.normal(size=y.shape)).astype(np.float32)


@pytest.mark.parametrize("sample", [60, 500])
def test_a_gaussian_process_has_the_likeliest_kernel_and_the_mean_that_follows(sample):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    (blocks, y), (points, _) = noisy(150, 1), noisy(40, 2)
    x, mean = flat(blocks), y.astype(np.float64).mean(0)
    head = make("gaussian_process", sample=sample).fit(blocks, y, noisy(8, 3))
    drawn = np.random.default_rng(0).permutation(150)[:sample]
    noise, gamma = head._likeliest(x[drawn], (y - mean)[drawn])
    start = ConstantKernel(0.5) * RBF(8.0) + WhiteKernel(0.1)
    likeliest = GaussianProcessRegressor(start).fit(x[drawn], (y - mean)[drawn]).kernel_
    assert gamma == pytest.approx(0.5 / likeliest.k1.k2.length_scale**2, rel=0.01)
    assert noise == pytest.approx(likeliest.k2.noise_level / likeliest.k1.k1.constant_value, rel=0.01)
    kernel = RBF(np.sqrt(0.5 / gamma)) + WhiteKernel(noise)
    process = GaussianProcessRegressor(kernel, optimizer=None).fit(x, y - mean)
    assert head._predict(flat(points)) == pytest.approx(process.predict(flat(points)) + mean, abs=1e-6)


def test_ridge_chooses_a_strong_penalty_where_there_is_nothing_to_learn():
    (x, y), held = data(60, seed=1), data(8)
    noise = np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    sizes = [abs(make("ridge").fit(x, target, held).state()["coefficients"]).mean() for target in (y, noise)]
    assert sizes[1] < 0.2 * sizes[0]


def test_equally_near_neighbours_share_what_they_count():
    x = [np.array([0, 1, 1, 1, 5], np.float32).reshape(-1, 1, 1)]
    y = np.array([[8.0], [0], [3], [6], [100]], np.float32)
    point = [np.zeros((1, 1, 1), np.float32)]
    for order in ([0, 1, 2, 3, 4], [3, 0, 2, 4, 1]):
        for k, expected in ((1, 8), (2, (8 + 3) / 2), (3, (8 + 2 * 3) / 3), (4, 17 / 4), (9, 117 / 5)):
            head = make("knn", neighbours=k).fit([x[0][order]], y[order], (point, y[:1]))
            assert head.predict(point)[0, 0] == pytest.approx(expected)


def test_a_fit_that_stops_at_its_limit_is_used_without_a_warning():
    stopped = make("sklearn_linear", estimator="LinearSVR", parameters={"max_iter": 1, "C": 1000.0})
    (x, y), held = data(200, seed=1), data(8)
    assert np.isfinite(stopped.fit(x, y, held).predict(held[0])).all()


def test_a_value_that_scikit_learn_refuses_is_named():
    head = make("sklearn_linear", estimator="Lasso", parameters={"alpha": -1.0})
    with pytest.raises(ValueError, match=r"'alpha' parameter of Lasso must be .* Got -1\.0"):
        head.fit(*data(20), data(8))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"estimator": "Laso"}, "there is no estimator 'Laso'. Did you mean 'Lasso'? Known: BayesianRidge, "),
        ({"estimator": "lasso"}, "there is no estimator 'lasso'. Did you mean 'Lasso'?"),
        (
            {"estimator": "Lasso", "parameters": {"alpa": 1.0}},
            "there is no parameter of Lasso 'alpa'. Did you mean 'alpha'?",
        ),
        ({"estimator": "Lasso", "parameters": {"random_state": 1}}, "there is no parameter of Lasso 'random_state'."),
        ({"parameters": {"tol": "x"}}, "tol of LinearSVR is a finite number, true or false; got 'x'"),
        ({"parameters": {"tol": float("nan")}}, "tol of LinearSVR is a finite number, true or false; got nan"),
        ({"estimater": "Lasso"}, "unknown key 'estimater'. Did you mean 'estimator'?"),
    ],
)
def test_a_wrong_estimator_or_parameter_is_one_sentence(options, sentence):
    with pytest.raises(ValidationError) as caught:
        SklearnLinearOptions.model_validate(options)
    (found,) = recipe.sentences(caught.value, SklearnLinearOptions, "options")
    assert sentence in found


def test_parameters_keep_their_kind():
    options = SklearnLinearOptions(estimator="PLSRegression", parameters={"n_components": 3, "scale": False})
    assert repr(options.model_dump()["parameters"]) == "{'n_components': 3, 'scale': False}"
