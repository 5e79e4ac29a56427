"""Dask and Ray with two real workers: the results of one process, whatever dies."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from mmmos import parallel
from mmmos.errors import SetupError, UnknownName
from mmmos.parallel.inside import Context
from mmmos.parallel.job import LIMIT

sys.path.append(str(Path(__file__).parent))
import cluster_tasks

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", params=["dask", "ray"])
def backend(request):
    """An engine; its cluster is started by the first test and ended after the last."""
    pytest.importorskip("distributed" if request.param == "dask" else "ray")
    yield request.param
    import_module(f"mmmos.parallel.on_{request.param}").close()


@pytest.fixture
def two(backend):
    return parallel.Workers(backend, jobs=2)


def test_results_are_those_of_one_process_in_their_order(two):
    tasks = list(range(30))
    assert list(parallel.map(cluster_tasks.square, tasks, jobs=two, ordered=True)) == [n * n for n in tasks]


def test_a_killed_worker_costs_the_task_that_it_was_at(two, tmp_path):
    killed = []
    with closing(parallel.map(partial(cluster_tasks.slow_pid, tmp_path), range(40), jobs=two)) as results:
        for done, pid in enumerate(results):
            if done in (5, 15, 25) and pid not in killed:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)
    executed = cluster_tasks.executed(tmp_path)
    assert killed
    assert len(set(executed)) == 40
    assert len(executed) <= 40 + len(killed)


def test_deaths_in_the_middle_of_tasks_are_repeated_exactly(two, tmp_path):
    found = list(parallel.map(partial(cluster_tasks.die_once, tmp_path), range(20), jobs=two))
    assert sorted(found) == list(range(20))
    again = {number: times for number, times in Counter(cluster_tasks.executed(tmp_path)).items() if times != 1}
    assert again == {"3": 2, "13": 2}


def test_a_task_that_ends_every_worker_is_named_and_the_others_are_done(two, tmp_path):
    found = parallel.map(partial(cluster_tasks.die_at, tmp_path, (7, 8)), range(20), jobs=two, lost=lambda n: -n)
    assert sorted(found) == [-8, -7, *(n for n in range(20) if n not in (7, 8))]
    again = {number: times for number, times in Counter(cluster_tasks.executed(tmp_path)).items() if times != 1}
    assert again.pop("7") == again.pop("8") == LIMIT
    # On Dask a result may die with its worker before it is fetched, once for each of the deaths.
    assert not again if two.backend == "ray" else max(again.values(), default=0) <= 1 + 2 * LIMIT


def test_a_model_and_bound_arguments_come_to_a_worker_once(two, tmp_path):
    loads, arrivals = tmp_path / "loads", tmp_path / "arrivals"
    loads.mkdir()
    arrivals.mkdir()
    bound = partial(cluster_tasks.with_a_model, cluster_tasks.Large(arrivals), loads)
    assert sorted(parallel.map(bound, range(12), jobs=two)) == list(range(12))
    for folder in (loads, arrivals):
        assert 1 <= len(cluster_tasks.executed(folder)) == len(set(cluster_tasks.executed(folder))) <= 2


def test_each_worker_writes_a_log(two, tmp_path):
    logged = parallel.Workers(two.backend, jobs=2, logs=str(tmp_path / "logs"))
    pids = set(parallel.map(cluster_tasks.process, [0.1] * 6, jobs=logged))
    assert {path.stem.rsplit("-", 1)[1] for path in (tmp_path / "logs").iterdir()} == {str(pid) for pid in pids}


def test_what_a_task_raises_arrives_as_it_was(two, capfd):
    with pytest.raises(UnknownName, match="Did you mean 'PQ'") as caught:
        list(parallel.map(cluster_tasks.refuse, range(4), jobs=two))
    assert caught.value.options == ["PQ", "PC"]
    assert capfd.readouterr() == ("", "")


def test_the_workers_stay_for_the_next_call_and_end_with_one_that_is_left(two):
    first = set(parallel.map(cluster_tasks.process, [0.1] * 6, jobs=two))
    with closing(parallel.map(cluster_tasks.process, [0.0, *[60.0] * 9], jobs=two)) as results:
        assert next(results) in first
    until = time.monotonic() + 10
    while any(map(is_alive, first)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_alive, first))


def test_another_version_is_refused():
    in_dask, in_ray = (pytest.importorskip(f"mmmos.parallel.{name}") for name in ("in_dask", "in_ray"))
    with pytest.raises(SetupError, match=r"The workers have mmmos .*, and this is mmmos 0\.0\.1"):
        in_dask.perform("0.0.1", Context(), "square", 0, 1)
    with pytest.raises(SetupError, match=r"The workers have mmmos .*, and this is mmmos 0\.0\.1"):
        in_ray.Performer([]).enter("0.0.1", Context(), cluster_tasks.square)


@pytest.mark.parametrize(("name", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_extra_is_a_sentence(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"mmmos.parallel.on_{name}", raising=False)
    with pytest.raises(SetupError, match=rf"pip install 'mmmos\[{name}\]'"):
        list(parallel.map(cluster_tasks.square, range(4), jobs=parallel.Workers(name)))


DRIVER = """
import sys
sys.path.append(sys.argv[1])
import cluster_tasks
from mmmos import parallel
if __name__ == "__main__":
    two = parallel.Workers(sys.argv[2], jobs=2)
    for pids in parallel.map(cluster_tasks.process_with_child, [0.0] * 6 + [60.0] * 9, jobs=two):
        print(*pids, flush=True)
"""


def test_nothing_outlives_a_driver_that_is_killed(backend, tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), str(Path(__file__).parent), backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver:
        pids = {int(pid) for _ in range(6) for pid in driver.stdout.readline().split()}
        below = descendants(driver.pid)
        assert pids <= below
        # Ray's agents end by themselves, a minute or two after the rest.
        below = {pid for pid in below if b"agent" not in Path(f"/proc/{pid}/cmdline").read_bytes().lower()}
        driver.kill()
    until = time.monotonic() + 20
    while any(map(is_alive, below)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not {pid for pid in below if is_alive(pid)}


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid):
    """All processes below one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}
