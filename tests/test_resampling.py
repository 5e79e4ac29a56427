"""Resampling: the kernels are what they are called, and a stream gives the bits of the whole."""

import math

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmos.errors import UnknownName
from mmmos.resampling import KERNELS, resample, resampler


def noise(samples, seed=0):
    return (np.random.default_rng(seed).standard_normal(samples) * 0.3).astype(np.float32)


def sinc_hann(signal, rate, target):
    """The formula, sample by sample in float64: a sinc of six zero crossings under a squared cosine."""
    divisor = math.gcd(rate, target)
    down, up = rate // divisor, target // divisor
    base = min(down, up) * 0.99
    out = np.zeros(math.ceil(up * len(signal) / down))
    for m in range(len(out)):
        t = np.clip((np.arange(len(signal)) / down - m / up) * base, -6, 6)
        out[m] = (signal * np.sinc(t) * np.cos(np.pi * t / 12) ** 2).sum() * base / down
    return out


def test_the_default_is_soxr_hq():
    signal = noise(44_100)
    np.testing.assert_array_equal(resample(signal, 44_100, 16_000), soxr.resample(signal, 44_100, 16_000, "HQ"))
    tone = np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100).astype(np.float32)
    wanted = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(resample(tone, 44_100, 16_000)[500:-500], wanted[500:-500], atol=1e-4)


@pytest.mark.parametrize(
    ("rate", "target"), [(44_100, 16_000), (16_000, 24_000), (48_000, 16_000), (8_000, 16_000), (22_050, 16_000)]
)
@pytest.mark.parametrize("samples", [1, 7, 700])
def test_sinc_hann_is_its_formula(rate, target, samples):
    signal = noise(samples)
    got = resample(signal, rate, target, "sinc-hann")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, sinc_hann(signal.astype(float), rate, target), atol=3e-7)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(KERNELS),
    st.sampled_from([(44_100, 16_000), (16_000, 24_000), (48_000, 24_000), (8_000, 32_000), (96_000, 16_000)]),
    st.integers(1, 9_000),
    st.lists(st.integers(1, 4_000), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_stream_gives_the_bits_of_the_whole(kernel, rates, samples, sizes, empty_end):
    signal, stream, parts, first = noise(samples), resampler(kernel, *rates), [], 0
    while first < samples:
        size = sizes[len(parts) % len(sizes)]
        parts.append(stream.push(signal[first : first + size], last=not empty_end and first + size >= samples))
        first += size
    if empty_end:
        parts.append(stream.push(signal[:0], last=True))
    np.testing.assert_array_equal(np.concatenate(parts), resample(signal, *rates, kernel))


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_rates_change_nothing(kernel):
    signal = noise(100)
    assert resample(signal, 16_000, 16_000, kernel) is signal
    assert resampler(kernel, 16_000, 16_000).push(signal) is signal


def test_an_unknown_kernel_is_named():
    with pytest.raises(UnknownName, match="Did you mean 'soxr-hq'"):
        resampler("soxr-hg", 44_100, 16_000)
