"""Frames are read as stored, pooled to a common rate, normalised and padded."""

import pickle

import numpy as np
import pytest
import torch

from mmmos.ensembles.heads import frames as frames_module
from mmmos.ensembles.heads.frame_set import cell_means
from mmmos.ensembles.heads.frames import Padded
from mmmos.ensembles.heads.inputs import units
from mmmos.errors import UnknownName, UsageError

SECONDS = [[1.0, 0.5], [0.3], [1.0, 1.0, 0.02]]
ONE, TWO = {"a": (0.1, 3, 5)}, {"a": (0.1, 3, 5), "b": (0.04, 2, 4)}


def pooled(part, cells):
    """Adaptive average pooling by torch."""
    flat = torch.from_numpy(part.astype(np.float64)).flatten(1).T[None]
    return torch.nn.functional.adaptive_avg_pool1d(flat, cells)[0].T.reshape(cells, *part.shape[1:]).numpy()


def test_one_feature_set_is_read_as_it_is_stored(framed):
    features = framed.features(SECONDS, ONE, dtype="float16")
    frames = framed.frames(features, normalise="raw")
    assert frames.lengths.tolist() == [15, 3, 21] and frames.shapes == [(3, 5)] and len(frames) == 3
    for clip in range(3):
        (found,) = frames.read(clip)
        assert found.dtype == np.float32 and found == pytest.approx(framed.raw(features, "a", clip), rel=1e-3, abs=1e-2)


def test_unit_vectors_have_length_one_whether_pooled_or_not(framed):
    features = framed.features(SECONDS, ONE, dtype="float16")
    for options in ({}, {"rate": 7.0}):
        (found,) = framed.frames(features, options=options).read(0)
        assert np.linalg.norm(found, axis=-1) == pytest.approx(1, abs=1e-3)
    assert framed.frames(features).read(0)[0] == pytest.approx(units(framed.raw(features, "a", 0)), abs=1e-3)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", lambda raw: raw),
        ("weighted", lambda raw: raw),
        ("last", lambda raw: raw[:, -1:]),
        ("mean", lambda raw: raw.mean(1, keepdims=True)),
        ("1", lambda raw: raw[:, 1:2]),
        (("2", "0"), lambda raw: raw[:, [2, 0]]),
    ],
)
def test_layers_are_chosen_as_for_pooled_vectors(framed, choice, expected):
    features = framed.features(SECONDS, ONE)
    frames = framed.frames(features, layers=choice, normalise="raw")
    (found,) = frames.read(1)
    assert found == pytest.approx(expected(framed.raw(features, "a", 1)), abs=1e-5)
    assert frames.shapes == [found.shape[1:]]


def test_a_feature_set_or_a_layer_without_frames_is_told_what_to_write(framed):
    with pytest.raises(UsageError, match='a keeps no frames; write frames = "all", "last"'):
        framed.frames(framed.features(SECONDS, ONE, kept=()))
    first = framed.features(SECONDS, ONE, kept=("0",))
    assert framed.frames(first, layers="all").shapes == [(1, 5)]
    for choice in ("last", "2", ("0", "2")):
        with pytest.raises(UsageError, match=r'layer 2 of a keeps no frames, only 0; write frames = \["0", "2"\]'):
            framed.frames(first, layers=choice)
    with pytest.raises(UnknownName, match="layer of a '7'"):
        framed.frames(first, layers="7")


def test_features_without_a_store_and_windows_as_samples_are_refused(framed):
    features = framed.features(SECONDS, ONE)
    with pytest.raises(UsageError, match="leave samples out"):
        framed.frames(features, samples="windows")
    object.__setattr__(features["a"], "source", None)
    with pytest.raises(UsageError, match="do not come from a store"):
        framed.frames(features)


@pytest.mark.parametrize("rate", [3.0, 10.0, 16.0, 80.0])
def test_feature_sets_get_the_same_cells_which_are_adaptive_averages_of_each_window(framed, rate):
    features = framed.features(SECONDS, TWO)
    frames = framed.frames(features, normalise="raw", options={"rate": rate})
    for clip, seconds in enumerate(SECONDS):
        cells = [max(1, round(each * rate)) for each in seconds]
        assert frames.lengths[clip] == sum(cells)
        for name, found in zip("ab", frames.read(clip), strict=True):
            parts = features[name].source.raw[features.keys[clip]]
            expected = np.concatenate([pooled(part, count) for part, count in zip(parts, cells, strict=True)])
            assert found == pytest.approx(expected, abs=1e-5)


