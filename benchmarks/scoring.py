"""Scoring with Audiobox-Aesthetics: `Scorer.stream` against the way of Audiobox's own inference, on the same weights.

    python benchmarks/scoring.py [--json] [--quick] [--clips N] [--rounds N] [--memory N …]

Weights are random in the published shape (94 M parameters; speed does not depend on them), clips are noise of 2–10 s,
mono at 16 kHz and stereo at 44.1 kHz, wav and flac. The other side takes batches of 1 and of 10 files: reads them
wholly, resamples every channel with the windowed sinc, takes the mean, cuts windows of 10 s, pads each with zeros,
stacks them, and runs one masked forward with all of torch's threads. Its network is ours, fused attention and all,
so that the way of working alone is compared. Ours is exact float32 as well; the largest difference of a score is
printed. All sides run in one process and take turns in an order that alternates; medians of the rounds count,
by the clock and by the time that processors spend, which other load on the machine disturbs less.

Before that, the memory of this process while one stream scores thousands of clips of half a second with a tiny model.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file

from mmmos.axes import AXES
from mmmos.features.encoders.audiobox import WINDOW, Heads, HeadSettings
from mmmos.features.encoders.base import exact
from mmmos.features.encoders.unilm import Shape, even_padding
from mmmos.features.encoders.wavlm_model import RATE, Network, Settings
from mmmos.resampling import resample
from mmmos.scoring.audiobox import audiobox_model
from mmmos.scoring.inputs import Clip
from mmmos.scoring.scorer import Scorer

PUBLISHED = {"layers": 12, "dim": 768, "heads": 12, "channels": 512}
QUICK = {"layers": 3, "dim": 384, "heads": 6, "channels": 256}
TINY = {"layers": 1, "dim": 16, "heads": 2, "channels": 8}
SCALES = (("PQ", 6.57505, 1.51466), ("PC", 3.18591, 1.86637), ("CE", 5.06865, 1.93029), ("CU", 5.73633, 1.75669))
FRAMES = 499


def make_checkpoint(folder, layers, dim, heads, channels):
    """A checkpoint with random weights in the published layout; its network and heads."""
    torch.manual_seed(0)
    kernels = [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]
    shape = Shape(layers, dim, heads, 4 * dim, pos_kernel=128, pos_groups=min(16, dim))
    network = Network(Settings(tuple((channels, *kernel) for kernel in kernels), False, True, True, False, shape))
    scorer = Heads(HeadSettings(5, layers + 1, True, "gelu", False, True, SCALES), dim)
    state = {f"wavlm_model.{key}": value for key, value in network.state_dict().items()} | scorer.state_dict()
    weight = state.pop("wavlm_model.encoder.pos_conv.weight")
    state["wavlm_model.encoder.pos_conv.0.weight_v"] = weight
    state["wavlm_model.encoder.pos_conv.0.weight_g"] = weight.norm(dim=(0, 1), keepdim=True)
    state["wavlm_model.encoder.pos_conv.0.bias"] = state.pop("wavlm_model.encoder.pos_conv.bias")
    folder.mkdir()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors")
    config = {
        "proj_num_layer": 5,
        "proj_ln": True,
        "proj_act_fn": "gelu",
        "proj_dropout": 0.0,
        "nth_layer": layers + 1,
        "use_weighted_layer_sum": True,
        "normalize_embed": True,
        "target_transform": {axis: {"mean": mean, "std": deviation} for axis, mean, deviation in SCALES},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return network.eval(), scorer.eval()


def make_clips(folder, count, shortest=2.0, longest=10.0):
    """Files of noise whose lengths are spread evenly, in an order of chance."""
    random, paths = np.random.default_rng(0), []
    kinds = [("wav", 16_000, 1), ("wav", 44_100, 2), ("flac", 44_100, 2), ("flac", 16_000, 1)]
    for number, length in enumerate(random.permutation(np.linspace(shortest, longest, count))):
        suffix, rate, channels = kinds[number % len(kinds)]
        paths.append(str(folder / f"{number}.{suffix}"))
        soundfile.write(paths[-1], random.standard_normal((round(length * rate), channels)) * 0.1, rate)
    return paths


def read(path):
    """Samples at 16 kHz of a file that is read wholly: each channel resampled, then their mean."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    channels = [torch.from_numpy(resample(np.ascontiguousarray(one), rate, RATE, "sinc-hann")) for one in samples.T]
    return torch.stack(channels).mean(0)


