"""Every loss against a slow transcription of its formula, its gradient, its invariances and its optimum."""

import numpy as np
import pytest
import torch

from mmmos import registry
from mmmos.ensembles import calibration
from mmmos.ensembles.losses import loss
from mmmos.errors import UnknownName

NAMES = registry.names("losses")


def sign(x: float) -> int:
    return int(x > 0) - int(x < 0)


def slow(name, p, y):
    """The formulas of the papers and of the released code, with loops."""
    n = len(p)
    every = [(i, j) for i in range(n) for j in range(n)]
    mse = sum((a - b) ** 2 for a, b in zip(p, y, strict=True)) / n
    if name == "mse":
        return mse
    if name == "mae_mse":
        return mse + sum(abs(a - b) for a, b in zip(p, y, strict=True)) / n
    if name == "ccc":
        mp, my = sum(p) / n, sum(y) / n
        cov = sum((a - mp) * (b - my) for a, b in zip(p, y, strict=True)) / n
        vp, vy = sum((a - mp) ** 2 for a in p) / n, sum((b - my) ** 2 for b in y) / n
        spread = vp + vy + (mp - my) ** 2
        return 1 - 2 * cov / spread if spread else 0.0
    margins = [max(0, abs((p[i] - p[j]) - (y[i] - y[j])) - 0.1) for i, j in every if i != j]
    contrastive = sum(margins) / (n * (n - 1)) if n > 1 else 0.0
    if name == "contrastive":
        return contrastive
    if name == "utmos":
        return sum((a - b) ** 2 for a, b in zip(p, y, strict=True) if abs(a - b) > 0.5) / n + 0.5 * contrastive
    released = sum(((p[i] - p[j]) - (y[i] - y[j])) ** 2 for i, j in every) / n**2
    released -= sum((p[i] - p[j]) * sign(y[i] - y[j]) for i, j in every) / n**2
    return {"dcq_released": released, "dcq": mse + released}[name]


def batches():
    rng = np.random.default_rng(1)
    for n in (1, 2, 3, 9):
        yield rng.normal(size=n), rng.normal(size=n)
    ties = np.array([0.0, 0.0, 1.0, 1.0, 2.0])
    yield rng.normal(size=5), ties
    yield rng.normal(size=5), np.full(5, 0.7)
    yield np.full(5, 0.2), np.full(5, 0.7)
    yield ties, ties


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_its_formula(name):
    for p, y in batches():
        got = loss(name)(torch.tensor(p)[:, None], torch.tensor(y)[:, None])
        assert float(got) == pytest.approx(slow(name, list(p), list(y)), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_the_mean_of_its_axes(name):
    p, y = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = [float(loss(name)(p[:, [axis]], y[:, [axis]])) for axis in range(4)]
    assert float(loss(name)(p, y)) == pytest.approx(np.mean(parts), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    generator = torch.Generator().manual_seed(3)
    for n in (2, 5):
        p, y = torch.randn(2, n, 2, dtype=torch.float64, generator=generator)
        assert torch.autograd.gradcheck(lambda x, y=y: loss(name)(x, y), p.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_where_a_loss_degenerates(name):
    for p, y in [*batches(), (np.full(4, 0.3), np.full(4, 0.3)), (np.zeros(1), np.zeros(1))]:
        x = torch.tensor(p)[:, None].requires_grad_()
        loss(name)(x, torch.tensor(y)[:, None]).backward()
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("n", [1, 2, 4, 33])
def test_ccc_of_a_perfect_prediction_is_zero_at_any_batch_size(n):
    y = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    assert float(loss("ccc")(y, y)) == 0
    assert float(loss("ccc")(torch.full((n, 4), 0.1), torch.full((n, 4), 0.1))) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_offset_matters_unless_the_loss_is_made_of_differences(name):
    p, y = torch.randn(2, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    changed = abs(float(loss(name)(p + 3, y)) - float(loss(name)(p, y))) > 1e-9
    assert changed == (name not in ("contrastive", "dcq_released"))


def optimum(name, y):
    """Predictions that a loss likes best, found by gradient descent from noise around an offset."""
    torch.manual_seed(0)
    p = (torch.randn_like(y) + 0.8).requires_grad_()
    optimiser = torch.optim.Adam([p], lr=0.02)
    for _ in range(1500):
        optimiser.zero_grad()
        loss(name)(p, y).backward()
        optimiser.step()
    return p.detach()


@pytest.mark.parametrize("name", NAMES)
def test_anchored_losses_and_no_others_end_on_the_scale(name):
    y = torch.randn(64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = (y - y.mean()) / y.std()
    p = optimum(name, y)
    offset, ratio = float((p - y).mean()), float(p.std() / y.std())
    # UTMOS leaves errors below tau = 0.5 unpunished.
    on_scale = abs(offset) <= 0.5 and abs(ratio - 1) < 0.1
    assert on_scale == loss(name).anchored


@pytest.mark.parametrize("name", ["dcq", "dcq_released"])
def test_dcq_overshoots_and_affine_calibration_brings_it_back(name):
    y = torch.randn(96, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    p = optimum(name, (y - y.mean()) / y.std()).numpy()
    truth = y.numpy()
    standard = (truth - truth.mean()) / truth.std(ddof=1)
    assert p.std() / standard.std() > 1.1
    calibrated = calibration.apply(calibration.affine(p, truth), p)
    slope, offset = np.polyfit(calibrated[:, 0], truth[:, 0], 1)
    assert slope == pytest.approx(1) and offset == pytest.approx(0, abs=1e-9)


def test_a_calibration_does_not_turn_a_backward_head_round_and_ignores_clips_without_truth():
    truth = np.array([[1.0], [2.0], [3.0], [np.nan]])
    line = calibration.affine(-truth + 0.0, truth)
    assert line[0, 0] == 0 and calibration.apply(line, truth[:2])[:, 0] == pytest.approx(2)
    assert calibration.affine(np.full((3, 1), 7.0), truth[:3]).tolist() == [[1.0], [-5.0]]
    assert calibration.affine(truth[:1], truth[:1]).tolist() == [[1.0], [0.0]]


def test_an_unknown_loss_is_one_sentence():
    with pytest.raises(UnknownName, match=r"no loss 'utmoss'\. Did you mean 'utmos'"):
        loss("utmoss")
