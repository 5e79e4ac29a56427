"""One map: the same results in this process and in others."""

import os
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
