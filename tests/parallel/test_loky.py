"""Processes of this machine: one that dies costs the task that it was at, and nothing else."""

import os
import random
import signal
import time
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing

import numpy as np
import pytest

from mmmos import parallel
from mmmos.errors import SetupError, UsageError
from mmmos.parallel import mapping, on_loky
from mmmos.parallel.inside import Context
from mmmos.parallel.job import LIMIT, Job


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_is_killed_costs_its_task(worker_tasks, tmp_path, seed):
    tasks = [worker_tasks.Told(number, str(tmp_path), 0.02) for number in range(40)]
    draw, done = random.Random(seed), set()
    # So far apart that none of them meets a task again that met one before.
    moments = [draw.randrange(first, first + 5) for first in (3, 15, 27)]
    with closing(parallel.map(worker_tasks.note, tasks, jobs=2)) as results:
        for number, process in results:
            done.add(number)
            if len(done) in moments:
                os.kill(process, signal.SIGKILL)
    counts = Counter(number for number, _ in worker_tasks.executions(tmp_path))
    assert done == counts.keys() == set(range(40))
    assert sum(counts.values()) <= 40 + len(moments)


def test_a_task_that_kills_its_worker_is_named_and_the_others_are_done(worker_tasks, tmp_path):
    tasks = [worker_tasks.Told(number, str(tmp_path), poison=number == 3) for number in range(8)]
    found = list(parallel.map(worker_tasks.note, tasks, jobs=2, lost=lambda task: (task.label, None)))
    assert {number for number, _ in found} == {0, 1, 2, 4, 5, 6, 7, "task called 3"}
    assert Counter(number for number, _ in worker_tasks.executions(tmp_path)) == {
        n: 3 if n == 3 else 1 for n in range(8)
    }


def test_without_a_substitute_a_lost_task_is_an_error_that_names_it(worker_tasks, tmp_path):
    tasks = [worker_tasks.Told(number, str(tmp_path), poison=number == 3) for number in range(8)]
    with pytest.raises(SetupError, match="task called 3 ended 3 of them"):
        list(parallel.map(worker_tasks.note, tasks, jobs=2))


def test_where_nothing_succeeds_the_machine_is_to_blame(worker_tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "HOPELESS", 2)
    tasks = [worker_tasks.Told(number, str(tmp_path), poison=True) for number in range(1000)]
    with pytest.raises(SetupError, match="A worker process was killed, most likely because memory ran out"):
        list(parallel.map(worker_tasks.note, tasks, jobs=2, lost=lambda task: task.label))
    assert len(worker_tasks.executions(tmp_path)) <= 20


def test_results_in_order_are_those_of_the_tasks_in_order(worker_tasks, tmp_path):
    tasks = [worker_tasks.Told(number, str(tmp_path), 0.05 * (number % 3 == 0)) for number in range(9)]
    found = list(parallel.map(worker_tasks.note, tasks, jobs=2, ordered=True))
    assert [number for number, _ in found] == list(range(9))


def test_a_worker_loads_its_model_once(worker_tasks):
    found = set(parallel.map(worker_tasks.load_once, list(range(12)), jobs=2))
    assert len(found) == 2 and {count for _, count in found} == {1}


def test_a_worker_that_grows_keeps_what_it_has_loaded(worker_tasks):
    assert len(set(parallel.map(worker_tasks.grow, [0, 0, 350, 350, 0, 0, 0, 0], jobs=2))) == 2


def test_workers_of_a_call_have_different_places(worker_tasks):
    slots = set(parallel.map(worker_tasks.slot_of, list(range(20)), jobs=2))
    assert {slot for slot, _ in slots} == {0, 1} and len(slots) == 2
    assert parallel.slot() == 0


def test_a_worker_that_dies_between_two_calls_is_replaced(worker_tasks):
    first = {process for process, _ in parallel.map(worker_tasks.load_once, list(range(8)), jobs=2)}
    for process in first:
        os.kill(process, signal.SIGKILL)
    time.sleep(0.2)
    second = {process for process, _ in parallel.map(worker_tasks.load_once, list(range(8)), jobs=2)}
    assert len(second) == 2 and not first & second


def test_a_worker_that_was_idle_for_long_is_replaced_before_loky_does_it(worker_tasks, monkeypatch):
    """A process that loky begins in place of an idle one may die without a word, and the call waits for ever."""
    monkeypatch.setattr(on_loky, "IDLE", 3)
    first = {process for process, _ in parallel.map(worker_tasks.load_once, list(range(8)), jobs=2)}
    time.sleep(1.6)
    second = {process for process, _ in parallel.map(worker_tasks.load_once, list(range(8)), jobs=2)}
    assert len(second) == 2 and not first & second


def test_a_worker_stays_after_a_task_that_took_longer_than_it_may_be_idle(worker_tasks, monkeypatch):
    monkeypatch.setattr(on_loky, "IDLE", 1)
    assert len(set(parallel.map(worker_tasks.sleeper, [0.7] * 6, jobs=2))) == 2


def test_workers_that_cannot_start_are_a_sentence(monkeypatch):
    on_loky.close()
    monkeypatch.setattr(on_loky, "_begin", os._exit)
    monkeypatch.setattr(on_loky, "_started", lambda number: started_to_die())
    with pytest.raises(SetupError, match=r"killed, most likely because memory ran out|die as soon as they start"):
        list(parallel.map(abs, [1, 2, 3], jobs=2))
    on_loky.close()


def test_a_worker_that_never_starts_is_given_up(monkeypatch):
    class Dead:
        def submit(self, *_):
            tries.append(self)
            raise BrokenProcessPool

        def shutdown(self, **_):
            pass

    tries = []
    monkeypatch.setattr(on_loky, "_started", lambda number: Dead())
    with pytest.raises(SetupError, match="die as soon as they start"):
        on_loky._Worker(0).begin(Job(abs, [1], parallel.Workers(jobs=1), Context()), 0)
    assert len(set(map(id, tries))) == len(tries) == LIMIT


def test_of_two_maps_at_once_each_has_workers_and_arrays_of_its_own():
    arrays = [np.full(200_000, number) for number in range(8)]
    with closing(parallel.map(np.sum, arrays, jobs=2)) as outer:
        found = [next(outer)]
        assert sorted(parallel.map(np.sum, arrays, jobs=2)) == sorted(map(np.sum, arrays))
        found += outer
    assert sorted(found) == sorted(map(np.sum, arrays))
    on_loky.close()


def started_to_die():
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(1, initializer=os._exit, initargs=(1,))


def test_what_other_processes_cannot_import_is_refused():
    with pytest.raises(UsageError, match=r"is not in a module.*Put it into a \.py file"):
        list(parallel.map(lambda task: task, [1, 2, 3], jobs=2))
