"""Heads learn a planted signal, are stored without loss, and are what they are said to be."""

import copy
import math

import numpy as np
import pytest
import torch

from mmmos import registry
from mmmos.ensembles import heads
from mmmos.files import tensor_bytes

NAMES = registry.names("heads")
NEURAL = ("layersum", "linear", "mlp")

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {
    "linear": {"lr": 0.03, "epochs": 40},
    "mlp": {"lr": 0.02, "hidden": 32, "epochs": 30},
    "layersum": {"lr": 0.02, "depth": 2, "epochs": 25},
    "extra_trees": {"trees": 60},
}


def make(name, seed=0, weighted=False, loss="mse", **options):
    return heads.make(name, options=QUICK.get(name, {}) | options, weighted=weighted, loss=loss, seed=seed)


def data(n, seed=0, layers=2, dim=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, layers, dim)).astype(np.float32)
    weights = np.random.default_rng(99).normal(size=(dim, 4))
    y = x[:, -1] @ weights
    return [x], (y / y.std()).astype(np.float32)


def fitted(name, seed=0, **options):
    (x, y), held = data(300, seed=1), data(80, seed=2)
    return make(name, seed, **options).fit(x, y, held)


@pytest.fixture(scope="module", params=NAMES)
def trained(request):
    return request.param, fitted(request.param)


def test_a_head_recovers_a_planted_signal_on_clips_it_has_not_seen(trained):
    name, head = trained
    x, y = data(200, seed=3)
    found = [np.corrcoef(head.predict(x)[:, axis], y[:, axis])[0, 1] for axis in range(4)]
    assert min(found) > (0.6 if name == "extra_trees" else 0.85), found


def test_a_restored_head_predicts_the_same_bits(trained):
    from safetensors.numpy import load

    name, head = trained
    x, _ = data(50, seed=4)
    stored = load(tensor_bytes(head.state()))
    assert make(name).restore(stored).predict(x).tobytes() == head.predict(x).tobytes()


def test_predictions_are_float32_of_one_row_a_clip_and_do_not_depend_on_the_other_clips(trained):
    _, head = trained
    x, _ = data(50, seed=4)
    predicted = head.predict(x)
    assert predicted.dtype == np.float32 and predicted.shape == (50, 4)
    assert head.predict([x[0][7:8]]) == pytest.approx(predicted[7:8], abs=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_one_other_numbers(trained):
    name, head = trained
    x, _ = data(20, seed=4)
    assert fitted(name).predict(x).tobytes() == head.predict(x).tobytes()
    other = fitted(name, seed=1).predict(x).tobytes() != head.predict(x).tobytes()
    assert other == (name in (*NEURAL, "extra_trees"))


def test_fitting_leaves_the_random_state_of_the_process_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    expected = (torch.rand(1), np.random.rand())
    torch.manual_seed(5)
    np.random.seed(5)
    for name in ("mlp", "extra_trees"):
        fitted(name)
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["features", "targets", "both"])
def test_constants_do_no_harm(name, case):
    (x, y), (hx, hy) = data(30, seed=1), data(10, seed=2)
    if case != "targets":
        x, hx = [np.ones_like(x[0])], [np.ones_like(hx[0])]
    if case != "features":
        y, hy = np.zeros_like(y), np.zeros_like(hy)
    head = make(name).fit(x, y, (hx, hy))
    predicted = make(name).restore(head.state()).predict(hx)
    assert np.isfinite(predicted).all()
    if case != "features" and name not in NEURAL:
        assert predicted == pytest.approx(0, abs=0.11)


