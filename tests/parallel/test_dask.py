"""A Dask cluster that is not ours: its scheduler, its workers' memory, and their end."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from mmmos import parallel
from mmmos.errors import SetupError

pytest.importorskip("distributed")
sys.path.append(str(Path(__file__).parent))
import cluster_tasks
from distributed import LocalCluster

from mmmos.parallel import on_dask


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(host, port):
    until = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((host, port), 1).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler and a worker with two processes of 500 MB: its own process and its address."""
    folder, address = tmp_path_factory.mktemp("dask"), f"tcp://127.0.0.1:{free_port()}"
    environment = {
        "PATH": "",
        "PYTHONPATH": str(Path(__file__).parent),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    }
    options = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    dask = [sys.executable, "-m", "dask"]
    many = ["--nworkers", "2", "--nthreads", "1", "--memory-limit", "500MB", "--no-dashboard", "--name", "of"]
    host, port = address.removeprefix("tcp://").split(":")
    with ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen([*dask, *command], **options))
            for command in (["scheduler", "--host", host, "--port", port, "--no-dashboard"], ["worker", address, *many])
        ]
        wait_for(host, int(port))
        yield started[0], address
        for process in started:
            process.kill()


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def workers(scheduler):
    return parallel.Workers("dask", scheduler[1])


def test_a_cluster_is_used_and_left_as_it_is(workers):
    first = set(parallel.map(cluster_tasks.process, [0.2] * 6, jobs=workers))
    assert len(first) == 2
    assert first == set(parallel.map(cluster_tasks.process, [0.2] * 6, jobs=workers))


def test_each_worker_of_a_machine_has_a_slot(workers):
    assert set(parallel.map(cluster_tasks.slot, [0.2] * 6, jobs=workers)) == {0, 1}


def test_a_task_that_needs_more_memory_than_a_worker_has_is_named(workers, tmp_path):
    found = parallel.map(partial(cluster_tasks.allocate, tmp_path, 3), range(6), jobs=workers, lost=lambda n: -n)
    assert sorted(found) == [-3, 0, 1, 2, 4, 5]
    again = {number: times for number, times in Counter(cluster_tasks.executed(tmp_path)).items() if times != 1}
    assert again == {"3": 2}


def test_a_scheduler_that_is_killed_ends_the_call_with_a_sentence(scheduler, workers, stack, capfd, monkeypatch):
    monkeypatch.setattr(on_dask, "PATIENCE", 2.0)
    process, address = scheduler
    results = parallel.map(cluster_tasks.process, [0.0, *[0.3] * 60], jobs=workers)
    next(results)
    other = stack.enter_context(closing(on_dask._Cluster(address, 0)))
    assert other.size() >= 1
    process.send_signal(signal.SIGKILL)
    with pytest.raises(SetupError, match=f"scheduler at {address} no longer answers. What is finished is saved"):
        list(results)
    other.look()
    with pytest.raises(SetupError, match=f"scheduler at {address} no longer answers"):
        other.size()
    with pytest.raises(SetupError, match=f"no Dask scheduler at {address}"):
        list(parallel.map(cluster_tasks.square, [1], jobs=workers))
    assert capfd.readouterr() == ("", "")


def test_a_cluster_without_workers_is_a_sentence_whether_by_its_address_or_its_file(monkeypatch, tmp_path):
    monkeypatch.setattr(on_dask, "DROUGHT", 0.5)
    with LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        file = tmp_path / "scheduler.json"
        file.write_text(json.dumps({"address": empty.scheduler_address}))
        for address in (empty.scheduler_address, str(file)):
            with pytest.raises(SetupError, match=f"has had no worker for .* Start some with: dask worker {address}"):
                list(parallel.map(cluster_tasks.square, [1], jobs=parallel.Workers("dask", address)))