def test_without_a_rate_several_feature_sets_meet_at_the_lowest(framed):
    features = framed.features(SECONDS, TWO)
    found, slow = framed.frames(features), framed.frames(features, options={"rate": 10.0})
    assert found.lengths.tolist() == slow.lengths.tolist() == [15, 3, 21]
    object.__setattr__(features["b"], "hop", 0.0)
    with pytest.raises(UsageError, match="hop of b is not known; write rate"):
        framed.frames(features)


def test_feature_sets_with_other_windows_cannot_be_put_side_by_side(framed):
    features = framed.features(SECONDS, TWO)
    other = framed.features([[1.5], [0.3], [1.0, 1.0, 0.02]], TWO)
    features.sets["b"] = other["b"]
    with pytest.raises(UsageError, match="a and b cut clips into different windows"):
        framed.frames(features)


def test_pooling_over_time_keeps_means_and_single_frames():
    values = np.arange(10, dtype=np.float32)[:, None]
    windows = np.array([0, 6, 7, 10])
    assert cell_means(values, windows, np.array([2, 3, 1])).ravel().tolist() == [1, 4, 6, 6, 6, 8]
    assert cell_means(values, windows, np.diff(windows)).tolist() == values.tolist()


def test_statistics_are_those_of_all_frames_of_the_clips_asked_for(framed):
    features = framed.features(SECONDS, TWO)
    frames = framed.frames(features, normalise="standard")
    for block in (features["a"].source.raw, features["b"].source.raw):
        for parts in block.values():
            for part in parts:
                part += 100
                part[..., 0] = 0
    clips = np.array([2, 0])
    found = frames.standardiser("standard", clips)
    for number in range(2):
        every = np.concatenate([frames.read(clip)[number] for clip in clips]).astype(np.float64)
        expected = every.std(0)
        expected[..., 0] = 1
        assert found.means[number] == pytest.approx(every.mean(0), rel=1e-6)
        assert found.scales[number] == pytest.approx(expected, rel=1e-4)
    assert frames.standardiser("unit", clips).means == []
    standard = frames.standardised(found)
    for ours, theirs in zip(standard.read(1), found(frames.read(1)), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5) and abs(ours).max() <= 8


def test_some_clips_by_position_are_those_clips(framed):
    for rate in (None, 20.0):
        frames = framed.frames(framed.features(SECONDS, ONE), options={"rate": rate})
        some = frames.at(np.array([2, 0]))
        assert some.lengths.tolist() == frames.lengths[[2, 0]].tolist() and len(some) == 2
        assert np.array_equal(some.read(0)[0], frames.read(2)[0])


def test_computed_frames_are_kept_while_there_is_room_and_give_the_same_bits(framed, monkeypatch):
    for room, reads in ((0, 6), (10**9, 3)):
        monkeypatch.setattr(frames_module, "MEMORY", room)
        features = framed.features(SECONDS, ONE, dtype="float16")
        frames = framed.frames(features, options={"rate": 5.0})
        first = [frames.read(clip)[0].tobytes() for clip in range(3)]
        again = [frames.at(np.arange(3)).read(clip)[0].tobytes() for clip in range(3)]
        assert first == again and features["a"].source.reads == reads


def test_frames_survive_the_way_to_another_process(framed):
    frames = framed.frames(framed.features(SECONDS, TWO), normalise="standard")
    frames = frames.standardised(frames.standardiser("standard", np.arange(3)))
    frames.lengths  # noqa: B018 (goes along)
    size = len(pickle.dumps(frames))
    frames.read(0)
    assert len(pickle.dumps(frames)) == size
    there = pickle.loads(pickle.dumps(frames))
    assert there.lengths.tolist() == frames.lengths.tolist()
    assert all(map(np.array_equal, there.read(2), frames.read(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_are_padded_with_zeros_even_where_memory_was_used_before(framed, dtype):
    frames = framed.frames(framed.features(SECONDS, TWO), normalise="raw")
    padded = Padded(frames, dtype=dtype)
    for clips in ([2, 0, 1], [1, 0], [2]):
        batch = padded.batch(np.array(clips))
        lengths = frames.lengths[clips]
        assert batch.lengths.tolist() == [lengths.tolist()] and batch.chance is None
        for number, block in enumerate(batch.blocks):
            assert block.dtype == dtype and block.shape == (1, len(clips), max(lengths), *frames.shapes[number])
            for row, clip, length in zip(block[0], clips, lengths, strict=True):
                assert row[:length].numpy() == pytest.approx(frames.read(clip)[number]) and not row[length:].any()
