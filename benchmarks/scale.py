"""A store of a million clips: seconds to open it, to say what it lacks, and to find that nothing is to be done.

    python benchmarks/scale.py [--json] [--quick] [--clips N] [--files N]

The store is written shard by shard as extraction writes it (32 clips each, small rows, without waiting for the disk),
then opened, searched for all of its clips, and compacted. The second part makes many small WAV files, lets the store
know them, and repeats `extract` on them when nothing is missing: it counts the audio files that are opened, which must
be none, and compares peak memory for all files and for a tenth of them (on Linux).
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from mmmos.features.encoders import encoder
from mmmos.features.extraction import clips as finding
from mmmos.features.extraction.work import feature_spec
from mmmos.features.spec import EncoderSpec, FeatureSpec, resolve
from mmmos.features.store import FeatureSet, write
from mmmos.features.store.compaction import compact
from mmmos.features.store.shard import ClipRows

CHUNK = 32
SMALL = FeatureSpec("scale", EncoderSpec("scale", "scale", 16_000, 1, 4, 0.02, 400, "none"))


def seconds(function, *arguments):
    """Wall time of one call and what it returned."""
    started = time.perf_counter()
    found = function(*arguments)
    return time.perf_counter() - started, found


def row(key, spec):
    """A clip of one window of ones."""
    shape = 1, spec.encoder.layers, spec.encoder.dim
    unit = np.full(shape, spec.encoder.dim**-0.5, spec.dtype)
    return ClipRows(key, unit, np.ones(shape[:2], np.float32), np.array([49]), np.array([[0.0, 1.0]]))


def fill(folder, spec, keys):
    """Shards of clips, without waiting for the disk."""
    sync, os.fsync = os.fsync, lambda _: None
    try:
        for first in range(0, len(keys), CHUNK):
            write(folder, spec, [row(key, spec) for key in keys[first : first + CHUNK]], {})
    finally:
        os.fsync = sync


def large_store(folder, count):
    """Seconds of what is done with a store of many clips, in many shards and in one file."""
    keys = [hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest() for number in range(count)]
    fill(folder, SMALL, keys)
    found = {}
    for state in ("shards", "compacted"):
        if state == "compacted":
            found["compact"], _ = seconds(compact, FeatureSet(folder, SMALL).folder, SMALL.fingerprint)
        found[f"open_{state}"], opened = seconds(FeatureSet, folder, SMALL)
        found[f"search_{state}"], missing = seconds(opened.missing, [*keys, "0" * 32])
        assert missing == ["0" * 32]
        found[f"gather_{state}"], _ = seconds(opened.gather, keys[:: max(count // 1000, 1)])
    return found


RERUN = """
import json, sys, time
import pandas as pd
from mmmos.features.extraction.extract import complete
clips = pd.read_csv(sys.argv[1], index_col="id", nrows=int(sys.argv[3]))
complete(clips.head(1), "melstats", store=sys.argv[2])
opened = []
sys.addaudithook(lambda event, about: opened.append(about) if event == "open" and ".wav" in str(about[0]) else None)
def peak():
    return next(int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith("VmHWM"))
base = peak()
started = time.perf_counter()
status = complete(clips, "melstats", store=sys.argv[2])
assert (status["status"] == "done").all()
taken = time.perf_counter() - started
print(json.dumps([taken, len(opened), peak() - base]))
"""


def rerun(folder, count):
    """Of a rerun with nothing to do, over all files and over a tenth: s, audio files opened, MB above the start."""
    audio = folder / "audio"
    audio.mkdir()
    noise = np.random.default_rng(0).integers(-9999, 9999, (count, 900), dtype=np.int16)
    paths = {f"c{number}": str(audio / f"c{number}.wav") for number in range(count)}
    for path, samples in zip(paths.values(), noise, strict=True):
        soundfile.write(path, samples, 8000)
    clips = pd.DataFrame({"path": paths}).rename_axis("id")
    clips.to_csv(folder / "clips.csv")
    time.sleep(3)
    first, (found, _) = seconds(finding.find, clips, folder / "store")
    spec = feature_spec(resolve("melstats").tables()[0], encoder("melstats", device="cpu"))
    fill(folder / "store", spec, [clip.key for clip in found.values()])
    results = []
    for some in (count // 10, count):
        arguments = [sys.executable, "-c", RERUN, folder / "clips.csv", folder / "store", str(some)]
        results.append(json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout))
    return first, results


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named numbers as the last line")
    parser.add_argument("--quick", action="store_true", help="50,000 clips and 5,000 files")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    count, many = (50_000, 5_000) if options.quick else (options.clips, options.files)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        found = large_store(Path(folder) / "large", count)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"a store of {count:,} clips; {peak:.0f} MB at most in this process, which also wrote it")
        for what in ("open", "search", "gather"):
            many_shards, flat = found[f"{what}_shards"], found[f"{what}_compacted"]
            print(f"  {what:<8}{many_shards:8.2f} s in shards of {CHUNK}{flat:8.2f} s in one file")
        print(f"  compact {found['compact']:8.2f} s")
        first, ((_, _, little), (again, opened, much)) = rerun(Path(folder), many)
    print(f"{many:,} files: {first:.1f} s to read them the first time; after that, extraction with nothing to do")
    print(
        f"  takes {again:.1f} s, opens {opened} of them, and needs {much:.0f} MB ({little:.0f} MB for a tenth of them)"
    )
    if options.json:
        numbers = found | {"rerun": again, "rerun_opened": opened, "rerun_mb": much, "rerun_tenth_mb": little}
        print(json.dumps({name: round(value, 3) for name, value in numbers.items()}))


if __name__ == "__main__":
    main()
