"""Windows of signals: a clip's numbers never depend on its neighbours or on the number of threads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmmos.errors import SetupError
from mmmos.features import encoding
from mmmos.features.spec import EncoderSpec, FeatureSpec

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


def parts_of(bench):
    rows, refused = bench.finished()
    assert refused == {}
    return rows


@pytest.mark.parametrize("windows", [3, 4, 5, 7, 8])
def test_a_long_clip_is_handed_over_part_by_part(wavlm, monkeypatch, windows):
    monkeypatch.setattr(encoding, "PART", 4)
    signal = np.random.default_rng(1).uniform(-0.5, 0.5, windows * 4000).astype(np.float32)
    spec = FeatureSpec("w", wavlm.spec, 0.25, 0.25, "float32")
    whole = encoding.encode({"a": signal}, spec, wavlm, "cpu")["a"]
    bench, rows, early = encoding.Bench(spec, wavlm, "cpu"), [], 0
    for start, wave in encoding.cutter(spec).push(signal, last=True):
        bench.add("a", start, wave)
        rows += parts_of(bench)
        early = len(rows)
    bench.complete("a", np.ones(2))
    rows += parts_of(bench)
    assert early == (windows - 1) // 4, "a full part is handed over as soon as another window follows"
    assert [part.part for part in rows] == list(range((windows + 3) // 4))
    assert [part.last for part in rows] == [False] * (len(rows) - 1) + [True]
    assert [part.measures is not None for part in rows] == [part.last for part in rows]
    np.testing.assert_array_equal(np.concatenate([part.unit for part in rows]), whole.unit)
    np.testing.assert_array_equal(np.concatenate([part.span for part in rows]), whole.span)


@pytest.mark.parametrize("stored", [{0}, {1}, {0, 1}, {2}, {0, 2}])
def test_parts_that_are_stored_are_not_encoded_again(wavlm, monkeypatch, stored):
    monkeypatch.setattr(encoding, "PART", 4)
    signal = np.random.default_rng(1).uniform(-0.5, 0.5, 11 * 4000).astype(np.float32)
    spec = FeatureSpec("w", wavlm.spec, 0.25, 0.25, "float32")
    bench = encoding.Bench(spec, wavlm, "cpu", stored={"a": frozenset(stored)})
    for start, wave in encoding.cutter(spec).push(signal, last=True):
        bench.add("a", start, wave)
    bench.complete("a")
    rows = parts_of(bench)
    assert [(part.part, part.last) for part in rows] == [(p, p == 2) for p in range(3) if p not in stored]
    assert [len(part.frames) for part in rows] == [3 if part.part == 2 else 4 for part in rows]


def test_frames_of_chosen_layers_are_kept_beside_the_means(wavlm, signals, together):
    spec = FeatureSpec("w", wavlm.spec, 1.0, 1.0, "float32", frames=("0", "2"))
    for device in ("cpu", "elsewhere"):
        rows = encoding.encode(signals, spec, wavlm, device)["b"]
        assert rows.frame_unit.shape == (49 + 49 + 24, 2, wavlm.spec.dim)
        raw = rows.frame_unit * rows.frame_norm[..., None]
        means = rows.unit * rows.norm[..., None]
        np.testing.assert_allclose(raw[49:98].mean(0), means[1, [0, 2]], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(rows.unit, together["b"].unit, atol=1e-5)


class Fussy:
    """Gives one frame of the wave's first three samples, and takes no wave that begins with a 9."""

    spec = EncoderSpec("fussy", "fussy", 8000, 1, 3, 0.02, 160, "none")

    def encode(self, waves):
        if (waves[:, 0] == 9).any():
            raise ValueError("a nine")
        return waves[:, None, None, :3]


def beginning(number, samples=800):
    return np.concatenate([[number], np.full(samples - 1, 0.5)]).astype(np.float32)


def test_of_a_batch_that_fails_the_others_are_encoded():
    bench = encoding.Bench(FeatureSpec("f", Fussy.spec), Fussy(), "elsewhere")
    for key, number in (("a", 1), ("bad", 9), ("c", 2)):
        bench.add(key, 0, beginning(number))
        bench.complete(key)
    bench.flush()
    rows, refused = bench.finished()
    assert [row.key for row in rows] == ["a", "c"]
    assert refused == {"bad": ("encoder_failed", "ValueError: a nine")}


def test_a_clip_that_is_dropped_leaves_its_batch_and_nothing_of_it_is_handed_over():
    bench = encoding.Bench(FeatureSpec("f", Fussy.spec), Fussy(), "elsewhere")
    for key, samples in (("a", 800), ("gone", 800), ("gone", 400)):
        bench.add(key, 0, beginning(1, samples))
    bench.drop("gone")
    bench.complete("a")
    bench.flush()
    rows, refused = bench.finished()
    assert [row.key for row in rows] == ["a"] and not refused


def test_signals_whose_vectors_are_not_sound_are_none_and_a_failing_encoder_is_an_error():
    spec = FeatureSpec("f", Fussy.spec)
    found = encoding.encode({"nan": beginning(np.nan), "a": beginning(1)}, spec, Fussy(), "cpu")
    assert found["nan"] is None and found["a"].frames.tolist() == [1]
    with pytest.raises(SetupError, match=r"The encoder 'fussy' failed: ValueError: a nine\."):
        encoding.encode({"a": beginning(9)}, spec, Fussy(), "cpu")
