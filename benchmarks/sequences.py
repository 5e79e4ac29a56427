"""A BLSTM over frames against what people do: packed random batches, and padded ones.

    python benchmarks/sequences.py [--json] [--quick] [--clips N]

A training step is 768 → 256 (ReLU) → BLSTM of 2 × 128 units, in one layer or two → mean over the frames of a clip → 4
scores, with fused Adam, on 16 clips of 50 to 500 frames. Numbers are CPU µs for each real frame in one thread; the ways
take turns, epoch by epoch. Ours is the head ``blstm_t`` on the batches of ``FrameFeed`` (clips of similar length, read
from the float16 of the store), which computes what packing computes; denormals are flushed, as the engine does.

Padding alone is another function, since its backward direction starts inside the padding: the largest difference to
the scores of a clip alone is printed beside it. Where denormals are no slower than other numbers (AMD), flushing them
gains nothing. The second table is what reading adds, from a store on disk.
"""

import argparse
import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import nn

from mmmos.ensembles.heads.frame_set import FrameSet
from mmmos.ensembles.heads.frames import Frames
from mmmos.ensembles.heads.inputs import Standardiser
from mmmos.ensembles.heads.sequences import BLSTMT
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.ensembles.training.engine.trainer import feed_of
from mmmos.features.spec import EncoderSpec, FeatureSpec
from mmmos.features.store import FeatureSet, write
from mmmos.features.store.shard import ClipRows

DIM, WIDTH, HIDDEN, BATCH, SHORTEST, LONGEST = 768, 256, 128, 16, 50, 500


@dataclass
class Stored:
    """Frames of a clip as a store gives them."""

    unit: np.ndarray
    norm: np.ndarray
    windows: np.ndarray


class InMemory:
    """A store of frames (frames, 1, DIM) float16 in memory."""

    def __init__(self, clips):
        self.clips = {
            str(n): Stored(clip, np.ones(clip.shape[:2], np.float32), np.array([0, len(clip)]))
            for n, clip in enumerate(clips)
        }

    def frames(self, key):
        return self.clips[key]


class Usual(nn.Module):
    """The network as one writes it."""

    def __init__(self, depth, packed):
        super().__init__()
        self.packed, self.adapter = packed, nn.Linear(DIM, WIDTH)
        self.lstm = nn.LSTM(WIDTH, HIDDEN, depth, batch_first=True, bidirectional=True)
        self.last = nn.Linear(2 * HIDDEN, 4)

    def forward(self, x, lengths):
        x = torch.relu(self.adapter(x))
        if self.packed:
            rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            x = nn.utils.rnn.pad_packed_sequence(self.lstm(rows)[0], batch_first=True)[0]
        else:
            x = self.lstm(x)[0]
        valid = (torch.arange(x.shape[1]) < lengths[:, None]).to(x)
        return self.last((x * valid[..., None]).sum(1) / lengths[:, None])


class Task:
    """Clips, and the batches of an epoch in three ways: inputs of a module, with the clips that they are of."""

    def __init__(self, count):
        random = np.random.default_rng(0)
        self.lengths = random.integers(SHORTEST, LONGEST + 1, count)
        vectors = [random.standard_normal((length, 1, DIM), dtype=np.float32) for length in self.lengths]
        stored = [(each / np.linalg.norm(each, axis=-1, keepdims=True)).astype(np.float16) for each in vectors]
        self.frames = [torch.from_numpy(each[:, 0]).float() for each in stored]
        self.targets = torch.from_numpy(random.standard_normal((count, 4), dtype=np.float32))
        self.feed = feed(Frames((FrameSet(InMemory(stored), (0,), DIM),), tuple(map(str, range(count)))))

    def padded(self, clips):
        x = nn.utils.rnn.pad_sequence([self.frames[clip] for clip in clips], batch_first=True)
        return x, torch.from_numpy(self.lengths[clips])

    def random(self, number):
        order = np.random.default_rng(number).permutation(len(self.frames))
        for clips in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
            yield self.padded(clips), clips

    def bucketed(self, number):
        for clips in self.feed._clips(number):
            yield self.padded(clips), clips

    def ours(self, number):
        for batch, clips in self.feed.epoch(number):
            yield (batch,), clips[0].numpy()


