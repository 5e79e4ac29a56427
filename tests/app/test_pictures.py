"""Spectrograms and curves."""

import re
import zlib

import numpy as np
import pytest

from mmmos.app import pictures
from mmmos.scoring.score import SegmentScore
from mmmos.submissions.report.excerpts import mel


def tone(frequency, seconds, rate):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize(("rate", "seconds"), [(44_100, 2.0), (16_000, 30.0), (8_000, 0.4)])
def test_a_tone_is_loudest_in_its_band(rate, seconds):
    decibels = pictures.levels(tone(1500, seconds, rate), rate)
    width = mel(pictures.top(rate)) / pictures.BANDS
    assert np.all(np.abs(decibels[:, 5:-5].argmax(axis=0) - mel(1500) / width) <= 1.5)
    assert decibels.max() == pytest.approx(0)
    assert decibels.min() >= -pictures.RANGE


def test_columns_are_even_over_time():
    wave = np.concatenate([np.zeros(48_000), tone(1000, 1, 48_000)]).astype(np.float32)
    loud = pictures.levels(wave, 48_000).max(axis=0)
    assert loud.shape == (pictures.COLUMNS,)
    assert np.flatnonzero(loud > -10)[0] / pictures.COLUMNS == pytest.approx(0.5, abs=0.02)


def test_what_is_quieter_is_brighter():
    grey = pictures.shades(np.array([[-70.0, -35.0, 0.0]]))
    assert grey.tolist() == [[255, pytest.approx(128, abs=6), 0]]


def test_nothing_is_missed_in_a_long_clip():
    wave = np.zeros(16_000 * 400, np.float32)
    wave[16_000 * 200 : 16_000 * 200 + 1600] = tone(1000, 0.1, 16_000)
    loud = pictures.levels(wave, 16_000).max(axis=0)
    assert loud.argmax() == pytest.approx(pictures.COLUMNS / 2, abs=1)
    assert np.sort(loud)[-3] == -pictures.RANGE


@pytest.mark.parametrize("wave", [np.zeros(1600, np.float32), np.ones(100, np.float32), tone(440, 0.1, 8000)])
def test_silence_and_scraps_have_a_picture(wave):
    data = pictures.spectrogram(wave, 8_000)
    assert data.startswith(b"\x89PNG")
    (compressed,) = re.findall(rb"IDAT(.*)....\x00\x00\x00\x00IEND", data, re.DOTALL)
    width = min(pictures.COLUMNS, len(wave))
    assert len(zlib.decompress(compressed)) == pictures.BANDS * (width + 1)


def segments(scores, spread=None):
    return [
        SegmentScore(5.0 * n, 5.0 * n + 10, {"PQ": score}, {"PQ": spread} if spread else {})
        for n, score in enumerate(scores)
    ]


def points(svg, kind):
    (path,) = re.findall(rf'class="{kind}" d="M([^"]*?)Z?"', svg)
    return [tuple(map(float, pair.split())) for pair in path.split("L")]


def test_a_curve_goes_through_the_middles_of_its_segments():
    svg = pictures.curve(segments([2.0, 5.0, 8.0]), "PQ", 20.0, (0, 10))
    assert points(svg, "line") == [(0, 800), (250, 800), (500, 500), (750, 200), (1000, 200)]
    assert "around" not in svg


def test_spread_lies_around_the_curve():
    svg = pictures.curve(segments([5.0, 5.0], 1.0), "PQ", 15.0, (0, 10))
    assert {y for _, y in points(svg, "around")} == {400, 600}


def test_segments_without_scores_are_left_out():
    known = segments([2.0, 5.0])
    gap = SegmentScore(10.0, 20.0, {}, {})
    assert len(points(pictures.curve([*known, gap], "PQ", 20.0, (0, 10)), "line")) == 4
    assert not pictures.curve([gap], "PQ", 20.0, (0, 10))


def test_ticks():
    assert pictures.time_ticks(10.0) == [(0, "0"), (0.2, "2"), (0.4, "4"), (0.6, "6"), (0.8, "8"), (1, "10")]
    assert [text for _, text in pictures.time_ticks(545.0)] == ["0:00", "2:00", "4:00", "6:00", "8:00"]
    assert [text for _, text in pictures.frequency_ticks(16_000)] == ["0.5", "1", "2", "4", "8"]
    assert all(0 < at <= 1.001 for at, _ in pictures.frequency_ticks(44_100))
    assert pictures.score_ticks((0, 10))[-1] == (1, "10")
