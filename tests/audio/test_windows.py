"""Windows of a mono signal."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmos import audio


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 100), st.integers(1, 100), st.integers(1, 60), st.integers(1, 500))
def test_windows_cover_every_sample_but_a_short_tail(samples, window, hop, minimum, block):
    hop, minimum = min(hop, window), min(minimum, window)
    signal = np.arange(samples, dtype=np.float32)
    cutter, found = audio.Windows(window, hop, minimum), []
    for first in range(0, samples, block):
        found += cutter.push(signal[first : first + block])
    found += cutter.push(signal[:0], last=True)
    covered = np.zeros(samples, bool)
    for start, wave in found:
        assert start % hop == 0 and 0 < len(wave) <= window
        np.testing.assert_array_equal(wave, signal[start : start + len(wave)])
        covered[start : start + len(wave)] = True
    tail = samples - covered.sum()
    assert tail < minimum and covered[: samples - tail].all()
    assert all(len(wave) >= minimum for _, wave in found[1:])
    whole = list(audio.Windows(window, hop, minimum).push(signal, last=True))
    assert [(start, wave.tolist()) for start, wave in whole] == [(start, wave.tolist()) for start, wave in found]


def test_padding_only_fills_what_is_missing():
    np.testing.assert_array_equal(audio.pad(np.ones(2, np.float32), 3), [1, 1, 0])
    np.testing.assert_array_equal(audio.pad(np.ones(3, np.float32), 2), [1, 1, 1])
