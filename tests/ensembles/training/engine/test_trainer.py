"""Heads in a stack get what they would get alone, and what a plain loop of torch gives."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mmmos.ensembles.heads.inputs import Pooled, Standardiser
from mmmos.ensembles.heads.pooled import MLP, Linear
from mmmos.ensembles.losses import loss
from mmmos.ensembles.training.engine import trainer
from mmmos.ensembles.training.engine.adam import Adam
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.ensembles.training.engine.trainer import feed_of

CLIPS, HELD, DIM = 90, 20, 12
LOSSES = ("mse", "utmos", "ccc", "contrastive", "mae_mse", "dcq")


@pytest.fixture(autouse=True)
def _alone(one_thread):
    """In one thread, as heads are trained."""


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(CLIPS + HELD, 2, DIM)).astype(np.float32)
    y = x.reshape(len(x), -1) @ rng.normal(size=(2 * DIM, 4)) + rng.normal(size=(len(x), 4))
    return x, (y - y.mean(0)) / y.std(0)


def member(seed, name="mse", *, cls=MLP, weighted=False, held=HELD, **options):
    options = {"epochs": 6, "patience": 3, "batch": 16, **({"hidden": 8} if cls is MLP else {})} | options
    head = cls(options=options, loss=name, seed=seed, weighted=weighted)
    learn, out = np.arange(CLIPS), np.arange(CLIPS, CLIPS + held)
    return Member(head, Standardiser([], []), learn, out, CLIPS // 16, 16, (seed, 0))


def train(task, members, dtype=torch.float32):
    x, y = task
    feed = feed_of(Pooled([x]), members, "cpu", dtype)
    return trainer.train(members, feed, [(2, DIM)], y, dtype=dtype)


def same(one, other):
    names = one.head.parameters
    return list(names) == list(other.head.parameters) and all(
        torch.equal(names[name], other.head.parameters[name]) for name in names
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"depth": 2, "hidden": 7, "dropout": 0.4, "clip": 0.3, "weight_decay": 0.01},
        {"weighted": True},
        {"cls": Linear, "lr": 0.01},
    ],
)
def test_a_head_has_the_same_bits_alone_and_in_a_stack(task, options):
    def some():
        return [member(seed, name, **options) for seed, name in enumerate(LOSSES)]

    stack, alone = some(), some()
    together = train(task, stack)
    for number, one in enumerate(alone):
        (result,) = train(task, [one])
        assert same(one, stack[number]), LOSSES[number]
        assert result.scores.tobytes() == together[number].scores.tobytes()
        assert (result.best, result.epochs, result.loss) == (
            together[number].best,
            together[number].epochs,
            together[number].loss,
        )


def test_heads_stop_on_their_own_and_leave_the_others_as_they_were(task):
    def some():
        rates = [0.3, 0.003, 0.1, 0.001, 0.03, 0.002]
        return [member(seed, lr=lr, epochs=25, patience=1 + seed % 3) for seed, lr in enumerate(rates)]

    stack, alone = some(), some()
    together = train(task, stack)
    assert len({result.epochs for result in together}) > 2
    for number, one in enumerate(alone):
        (result,) = train(task, [one])
        assert result.epochs == together[number].epochs and same(one, stack[number])


def plain_loop(task, one, dtype):
    """The same training by an ordinary torch loop: nn.Linear, a new optimiser, one head."""
    x, y = (torch.from_numpy(np.asarray(each)).to(dtype) for each in task)
    options, criterion = one.head.options, loss(one.head.loss)
    draw = torch.Generator().manual_seed(one.seed())
    start = one.head.build([(2, DIM)], 4, [draw]).to(dtype)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * DIM, 8), nn.ReLU(), nn.Linear(8, 4)).to(dtype)
    for layer, source in ((model[1], start.hidden[0]), (model[3], start.last)):
        layer.weight.data, layer.bias.data = source.weight[0].T.clone(), source.bias[0].clone()
    adam = torch.optim.Adam(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    best, state = float("inf"), None
    for epoch in range(options.epochs):
        order = one.random(epoch, 0).permutation(one.fitted)[: one.steps * one.batch].reshape(one.steps, one.batch)
        for rows in order:
            adam.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            if options.clip:
                nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            adam.step()
        with torch.no_grad():
            value = float(criterion(model(x[one.held]), y[one.held]))
        if value < best:
            best, state = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    with torch.no_grad():
        return best, model(x[one.held]).numpy()


@pytest.mark.parametrize("name", LOSSES)
def test_a_stack_in_float64_is_a_plain_loop(task, name):
    rest = {"epochs": 3, "patience": 3}
    members = [member(seed, name, clip=0.5 * seed, weight_decay=0.02 * seed, **rest) for seed in range(3)]
    results = train(task, members, torch.float64)
    for one, result in zip(members, results, strict=True):
        best, scores = plain_loop(task, one, torch.float64)
        assert result.loss == pytest.approx(best, abs=1e-9)
        assert result.scores == pytest.approx(scores, abs=1e-6)


def test_other_losses_in_the_stack_change_nothing(task):
    mixed = [member(seed, LOSSES[seed]) for seed in range(4)]
    pure = [member(seed, LOSSES[2]) for seed in range(4)]
    train(task, mixed)
    train(task, pure)
    assert same(mixed[2], pure[2]) and not same(mixed[1], pure[1])


def test_heads_that_hold_out_different_numbers_of_clips_share_a_stack(task):
    stack = [member(0), member(1, held=7), member(2)]
    alone = member(1, held=7)
    results = train(task, stack)
    assert results[1].scores.shape == (7, 4) and results[0].scores.shape == (HELD, 4)
    train(task, [alone])
    assert same(alone, stack[1])


def test_heads_that_hold_out_different_numbers_of_clips_may_have_different_losses(task):
    stack, alone = [member(0, "mse"), member(1, "ccc", held=7)], member(1, "ccc", held=7)
    *_, together = train(task, stack)
    (result,) = train(task, [alone])
    assert same(alone, stack[1]) and result.loss == together.loss


def test_a_diverging_head_has_no_best_epoch_and_harms_nobody(task):
    stack = [member(0), member(1, lr=1e30, weight_decay=1e30), member(2)]
    results = train(task, stack)
    assert results[1].best == 0 and results[1].epochs == 3
    alone = member(2)
    train(task, [alone])
    assert same(alone, stack[2]) and np.isfinite(results[2].scores).all()


def test_the_best_epoch_is_kept_and_predicts_what_was_measured(task):
    one = member(3, lr=0.02, hidden=64, epochs=30, patience=30)
    (result,) = train(task, [one])
    assert 1 <= result.best < result.epochs == 30
    assert one.head.predict([task[0][one.held]]).tobytes() == result.scores.tobytes()


def test_seeds_and_folds_give_other_heads(task):
    other_fold = Member(**{**vars(member(0)), "stream": (0, 1)})
    stack = [member(0), member(1), other_fold]
    train(task, stack)
    assert not same(stack[0], stack[1]) and not same(stack[0], stack[2])


def test_held_out_losses_of_many_clips_are_means_over_pieces(monkeypatch, task):
    whole = train(task, [member(0, epochs=1)])[0].loss
    monkeypatch.setattr(trainer, "PIECE", 5)
    assert train(task, [member(0, epochs=1)])[0].loss == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("flushed", [True, False])
def test_numbers_too_small_for_the_exponent_are_treated_as_before_training(task, flushed):
    torch.set_flush_denormal(flushed)
    try:
        train(task, [member(0)])
        assert bool(torch.tensor(2.0**-126) * 0.5 == 0) is flushed
    finally:
        torch.set_flush_denormal(False)


def test_neighbours_of_one_rate_and_decay_are_updated_together_away_from_the_cpu():
    some = [member(seed, lr=lr) for seed, lr in enumerate((0.1, 0.1, 0.2, 0.2, 0.1))]
    module = some[0].head.build([(2, DIM)], 4, [torch.Generator() for _ in some])
    options = [each.head.options for each in some]
    spans = {device: Adam(copy.deepcopy(module).to(device), options, True)._spans for device in ("cpu", "meta")}
    assert [(span.first, span.end) for span in spans["meta"]] == [(0, 2), (2, 4), (4, 5)]
    assert [(span.first, span.end) for span in spans["cpu"]] == [(head, head + 1) for head in range(5)]
