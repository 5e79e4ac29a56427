"""What heads are fed with: full batches in their own order, standardised by their own fold, one window of each clip."""

import numpy as np
import pytest
import torch

from mmmos.ensembles.heads.inputs import Pooled, Standardiser
from mmmos.ensembles.heads.pooled import Linear
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.ensembles.training.engine.pooled_feed import PooledFeed


def member(seed=0, fitted=range(20), held=range(20, 26), batch=6, standardise=None):
    fitted, held = np.array(fitted), np.array(held)
    head = Linear(options={}, seed=seed)
    nothing = Standardiser([], [])
    return Member(head, standardise or nothing, fitted, held, len(fitted) // batch, batch, (seed, 0))


def numbered(rows, layers=1, dim=3):
    """Every vector is its row's number."""
    return np.tile(np.arange(rows, dtype=np.float32)[:, None, None], (1, layers, dim))


def feed(inputs, *members):
    return PooledFeed(inputs, members, "cpu", torch.float32)


def test_an_epoch_has_full_batches_of_different_clips_in_an_order_of_its_own():
    reader = feed(Pooled([numbered(26)]), member(0), member(1))
    orders = []
    for epoch in range(2):
        seen = []
        for batch, clips in reader.epoch(epoch):
            assert batch.blocks[0].shape == (2, 6, 1, 3)
            assert torch.equal(batch.blocks[0][..., 0, 0].long(), clips)
            seen.append(clips.clone())
        order = torch.cat(seen, dim=1)
        assert order.shape == (2, 18) and all(len(set(row.tolist())) == 18 for row in order)
        assert not torch.equal(order[0], order[1]) and order.max() < 20
        orders.append(order)
    assert not torch.equal(*orders)


def test_an_order_depends_on_the_seed_and_the_epoch_alone():
    def clips(*members, place=0):
        return [each[place].tolist() for _, each in feed(Pooled([numbered(26)]), *members).epoch(3)]

    assert clips(member(5)) == clips(member(0), member(5), place=1)


def test_a_smaller_stack_goes_on_as_before():
    whole, part = (feed(Pooled([numbered(26)]), member(0), member(1), member(2)) for _ in range(2))
    part.keep([2, 0])
    for (_, kept), (_, every) in zip(part.epoch(4), whole.epoch(4), strict=True):
        assert torch.equal(kept, every[[2, 0]])


def test_every_head_is_standardised_by_its_own_fold():
    inputs = Pooled([np.random.default_rng(0).normal(3, 2, (26, 2, 4)).astype(np.float32), numbered(26)])
    members = [
        member(seed, fitted, held)
        for seed, fitted, held in ((0, range(20), range(20, 26)), (1, range(6, 26), range(6)))
    ]
    members = [
        Member(**{**vars(each), "standardise": inputs.standardiser("standard", each.fitted)}) for each in members
    ]
    reader = feed(inputs, *members)
    wanted = [each.standardise([block[each.held] for block in inputs.blocks]) for each in members]
    found = {}

    def forward(batch, heads):
        for place, head in enumerate(heads):
            found[head] = [block[place].clone() for block in batch.blocks]
        return torch.zeros(len(heads), 6, 1)

    reader.held_out(forward, [0, 1])
    for number, blocks in enumerate(wanted):
        for mine, other in zip(found[number], blocks, strict=True):
            assert mine.numpy() == pytest.approx(other, abs=1e-6)


def test_held_out_clips_of_all_heads_at_once_are_those_of_each_head():
    """At once away from the CPU, for which another spelling of it stands here."""
    inputs, members = Pooled([numbered(26)]), [member(0), member(1, range(6, 26), range(6))]
    calls = []

    def forward(batch, heads):
        calls.append(list(heads))
        return batch.blocks[0][:, :, 0]

    each, at_once = (
        PooledFeed(inputs, members, device, torch.float32).held_out(forward, [0, 1]) for device in ("cpu", "cpu:0")
    )
    assert torch.equal(each, at_once) and calls == [[0], [1], [0, 1]]


WINDOWS = np.array([1, 3, 2, 1, 5, 2])


def windowed():
    """Six clips of 1 to 5 windows; the last window of a clip is half as long as the others."""
    first = np.concatenate([[0], np.cumsum(WINDOWS)])
    share = np.concatenate([np.array([1.0] * (count - 1) + [0.5]) / (count - 0.5) for count in WINDOWS])
    return Pooled([numbered(first[-1])], first, share.astype(np.float32))


def test_each_epoch_sees_one_window_of_each_clip_drawn_by_its_share():
    inputs, counts = windowed(), np.zeros(WINDOWS.sum())
    reader = feed(inputs, member(0, range(6), range(6), batch=6))
    for epoch in range(600):
        ((batch, clips),) = reader.epoch(epoch)
        rows = batch.blocks[0][0, :, 0, 0].long().numpy()
        assert sorted(clips[0].tolist()) == list(range(6))
        assert np.array_equal(inputs.clips()[rows], clips[0].numpy())
        counts[rows] += 1
    assert counts / 600 == pytest.approx(inputs.share, abs=0.07)


def test_held_out_clips_are_the_means_of_their_windows_by_share():
    inputs = windowed()
    reader = feed(inputs, member(0, range(4), [4, 1, 5]))
    got = reader.held_out(lambda batch, heads: batch.blocks[0][:, :, 0], [0])
    first = inputs.first
    wanted = [
        np.average(np.arange(first[c], first[c + 1]), weights=inputs.share[first[c] : first[c + 1]]) for c in (4, 1, 5)
    ]
    assert got[0, :, 0].numpy() == pytest.approx(wanted)
    part = inputs.at(np.array([4, 1, 5]))
    assert part.means(part.blocks[0][:, 0])[:, 0] == pytest.approx(wanted)
    assert len(part) == 3 and part.clips().tolist() == [0] * 5 + [1] * 3 + [2] * 2
