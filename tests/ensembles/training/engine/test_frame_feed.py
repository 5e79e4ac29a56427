"""Batches of frames: clips of similar length, each once an epoch, a function of seed and epoch alone."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from mmmos.ensembles.heads.frame_set import FrameSet
from mmmos.ensembles.heads.frames import Frames
from mmmos.ensembles.heads.inputs import Standardiser
from mmmos.ensembles.training.engine import frame_feed
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.ensembles.training.engine.trainer import feed_of

NOTHING = Standardiser([], [])


@dataclass
class Rows:
    unit: np.ndarray
    norm: np.ndarray
    windows: np.ndarray


@dataclass
class Counting:
    """Clip k has ``lengths[k]`` frames, whose two numbers are k and the frame's."""

    lengths: np.ndarray
    dtype: str = "float32"
    asked: list = field(default_factory=list)

    def gather(self, keys):
        raise NotImplementedError

    def frames(self, key):
        self.asked.append(int(key))
        count = self.lengths[int(key)]
        unit = np.stack([np.full(count, int(key)), np.arange(count)], 1)[:, None].astype(self.dtype)
        return Rows(unit, np.ones((count, 1), np.float32), np.array([0, count]))


def feed(lengths, fitted=None, held=(0,), batch=4, stream=(0, 0), standardise=NOTHING, device="cpu"):
    keys = tuple(map(str, range(len(lengths))))
    frames = Frames((FrameSet(Counting(np.asarray(lengths)), (0,), 2),), keys)
    fitted = np.arange(len(lengths)) if fitted is None else np.asarray(fitted)
    member = Member(None, standardise, fitted, np.asarray(held), len(fitted) // batch, batch, stream)
    return feed_of(frames, [member], device)


def seen(feed, epoch):
    """The clips of each batch of an epoch, after a look at what the batches hold."""
    batches = []
    for batch, clips in feed.epoch(epoch):
        (block,), lengths = batch.blocks, batch.lengths
        assert block.shape[:3] == (1, *lengths.shape[1:], lengths.max()) and clips.shape == lengths.shape
        for row, clip, length in zip(block[0, :, :, 0], clips[0].tolist(), lengths[0].tolist(), strict=True):
            assert (row[:length, 0] == clip).all() and (row[:length, 1] == torch.arange(length)).all()
            assert not row[length:].any()
        batches.append(clips[0].tolist())
    return batches


LENGTHS = np.random.default_rng(0).integers(1, 40, 203)


def test_an_epoch_holds_every_training_clip_at_most_once_in_full_batches():
    fitted = np.arange(3, 203)
    batches = seen(feed(LENGTHS, fitted, batch=16), 0)
    clips = [clip for batch in batches for clip in batch]
    assert len(batches) == 12 and all(len(batch) == 16 for batch in batches)
    assert len(set(clips)) == len(clips) == 192 and set(clips) <= set(fitted)


def test_epochs_are_functions_of_stream_and_number():
    one = seen(feed(LENGTHS, stream=(5, 1)), 3)
    assert seen(feed(LENGTHS, stream=(5, 1)), 3) == one
    assert seen(feed(LENGTHS, stream=(5, 1)), 4) != one != seen(feed(LENGTHS, stream=(5, 2)), 3)
    left_out = {
        epoch: set(range(203)) - {c for b in seen(feed(LENGTHS, batch=16), epoch) for c in b} for epoch in (0, 1)
    }
    assert left_out[0] != left_out[1]


def test_batches_hold_little_padding_and_come_in_no_order_of_length():
    lengths = np.random.default_rng(1).integers(50, 501, 512)
    batches = [lengths[batch] for batch in seen(feed(lengths, batch=16), 0)]
    share = sum(each.max() * len(each) for each in batches) / sum(each.sum() for each in batches)
    assert share < 1.15
    means = [each.mean() for each in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5
    assert frame_feed.POOL * 16 < 512, "several pools"


def test_chance_is_of_the_seed_and_the_step_alone():
    def numbers(feed, epoch):
        return [batch.chance.uniform(0, (3,)) for batch, _ in feed.epoch(epoch)]

    ours = numbers(feed(LENGTHS[:40]), 0) + numbers(feed(LENGTHS[:40]), 1)
    others = numbers(feed(LENGTHS[::-1][:40]), 0) + numbers(feed(LENGTHS[:40]), 1)
    assert all(map(torch.equal, ours, others)) and len({tuple(each[0].tolist()) for each in ours}) == 20
    assert not torch.equal(numbers(feed(LENGTHS[:40], stream=(1, 0)), 0)[0], ours[0])


def sums(batch, heads):
    """Of each clip the sum of its numbers, and how many clips were in the batch."""
    assert heads == [0]
    total = batch.blocks[0].sum((2, 3))
    return torch.cat([total, torch.full_like(total[..., :1], total.shape[1])], dim=2)


@pytest.mark.parametrize("most", [None, 200, 1])
def test_held_out_clips_come_back_in_their_order_whatever_their_batches_were(monkeypatch, most):
    held = np.array([7, 3, 101, 50, 3 + 60])
    if most:
        # Run on the CPU as another device runs them.
        monkeypatch.setattr(frame_feed, "NUMBERS", most)
    with_device = feed(LENGTHS, held=held, device="cpu")
    if most:
        with_device._device = torch.device("cpu")
    found = with_device.held_out(sums, [0])
    expected = [[clip * LENGTHS[clip], LENGTHS[clip] * (LENGTHS[clip] - 1) / 2] for clip in held]
    assert found.shape == (1, 5, 3) and found[0, :, :2].tolist() == expected
    assert (found[0, :, 2] == 1).all() == (most != 200)


def test_frames_are_standardised_as_the_member_says():
    mean, scale = np.array([[100.0, 0.0]], np.float32), np.array([[2.0, 1.0]], np.float32)
    ((batch, clips),) = feed([3, 3, 3, 3], standardise=Standardiser([mean], [scale])).epoch(0)
    assert (batch.blocks[0][0, :, :, 0, 0] == -8).all() and (batch.blocks[0][0, :, :, 0, 1] == torch.arange(3)).all()
    assert sorted(clips[0].tolist()) == [0, 1, 2, 3]
