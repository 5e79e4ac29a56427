"""One map: the same results in this process and in others."""

import os
import time
from operator import call

import pytest

from mmmos import parallel
from mmmos.axes import axis
from mmmos.errors import UnknownName, UsageError


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_results_do_not_depend_on_the_processes(jobs):
    assert sorted(parallel.map(abs, list(range(-5, 1)), jobs=jobs)) == [0, 1, 2, 3, 4, 5]
    assert list(parallel.map(abs, [], jobs=jobs)) == []


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_two_jobs_are_two_other_processes(jobs):
    assert (os.getpid() in set(parallel.map(call, [os.getpid] * 6, jobs=jobs))) == (jobs < 2)


def test_long_work_is_handed_to_other_processes(monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 0.0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    assert os.getpid() not in set(parallel.map(call, [os.getpid] * 3, jobs=0))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_arrives_as_it_was_raised(jobs):
    with pytest.raises(UnknownName, match="Did you mean 'PQ'") as caught:
        list(parallel.map(axis, ["PQQ", "PQQ"], jobs=jobs))
    assert caught.value.name == "PQQ"


def test_fewer_than_no_processes_are_refused():
    with pytest.raises(UsageError, match="jobs must be 0"):
        list(parallel.map(abs, [1], jobs=-1))


def test_there_is_a_core():
    assert parallel.cores() >= 1


def count_to(number):
    yield from range(number)


@pytest.mark.parametrize("threads", [1, 3])
def test_results_made_ahead_come_in_the_items_order(threads):
    found = [(item, list(results)) for item, results in parallel.ahead(count_to, [3, 0, 20, 1], threads=threads)]
    assert found == [(3, [0, 1, 2]), (0, []), (20, list(range(20))), (1, [0])]
    assert list(parallel.ahead(count_to, [])) == []


def test_threads_run_no_further_ahead_than_they_may():
    made = []

    def make(number):
        for part in range(100):
            made.append((number, part))
            yield part

    for item, results in parallel.ahead(make, range(10), threads=2, depth=4):
        next(results)
        time.sleep(0.05)
        if item == 0:
            # Two threads, each with its queue full and one result in hand; the first has given one away.
            assert len(made) <= 2 * (4 + 1) + 1 and {number for number, _ in made} == {0, 1}
            break


def test_an_error_ahead_is_raised_where_its_item_is_read():
    def make(number):
        yield number
        if number == 1:
            raise UsageError("no")

    read = []
    with pytest.raises(UsageError, match="no"):
        for _, results in parallel.ahead(make, [0, 1, 2]):
            read.extend(results)
    assert read == [0, 1]


def test_an_item_that_is_not_read_does_not_stop_the_others():
    assert [item for item, _ in parallel.ahead(count_to, [30, 2, 30], depth=2)] == [30, 2, 30]
