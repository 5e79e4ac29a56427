"""One map: the same results in this process and in others."""

import os

import pytest

from mmmos import parallel
from mmmos.errors import UnknownName, UsageError


def square(number):
    return number**2, os.getpid()


def fail(name):
    raise UnknownName("loss", name, ["mse"])


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_results_do_not_depend_on_the_processes(jobs):
    results = list(parallel.map(square, list(range(6)), jobs=jobs))
    assert sorted(value for value, _ in results) == [0, 1, 4, 9, 16, 25]
    assert (os.getpid() in {process for _, process in results}) == (jobs < 2)
    assert list(parallel.map(square, [], jobs=jobs)) == []


def test_long_work_is_handed_to_other_processes(monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 0.0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    results = list(parallel.map(square, [1, 2, 3], jobs=0))
    assert sorted(value for value, _ in results) == [1, 4, 9]
    assert os.getpid() not in {process for _, process in results}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_arrives_as_it_was_raised(jobs):
    with pytest.raises(UnknownName, match="Did you mean 'mse'") as caught:
        list(parallel.map(fail, ["mze", "mze"], jobs=jobs))
    assert caught.value.name == "mze"


def test_fewer_than_no_processes_are_refused():
    with pytest.raises(UsageError, match="jobs must be 0"):
        list(parallel.map(square, [1], jobs=-1))


def test_there_is_a_core():
    assert parallel.cores() >= 1
