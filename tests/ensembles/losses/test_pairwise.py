"""QAMRO's weights of score bins, against the tables of its released code."""

import numpy as np
import pytest

from mmmos.ensembles.losses.pairwise import quality_of_bins

# Clips of the official training list by one-point bin of PQ and of CU, from 0, and the released weights of those bins.
PQ = [0, 1, 14, 114, 350, 538, 738, 703, 241, 1]
CU = [0, 1, 58, 226, 485, 565, 654, 588, 123, 0]
RELEASED_PQ = [0, 0, 0, 4.5, 6.5, 7.5, 9.5, 8.5, 5.5, 0]
RELEASED_CU = [0, 0, 0, 5.5, 6.5, 7.5, 9.5, 8.5, 4.5, 0]


def with_counts(*counts):
    """Scores (clips, axes) with so many in each bin."""
    return np.stack([np.repeat(np.arange(10) + 0.3, each) for each in counts], axis=1)


def test_weights_are_those_of_the_released_code_where_its_counts_are():
    got = quality_of_bins(with_counts(PQ, CU))
    assert got == pytest.approx(np.array([RELEASED_PQ, RELEASED_CU]) / 9.5)


def test_a_score_of_whole_points_is_in_the_bin_that_starts_there_and_ten_in_the_last():
    points = np.array([3.0, 3.0 - 1e-7, 3.0 + 1e-7, 10.0, 10.0])[:, None]
    got = quality_of_bins(points)[0]
    assert got[3] == 1 and got[9] == pytest.approx(8.5 / 9.5) and got.sum() == pytest.approx(1 + 8.5 / 9.5)
