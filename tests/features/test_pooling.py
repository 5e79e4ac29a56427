"""Pooling: windows weighted by their frames, unit vectors and norms that give back what went in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmos.features import pooling


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e5]))
def test_unit_times_norm_is_the_vector(seed, scale):
    raw = (np.random.default_rng(seed).standard_normal((3, 2, 64)) * scale).astype(np.float32)
    for dtype, tolerance in (("float32", 1e-6), ("float16", 2**-10)):
        unit, norm = pooling.split(raw, dtype)
        assert unit.dtype == dtype and norm.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(unit.astype(np.float64), axis=-1), 1, atol=1e-3)
        assert np.abs(unit.astype(np.float32) * norm[..., None] - raw).max() <= tolerance * norm.max()


def test_a_zero_vector_stays_zero():
    unit, norm = pooling.split(np.zeros((1, 1, 4), np.float32), "float16")
    assert not unit.any() and not norm.any()


@pytest.mark.parametrize(
    ("value", "sound"),
    [(1.0, True), (-9e5, True), (0.0, False), (np.nan, False), (-np.inf, False), (1e6, False), (-2e6, False)],
)
def test_what_is_sound(value, sound):
    assert pooling.is_sound(np.full((2, 3), value, np.float32)) == sound


def test_one_silent_layer_is_sound_and_one_broken_value_is_not():
    raw = np.ones((2, 3), np.float32)
    raw[0] = 0
    assert pooling.is_sound(raw)
    raw[1, 2] = np.nan
    assert not pooling.is_sound(raw)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=5), min_size=1, max_size=6), st.integers(0, 2**32 - 1)
)
def test_a_clip_is_the_mean_over_all_frames_of_its_windows(clips, seed):
    random = np.random.default_rng(seed)
    frames = np.array([count for windows in clips for count in windows], np.int32)
    clip = np.repeat(np.arange(len(clips)), [len(windows) for windows in clips])
    means = random.standard_normal((len(frames), 2, 5)).astype(np.float32)
    unit, norm = pooling.split(means, "float32")
    pooled = pooling.clip_means(unit, norm, frames, clip)
    assert pooled.dtype == np.float32
    for number in range(len(clips)):
        wanted = np.average(means[clip == number], axis=0, weights=frames[clip == number])
        np.testing.assert_allclose(pooled[number], wanted, atol=1e-5)
