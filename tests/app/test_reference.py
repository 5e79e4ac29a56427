"""Where a score lies among quantiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmos.app import reference

RATINGS = np.random.default_rng(0).normal(5, 1.2, 4001)
QUANTILES = np.quantile(RATINGS, np.linspace(0, 1, 21)).tolist()


@pytest.mark.parametrize("score", [3.1, 4.0, 5.0, 5.7, 7.7])
def test_share_is_that_of_the_ratings(score):
    assert reference.share_below(score, QUANTILES) == pytest.approx((score > RATINGS).mean(), abs=0.025)


@given(st.lists(st.integers(0, 10), min_size=21, max_size=21).map(sorted), st.floats(-1, 11), st.floats(-1, 11))
def test_share_rises_with_the_score(quantiles, one, other):
    low, high = sorted([one, other])
    assert 0 <= reference.share_below(low, quantiles) <= reference.share_below(high, quantiles) <= 1


def test_equal_ratings_are_not_below():
    half = [4.0] * 11 + [6.0] * 10
    assert reference.share_below(4.0, half) == 0
    assert reference.share_below(6.0, half) == pytest.approx(11 / 20)
    assert reference.share_below(6.1, half) == 1


def test_places_in_words():
    hundred = list(range(0, 105, 5))
    assert reference.place_in_words(73, hundred) == "higher than 73 % of the rated clips"
    assert reference.place_in_words(-1, hundred) == "lower than all rated clips"
    assert reference.place_in_words(101, hundred) == "higher than all rated clips"


def test_middle_is_of_the_ratings():
    assert reference.middle(QUANTILES) == pytest.approx(np.quantile(RATINGS, [0.05, 0.25, 0.5, 0.75, 0.95]))


def test_all_domains_come_first_and_one_alone_is_no_choice():
    axes = {"PQ": QUANTILES}
    assert reference.domains({"speech": axes, "": axes, "music": axes}) == ["", "music", "speech"]
    assert reference.domains({"": axes, "music": axes}) == [""]
    assert reference.domains({"music": axes}) == ["music"]
    assert reference.domains({}) == []


def test_the_shown_range_holds_ratings_and_scores():
    assert reference.shown_range({}) == (0, 10)
    assert reference.shown_range({"": {"PQ": [2.2, 8.4]}}) == (2, 9)
    assert reference.shown_range({"": {"PQ": [2.2, 8.4]}}, [1.5, 9.5]) == (1, 10)
