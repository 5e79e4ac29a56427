"""A Gaussian over all axes: its likelihood, its covariances, and how clips count by their ratings."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from mmmos.axes import AXES
from mmmos.ensembles.heads.neural import Batch
from mmmos.ensembles.heads.probabilistic import FLOOR, Gaussian, factor, gaussian_nll, rating_weights


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def numbers(axes):
    return Gaussian(options={}).outputs(axes)


# --- the likelihood ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_the_likelihood_is_that_of_a_multivariate_normal_but_for_a_constant(axes):
    outputs, y = noise(3, 5, numbers(axes)), noise(3, 5, axes, seed=1)
    lower = factor(outputs)
    assert torch.equal(lower, lower.tril()) and bool((lower.diagonal(dim1=-2, dim2=-1) > FLOOR).all())
    normal = torch.distributions.MultivariateNormal(outputs[..., :axes], scale_tril=lower)
    wanted = -normal.log_prob(y) - axes / 2 * math.log(2 * math.pi)
    assert torch.allclose(gaussian_nll(outputs, y), wanted, atol=1e-10)


def transcribed(outputs, y, penalty):
    """Of one clip, with loops and an explicit inverse."""
    axes = len(y)
    mean, diagonal, below = outputs[:axes], outputs[axes : 2 * axes], list(outputs[2 * axes :])
    lower = np.zeros((axes, axes))
    for row in range(axes):
        lower[row, row] = math.log(1 + math.exp(diagonal[row])) + FLOOR
        for column in range(row):
            lower[row, column] = below.pop(0)
    covariance, difference = lower @ lower.T, mean - y
    result = difference @ np.linalg.inv(covariance) @ difference / 2 + math.log(np.linalg.det(covariance)) / 2
    pairs = [covariance[row, column] for row in range(axes) for column in range(row)]
    return result + penalty * sum(max(0, -each) for each in pairs) / max(len(pairs), 1)


@pytest.mark.parametrize("axes", [1, 2, 4])
@pytest.mark.parametrize("penalty", [0.0, 0.1, 3.0])
def test_the_criterion_is_its_formula(axes, penalty):
    criterion = Gaussian(options={"penalty": penalty}).criterion()
    outputs, y = noise(2, 6, numbers(axes)), noise(2, 6, axes, seed=1)
    wanted = [[transcribed(outputs[h, c].numpy(), y[h, c].numpy(), penalty) for c in range(6)] for h in range(2)]
    assert criterion.of_clips(outputs, y).numpy() == pytest.approx(np.array(wanted), rel=1e-9)
    assert criterion(outputs, y).numpy() == pytest.approx(np.mean(wanted, axis=1), rel=1e-9)
    assert criterion(outputs[0], y[0]).item() == pytest.approx(np.mean(wanted[0]), rel=1e-9)
    assert torch.equal(criterion.scores(outputs), outputs[..., :axes])
    assert criterion.of_training(y[0].numpy(), np.ones((2, axes))) == {}
    assert criterion.embedding is None and criterion.anchored


@pytest.mark.parametrize("axes", [1, 2, 4])
def test_gradients_are_those_of_finite_differences(axes):
    y = noise(2, 4, axes, seed=1)
    outputs = noise(2, 4, numbers(axes)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gaussian_nll(x, y, 0.5), outputs)


@pytest.mark.parametrize("size", [1e-6, 30.0, 300.0])
def test_large_and_equal_outputs_have_finite_losses_and_gradients(size):
    for axes in (1, 4):
        for seed in range(20):
            outputs = (size * noise(1, 8, numbers(axes), seed=seed, dtype=torch.float32)).requires_grad_()
            y = noise(1, 8, axes, seed=seed, dtype=torch.float32)
            y[0, 0] = outputs.detach()[0, 0, :axes]
            loss = gaussian_nll(outputs, y, 0.1)
            loss.sum().backward()
            assert torch.isfinite(loss).all() and torch.isfinite(outputs.grad).all()


def fitted(y, penalty):
    """The outputs that suit samples best."""
    outputs = torch.zeros(1, 1, numbers(y.shape[-1]), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([outputs], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        gaussian_nll(outputs.expand(1, len(y), -1), y[None], penalty).mean().backward()
        optimiser.step()
    lower = factor(outputs.detach())[0, 0]
    return outputs.detach()[0, 0, : y.shape[-1]], lower @ lower.T


def test_the_optimum_is_the_mean_and_the_covariance_of_the_scores_also_where_that_is_small():
    mixing = torch.tensor([[0.3, 0.0, 0.0], [0.2, 0.2, 0.0], [-0.1, 0.1, 0.4]], dtype=torch.float64)
    y = noise(400, 3) @ mixing.T + torch.tensor([0.5, -1.0, 0.0])
    mean, covariance = fitted(y, 0.0)
    assert torch.allclose(mean, y.mean(0), atol=5e-3)
    assert torch.allclose(covariance, torch.cov(y.T), atol=5e-3)
    assert covariance.det() < 1e-2 and covariance[2, 0] < -0.01


def test_the_penalty_moves_negative_covariances_up_and_leaves_others_alone():
    y = noise(400, 2) @ torch.tensor([[1.0, -0.8], [0.0, 0.5]], dtype=torch.float64)
    covariances = [float(fitted(y, penalty)[1][0, 1]) for penalty in (0.0, 0.3, 10.0)]
    assert covariances[0] < covariances[1] - 0.02 < -0.05 and covariances[2] == pytest.approx(0, abs=0.03)
    assert float(fitted(y * torch.tensor([1, -1]), 0.3)[1][0, 1]) == pytest.approx(-covariances[0], abs=0.01)


# --- ratings ----------------------------------------------------------------------------------------------------------


def test_weights_are_inverse_variances_above_a_floor_with_the_mean_one():
    variance = np.array([0.0, 0.1, 0.2, 0.5, np.nan, np.nan])
    weights = rating_weights(variance)
    wanted = 1 / (variance[:4] + 0.2)
    assert weights.dtype == np.float32 and weights[:4] == pytest.approx(wanted / wanted.mean())
    assert weights[4:].tolist() == [1, 1] and weights.mean() == pytest.approx(1)
    assert weights[0] == pytest.approx(2 * weights[2])


@pytest.mark.parametrize("variance", [[], [np.nan, np.nan], [0.0, 0.0], [0.3, 0.3, 0.3], [0.7, np.nan]])
def test_clips_count_alike_where_ratings_say_nothing(variance):
    assert rating_weights(np.array(variance)).tolist() == [1] * len(variance)


def test_a_clips_variance_is_the_mean_over_the_axes_where_it_is_known():
    head = Gaussian(options={})
    assert head.columns() == tuple(f"{axis}_variance" for axis in AXES)
    table = pd.DataFrame({"PQ_variance": [0.1, np.nan, np.nan], "CU_variance": [0.3, 0.4, np.nan], "set": "train"})
    assert head.side(table, []) == {"weight": pytest.approx(rating_weights(np.array([0.2, 0.4, np.nan])))}
    assert head.side(table[["set"]], [])["weight"].tolist() == [1, 1, 1]
    without = Gaussian(options={"ratings": False})
    assert without.columns() == () and without.side(table, []) == {}


def test_training_weighs_clips_and_holding_out_does_not():
    head = Gaussian(options={"hidden": 4})
    module = head.build([(1, 3)], 2, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    output, y = module(Batch([noise(2, 5, 1, 3, dtype=torch.float32)])), noise(2, 5, 2, dtype=torch.float32)
    weight = torch.tensor([[0.0, 0, 5, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)
    objective = head.objective(output, y, {"weight": weight}, {})
    every = head.criterion().of_clips(output.outputs, y)
    assert objective.shape == (2,) and objective.dtype == torch.float32
    assert torch.allclose(objective, torch.stack([every[0, 2], every[1].mean()]))
    assert torch.allclose(head.objective(output, y, {}, {}), head.criterion()(output.outputs, y))


# --- what it predicts -------------------------------------------------------------------------------------------------


def test_predicted_uncertainty_follows_the_noise_and_comes_back_from_the_state(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 1, 4)).astype(np.float32)
    spread = np.where(x[:, 0, 0] > 0, 1.0, 0.1)[:, None]
    y = torch.from_numpy((x[:, 0, 1:3] + spread * rng.normal(size=(600, 2))).astype(np.float32))[None]
    head = Gaussian(options={"hidden": 32})
    module = head.build([(1, 4)], 2, [torch.Generator().manual_seed(0)])
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        head.objective(module(Batch([torch.from_numpy(x)[None]])), y, {}, {}).sum().backward()
        optimiser.step()
    head.learned([(1, 4)], 2, {name: parameter.detach()[0] for name, parameter in module.named_parameters()})
    deviations = head.deviations([x])
    loud = np.abs(x[:, 0, 0]) > 0.3
    assert deviations[loud & (x[:, 0, 0] > 0)].mean() == pytest.approx(1, abs=0.25)
    assert 0.07 < deviations[loud & (x[:, 0, 0] < 0)].mean() < 0.3

    covariance = head.covariance([x])
    assert covariance.shape == (600, 2, 2) and covariance.dtype == deviations.dtype == np.float32
    assert np.array_equal(covariance, covariance.transpose(0, 2, 1)) and np.linalg.eigvalsh(covariance).min() > 0
    assert deviations == pytest.approx(np.sqrt(covariance[:, [0, 1], [0, 1]]))
    assert np.corrcoef(head.predict([x])[:, 0], x[:, 0, 1])[0, 1] > 0.95

    again = Gaussian(options={"hidden": 32}).restore(head.state())
    assert again.predict([x]).tobytes() == head.predict([x]).tobytes()
    assert again.covariance([x]).tobytes() == covariance.tobytes()
    assert again.covariance([x[:0]]).shape == (0, 2, 2) and again.deviations([x[:0]]).shape == (0, 2)
    monkeypatch.setattr("mmmos.ensembles.heads.neural.ROWS", 256)
    assert again.covariance([x]) == pytest.approx(covariance, abs=1e-5)
