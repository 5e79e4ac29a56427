"""Heads on pooled vectors learn a planted signal, are stored without loss, and depend on nothing but their data."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from mmmos import registry
from mmmos.ensembles import heads
from mmmos.ensembles.heads.inputs import Pooled, Standardiser
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.data import ABOUT
from mmmos.ensembles.training.engine import trainer
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.ensembles.training.engine.trainer import feed_of
from mmmos.files import tensor_bytes

NAMES = [name for name in registry.names("heads") if heads.reads(name) == "pooled"]
RANDOM = ("extra_trees", "random_forest")
CLIPS, HELD = 240, 60

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {
    "adversarial": {"lr": 0.02, "hidden": 32, "epochs": 30},
    "blstm": {"lr": 0.02, "epochs": 40},
    "gaussian": {"lr": 0.02, "hidden": 32, "epochs": 30},
    "layersum": {"lr": 0.01, "depth": 2, "epochs": 25},
    "linear": {"lr": 0.03, "epochs": 40},
    "mlp": {"lr": 0.02, "hidden": 32, "epochs": 30},
}


def spec(name, seed=0, weighted=False, **options):
    head_class = registry.load("heads", name)
    options = head_class.Options.model_validate(QUICK.get(name, {}) | options).model_dump()
    return HeadSpec(head=name, features=("x",), layers="weighted" if weighted else "all", seed=seed, options=options)


def data(n, seed=0, layers=2, dim=6):
    """Vectors whose last layer holds the signal, and standardised scores."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, layers, dim)).astype(np.float32)
    y = x[:, -1] @ np.random.default_rng(99).normal(size=(dim, 4))
    return x, (y / y.std()).astype(np.float32)


def fitted(name, x, y, **rest):
    """A head on the first clips, held out on the last HELD."""
    head, count = heads.make_of(spec(name, **rest)), len(x) - HELD
    if not heads.is_neural(name):
        return head.fit([x[:count]], y[:count], ([x[count:]], y[count:]))
    table = about(count)
    side = {key: np.pad(value, (0, HELD)) for key, value in head.side(table, [x[:count]]).items()}
    batch = min(head.options.batch, count)
    learn, held = np.arange(count), np.arange(count, len(x))
    member = Member(head, Standardiser([], []), learn, held, count // batch, batch, (head.seed, 0))
    feed = feed_of(Pooled([x]), [member], "cpu")
    trainer.train([member], feed, [x.shape[1:]], y.astype(np.float64), [side])
    return head


def about(count):
    import pandas as pd

    return pd.DataFrame({name: np.full(count, np.nan) for name in ABOUT})


@pytest.fixture(scope="module", params=NAMES)
def trained(request):
    return request.param, fitted(request.param, *data(CLIPS + HELD, seed=1))


def test_vectors_may_lie_in_a_file_that_cannot_be_written(trained):
    _, head = trained
    x, _ = data(20, seed=2)
    scores = head.predict([x])
    x.flags.writeable = False
    assert head.predict([x]).tobytes() == scores.tobytes()


def test_a_head_recovers_a_planted_signal_on_clips_it_has_not_seen(trained):
    name, head = trained
    x, y = data(200, seed=3)
    predicted = head.predict([x])
    found = [np.corrcoef(predicted[:, axis], y[:, axis])[0, 1] for axis in range(4)]
    assert min(found) > (0.5 if name in (*RANDOM, "knn") else 0.8), found


def test_a_restored_head_predicts_the_same_bits(trained):
    name, head = trained
    x, _ = data(50, seed=4)
    stored = load(tensor_bytes(head.state()))
    assert heads.make_of(spec(name)).restore(stored).predict([x]).tobytes() == head.predict([x]).tobytes()


def test_predictions_are_float32_of_one_row_a_clip_and_do_not_depend_on_the_other_clips(trained):
    _, head = trained
    x, _ = data(50, seed=4)
    predicted = head.predict([x])
    assert predicted.dtype == np.float32 and predicted.shape == (50, 4)
    assert head.predict([x[7:8]]) == pytest.approx(predicted[7:8], abs=1e-5)


def test_the_same_seed_gives_the_same_bits(trained):
    name, head = trained
    x, _ = data(20, seed=4)
    again = fitted(name, *data(CLIPS + HELD, seed=1))
    assert again.predict([x]).tobytes() == head.predict([x]).tobytes()


@pytest.mark.parametrize("name", [name for name in NAMES if heads.is_neural(name) or name in RANDOM])
def test_another_seed_gives_another_head(name):
    x, y = data(CLIPS + HELD, seed=1)
    options = {"epochs": 1} if heads.is_neural(name) else {}
    one, other = (fitted(name, x, y, seed=seed, **options).predict([x]) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_training_leaves_the_random_state_of_the_process_alone():
    def draw():
        return torch.rand(1).item(), np.random.rand()

    torch.manual_seed(5)
    np.random.seed(5)
    expected = draw()
    torch.manual_seed(5)
    np.random.seed(5)
    for name in NAMES:
        options = {"epochs": 1} if heads.is_neural(name) else {}
        fitted(name, *data(20 + HELD, seed=1), **options)
    assert draw() == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["features", "targets", "both"])
def test_constants_do_no_harm(name, case):
    x, y = data(30 + HELD, seed=1)
    x = np.ones_like(x) if case != "targets" else x
    y = np.zeros_like(y) if case != "features" else y
    options = {"epochs": 2} if heads.is_neural(name) else {}
    if name == "adversarial":
        options["domains"] = "random"
    assert np.isfinite(fitted(name, x, y, **options).predict([x])).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_single_axis_is_a_column(name):
    x, y = data(30 + HELD, seed=1)
    options = {"epochs": 1} if heads.is_neural(name) else {}
    assert fitted(name, x, y[:, :1], **options).predict([x]).shape == (len(x), 1)


@pytest.mark.parametrize("name", ["linear", "mlp", "layersum"])
def test_layer_weights_are_learned_and_find_the_layer_that_matters(name):
    x, y = data(CLIPS + HELD, seed=1, layers=4)
    state = fitted(name, x, y, weighted=name != "layersum", lr=0.03).state()
    weights = [state[key].reshape(-1, 4) for key in state if "mix.weights" in key]
    assert weights and all((each.argmax(-1) == 3).all() for each in weights)
