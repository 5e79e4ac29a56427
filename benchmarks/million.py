"""Extraction over a million clips: what it costs besides decoding and encoding, and what a `kill -9` in it costs.

    python benchmarks/million.py [--json] [--quick] [--clips N] [--jobs N]

The clips are segments of 0.1 s of WAV files of 100 s; the encoder is a file of ten lines that costs nothing and counts
the windows that it is given. A first process is killed with SIGKILL when half of the shards are there, a second one
goes on from there, a third one finds nothing to do. Then the store is opened and searched, compacted, and opened again.
Memory is the resident size of the driver, the process that deals out the work. The same over a tenth of the clips comes
first, so that what grows faster than the clips is seen. Last, what decoding costs that goes before. Linux only.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from mmmos import audio
from mmmos.features.decoding import windows
from mmmos.features.encoding import cutter
from mmmos.features.extraction.clips import find
from mmmos.features.extraction.extract import open_set
from mmmos.features.spec import EncoderSpec, FeatureSpec, resolve
from mmmos.features.store.compaction import compact
from mmmos.manifest import read_manifest

RATE, SECONDS, SEGMENTS = 8000, 0.1, 1000

ENCODER = '''
"""A fake encoder: the first 8 samples of a window are its state."""
import os
from mmmos.features.encoders.base import EncoderCard

COUNTER = os.open(__file__ + ".windows", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
with open(__file__ + ".pids", "a") as file:
    file.write(f"{os.getpid()}\\n")

class Fake:
    spec = EncoderCard("fake", "fake", None, "none", 8000, 1, 8, 0.1, 8).spec()

    def encode(self, waves):
        os.write(COUNTER, b"." * len(waves))
        return waves[:, None, None, :8] + 1e-3

FAKE = EncoderCard("fake", "fake", lambda *_: Fake(), "none", 8000, 1, 8, 0.1, 8)
'''

EXTRACTION = """
import json, sys, time
from mmmos.features.extraction.options import Options
from mmmos.features.extraction.extract import complete
from mmmos.manifest import read_manifest

def memory(what):
    return next(int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith(what))

