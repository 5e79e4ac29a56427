"""Every loss against a slow transcription of its formula: loops over clips, no tensors."""

import math

import numpy as np
import pytest
import torch

from mmmos import registry
from mmmos.ensembles.losses import loss

NAMES = registry.names("losses")

# Training scores of one axis, points.
SCORES = [0.4, 1.0, 1.2, 3.0, 3.3, 3.9, 4.0, 5.5, 5.6, 5.7, 6.0, 6.1, 6.2, 6.9, 8.0, 9.7]
MEAN = sum(SCORES) / len(SCORES)
DEVIATION = math.sqrt(sum((s - MEAN) ** 2 for s in SCORES) / len(SCORES))


def sign(x):
    return int(x > 0) - int(x < 0)


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def every_pair(p, y):
    """(dp, dy, i, j) for all i, j, the diagonal included."""
    return [(p[i] - p[j], y[i] - y[j], i, j) for i in range(len(p)) for j in range(len(p))]


def mse(p, y):
    return mean((a - b) ** 2 for a, b in zip(p, y, strict=True))


def mae(p, y):
    return mean(abs(a - b) for a, b in zip(p, y, strict=True))


def huber(p, y, delta):
    errors = [abs(a - b) for a, b in zip(p, y, strict=True)]
    return mean(0.5 * e**2 if e <= delta else delta * (e - 0.5 * delta) for e in errors)


def clipped(p, y, tau, power):
    return mean(abs(a - b) ** power if abs(a - b) > tau else 0 for a, b in zip(p, y, strict=True))


def contrastive(p, y, margin=0.1):
    return mean(max(0, abs(dp - dy) - margin) for dp, dy, i, j in every_pair(p, y) if i != j)


def half_with_diagonal(p, y, margin):
    return 0.5 * mean(max(0, abs(dp - dy) - margin) for dp, dy, _, _ in every_pair(p, y))


def utmos22(p, y):
    p, y = [a * DEVIATION / 5 for a in p], [b * DEVIATION / 5 for b in y]
    return clipped(p, y, 0.25, 2) + 0.5 * half_with_diagonal(p, y, 0.1)


def rpc(p, y):
    quality = mean((dp - dy) ** 2 for dp, dy, _, _ in every_pair(p, y))
    return quality - mean(dp * sign(dy) for dp, dy, _, _ in every_pair(p, y))


def pamr(p, y, q):
    total, count = 0.0, 0
    for i in range(len(p)):
        for j in range(i + 1, len(p)):
            dy = y[i] - y[j]
            if dy == 0:
                continue
            weight = 1 + (7 - 1) * max(q[i], q[j])
            total += weight * max(0, -sign(dy) * (p[i] - p[j]) + 0.2 * abs(dy))
            count += 1
    return total / count if count else 0.0


def bin_of(score):
    return min(max(math.floor(score + 1e-4), 0), 9)


def qamro(p, y):
    counts = [sum(bin_of(s) == k for s in SCORES) for k in range(10)]
    by_frequency = sorted(range(10), key=lambda k: (-counts[k], k))
    table = {k: 0.0 if counts[k] / len(SCORES) < 0.03 else (9.5 - r) / 9.5 for r, k in enumerate(by_frequency)}
    points = [b * DEVIATION + MEAN for b in y]
    q = [table[bin_of(b)] for b in points]
    return mse(p, y) + mae(p, y) + pamr([a * DEVIATION + MEAN for a in p], points, q)


def qamro_track1(p, y):
    low, high = min(y), max(y)
    q = [(b - low) / (high - low) if high > low else 0 for b in y]
    return huber(p, y, 1.0) + pamr(p, y, q)


def ccc(p, y):
    mp, my = mean(p), mean(y)
    cov = mean((a - mp) * (b - my) for a, b in zip(p, y, strict=True))
    spread = mean((a - mp) ** 2 for a in p) + mean((b - my) ** 2 for b in y) + (mp - my) ** 2
    return 1 - 2 * cov / spread if spread else 0.0


def pearson(p, y):
    mp, my = mean(p), mean(y)
    cov = mean((a - mp) * (b - my) for a, b in zip(p, y, strict=True))
    spread = mean((a - mp) ** 2 for a in p) * mean((b - my) ** 2 for b in y)
    return cov / math.sqrt(spread) if spread > 1e-20 else 0.0


def highratemos(p, y):
    return mae(p, y) + contrastive(p, y) + 1 - pearson(p, y)


CENTRES = [10 * k / 19 for k in range(20)]
THRESHOLDS = [0.25 + 0.5 * k for k in range(20)]


def softmax(values):
    top = max(values)
    parts = [math.exp(v - top) for v in values]
    return [part / sum(parts) for part in parts]


def soft_bins(p, y):
    total = 0.0
    for logits, b in zip(p, y, strict=True):
        target = [math.exp(-((b * DEVIATION + MEAN - c) ** 2) / (2 * 0.625**2)) for c in CENTRES]
        target = [t / sum(target) for t in target]
        total += sum(t * math.log(t / q) for t, q in zip(target, softmax(logits), strict=True) if t > 0)
    return total / len(y)


def falling(outputs):
    logits = [outputs[0] + math.log(2) * sum(threshold < MEAN for threshold in THRESHOLDS)]
    for raw in outputs[1:]:
        logits.append(logits[-1] - math.log(1 + math.exp(raw)))
    return [1 / (1 + math.exp(-logit)) for logit in logits]


def coral(p, y):
    total = 0.0
    for outputs, b in zip(p, y, strict=True):
        for probability, threshold in zip(falling(outputs), THRESHOLDS, strict=True):
            above = b * DEVIATION + MEAN > threshold
            total -= math.log(probability if above else 1 - probability)
    return total / len(y)


