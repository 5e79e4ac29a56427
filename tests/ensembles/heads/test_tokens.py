"""The BLSTM over pooled vectors: one token for each vector, or for each feature set."""

import numpy as np
import pytest
import torch
from torch import nn

from mmmos.ensembles.heads.inputs import Pooled, Standardiser
from mmmos.ensembles.heads.neural import Batch
from mmmos.ensembles.heads.stack import Chance
from mmmos.ensembles.heads.tokens import BLSTM
from mmmos.ensembles.training.engine import trainer
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.ensembles.training.engine.trainer import feed_of
from mmmos.files import tensor_bytes

SHAPES = [(3, 6), (1, 5)]
SMALL = {"width": 7, "hidden": 4}

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(clips=5, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(clips, *shape)).astype(np.float32) for shape in SHAPES]


def literal(head, x, weighted):
    """Clip by clip with ``nn.LSTM`` in both directions, from what the head stores."""
    state = {name: torch.from_numpy(value) for name, value in head.state().items()}
    lstm = nn.LSTM(SMALL["width"], SMALL["hidden"], batch_first=True, bidirectional=True)
    parts = {"": "forwards", "_reverse": "backwards"}
    with torch.no_grad():
        for name, value in lstm.named_parameters():
            suffix = "_reverse" if name.endswith("_reverse") else ""
            value.copy_(state[f"lstm.{parts[suffix]}.0.{name.removesuffix('_reverse')}"])
        found = []
        for clip in range(len(x[0])):
            tokens = []
            for number, block in enumerate(x):
                vectors = torch.from_numpy(block[clip])
                if weighted:
                    shares = state[f"mixes.{number}.weights.0"][0].softmax(0)
                    vectors = sum(share * vector for share, vector in zip(shares, vectors, strict=True))[None]
                    vectors = vectors / vectors.norm()
                weight, bias = state[f"projections.{number}.weight"], state[f"projections.{number}.bias"]
                tokens += [weight @ vector + bias for vector in vectors]
            mean = lstm(torch.stack(tokens)[None])[0][0].mean(0)
            found.append(state["last.weight"] @ mean + state["last.bias"])
    return torch.stack(found).numpy()


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_what_it_says(untrained, weighted):
    head = untrained("blstm", SHAPES, weighted=weighted, **SMALL)
    if weighted:
        head.parameters["mixes.0.weights.0"] += torch.tensor([[0.5, -1.0, 2.0]])
    assert head.predict(blocks()) == pytest.approx(literal(head, blocks(), weighted), abs=1e-6)


def test_the_order_of_tokens_matters_and_other_clips_do_not(untrained):
    head, x = untrained("blstm", SHAPES, **SMALL), blocks()
    predicted = head.predict(x)
    assert head.predict([block[2:3] for block in x]) == pytest.approx(predicted[2:3], abs=1e-6)
    assert np.abs(head.predict([x[0][:, ::-1].copy(), x[1]]) - predicted).min() > 1e-6


@pytest.mark.parametrize("weighted", [False, True])
def test_every_parameter_gets_a_gradient_and_dropout_is_of_seed_and_step(untrained, weighted):
    head = untrained("blstm", SHAPES, weighted=weighted, depth=2, dropout=0.5, **SMALL)
    module = head.module().train().requires_grad_()
    given = [torch.from_numpy(block)[None] for block in blocks()]
    runs = [module(Batch(given, chance=Chance(torch.tensor([7]), step))).outputs for step in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    runs[0].square().sum().backward()
    assert all(value.grad.any() for name, value in module.named_parameters() if name != "mixes.1.weights.0")


def test_a_restored_head_predicts_the_same_bits(untrained):
    from safetensors.numpy import load

    for weighted in (False, True):
        head = untrained("blstm", SHAPES, weighted=weighted, loss="gaussian_nll", **SMALL)
        other = BLSTM(options=SMALL, weighted=weighted, loss="gaussian_nll", seed=9)
        other.restore(load(tensor_bytes(head.state())))
        assert head.predict(blocks()).shape == (5, 4)
        assert other.predict(blocks()).tobytes() == head.predict(blocks()).tobytes()


def test_the_engine_trains_it_to_find_a_planted_signal():
    x = blocks(160)
    y = x[0].sum(1) @ np.random.default_rng(9).normal(size=(6, 2)) + x[1][:, 0, :2]
    y = y / y.std(0)
    head = BLSTM(options=SMALL | {"lr": 0.02, "epochs": 25})
    member = Member(head, Standardiser([], []), np.arange(120), np.arange(120, 160), 7, 16, (0, 0))
    (trained,) = trainer.train([member], feed_of(Pooled(x), [member], "cpu"), SHAPES, y)
    assert min(np.corrcoef(trained.scores[:, axis], y[120:, axis])[0, 1] for axis in range(2)) > 0.85
    assert head.predict([block[120:] for block in x]) == pytest.approx(trained.scores, abs=1e-6)