def feed(frames):
    """The feed of one head that is trained on all clips and held out on all."""
    every = np.arange(len(frames))
    return feed_of(
        frames, [Member(None, Standardiser([], []), every, every, len(every) // BATCH, BATCH, (0, 0))], "cpu"
    )


def usual(depth, packed):
    """A module with random parameters."""
    torch.manual_seed(0)
    return Usual(depth, packed)


def ours(depth):
    """The module of the head, from a batch to scores."""
    head = BLSTMT(options={"width": WIDTH, "hidden": HIDDEN, "depth": depth})
    module = head.build([(1, DIM)], 4, [torch.Generator().manual_seed(0)])
    return module, lambda batch: module(batch).outputs[0]


class Way:
    """A module in training on one kind of batches, with denormals flushed or not."""

    def __init__(self, task, batches, module, forward=None, flushed=False):
        self.task, self.batches, self.forward, self.flushed = task, batches, forward or module, flushed
        self.adam = torch.optim.Adam(module.parameters(), 1e-4, fused=True)

    def epoch(self, number):
        """CPU µs and padded frames for each real frame."""
        torch.set_flush_denormal(self.flushed)
        lengths, real, padded, started = self.task.lengths, 0, 0, time.process_time()
        for inputs, clips in self.batches(number):
            self.adam.zero_grad()
            (self.forward(*inputs) - self.task.targets[clips]).square().mean().backward()
            self.adam.step()
            real, padded = real + lengths[clips].sum(), padded + len(clips) * lengths[clips].max()
        taken = time.process_time() - started
        torch.set_flush_denormal(False)
        return 1e6 * taken / real, padded / real


def ways(task, depth):
    """The ways to train, by name."""
    module, forward = ours(depth)
    return {
        "packed, random batches": Way(task, task.random, usual(depth, True)),
        "padded, random batches": Way(task, task.random, usual(depth, False)),
        "the same, flushed": Way(task, task.random, usual(depth, False), flushed=True),
        "padded, by length, flushed": Way(task, task.bucketed, usual(depth, False), flushed=True),
        "ours": Way(task, task.ours, module, forward, flushed=True),
    }


@torch.no_grad()
def difference(task, way):
    """The largest difference between scores of a batch and of each of its clips alone."""
    clips = np.arange(BATCH)
    if isinstance(way.forward, Usual):
        together, alone = way.forward(*task.padded(clips)), [way.forward(*task.padded(clips[[c]])) for c in clips]
    else:
        batch = task.feed._padded.batch
        together, alone = way.forward(batch(clips)), [way.forward(batch(clips[[c]])) for c in clips]
    return float((together - torch.cat(alone)).abs().max())


@torch.no_grad()
def predicting(task, way):
    """CPU µs a frame of held-out clips."""
    started = time.process_time()
    task.feed.held_out(lambda batch, heads: way.forward(batch)[None], [0])
    return 1e6 * (time.process_time() - started) / task.lengths.sum()


def training(clips, epochs):
    """Prints the first table and gives its ratios."""
    task, ratios = Task(clips), {}
    print(f"{clips} clips, {task.lengths.sum()} frames; CPU us a real frame, median of {epochs} epochs\n")
    print(f"{'':<28}{'layers':>7}{'us':>8}{'padded':>8}{'from alone':>12}")
    for depth in (1, 2):
        found, every = {}, ways(task, depth)
        differences = {name: difference(task, way) for name, way in every.items()}
        for number in range(epochs + 1):
            for name, way in every.items():
                found.setdefault(name, []).append(way.epoch(number))
        took = {name: median(us for us, _ in each[1:]) for name, each in found.items()}
        for name, us in took.items():
            padding = np.mean([share for _, share in found[name]])
            print(f"{name:<28}{depth:>7}{us:>8.1f}{padding:>8.2f}{differences[name]:>12.1e}")
        print(f"{'ours, predicting one by one':<28}{depth:>7}{predicting(task, every['ours']):>8.1f}")
        for name in [*took][:-1]:
            key = name.replace(",", "").replace(" ", "_")
            ratios[f"{key}_over_ours_{depth}"] = round(took[name] / took["ours"], 2)
    return ratios


def reading(clips, folder):
    """Prints the second table: CPU µs a stored frame of clips of 10 s, of one layer and of 13, pooled or not."""
    print(f"\n{'reading batches of':<28}{'layers':>7}{'first us':>10}{'later us':>10}")
    for layers in (1, 13):
        names = tuple(map(str, range(13)))
        spec = FeatureSpec(f"l{layers}", EncoderSpec("b", "b", 16_000, 13, DIM, 0.02, 400, ""), frames=names[-layers:])
        keys = [hashlib.blake2b(f"{layers} {n}".encode(), digest_size=16).hexdigest() for n in range(clips)]
        unit = np.random.default_rng(0).standard_normal((LONGEST, layers, DIM)).astype(np.float16) / 28
        pooled, span = np.full((1, 13, DIM), 0.04, np.float16), np.array([[0.0, 10.0]])
        frames = {"frame_unit": unit, "frame_norm": np.ones(unit.shape[:2], np.float32)}
        rows = [ClipRows(k, pooled, pooled[..., 0].astype("f4"), np.array([LONGEST]), span, **frames) for k in keys]
        write(folder, spec, rows, {})
        source = FeatureSet(folder, spec)
        for name, cells in (("stored frames", None), ("6.25 cells a second", (np.array([62]),) * clips)):
            batches = feed(Frames((FrameSet(source, tuple(range(layers)), DIM),), tuple(keys), cells=cells))
            took = []
            for number in range(3):
                started = time.process_time()
                for _ in batches.epoch(number):
                    pass
                took.append(1e6 * (time.process_time() - started) / clips / LONGEST)
            print(f"{name:<28}{layers:>7}{took[0]:>10.1f}{took[-1]:>10.1f}")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named ratios as the last line")
    parser.add_argument("--quick", action="store_true", help="48 clips, 1 epoch")
    parser.add_argument("--clips", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ratios = training(48, 1) if options.quick else training(options.clips, 5)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        reading(32, folder)
    if options.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
