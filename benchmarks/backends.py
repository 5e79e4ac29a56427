"""The same work on every backend, and what a `kill -9` of a worker costs on each: one table, one run.

    python benchmarks/backends.py [--json] [--quick] [--tasks N] [--clips N] [--only NAME …]

Two processes each, but for "this process". The rows are `mmmos.parallel.map` on its three backends, each of which
starts what it needs for the time of a call, and `joblib.Parallel` on loky as most people use it.
Start-up is the time to the first result of the first call; a task's overhead is that of tasks that do nothing.
Tasks of 20 ms write a line each; when a quarter of the lines are there, the writer of the last one gets SIGKILL. After
that all results should be there; every line beyond the number of tasks is work that was done twice.
Then clips of 0.1 s are extracted with an encoder that costs nothing (see million.py), undisturbed and with such a kill;
what the stores serve is compared byte by byte. Not for Windows.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from million import RATE, SECONDS, keys_of, material, seconds

from mmmos import parallel
from mmmos.features.extraction.extract import complete, open_set
from mmmos.features.extraction.options import Options
from mmmos.features.spec import resolve
from mmmos.manifest import read_manifest

PAUSE = 0.02

TASKS = """
import os, time

def nothing(task):
    return task

def work(task):
    number, pause, lines = task
    time.sleep(pause)
    with open(lines, "a") as file:
        file.write(f"{os.getpid()}\\n")
    return number
