"""Shared fixtures: a finished tiny demo workspace, and the command line as a user has it."""

import gc
import getpass
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# No test has a time limit for one example: a busy machine is no fault.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Copies of what lies at URLs; all processes of a test run may share it.
os.environ.setdefault("MMMOS_CACHE", str(Path(tempfile.gettempdir()) / f"mmmos-tests-{getpass.getuser()}"))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """What is imported stays: no garbage collection looks through it again, no fork copies it for that."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What is covered is saved before the clusters that tests began end: xdist waits for 10 s and then kills."""
    coverage = sys.modules.get("coverage")
    if coverage is not None and (measured := coverage.Coverage.current()) is not None:
        measured.save()


def call(*arguments: object, cwd: Path | None = None, **options) -> subprocess.CompletedProcess[str]:
    """`mmmos` with some arguments in a process of its own; output as text."""
    command = [sys.executable, "-c", "from mmmos.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


@pytest.fixture
def mmmos_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command line: ``mmmos_command("features", "list", cwd=…)`` gives returncode, stdout, stderr."""
    return call


@pytest.fixture(scope="session")
def mmmos_script(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """How a shell calls `mmmos`; where processes may be forked, without the seconds that its imports take."""
    if sys.platform != "linux":
        yield shlex.join([sys.executable, "-c", "from mmmos.cli import main; main()"])
        return
    zygote, address = str(ROOT / "tests" / "zygote.py"), str(tmp_path_factory.mktemp("zygote") / "socket")
    command, pipe = [sys.executable, zygote, "--serve", address], subprocess.PIPE
    environment = os.environ | runpy.run_path(zygote)["ALONE"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) as process:
        assert process.stdin and process.stdout and process.stdout.readline() == b"ready\n"
        yield shlex.join([sys.executable, "-I", "-S", zygote, address])
        process.stdin.close()


@pytest.fixture(scope="module", autouse=True)
def no_cluster_is_left() -> Generator[None]:
    """Clusters wait for the next call for as long as the process lives, and take its time."""
    yield
    for name in ("on_dask", "on_ray"):
        if engine := sys.modules.get(f"mmmos.parallel.{name}"):
            engine.close()


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `mmmos demo FOLDER --size tiny` leaves; made once for all workers. Not to be written to."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, failure = shared / "tiny", shared / "tiny.failed"
    with FileLock(shared / "tiny.lock"):
        if not folder.exists() and not failure.exists():
            done = call("demo", shared / "tiny.part", "--size", "tiny", "--quiet")
            if done.returncode:
                failure.write_text(done.stderr, encoding="utf-8")
            else:
                (shared / "tiny.part").rename(folder)
    if failure.exists():
        pytest.fail(f"mmmos demo --size tiny failed: {failure.read_text(encoding='utf-8')}")
    return folder


@pytest.fixture
def workspace(tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny workspace, which is also the current folder."""
    folder = Path(shutil.copytree(tiny_workspace, tmp_path / "workspace"))
    monkeypatch.chdir(folder)
    return folder
