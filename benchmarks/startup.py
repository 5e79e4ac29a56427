"""What small things cost: seconds, memory and heavy modules of commands that compute little, beside `import torch`.

    python benchmarks/startup.py [--json] [--quick]

Each row is a fresh process: the median of its wall seconds less an empty one's, that as a share of `import torch`, the
processor's seconds (which other load disturbs less), the most memory that it held, and which heavy modules it loaded.
The last rows score noise of 10 s, 10 min and an hour with a bundle of `melstats` heads: what a file adds to the memory
of the modules alone. The commands run in a tiny demo workspace, which is made first.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path
from statistics import median

HEAVY = ("torch", "pandas", "numpy", "scipy", "sklearn", "pydantic", "librosa", "numba", "transformers", "nnAudio")
RATE = 32_000
# Of ru_maxrss: KiB, on macOS bytes.
UNIT = 1 if sys.platform == "darwin" else 1024

IMPORTS = ("import torch", "import mmmos")
COMMANDS = (
    "--help",
    "--version",
    "features --help",
    "score --help",
    "rnu",
    "run --jbos 2",
    "features extract melstat dev.csv",
    "features extract melstats dve.csv",
    "ensembles show quikc",
    "score audio --bundle dmeo",
    "init new",
    "features list",
    "features show",
    "ensembles show --intervals 0",
    "run --dry-run",
    "submissions check submissions/demo --clips test.csv",
    "evaluate submissions/demo/answer.txt test.csv --intervals 0",
)


def measured(arguments, folder, rounds):
    """Median wall s, median CPU s and the most MB of fresh Python processes in a folder.

    Linux counts what this process holds as memory of those that it starts: it imports nothing large.
    """
    rows = []
    for _ in range(rounds):
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        rows.append((time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * UNIT / 1e6))
    wall, processor, memory = zip(*rows, strict=True)
    return median(wall), median(processor), max(memory)


def loaded(arguments, folder):
    """The heavy modules that a process imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, errors="replace")
    found = set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, re.MULTILINE))
    return [name for name in HEAVY if name in found]


def make_workspace(folder, lengths):
    """A tiny demo workspace, and files of noise of so many seconds beside it."""
    command = [sys.executable, "-m", "mmmos", "demo", str(folder), "--size", "tiny", "--quiet"]
    subprocess.run(command, check=True, capture_output=True)
    for seconds in lengths:
        with wave.open(str(folder / f"{seconds}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            for _ in range(seconds):
                file.writeframes(random.randbytes(2 * RATE))


def cases(lengths):
    """Every row: its name and the arguments of Python."""
    yield from ((code, ["-c", code]) for code in IMPORTS)
    scores = [f"score {seconds}.wav --bundle demo" for seconds in lengths]
    yield from ((f"mmmos {line}", ["-m", "mmmos", *line.split()]) for line in (*COMMANDS, *scores))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named numbers as the last line")
    parser.add_argument("--quick", action="store_true", help="one round in place of seven, and no hour of audio")
    options = parser.parse_args()
    rounds, lengths = (1, (10, 600)) if options.quick else (7, (10, 600, 3600))
    ratios, torch = {}, None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        make_workspace(folder, lengths)
        empty = measured(["-c", ""], folder, rounds)
        print(f"{'':<64}{'wall':>8}{'of torch':>10}{'CPU':>8}{'memory':>9}  modules")
        for name, arguments in cases(lengths):
            repeats = rounds if ".wav" not in name else 1
            wall, processor, memory = measured(arguments, folder, repeats)
            wall, processor = wall - empty[0], processor - empty[1]
            torch = torch or wall
            modules = " ".join(loaded(arguments, folder))
            print(
                f"{name:<64}{wall:6.2f} s{wall / torch:10.0%}{processor:6.2f} s{memory:6.0f} MB  {modules}", flush=True
            )
            key = re.sub(r"\W+", "_", name).strip("_")
            ratios |= {f"{key}_ratio": round(wall / torch, 4), f"{key}_MB": round(memory)}
    if options.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
