"""Segments: where they lie, and that they are the same for every encoder."""

import numpy as np
import pytest

from mmmos.features.spec import EncoderSpec, FeatureSpec
from mmmos.resampling import resample
from mmmos.scoring.segments import Grid, Parts, Whole


@pytest.mark.parametrize(
    ("seconds", "length", "hop", "spans"),
    [
        (4.0, 10, 10, [(0, 4)]),
        (10.0, 10, 10, [(0, 10)]),
        (20.0, 10, 5, [(0, 10), (5, 15), (10, 20)]),
        (20.6, 10, 10, [(0, 10), (10, 20)]),
        (21.0, 10, 10, [(0, 10), (10, 20), (20, 21)]),
        (20.6, 10, 5, [(0, 10), (5, 15), (10, 20), (15, 20.6)]),
        (1.0, 0.4, 0.4, [(0, 0.4), (0.4, 0.8), (0.8, 1.0)]),
        (0.95, 0.4, 0.4, [(0, 0.4), (0.4, 0.8)]),
        (0.25, 0.1, 0.1, [(0, 0.1), (0.1, 0.2)]),
        (0.1, 0.4, 0.4, [(0, 0.1)]),
    ],
)
def test_segments_follow_until_the_end_and_a_short_rest_is_left_out(seconds, length, hop, spans):
    assert Grid(length, hop).spans(seconds) == [pytest.approx(span) for span in spans]


@pytest.mark.parametrize("seed", range(12))
def test_every_encoder_cuts_the_same_segments_whatever_its_rate_and_the_blocks(seed):
    draw = np.random.default_rng(seed)
    rate, length = int(draw.choice([8000, 22_050, 44_100])), float(draw.choice([0.3, 1.0, 2.0]))
    grid = Grid(length, length / float(draw.choice([1, 2, 3])))
    # Also lengths that end with a segment, to the sample.
    seconds = float(draw.choice([draw.uniform(0.1, 7), length + 3 * grid.hop]))
    signal = draw.normal(size=round(seconds * rate)).astype(np.float32)
    spans = grid.spans(len(signal) / rate)
    for target in (8000, 11_025, 16_000, 32_000):
        there = resample(signal, rate, target)
        spec = FeatureSpec("x", EncoderSpec("x", "x", target, 1, 1, 0.02, 160, ""), window=0.5, hop=0.5)
        whole = Whole(spec)
        parts = Parts(spec, grid, whole, lambda: len(signal) / rate)
        given = {}
        cuts = np.sort(draw.integers(0, len(there), 5)).tolist()
        for begin, end in zip([0, *cuts], [*cuts, len(there)], strict=True):
            list(whole.push(there[begin:end]))
            given |= dict(parts.push(there[begin:end]))
        list(whole.push(there[:0], last=True))
        given |= dict(parts.push(there[:0], last=True))
        assert len(parts.firsts) == len(parts.owned) == len(spans)
        assert [first / target for first in parts.firsts] == pytest.approx([begin for begin, _ in spans], abs=1e-3)
        for start, wave in given.items():
            np.testing.assert_array_equal(wave, there[start : start + len(wave)])