manifest, encoder, store, jobs = sys.argv[1:]
base, begun = memory("VmRSS"), time.perf_counter()
clips = read_manifest(manifest)
read, held = time.perf_counter() - begun, memory("VmRSS")
status = complete(clips, encoder, store=store, options=Options("cpu", int(jobs)))
took, cpu = time.perf_counter() - begun - read, time.process_time()
assert (status["status"] == "done").all(), status["detail"].unique()[:5]
found = dict(manifest_s=read, manifest_mb=held - base, extract_s=took, peak_mb=memory("VmHWM") - base, cpu_s=cpu)
print(json.dumps(found))
"""


def material(folder, count):
    """A manifest of ``count`` segments, and the encoder's address."""
    (folder / "audio").mkdir()
    random = np.random.default_rng(0)
    lines = ["id,path,start,end"]
    for first in range(0, count, SEGMENTS):
        path = folder / "audio" / f"{first // SEGMENTS}.wav"
        some = min(SEGMENTS, count - first)
        soundfile.write(path, random.integers(-9999, 9999, round(some * SECONDS * RATE), np.int16), RATE)
        for number in range(some):
            start, end = number * SECONDS, (number + 1) * SECONDS
            lines.append(f"c{first + number},{path},{start:.1f},{end:.1f}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    (folder / "fake.py").write_text(ENCODER)
    # A file that was written a moment ago is not remembered.
    time.sleep(3)
    return folder / "clips.csv", f"{folder / 'fake.py'}:FAKE"


def encoded(folder):
    """Windows that the encoder was given so far."""
    counter = folder / "fake.py.windows"
    return counter.stat().st_size if counter.exists() else 0


def started(arguments, jobs):
    """An extraction in a process of its own."""
    command = [sys.executable, "-c", EXTRACTION, *map(str, arguments), str(jobs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process):
    """What an extraction measured of itself."""
    said, _ = process.communicate()
    assert not process.returncode, process.returncode
    return json.loads(said)


def killed(process, folder, until):
    """SIGKILL to an extraction that has encoded so many windows. Returns s that it ran, s until its workers ended."""
    begun = time.perf_counter()
    while encoded(folder) < until and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "it was faster than the look at it"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ran, begun = time.perf_counter() - begun, time.perf_counter()
    last, seen = begun, encoded(folder)
    while time.perf_counter() - last < 1.5:
        time.sleep(0.05)
        if encoded(folder) != seen:
            last, seen = time.perf_counter(), encoded(folder)
    return ran, last - begun


def resident():
    """MB of memory that this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))


def seconds(function, *arguments):
    """Wall time of one call and what it returned."""
    begun = time.perf_counter()
    found = function(*arguments)
    return time.perf_counter() - begun, found


def measured(folder, count, jobs):
    """Numbers, by name, of an extraction over ``count`` clips."""
    folder.mkdir()
    manifest, encoder = material(folder, count)
    store = folder / "store"
    arguments = manifest, encoder, store
    ran, lingered = killed(started(arguments, jobs), folder, count // 2)
    table = resolve(encoder).tables()[0]
    kept = count - len(open_set(table, store).missing(keys_of(manifest, store)))
    resumed = finished(started(arguments, jobs))
    again = encoded(folder) - count
    nothing = finished(started(arguments, jobs))
    assert encoded(folder) - count == again
    opening, opened = seconds(open_set, table, store)
    shards = len(opened.index.shards)
    size = sum(each.size for each in opened.index.shards)
    compacting, _ = seconds(compact, opened.folder, opened.spec.fingerprint)
    before = resident()
    opening_flat, flat = seconds(open_set, table, store)
    assert len(flat.index.table.keys) == count
    return {
        "clips": count,
        "ran_s": ran,
        "kept": kept,
        "lingered_s": lingered,
        "resumed_s": resumed["extract_s"],
        "again": again,
        "ms_per_clip": 1000 * (resumed["extract_s"] - nothing["extract_s"]) / (count - kept),
        "driver_cpu_s": resumed["cpu_s"],
        "peak_mb": resumed["peak_mb"],
        "manifest_s": nothing["manifest_s"],
        "manifest_mb": nothing["manifest_mb"],
        "nothing_s": nothing["extract_s"],
        "nothing_mb": nothing["peak_mb"],
        "shards": shards,
        "bytes_per_clip": size / count,
        "open_s": opening,
        "compact_s": compacting,
        "flat_bytes_per_clip": flat.index.shards[0].size / count,
        "open_flat_s": opening_flat,
        "index_mb": resident() - before,
    }


def keys_of(manifest, store):
    """The store keys of a manifest's clips."""
    return [clip.key for clip in find(read_manifest(manifest), store)[0].values()]


def feeding(folder, seconds_of_audio):
    """By format, s of audio (44.1 kHz stereo) that one core decodes, mixes and resamples to 16 and 24 kHz in 1 s."""
    time_line = np.arange(44_100 * seconds_of_audio) / 44_100
    noise = np.random.default_rng(0).standard_normal((len(time_line), 2)) * 0.02
    tones = sum(np.sin(2 * np.pi * pitch * time_line) / pitch for pitch in (110, 277, 659, 1661, 4186))
    wave = (tones[:, None] * 20 + noise).clip(-1, 1)
    specs = [
        FeatureSpec("feed", EncoderSpec("feed", "feed", rate, 1, 1, 0.02, 400, "none")) for rate in (16_000, 24_000)
    ]
    found = {}
    for suffix in ("wav", "flac", "mp3", "ogg"):
        path = folder / f"feed.{suffix}"
        # In pieces: libsndfile overflows its stack on long ones of Vorbis.
        with soundfile.SoundFile(path, "w", 44_100, 2) as file:
            for first in range(0, len(wave), 44_100):
                file.write(wave[first : first + 44_100])
        begun = time.process_time()
        with audio.stream(path) as stream:
            for _ in windows(stream.blocks, stream.rate, specs, [cutter(spec) for spec in specs]):
                pass
        found[f"feed_{suffix}"] = seconds_of_audio / (time.process_time() - begun)
    took, _ = seconds(audio.content_hash, folder / "feed.wav")
    return found | {"hash_mb_s": (folder / "feed.wav").stat().st_size / 1e6 / took}


TABLE = (
    ("clips", "clips", ",.0f"),
    ("until SIGKILL, s", "ran_s", ",.1f"),
    ("clips stored by then", "kept", ",.0f"),
    ("until its workers had ended, s", "lingered_s", ".1f"),
    ("to do the rest, s", "resumed_s", ",.1f"),
    ("clips encoded twice", "again", ",.0f"),
    ("a clip, all processes at work, ms", "ms_per_clip", ".3f"),
    ("CPU time of the driver meanwhile, s", "driver_cpu_s", ",.1f"),
    ("peak of the driver above its start, MB", "peak_mb", ",.0f"),
    ("of it the manifest, MB", "manifest_mb", ",.0f"),
    ("to read the manifest, s", "manifest_s", ".1f"),
    ("with nothing to do, s", "nothing_s", ".1f"),
    ("peak with nothing to do, MB", "nothing_mb", ",.0f"),
    ("shards", "shards", ",.0f"),
    ("bytes of shards a clip", "bytes_per_clip", ",.0f"),
    ("to open them, s", "open_s", ".2f"),
    ("to compact them, s", "compact_s", ".1f"),
    ("bytes a clip, compacted", "flat_bytes_per_clip", ",.0f"),
    ("to open that, s", "open_flat_s", ".2f"),
    ("its index in memory, MB", "index_mb", ",.0f"),
)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named numbers as the last line")
    parser.add_argument("--quick", action="store_true", help="5,000 clips")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    count = 5_000 if options.quick else options.clips
    with tempfile.TemporaryDirectory(dir=".") as folder:
        place = Path(folder).absolute()
        feed = feeding(place, 60 if options.quick else 600)
        tenth, whole = (measured(place / str(some), some, options.jobs) for some in (count // 10, count))
    print(f"{'':<42}{'a tenth':>12}{'all':>12}")
    for words, name, form in TABLE:
        print(f"{words:<42}{tenth[name]:>12{form}}{whole[name]:>12{form}}")
    hashed = feed.pop("hash_mb_s")
    speeds = ", ".join(f"{name.removeprefix('feed_')} {speed:.0f}" for name, speed in feed.items())
    print(f"\nOne core decodes, mixes and resamples to 16 and 24 kHz, s of audio in a second: {speeds}.")
    print(f"It reads files for the first time, to know their content again, at {hashed:.0f} MB/s.")
    if options.json:
        numbers = feed | {"hash_mb_s": hashed} | whole | {f"tenth_{name}": value for name, value in tenth.items()}
        print(json.dumps({name: round(value, 4) for name, value in numbers.items()}))


if __name__ == "__main__":
    main()
