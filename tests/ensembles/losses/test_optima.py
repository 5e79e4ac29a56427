"""Where a loss leads: free predictions, one for each clip, that follow its gradient."""

from functools import cache

import numpy as np
import pytest
import torch

from mmmos import metrics, registry
from mmmos.ensembles import calibration
from mmmos.ensembles.losses import loss

NAMES = registry.names("losses")

# A loss leaves errors below this open, in standard deviations: dead zones, rounding to half a point.
DEAD_ZONE = {"contrastive": 0.1, "utmos": 0.1, "utmos22": 0.45, "clipped_l1": 0.9, "coral": 0.45}


@cache
def scores():
    """64 Gaussian scores in points, all different."""
    draw = np.random.default_rng(2).normal(size=(64, 1))
    return np.clip(5 + 1.5 * draw, 0.5, 9.5)


@cache
def optimum(name):
    """Standardised targets and the scores that a loss likes best, both (64,), from noise around an offset."""
    points, found = scores(), loss(name)
    scale = np.array([points.mean(0), points.std(0)])
    constants = {key: torch.tensor(values) for key, values in found.of_training(points, scale).items()}
    y = torch.tensor((points - scale[0]) / scale[1])
    noise = torch.randn(len(y), found.outputs, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    p = (noise + 0.8).requires_grad_()
    for lr, steps in ((0.05, 400), (0.005, 300)):
        optimiser = torch.optim.Adam([p], lr=lr)
        for _ in range(steps):
            optimiser.zero_grad()
            found(p, y, constants).backward()
            optimiser.step()
    return y.numpy()[:, 0], found.scores(p.detach(), constants).numpy()[:, 0]


@pytest.mark.parametrize("name", NAMES)
def test_free_predictions_end_in_the_order_of_their_targets(name):
    y, p = optimum(name)
    if name not in DEAD_ZONE:
        assert metrics.srcc(p, y) > 0.9999
    apart = (y[:, None] - y[None]) > DEAD_ZONE.get(name, 0.01)
    assert apart.sum() > 900
    assert ((p[:, None] - p[None])[apart] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_anchored_losses_and_no_others_end_on_the_scale(name):
    y, p = optimum(name)
    # UTMOS leaves any offset below its tau: 0.5, and 1.25 of 1.5 points.
    free = {"utmos": 0.5, "utmos22": 0.9, "clipped_l1": 0.1, "coral": 0.1}.get(name, 0.01)
    ratio = p.std() / y.std()
    on_scale = abs((p - y).mean()) < free and abs(ratio - 1) < 0.03
    assert on_scale == loss(name).anchored, (ratio, (p - y).mean())


def test_dcq_overshoots_as_its_algebra_says_and_calibration_brings_it_back():
    spread = {}
    for name, step in (("dcq", 3), ("dcq_released", 2)):
        y, p = optimum(name)
        ranks = np.sign(y[:, None] - y[None]).mean(1)
        assert p - p.mean() == pytest.approx(y + ranks / step, abs=2e-3)
        spread[name] = p.std() / y.std()
        points = scores()
        calibrated = calibration.fit("affine", p[:, None], points)(p[:, None])
        slope, offset = np.polyfit(calibrated[:, 0], points[:, 0], 1)
        assert slope == pytest.approx(1) and offset == pytest.approx(0, abs=1e-9)
    assert spread["dcq"] == pytest.approx(1.19, abs=0.01)
    assert spread["dcq_released"] == pytest.approx(1.28, abs=0.01)


def best_line(name, y, noise):
    """The slope and offset of predictions slope × (y + noise) + offset that a loss likes best."""
    x = torch.tensor(y + noise)
    line = torch.tensor([0.5, 0.5], dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        value = loss(name)((line[0] * x + line[1])[:, None], torch.tensor(y)[:, None])
        value.backward()
        return value

    optimiser.step(step)
    return line.detach().numpy()


def test_ccc_keeps_the_scale_where_mse_shrinks_it():
    rng = np.random.default_rng(0)
    y, noise = rng.normal(size=4000), rng.normal(size=4000)
    y = (y - y.mean()) / y.std()
    noise -= noise.mean()
    x = y + noise
    slope, offset = best_line("ccc", y, noise)
    assert slope * x.std() == pytest.approx(y.std(), rel=1e-3)
    assert offset == pytest.approx(0, abs=1e-3)
    slope, _ = best_line("mse", y, noise)
    assert slope * x.std() == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-3)


@pytest.mark.parametrize(("name", "wanted"), [("gaussian_nll", 0.8), ("laplace_nll", 0.8 * np.sqrt(2 / np.pi))])
def test_a_likelihood_learns_the_size_of_the_errors(name, wanted):
    """One score and one uncertainty for all clips: the mean or median, the deviation or the mean absolute one."""
    y = 0.8 * torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.4
    shared = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([shared], lr=0.02)
    for _ in range(500):
        optimiser.zero_grad()
        loss(name)(shared.expand(4000, 2), y).backward()
        optimiser.step()
    score, uncertainty = shared.tolist()
    assert score == pytest.approx(0.4, abs=0.05)
    assert np.exp(uncertainty / 2 if name == "gaussian_nll" else uncertainty) == pytest.approx(wanted, rel=0.06)


def test_an_uncertainty_has_a_floor():
    outputs = torch.tensor([[0.4, -200.0]], dtype=torch.float64)
    for name in ("gaussian_nll", "laplace_nll"):
        assert float(loss(name)(outputs, outputs[:, :1])) == pytest.approx(np.log(0.03))
        assert float(loss(name, {"floor": 0.1})(outputs, outputs[:, :1])) == pytest.approx(np.log(0.1))


def test_soft_bins_pull_the_ends_of_the_scale_inwards_as_documented():
    points = np.array([[0.0], [1.0], [5.3], [9.0], [10.0]])
    y = torch.tensor((points - 5) / 2)
    found = loss("soft_bins")
    constants = {k: torch.tensor(v) for k, v in found.of_training(points, np.array([[5.0], [2.0]])).items()}
    logits = torch.zeros(5, 20, dtype=y.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(1000):
        optimiser.zero_grad()
        found(logits, y, constants).backward()
        optimiser.step()
    got = found.scores(logits.detach(), constants).numpy() * 2 + 5 - points
    assert got[:, 0] == pytest.approx([0.35, 0.03, 0, -0.03, -0.35], abs=0.01)
