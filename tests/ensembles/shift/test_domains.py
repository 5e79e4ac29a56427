"""Distances between two sets of vectors, against definitions written out."""

import numpy as np
import pytest
from scipy import linalg, stats
from sklearn.metrics import roc_auc_score

from mmmos.ensembles.shift.domains import auc, frechet, ks, moved, reduced, target_odds


def two_sets(shift=0.0, sizes=(120, 60), dim=12, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(sum(sizes), dim))
    target = np.arange(len(x)) >= sizes[0]
    x[target] += shift
    return x, target


def written_out(values, counts):
    return np.repeat(values, counts)


@pytest.mark.parametrize("decimals", [8, 0])
def test_auc_and_ks_are_those_of_each_resample_written_out(decimals):
    rng = np.random.default_rng(1)
    value, target = rng.normal(size=50).round(decimals), np.arange(50) >= 30
    counts = np.hstack([rng.multinomial(30, np.full(30, 1 / 30), 5), rng.multinomial(20, np.full(20, 1 / 20), 5)])
    areas, distances = auc(value, target, counts), ks(value, target, counts)
    for own, area, distance in zip(counts, areas, distances, strict=True):
        v, t = written_out(value, own), written_out(target, own)
        assert area == pytest.approx(roc_auc_score(t, v), abs=1e-12)
        assert distance == pytest.approx(stats.ks_2samp(v[t], v[~t]).statistic, abs=1e-12)


def test_auc_is_near_a_half_for_one_distribution_and_near_one_for_two():
    for shift, low, high in ((0.0, 0.35, 0.65), (2.0, 0.98, 1.0)):
        x, target = two_sets(shift)
        odds = target_odds(reduced(x), target, [str(i) for i in range(len(x))])
        assert low <= auc(odds, target, np.ones((1, len(x)), int))[0] <= high


def test_a_clip_is_not_classified_by_its_own_group():
    """Copies of a clip on both sides of a split would be recognised; vectors are noise of each group."""
    rng = np.random.default_rng(2)
    groups = [f"g{i // 6}" for i in range(120)]
    x = np.repeat(rng.normal(size=(20, 30)), 6, axis=0)
    target = np.repeat(np.arange(20) % 2 == 0, 6)
    alone = auc(target_odds(x, target, groups), target, np.ones((1, 120), int))[0]
    leaking = auc(target_odds(x, target, [str(i) for i in range(120)]), target, np.ones((1, 120), int))[0]
    assert leaking > 0.9 > alone


def test_a_training_part_of_one_set_says_nothing():
    x, target = two_sets(1.0, sizes=(20, 20))
    odds = target_odds(x, target, ["a"] * 20 + ["b"] * 20)
    assert (odds == 0).all()


def test_frechet_is_the_textbook_formula():
    x, target = two_sets(0.7, dim=4, seed=3)
    a, b = x[~target], x[target] * [1, 2, 3, 0.5]
    c, d = np.cov(a.T, bias=True), np.cov(b.T, bias=True)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * linalg.sqrtm(c @ d).real)
    assert frechet(np.concatenate([a, b]), target) == pytest.approx(expected, rel=1e-9)
    assert frechet(np.concatenate([a, a]), np.arange(2 * len(a)) >= len(a)) == pytest.approx(0, abs=1e-9)


def test_moved_counts_dimensions():
    x, target = two_sets(sizes=(2000, 2000), dim=10)
    x[target, :3] += 1
    assert moved(x, target) == pytest.approx(0.3)


def test_reduced_vectors_are_white_and_few():
    x, _ = two_sets(sizes=(60, 30), dim=50)
    x[:, 0] = 7
    z = reduced(x)
    assert z.shape == (90, 9)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(9), atol=1e-4)
