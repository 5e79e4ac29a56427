"""A Ray cluster that is not ours, one that goes away, one without a place: sentences, and nothing left behind."""

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmmos import parallel
from mmmos.errors import SetupError
from mmmos.parallel.inside import Context
from mmmos.parallel.job import LIMIT, LOST, Job

pytest.importorskip("ray")
sys.path.append(str(Path(__file__).parent))
import cluster_tasks
import ray

from mmmos.parallel import on_ray

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

ONE = parallel.Workers("ray", jobs=1)


class Actor(SimpleNamespace):
    """Stands for an actor: whether it was killed."""

    def __init__(self, gpus=0):
        super().__init__(gpus=gpus, killed=False)

    def kill(self):
        self.killed = True


def job(device="cpu", tasks=3):
    return Job(abs, [-1] * tasks, ONE, Context(), device)


def test_a_connection_of_the_users_is_used_and_left_until_its_head_is_gone(monkeypatch):
    own = set(parallel.map(cluster_tasks.process, [0.0], jobs=ONE))
    # What is connected is from here on taken for the user's.
    monkeypatch.setattr(on_ray, "_own", 0)
    other = set(parallel.map(cluster_tasks.process, [0.0], jobs=ONE))
    assert own == other, "the actor that was there"
    assert ray.is_initialized() and not on_ray._idle
    monkeypatch.setattr(on_ray, "_answers", lambda address, timeout: False)
    monkeypatch.setattr(on_ray, "PATIENCE", 0.0)
    began = time.monotonic()
    with pytest.raises(SetupError, match=r"head of the Ray cluster at .* no longer answers. What is finished is saved"):
        list(parallel.map(time.sleep, [60.0], jobs=ONE))
    assert time.monotonic() - began < 30
    on_ray.close()
    assert not ray.is_initialized()


def test_where_nothing_listens_there_is_no_cluster():
    for address in ("127.0.0.1:1", "nonsense:port"):
        with pytest.raises(SetupError, match=f"no Ray cluster at {address}. An address is like head:6379"):
            list(parallel.map(cluster_tasks.square, [1], jobs=parallel.Workers("ray", address)))


@pytest.mark.parametrize(("address", "words"), [("auto", "Ray cluster at auto: no luck"), (None, "Ray does not start")])
def test_what_ray_says_that_does_not_begin_is_a_sentence(monkeypatch, address, words):
    def init(**_):
        raise ConnectionError("no luck.\nmore")

    monkeypatch.setattr(on_ray.ray, "init", init)
    with pytest.raises(SetupError, match=words):
        list(parallel.map(cluster_tasks.square, [1], jobs=parallel.Workers("ray", address)))


def test_a_call_that_is_broken_off_while_it_waits_for_its_turn_does_nothing(monkeypatch):
    monkeypatch.setattr(on_ray, "LOOK", 0.01)
    stop = threading.Event()
    stop.set()
    with on_ray._lock:
        assert list(on_ray.carry_out(job(), stop)) == []


@pytest.mark.parametrize(
    ("resources", "device", "needed"),
    [
        ({"CPU": 4.0}, "auto", (0, 1)),
        ({"CPU": 4.0, "GPU": 2.0}, "auto", (1, 1)),
        ({"CPU": 4.0, "GPU": 2.0}, "cpu", (0, 1)),
        ({"CPU": 4.0}, "cuda", "has no GPU; tasks run on cuda"),
        ({}, "cpu", "has no CPU; tasks run on cpu"),
    ],
)
def test_an_actor_has_a_cpu_and_a_gpu_where_tasks_run_on_one(monkeypatch, resources, device, needed):
    monkeypatch.setattr(on_ray.ray, "cluster_resources", lambda: resources)
    idle = [Actor(0), Actor(1)]
    monkeypatch.setattr(on_ray, "_idle", idle.copy())
    if isinstance(needed, str):
        with pytest.raises(SetupError, match=needed):
            on_ray._needed(job(device))
    else:
        assert on_ray._needed(job(device)) == needed
        assert [actor.killed for actor in idle] == [actor.gpus != needed[0] for actor in idle]
        assert on_ray._idle == [actor for actor in idle if not actor.killed]


def crew(**known):
    """A crew without a cluster."""
    crew = object.__new__(on_ray._Crew)
    vars(crew).update({"free": [], "at_hand": {}, "_gpus": 1, "_head": "head:1", "count": 2, "_failures": 0} | known)
    return crew


def test_a_cluster_that_gives_no_place_is_a_sentence():
    with pytest.raises(SetupError, match=r"at head:1 had no free place \(1 CPU and 1 GPU\) for 60 s"):
        crew(_at_work=time.monotonic() - 61)._look()


def test_actors_that_die_as_soon_as_they_start_end_the_call_unless_one_lives():
    dying = crew()
    for result in (*[LOST] * LIMIT * 2, None, *[LOST] * LIMIT * 2):
        dying._count_failures(result)
    with pytest.raises(SetupError, match="die as soon as they start"):
        dying._count_failures(LOST)


def test_a_task_that_is_lost_with_the_head_ends_the_call(monkeypatch):
    monkeypatch.setattr(on_ray, "_result", lambda reference: LOST)
    monkeypatch.setattr(on_ray, "_answers", lambda address, timeout: False)
    monkeypatch.setattr(on_ray.ray, "wait", lambda references, timeout: (references, []))
    at_hand, now = {"reference": (0, Actor())}, time.monotonic()
    lost = crew(at_hand=at_hand, _entering={}, _at_work=now, _answered=now)
    with pytest.raises(SetupError, match="at head:1 no longer answers"):
        list(lost.ended())
