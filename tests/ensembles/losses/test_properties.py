"""What holds for every loss: gradients, degenerate batches, offsets, options."""

import inspect
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch

from mmmos import registry
from mmmos.ensembles.losses import loss
from mmmos.errors import UnknownName, UsageError

NAMES = registry.names("losses")
AXES = 2
SCORES = np.random.default_rng(0).uniform(1, 9, (40, AXES)).round(1)
SCALE = np.array([SCORES.mean(0), SCORES.std(0)])


def constants(name, dtype=torch.float64):
    return {key: torch.tensor(v, dtype=dtype) for key, v in loss(name).of_training(SCORES, SCALE).items()}


def batch(name, n, seed=3):
    """Outputs (n, axes × outputs) and targets (n, axes)."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(n, AXES * loss(name).outputs, dtype=torch.float64, generator=generator)
    return p, torch.randn(n, AXES, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    found, given = loss(name), constants(name)
    for n in (2, 5):
        p, y = batch(name, n)
        assert torch.autograd.gradcheck(lambda x, y=y: found(x, y, given), p.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_finite_where_a_loss_degenerates(name, dtype):
    p, y = batch(name, 6)
    level = torch.full_like(y, 0.3)
    cases = [(p[:1], y[:1]), (p, y.round()), (p, level), (p * 0, y), (p * 0 + 0.3, level), (p[:1] * 0, y[:1] * 0)]
    cases += [(p * 1e6, y), (p, y * 30)]
    if loss(name).outputs == 1:
        cases += [(y, y), (y[:1], y[:1]), (level, level), (p * 1e-8, y)]
    for predictions, targets in cases:
        x = predictions.to(dtype).detach().requires_grad_()
        value = loss(name)(x, targets.to(dtype), constants(name, dtype))
        value.backward()
        assert value.dtype == dtype
        assert torch.isfinite(value)
        assert torch.isfinite(x.grad).all()


def degenerate(name, p, y):
    return float(loss(name)(torch.tensor(p)[:, None], torch.tensor(y)[:, None]))


def test_degenerate_values_are_those_of_the_docstrings():
    for name in ("contrastive", "dcq_released"):
        assert degenerate(name, [0.4], [0.9]) == 0
    assert degenerate("ccc", [0.5], [0.9]) == pytest.approx(1)
    assert degenerate("ccc", [0.9], [0.9]) == 0
    assert degenerate("soft_spearman", [0.5], [0.9]) == 1
    assert degenerate("soft_spearman", [0.5, 0.1], [0.9, 0.9]) == 1
    assert degenerate("highratemos", [0.9, 0.9], [0.9, 0.9]) == 1
    assert degenerate("qamro_track1", [0.5, 0.7], [0.5, 0.5]) == degenerate("huber", [0.5, 0.7], [0.5, 0.5])


@pytest.mark.parametrize("n", [1, 2, 4, 33])
def test_ccc_of_a_perfect_prediction_is_zero_at_any_batch_size(n):
    y = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    assert float(loss("ccc")(y, y)) == 0
    assert float(loss("ccc")(torch.full((n, 4), 0.1), torch.full((n, 4), 0.1))) == 0


@pytest.mark.parametrize("name", [name for name in NAMES if loss(name).outputs == 1])
def test_a_constant_offset_matters_unless_the_loss_is_made_of_differences(name):
    p, y = batch(name, 8)
    offset = float(loss(name)(p + 3, y, constants(name))) - float(loss(name)(p, y, constants(name)))
    invariant = name in ("contrastive", "dcq_released", "soft_spearman")
    assert (abs(offset) < 1e-9) == invariant
    assert not (invariant and loss(name).anchored)


@pytest.mark.parametrize("name", ["soft_spearman", "ccc", "highratemos"])
def test_losses_on_agreement_are_in_their_range(name):
    for seed in range(20):
        p, y = batch(name, 6, seed)
        value = float(loss(name)(p, y))
        assert 0 <= value <= (np.inf if name == "highratemos" else 2)
    assert float(loss("ccc")(-y, y)) > 1
    assert float(loss("soft_spearman", {"temperature": 0})(-y, y)) == pytest.approx(2)


SETTINGS = [(name, option, value) for name in NAMES for option, value in loss(name).parameters().items()]


@pytest.mark.parametrize(("name", "option", "value"), SETTINGS)
def test_an_option_changes_the_value_and_its_default_does_not(name, option, value):
    p, y = batch(name, 8)
    z, known = torch.randn(2, 1, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    chance = torch.rand(1, AXES, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    targets = y.T[None]

    def total(setting):
        found = loss(name, {option: setting})
        return float(found(p, y, constants(name)) + found.of_embedding(z, targets, (known, targets + 0.1), chance)[0])

    plain = loss(name)(p, y, constants(name)) + loss(name).of_embedding(z, targets, (known, targets + 0.1), chance)[0]
    assert total(value) == float(plain)
    assert total(2 * value) != total(value)
    assert np.isfinite(total(0))


def test_published_constants_are_options():
    assert loss("utmos").parameters() == {"tau": 0.5, "margin": 0.1, "weight": 0.5}
    assert loss("utmos22").parameters() == {"tau": 0.25, "margin": 0.1, "weight": 0.5}
    assert loss("utmosv2").parameters() == {"margin": 0.2, "pair_weight": 0.7, "mse_weight": 0.2}
    assert loss("qamro").parameters() == {"margin": 0.2, "preference": 7.0, "weight": 1.0}
    assert loss("triplet").parameters()["alpha"] == 0.2
    assert loss("clipped_l1").parameters() == {"tau": 0.5}


def test_an_unknown_loss_or_option_is_one_sentence():
    with pytest.raises(UnknownName, match=r"no loss 'utmoss'\. Did you mean 'utmos'"):
        loss("utmoss")
    with pytest.raises(UnknownName, match=r"no option of the loss 'utmos' 'margn'\. Did you mean 'margin'"):
        loss("utmos", {"margn": 0.2})
    for value in (-1, float("nan"), float("inf"), "0.1", True):
        with pytest.raises(UsageError, match="margin of the loss 'utmos' is a number of 0 up"):
            loss("utmos", {"margin": value})


def test_every_loss_is_named_as_it_is_registered_and_says_its_range():
    points = entry_points(group="mmmos.losses")
    assert {point.name for point in points} == {point.load().name for point in points}
    for name in NAMES:
        found = loss(name)
        assert "Range " in inspect.getdoc(found.embedding or found.function), name