def theirs(network, heads, paths, batch):
    """Scores (clips, axes) from zero-padded, masked windows of 10 s, so many files at a time."""
    scores = []
    for first in range(0, len(paths), batch):
        waves = [read(path) for path in paths[first : first + batch]]
        windows = [(clip, part) for clip, wave in enumerate(waves) for part in wave.split(WINDOW)]
        padded = torch.stack([torch.nn.functional.pad(part, (0, WINDOW - len(part))) for _, part in windows])
        lengths = torch.tensor([len(part) for _, part in windows])
        frames = even_padding(torch.arange(WINDOW) >= lengths[:, None], FRAMES)
        with exact():
            states = torch.stack(network(padded, frames), 1)
            valid = (~frames)[:, None, :, None]
            found = heads((states * valid).sum(2) / valid.sum(2))
        values = torch.stack([found[axis] for axis in AXES], 1).double()
        for clip in range(len(waves)):
            rows = [row for row, (owner, _) in enumerate(windows) if owner == clip]
            scores.append(np.average(values[rows], axis=0, weights=lengths[rows]))
    return np.array(scores)


def ours(scorer, paths):
    """The same through a stream."""
    clips = (Clip(str(number), path) for number, path in enumerate(paths))
    found = list(scorer.stream(clips))
    assert not any(score.reason for score in found), next(score.detail for score in found if score.reason)
    return np.array([[score.scores[axis] for axis in AXES] for score in found])


def throughput(scratch, size, count, rounds):
    """Median wall and CPU s of each side, seconds of audio, and the largest difference of a score."""
    network, heads = make_checkpoint(scratch / "weights", **size)
    (scratch / "clips").mkdir()
    paths = make_clips(scratch / "clips", count)
    scorer = Scorer(audiobox_model(scratch / "weights"), device="cpu")
    sides = {
        "theirs, batches of 1": lambda some: theirs(network, heads, some, 1),
        "theirs, batches of 10": lambda some: theirs(network, heads, some, 10),
        "ours": lambda some: ours(scorer, some),
    }
    taken, scores = {name: [] for name in sides}, {}
    for run in sides.values():
        run(paths[:2])
    for number in range(rounds):
        for name, run in list(sides.items())[:: 1 if number % 2 else -1]:
            started = time.perf_counter(), time.process_time()
            scores[name] = run(paths)
            taken[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    gap = max(float(np.abs(scores["ours"] - other).max()) for other in scores.values())
    seconds = sum(soundfile.info(path).duration for path in paths)
    return {name: [*map(statistics.median, zip(*pairs, strict=True))] for name, pairs in taken.items()}, seconds, gap


def memory(scratch, counts):
    """MB that this process holds when so many short files of one stream are scored, and the whole stream's s."""
    make_checkpoint(scratch / "tiny", **TINY)
    (scratch / "short").mkdir()
    paths = make_clips(scratch / "short", 100, 0.4, 0.6)
    scorer = Scorer(audiobox_model(scratch / "tiny"), device="cpu")
    clips = (Clip(str(n), paths[n % len(paths)]) for n in range(max(counts)))
    held, started = {}, time.perf_counter()
    for number, _ in enumerate(scorer.stream(clips), 1):
        if number in counts:
            held[number] = resident()
    return held, time.perf_counter() - started


def resident():
    """MB of memory that this process holds; only Linux tells."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named ratios as the last line")
    parser.add_argument("--quick", action="store_true", help="one round of 8 clips, a smaller model, 1,000 short files")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[500, 2_000, 10_000], help="numbers of short files")
    options = parser.parse_args()
    size, count, rounds, counts = PUBLISHED, options.clips, options.rounds, options.memory
    if options.quick:
        size, count, rounds, counts = QUICK, 8, 1, [100, 1_000]
    with tempfile.TemporaryDirectory() as folder:
        held, streamed = memory(Path(folder), counts) if counts and Path("/proc/self/statm").exists() else ({}, 0.0)
        taken, seconds, gap = throughput(Path(folder), size, count, rounds)
    print(f"{count} clips, {seconds:.0f} s of audio, {torch.get_num_threads()} threads")
    ratios = {"largest_difference": gap}
    base = taken["theirs, batches of 1"]
    for name, (wall, cpu) in taken.items():
        pace = f"{wall:8.1f} s{cpu:8.1f} CPU s{seconds / wall:8.1f} x real time"
        print(f"{name:<24}{pace}{base[0] / wall:8.2f} x{base[1] / cpu:8.2f} x by CPU")
        key = name.replace(",", "").replace(" ", "_")
        ratios |= {key: round(base[0] / wall, 3), f"{key}_cpu": round(base[1] / cpu, 3)}
    print(f"largest difference of a score: {gap:.1e}")
    for files, megabytes in held.items():
        print(f"{files:>6} short files scored: {megabytes:8.0f} MB")
        ratios[f"memory_{files}"] = round(megabytes / held[min(held)], 3)
    if held:
        print(f"{max(held) / streamed:.0f} short files a second")
    if options.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