"""

BACKENDS = {
    "joblib.Parallel": None,
    "this process": parallel.Workers(jobs=1),
    "local": parallel.Workers(jobs=2),
    "dask": parallel.Workers("dask", jobs=2),
    "ray": parallel.Workers("ray", jobs=2),
}
NEEDS = {"dask": "distributed", "ray": "ray"}


def results_of(where, function, tasks):
    """The results as they come; ``where``: workers, None for plain joblib."""
    if where is None:
        from joblib import Parallel, delayed

        return closing(Parallel(2, return_as="generator_unordered")(delayed(function)(task) for task in tasks))
    return closing(parallel.map(function, tasks, jobs=where))


def empty_tasks(where, count):
    """s to the first result, µs for each one after it."""
    begun = time.perf_counter()
    with results_of(where, import_module("benchmark_tasks").nothing, list(range(count))) as results:
        next(results)
        first = time.perf_counter()
        rest = sum(1 for _ in results)
    return first - begun, 1e6 * (time.perf_counter() - first) / rest


class Killer:
    """Sends SIGKILL to the process that wrote the last line of a file, once, when the file has so many bytes."""

    def __init__(self, progress, pids, bytes_):
        self._progress, self._pids, self._bytes = progress, pids, bytes_
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._left.set()
        self._thread.join()

    def _watch(self):
        while not self._left.wait(0.01):
            if size(self._progress) >= self._bytes:
                pids = [int(pid) for pid in self._pids.read_text().split()]
                os.kill(next(pid for pid in reversed(pids) if pid != os.getpid()), signal.SIGKILL)
                return


def size(path):
    """Bytes of a file, 0 without one."""
    return path.stat().st_size if path.exists() else 0


def killed_tasks(where, folder, count):
    """Of tasks of which one is killed: how many gave a result, how many were carried out, s."""
    lines = folder / "lines"
    tasks = [(number, PAUSE, str(lines)) for number in range(count)]
    begun, found = time.perf_counter(), set()
    with Killer(lines, lines, len(f"{os.getpid()}\n") * count // 4):
        try:
            with results_of(where, import_module("benchmark_tasks").work, tasks) as results:
                found.update(results)
        except Exception as error:
            if type(error).__name__ != "TerminatedWorkerError":
                raise
            # What `Parallel` returns as a list: nothing.
            found.clear()
    return len(found), len(lines.read_text().split()), time.perf_counter() - begun


def extraction(where, manifest, encoder, store, kill):
    """s, windows encoded beyond those needed, and the digest of what the store serves."""
    fake = Path(encoder.rpartition(":")[0])
    windows, pids = (fake.with_name(f"{fake.name}.{what}") for what in ("windows", "pids"))
    clips, before = read_manifest(manifest), size(windows)
    with Killer(windows, pids, before + (len(clips) // 2 if kill else float("inf"))):
        took, status = seconds(lambda: complete(clips, encoder, store=store, options=Options("cpu", where)))
    assert (status["status"] == "done").all(), status["detail"].unique()[:5]
    rows = open_set(resolve(encoder).tables()[0], store).gather(keys_of(manifest, store))
    digest = hashlib.blake2b(digest_size=16)
    for array in (rows.unit, rows.norm, rows.frames, rows.span, rows.clip):
        digest.update(array.tobytes())
    return took, size(windows) - before - len(clips), digest.hexdigest()


def measured(name, folder, few, tasks, clips):
    """Numbers, by name, of one backend; ``few`` and ``clips``: manifest and encoder of some and of all clips."""
    where = BACKENDS[name]
    folder.mkdir()
    found = dict(zip(("start", "overhead"), empty_tasks(where, tasks), strict=True))
    if name != "this process":
        found |= zip(("results", "executions", "seconds"), killed_tasks(where, folder, tasks // 5), strict=True)
    if where is not None:
        found |= zip(("extract", "again", "digest"), extraction(where, *clips, folder / "all", False), strict=True)
        kill = name != "this process"
        found |= zip(("_", "again_killed", "few"), extraction(where, *few, folder / "few", kill), strict=True)
    return found


def show(found, count):
    """Print the table of all backends."""
    print(
        f"{'':<18}{'start-up':>10}{'overhead':>10}{'after the kill':>28}{'extraction':>12}{'clips encoded twice':>24}"
    )
    print(
        f"{'':<18}{'s':>10}{'µs a task':>10}{'results':>10}{'executions':>12}{'s':>6}{'clips/s':>12}"
        f"{'':>12}{'after the kill':>16}"
    )
    for name, one in found.items():
        killed = f"{one['results']:>10}{one['executions']:>12}{one['seconds']:>6.1f}" if "results" in one else " " * 28
        print(f"{name:<18}{one['start']:>10.2f}{one['overhead']:>10.0f}{killed}", end="")
        print(f"{count / one['extract']:>12.0f}{one['again']:>12}{one['again_killed']:>16}" if "extract" in one else "")
    if "joblib.Parallel" in found:
        usual = found["joblib.Parallel"]["overhead"]
        ratios = ", ".join(f"{name} {one['overhead'] / usual:.1f}" for name, one in found.items())
        print(f"\nA task's overhead against that of joblib.Parallel: {ratios}.")


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named numbers as the last line")
    parser.add_argument("--quick", action="store_true", help="500 tasks, 2,000 clips")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--only", nargs="+", choices=list(BACKENDS), default=list(BACKENDS))
    options = parser.parse_args()
    tasks, count = (500, 2_000) if options.quick else (options.tasks, options.clips)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        place = Path(folder).absolute()
        (place / "benchmark_tasks.py").write_text(TASKS)
        sys.path.insert(0, str(place))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))
        sets = []
        for some in (count // 5, count):
            (place / str(some)).mkdir()
            sets.append(material(place / str(some), some))
        names = [name for name in options.only if name not in NEEDS or find_spec(NEEDS[name])]
        found = {name: measured(name, place / name.replace(" ", "-"), sets[0], tasks, sets[1]) for name in names}
    print(f"{tasks:,} empty tasks; {tasks // 5:,} tasks of {1000 * PAUSE:.0f} ms, one worker killed;")
    print(f"{count:,} clips of {SECONDS:g} s at {RATE} Hz; a fifth of them with a worker killed\n")
    show(found, count)
    same = all(len({one[what] for one in found.values() if what in one}) == 1 for what in ("digest", "few"))
    print(f"The stores serve {'the same bytes on all of them' if same else 'DIFFERENT BYTES'}.")
    numbers = {"same_bytes": float(same)}
    for name, one in found.items():
        short = name.replace(" ", "_").replace(".", "_").lower()
        numbers |= {f"{what}_{short}": value for what, value in one.items() if not isinstance(value, str)}
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in numbers.items() if "__" not in name}))


if __name__ == "__main__":
    main()