def reference(name, x, y):
    """The same model by scikit-learn alone, from what the options say."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import Ridge
    from sklearn.svm import SVR

    if name == "extra_trees":
        return ExtraTreesRegressor(40, min_samples_leaf=3, max_features=0.4, random_state=0).fit(x, y).predict
    if name == "ridge":
        singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
        return Ridge(0.5 * (singular**2).mean()).fit(x, y).predict
    gamma = 0.5 / ((x[:, None] - x[None]) ** 2).sum(-1).mean()
    if name == "kernel_ridge":
        machine = KernelRidge(kernel="rbf", alpha=0.2, gamma=gamma).fit(x, y - y.mean(0))
        return lambda points: machine.predict(points) + y.mean(0)
    machines = [SVR(C=2.0, epsilon=0.05, gamma=gamma).fit(x, column) for column in y.T]
    return lambda points: np.stack([machine.predict(points) for machine in machines], axis=1)


CLASSICAL = {
    "ridge": {"alpha": 0.5},
    "kernel_ridge": {"alpha": 0.2, "gamma": 0.5},
    "svr": {"C": 2.0, "epsilon": 0.05, "gamma": 0.5},
    "extra_trees": {"trees": 40, "leaf": 3, "features": 0.4},
}


@pytest.mark.parametrize(("name", "options"), CLASSICAL.items())
def test_a_classical_head_predicts_as_scikit_learn_does(name, options):
    (x, y), (points, _) = data(120, seed=1), data(40, seed=2)
    flat = [block.reshape(len(block), -1).astype(np.float64) for block in (x[0], points[0])]
    expected = reference(name, flat[0], y.astype(np.float64))(flat[1])
    head = make(name, **options).fit(x, y, data(8))
    # In float64, before the rounding to float32 that every prediction gets; trees store float32 leaves.
    assert head._predict(flat[1]) == pytest.approx(expected, abs=1e-6 if name == "extra_trees" else 1e-9)


def test_ridge_chooses_a_strong_penalty_where_there_is_nothing_to_learn():
    (x, y), held = data(60, seed=1), data(8)
    noise = np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    sizes = [abs(make("ridge").fit(x, target, held).state()["coefficients"]).mean() for target in (y, noise)]
    assert sizes[1] < 0.2 * sizes[0]


def transcribed(state, blocks, depth, axis):
    """Audiobox's head with loops: softmax over layers, sum, unit length, (linear, layer norm, GELU)*, linear."""
    unit = []
    for number, block in enumerate(blocks):
        logits = state[f"mix.{axis}.weights.{number}"].astype(np.float64)
        weights = np.exp(logits) / np.exp(logits).sum()
        mixed = sum(w * block[:, layer].astype(np.float64) for layer, w in enumerate(weights))
        unit.append(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
    x = np.concatenate(unit, axis=1)
    for layer in range(depth):
        place = f"project.{axis}.{3 * layer}"
        x = x @ state[f"{place}.weight"].T.astype(np.float64) + state[f"{place}.bias"]
        if layer < depth - 1:
            norm = f"project.{axis}.{3 * layer + 1}"
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
            x = x * state[f"{norm}.weight"] + state[f"{norm}.bias"]
            x = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x[:, 0]


def test_layersum_is_audiobox_head():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(40, 3, 5)).astype(np.float32) * 9, rng.normal(size=(40, 2, 4)).astype(np.float32)]
    y = rng.normal(size=(40, 2)).astype(np.float32)
    head = make("layersum", depth=3, epochs=3).fit(blocks, y, ([block[:9] for block in blocks], y[:9]))
    expected = [transcribed(head.state(), blocks, 3, axis) for axis in range(2)]
    assert head.predict(blocks) == pytest.approx(np.stack(expected, axis=1), abs=1e-5)


@pytest.mark.parametrize("name", ["linear", "mlp", "layersum"])
def test_layer_weights_are_learned_and_find_the_layer_that_matters(name):
    (x, y), held = data(300, seed=1, layers=4), data(80, seed=2, layers=4)
    head = make(name, weighted=name != "layersum", lr=0.03).fit(x, y, held)
    names = [key for key in head.state() if "weights" in key]
    assert names and all(head.state()[key].argmax() == 3 for key in names)


def test_training_keeps_the_epoch_that_was_best_on_the_held_out_clips():
    (x, y), held = data(40, seed=1, dim=40), data(40, seed=2, dim=40)
    y = y + np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    long = make("mlp", lr=0.01, patience=200, epochs=120).fit(copy.deepcopy(x), y, held)
    last = make("mlp", lr=0.01, patience=200, epochs=120).fit(x, y, (x, y))
    assert ((long.predict(held[0]) - held[1]) ** 2).mean() < ((last.predict(held[0]) - held[1]) ** 2).mean()


@pytest.mark.parametrize("loss", ["ccc", "contrastive", "dcq"])
def test_a_training_set_of_one_batch_and_a_remainder_of_one_never_makes_a_batch_of_one(loss):
    (x, y), held = data(33, seed=1), data(1, seed=2)
    assert np.isfinite(make("linear", loss=loss, batch=32, epochs=3).fit(x, y, held).predict(x)).all()
