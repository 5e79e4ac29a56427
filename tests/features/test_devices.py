"""Devices: of several GPUs each process has its own, and what torch and Slurm say is respected."""

import pytest
import torch

from mmmos import parallel
from mmmos.features import devices
from mmmos.features.devices import find_device, share
from mmmos.features.extraction import settle, work
from mmmos.features.extraction.extract import extract
from mmmos.features.extraction.options import Options
from mmmos.parallel import Workers, inside


@pytest.fixture
def gpus(monkeypatch):
    """As if there were so many GPUs, seen by a process that no Slurm has started."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_LOCALID", "SLURM_NODEID", *devices._DEALT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(parallel, "cores", lambda: 16)
    return pretend


STEP = {"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("count", "environment", "own"),
    [
        (0, {}, []),
        (4, {}, [0, 1, 2, 3]),
        (4, STEP, [1]),
        (8, STEP, [1, 5]),
        (6, STEP | {"SLURM_LOCALID": "3"}, [3]),
        (1, STEP, [0]),
        (4, STEP | {"SLURM_STEP_TASKS_PER_NODE": "1(x8)", "SLURM_LOCALID": "0"}, [0, 1, 2, 3]),
        (4, STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "1"}, [1, 3]),
        (4, STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "2", "SLURM_LOCALID": "0"}, [0, 1, 2, 3]),
        (4, STEP | {"SLURM_GPUS_PER_TASK": "4"}, [0, 1, 2, 3]),
        (4, {"SLURM_NTASKS_PER_NODE": "4", "SLURM_LOCALID": "0"}, [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_tasks_of_a_slurm_step_that_see_the_same_gpus_share_them(count, environment, own):
    assert share(count, environment) == own


def test_the_tasks_of_a_step_have_all_gpus_among_them_and_none_twice():
    for count in range(4, 10):
        shares = [share(count, STEP | {"SLURM_LOCALID": str(task)}) for task in range(4)]
        assert sorted(gpu for own in shares for gpu in own) == list(range(count))


def test_each_worker_of_a_machine_computes_on_a_gpu_of_its_own(gpus, monkeypatch):
    gpus(2)
    found = []
    for number in range(3):
        monkeypatch.setattr(parallel, "slot", lambda number=number: number)
        found.append((find_device("auto"), find_device("cuda")))
    assert found == [("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cuda", "cuda")]
    assert find_device("cpu") == "cpu"


def test_a_task_of_slurm_computes_on_its_share(gpus, monkeypatch):
    gpus(4)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    assert find_device("auto") == "cuda:1"
    assert devices.processes("auto") == 1


@pytest.mark.parametrize(
    ("count", "device", "jobs", "processes", "threads"),
    [
        (0, "auto", 0, 1, 16),
        (0, "auto", 3, 3, 1),
        (1, "auto", 0, 1, 16),
        (4, "auto", 0, 4, 0),
        (4, "cuda", 0, 4, 0),
        (4, "cuda", 2, 2, 1),
        (4, "cuda:1", 0, 1, 16),
        (4, "cpu", 0, 1, 16),
    ],
)
def test_there_is_a_process_for_each_gpu_unless_something_else_is_asked_for(
    gpus, count, device, jobs, processes, threads
):
    gpus(count)
    for asked in (jobs, Workers(jobs=jobs)):
        options = Options(device=device, jobs=asked)
        assert (options.workers().jobs, options.threads()) == (processes, threads)
        assert options.are_here() == (processes == 1)
    cluster = Options(device=device, jobs=Workers("dask", jobs=jobs))
    assert (cluster.workers().jobs, cluster.threads(), cluster.are_here()) == (jobs, 0, False)


@pytest.mark.parametrize(("count", "cores", "threads"), [(2, 8, 4), (8, 4, 1), (1, 64, 8), (0, 4, 4)])
def test_the_cores_of_a_machine_decode_for_all_of_its_gpus(gpus, monkeypatch, count, cores, threads):
    gpus(count)
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    assert devices.decoders() == threads


def test_models_of_several_gpus_are_loaded_by_their_processes_and_not_by_the_driver(
    gpus, make_fake, make_clips, store, monkeypatch
):
    """The processes are played by this one; what a GPU would compute is computed on the CPU."""
    fake, clips, threads = make_fake(), make_clips(4), []
    loads = fake.path.with_suffix(".loads")
    head = (
        "def load(card, weights, revision, device):\n"
        f"    with Path({str(loads)!r}).open('a') as file:\n        file.write(device + ' ')"
    )
    fake.path.write_text(fake.path.read_text().replace("def load(card, weights, revision, device):", head))

    def play(function, tasks, *, jobs, device, lost):
        assert (jobs.jobs, device) == (2, "auto")
        for number, task in enumerate(tasks):
            monkeypatch.setattr(inside, "_slot", number % 2)
            yield function(task)

    ahead = parallel.ahead
    monkeypatch.setattr(parallel, "map", play)
    monkeypatch.setattr(parallel, "ahead", lambda *a, **how: threads.append(how["threads"]) or ahead(*a, **how))
    monkeypatch.setattr("mmmos.features.encoders.find_device", str)
    monkeypatch.setattr(settle, "CHUNK", 1)
    gpus(2)
    features = extract(clips, [fake.name], store=store)
    assert features.ids == ("c0", "c1", "c2", "c3")
    assert loads.read_text().split() == ["cpu", "cuda", "cuda:1", "cuda", "cuda:1"]
    assert threads[-4:] == [8] * 4
    assert len(work._loaded) == 1
