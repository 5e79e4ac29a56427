"""Windows of signals: a clip's numbers never depend on its neighbours or on the number of threads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmmos.features import encoding
from mmmos.features.spec import FeatureSpec

TINY = Path(__file__).parents[1] / "data" / "wavlm_tiny"


@pytest.fixture(scope="module")
def signals():
    random = np.random.default_rng(0)
    lengths = {"a": 16_000, "b": 40_000, "c": 16_000, "short": 300, "tail": 16_100}
    return {key: random.uniform(-0.5, 0.5, length).astype(np.float32) for key, length in lengths.items()}


@pytest.fixture(scope="module")
def together(wavlm, signals):
    return encoding.encode(signals, FeatureSpec("w", wavlm.spec, 1.0, 1.0, "float32"), wavlm, "cpu")


def same(one, other):
    for name in ("unit", "norm", "frames", "span"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("threads", [1, 2])
def test_alone_or_together_with_one_thread_or_two_the_bits_are_the_same(wavlm, signals, together, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for key in reversed(signals):
            alone = encoding.encode(
                {key: signals[key]}, FeatureSpec("w", wavlm.spec, 1.0, 1.0, "float32"), wavlm, "cpu"
            )
            same(alone[key], together[key])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_batches_of_equal_lengths_agree_with_windows_one_at_a_time(wavlm, signals, together):
    batches = encoding.encode(signals, FeatureSpec("w", wavlm.spec, 1.0, 1.0, "float32"), wavlm, "elsewhere")
    for key, one in together.items():
        np.testing.assert_array_equal(batches[key].span, one.span)
        np.testing.assert_allclose(batches[key].unit, one.unit, atol=1e-5)
        np.testing.assert_allclose(batches[key].norm, one.norm, rtol=1e-5)


def test_windows_know_their_place_and_a_tail_too_short_for_the_encoder_is_left_out(together):
    assert together["b"].span.tolist() == [[0, 1], [1, 2], [2, 2.5]]
    assert together["b"].frames.tolist() == [49, 49, 24]
    assert together["tail"].span.tolist() == [[0, 1]]
    assert together["short"].frames.tolist() == [1]


@pytest.mark.parametrize("order", [range(7), [3, 0, 6, 1, 2, 5, 4]])
def test_rows_come_in_the_order_of_the_windows_however_they_were_merged(monkeypatch, order):
    monkeypatch.setattr(encoding, "MERGED", 3)
    clip = encoding._Clip()
    for start in order:
        clip.add((start, start + 1, np.full((2, 3), start, np.float16), np.full(2, start, np.float32), 10 * start))
    starts, stops, unit, norm, frames = clip.columns()
    assert starts.tolist() == list(range(7)) and stops.tolist() == list(range(1, 8))
    assert unit.shape == (7, 2, 3) and unit.dtype == np.float16 and (unit[:, 0, 0] == starts).all()
    assert (norm[:, 1] == starts).all() and frames.tolist() == [0, 10, 20, 30, 40, 50, 60]