def gaussian_nll(p, y):
    variances = [math.exp(s) + 0.03**2 for _, s in p]
    return mean(0.5 * ((a - b) ** 2 / v + math.log(v)) for (a, _), b, v in zip(p, y, variances, strict=True))


def laplace_nll(p, y):
    return mean(
        abs(a - b) / (math.exp(s) + 0.03) + math.log(math.exp(s) + 0.03) for (a, s), b in zip(p, y, strict=True)
    )


def soft_spearman(p, y):
    n = len(p)
    soft = [sum(1 / (1 + math.exp(-(p[i] - p[j]) / 0.5)) for j in range(n)) for i in range(n)]
    ranks = [sum(y[j] < y[i] for j in range(n)) + 0.5 * sum(y[j] == y[i] for j in range(n)) for i in range(n)]
    return 1 - pearson(soft, ranks)


SLOW = {
    "ccc": ccc,
    "clipped_l1": lambda p, y: clipped(p, y, 0.5, 1),
    "contrastive": contrastive,
    "coral": coral,
    "dcq": lambda p, y: mse(p, y) + rpc(p, y),
    "dcq_released": rpc,
    "gaussian_nll": gaussian_nll,
    "highratemos": highratemos,
    "huber": lambda p, y: huber(p, y, 1.0),
    "laplace_nll": laplace_nll,
    "mae_mse": lambda p, y: mae(p, y) + mse(p, y),
    "mse": mse,
    "qamro": qamro,
    "qamro_track1": qamro_track1,
    "soft_bins": soft_bins,
    "soft_spearman": soft_spearman,
    "triplet": mse,
    "triplet_batch": mse,
    "utmos": lambda p, y: clipped(p, y, 0.5, 2) + 0.5 * contrastive(p, y),
    "utmos22": utmos22,
    "utmosv2": lambda p, y: 0.7 * half_with_diagonal(p, y, 0.2) + 0.2 * mse(p, y),
}


def constants(name):
    found = loss(name).of_training(np.array(SCORES)[:, None], np.array([[MEAN], [DEVIATION]]))
    return {key: torch.tensor(values) for key, values in found.items()}


def batches(outputs):
    """Predictions and standardised targets: of many sizes, with ties, constant, perfect."""
    rng = np.random.default_rng(1)
    scores = (np.array(SCORES) - MEAN) / DEVIATION
    ties = np.repeat(scores[:3], 2)
    for y in (*(rng.choice(scores, n) for n in (1, 2, 3, 9)), ties, np.full(5, scores[4])):
        p = rng.normal(size=(len(y), outputs))
        for predictions in (p, np.full_like(p, 0.2)):
            yield predictions, y
        if outputs == 1:
            yield y[:, None], y


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_its_formula(name):
    found = loss(name)
    for p, y in batches(found.outputs):
        got = found(torch.tensor(p), torch.tensor(y)[:, None], constants(name))
        predictions = p[:, 0].tolist() if found.outputs == 1 else p.tolist()
        assert float(got) == pytest.approx(SLOW[name](predictions, y.tolist()), abs=1e-9)


def test_the_score_of_soft_bins_is_the_expected_bin_centre():
    logits = np.random.default_rng(2).normal(size=(5, 20)) * 3
    got = loss("soft_bins").scores(torch.tensor(logits), constants("soft_bins"))[:, 0] * DEVIATION + MEAN
    wanted = [sum(q * c for q, c in zip(softmax(row), CENTRES, strict=True)) for row in logits.tolist()]
    assert got.tolist() == pytest.approx(wanted)


def test_the_score_of_coral_is_half_a_point_for_each_threshold_passed():
    outputs = np.random.default_rng(3).normal(size=(5, 20)) + 1
    got = loss("coral").scores(torch.tensor(outputs), constants("coral"))[:, 0] * DEVIATION + MEAN
    assert got.tolist() == pytest.approx([0.5 * sum(falling(row)) for row in outputs.tolist()])
    ends = torch.tensor([[-50.0, *[0.0] * 19], [50.0, *[-50.0] * 19]], dtype=torch.float64)
    got = loss("coral").scores(ends, constants("coral"))[:, 0] * DEVIATION + MEAN
    assert got.tolist() == pytest.approx([0, 10])


@pytest.mark.parametrize("name", ["gaussian_nll", "laplace_nll"])
def test_the_score_of_a_likelihood_is_its_first_output(name):
    outputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loss(name).scores(outputs), outputs[:, ::2])


@pytest.mark.parametrize("name", NAMES)
def test_heads_and_axes_are_what_a_loop_over_them_gives(name):
    found = loss(name)
    generator, axes = torch.Generator().manual_seed(0), 4
    p = torch.randn(3, 6, axes * found.outputs, dtype=torch.float64, generator=generator)
    y = torch.randn(3, 6, axes, dtype=torch.float64, generator=generator)
    scores = np.random.default_rng(0).uniform(0, 10, (30, axes))
    made = found.of_training(scores, np.array([scores.mean(0), scores.std(0)]))
    rows = {key: torch.tensor(values) for key, values in made.items()}
    got = found(p, y, rows)
    for head in range(3):
        parts = []
        for axis in range(axes):
            here = slice(axis * found.outputs, (axis + 1) * found.outputs)
            row = {key: values[[axis]] for key, values in rows.items()}
            parts.append(float(found(p[head][:, here], y[head][:, [axis]], row)))
        assert float(got[head]) == pytest.approx(np.mean(parts), abs=1e-12)
    stacked = {key: values.expand(3, *values.shape) for key, values in rows.items()}
    assert torch.equal(found(p, y, stacked), got)
    assert torch.equal(found.scores(p, stacked), found.scores(p, rows))
