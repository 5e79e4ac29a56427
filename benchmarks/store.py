"""The store against one `.pt` per clip, one `.npy` per clip and joblib.Memory: same embeddings, same machine, same run.

    python benchmarks/store.py [--json] [--quick] [--clips N]

Embeddings are 13 × 768 in float16, random, one window a clip. Ours are the shards that extraction writes (32 clips
each) and the flat file that `mmmos features compact` makes of them; both are read through `FeatureSet`, which verifies
every row once in a process. A gather reads 32 random clips, the median of many after one pass over all clips; the first
ones, which verify, stand apart. A cold load reads all clips after the files were dropped from the page cache, where the
system allows it. The last part is what the store adds to extraction: the time to write a task's rows against the time
that WavLM base (random weights) takes to encode its clips, of 5 s each.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import joblib
import numpy as np
import torch

from mmmos.features.spec import EncoderSpec, FeatureSpec
from mmmos.features.store import FeatureSet, write
from mmmos.features.store.compaction import compact
from mmmos.features.store.shard import ClipRows

LAYERS, DIM, CHUNK, GATHER = 13, 768, 32, 32
SPEC = FeatureSpec("bench", EncoderSpec("bench", "bench", 16_000, LAYERS, DIM, 0.02, 400, "none"))


KEYS = [hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest() for number in range(100_000)]


def rows(number, unit):
    """A clip of one window."""
    frames = np.array([499])
    return ClipRows(KEYS[number], unit[None], np.ones((1, LAYERS), np.float32), frames, np.array([[0.0, 10.0]]))


VECTORS = np.zeros((0, LAYERS, DIM), np.float16)


def encode(number):
    """What joblib.Memory remembers: a stand-in for an encoder."""
    return VECTORS[number]


def write_shards(folder):
    """As extraction writes them."""
    for first in range(0, len(VECTORS), CHUNK):
        write(
            folder, SPEC, [rows(number, VECTORS[number]) for number in range(len(VECTORS))[first : first + CHUNK]], {}
        )


def write_flat(folder):
    """As extraction writes them, then compacted."""
    write_shards(folder)
    compact(FeatureSet(folder, SPEC).folder, SPEC.fingerprint)


def write_memory(folder):
    """Through joblib.Memory."""
    cached = joblib.Memory(folder, verbose=0).cache(encode)
    for number in range(len(VECTORS)):
        cached(number)


def write_files(save):
    """One file for each clip."""

    def into(folder):
        folder.mkdir()
        for number, vector in enumerate(VECTORS):
            save(vector, folder / str(number))

    return into


def open_store(folder):
    """A function that reads clips by number."""
    found = FeatureSet(folder, SPEC)
    return lambda numbers: found.gather([KEYS[number] for number in numbers]).unit


def open_memory(folder):
    """A function that reads clips by number."""
    cached = joblib.Memory(folder, verbose=0).cache(encode)
    return lambda numbers: np.stack([cached(number) for number in numbers])


def open_files(load):
    """A function that reads clips by number, for a folder."""
    return lambda folder: lambda numbers: np.stack([load(folder / str(number)) for number in numbers])


FORMATS = {
    "ours, shards": (write_shards, open_store),
    "ours, compacted": (write_flat, open_store),
    ".pt per clip": (
        write_files(lambda vector, path: torch.save(torch.from_numpy(vector), f"{path}.pt")),
        open_files(lambda path: torch.load(f"{path}.pt", weights_only=True).numpy()),
    ),
    ".npy per clip": (
        write_files(lambda vector, path: np.save(f"{path}.npy", vector)),
        open_files(lambda path: np.load(f"{path}.npy")),
    ),
    "joblib.Memory": (write_memory, open_memory),
}


def seconds(function, *arguments):
    """Wall time of one call and what it returned."""
    started = time.perf_counter()
    found = function(*arguments)
    return time.perf_counter() - started, found


def drop_from_cache(folder):
    """Ask the system to forget the content of files."""
    for path in Path(folder).rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(name, folder, gathers):
    """s to write, of a cold and a warm load of all clips, and of a gather; ms to open and read a first clip."""
    write_all, opened = FORMATS[name]
    everything = list(range(len(VECTORS)))
    result = {"write": seconds(write_all, folder)[0]}
    for state in ("cold", "warm"):
        if state == "cold":
            drop_from_cache(folder)
        result[f"{state}_load"], found = seconds(lambda: opened(folder)(everything))
        assert np.array_equal(found.reshape(VECTORS.shape), VECTORS)
    result["first"] = seconds(lambda: opened(folder)([7]))[0]
    for what in ("gather_fresh", "gather"):
        read, random, times = opened(folder), np.random.default_rng(0), []
        if what == "gather":
            read(everything)
        for _ in range(gathers):
            numbers = random.integers(0, len(VECTORS), GATHER).tolist()
            taken, found = seconds(read, numbers)
            times.append(taken)
            assert np.array_equal(found.reshape(GATHER, LAYERS, DIM), VECTORS[numbers])
        # Rows that meet for the first time are verified.
        result[what] = median(times if what == "gather" else times[: gathers // 10])
    return result


def overhead(folder, clips=8):
    """The store's share of extraction: s to store a task's rows over s to encode its clips with WavLM base."""
    from transformers import WavLMConfig, WavLMModel
    from transformers.utils import logging

    from mmmos.features import encoding
    from mmmos.features.encoders import encoder

    logging.disable_progress_bar()
    torch.manual_seed(0)
    WavLMModel(WavLMConfig()).save_pretrained(folder / "model")
    (folder / "model" / "preprocessor_config.json").write_text('{"do_normalize": false}')
    loaded = encoder("wavlm", weights=str(folder / "model"), device="cpu")
    spec = FeatureSpec("overhead", loaded.spec)
    random = np.random.default_rng(0)
    signals = {KEYS[number]: random.standard_normal(80_000).astype(np.float32) * 0.1 for number in range(clips)}
    encoding.encode(dict(list(signals.items())[:1]), spec, loaded, "cpu")
    encoded, found = seconds(encoding.encode, signals, spec, loaded, "cpu")
    task = list(found.values()) * (CHUNK // clips)
    stored = median(seconds(write, folder / f"store{turn}", spec, task, {})[0] for turn in range(5))
    return stored / (encoded * CHUNK / clips)


def main():
    """Print the table."""
    global VECTORS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named ratios as the last line")
    parser.add_argument("--quick", action="store_true", help="1,000 clips")
    parser.add_argument("--clips", type=int, default=5000)
    options = parser.parse_args()
    count = 1000 if options.quick else options.clips
    VECTORS = np.random.default_rng(0).standard_normal((count, LAYERS, DIM), dtype=np.float32)
    VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=-1, keepdims=True)).astype(np.float16)
    print(
        f"{count} clips of {LAYERS} x {DIM} float16, {VECTORS.nbytes / 1e6:.0f} MB; gathers of {GATHER} random clips\n"
    )
    print(f"{'':<18}{'write s':>9}{'cold s':>9}{'warm s':>9}{'first ms':>10}{'gather ms':>11}{'the first ms':>14}")
    found = {}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for number, name in enumerate(FORMATS):
            one = found[name] = measure(name, Path(folder) / str(number), 200 if options.quick else 400)
            print(
                f"{name:<18}{one['write']:>9.2f}{one['cold_load']:>9.3f}{one['warm_load']:>9.3f}"
                f"{1000 * one['first']:>10.1f}{1000 * one['gather']:>11.3f}{1000 * one['gather_fresh']:>14.3f}"
            )
        share = overhead(Path(folder))
    ratios = {"store_share_of_wavlm_base": round(share, 4)}
    print()
    for ours in ("shards", "compacted"):
        for name, short in ((".pt per clip", "pt"), (".npy per clip", "npy"), ("joblib.Memory", "joblib")):
            for what in ("gather", "cold_load"):
                ratio = found[name][what] / found[f"ours, {ours}"][what]
                ratios[f"{what}_{short}_over_{ours}"] = round(ratio, 2)
                print(f"{what.replace('_', ' '):<10} {name:<14} takes {ratio:6.1f} times as long as ours, {ours}")
    print(f"storing a task's rows takes {share:.2%} of the time that WavLM base takes to encode it")
    if options.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
