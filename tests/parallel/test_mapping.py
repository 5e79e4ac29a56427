"""One map: the same results in this process and in others."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import closing
from operator import call

import pytest

from mmmos import parallel
from mmmos.axes import axis
from mmmos.errors import SetupError, UnknownName, UsageError
from mmmos.parallel import mapping, on_loky, places, working_ahead


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_results_do_not_depend_on_the_processes(jobs):
    assert sorted(parallel.map(abs, list(range(-5, 1)), jobs=jobs)) == [0, 1, 2, 3, 4, 5]
    assert list(parallel.map(abs, [], jobs=jobs)) == []


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_two_jobs_are_two_other_processes(jobs):
    assert (os.getpid() in set(parallel.map(call, [os.getpid] * 6, jobs=jobs))) == (jobs < 2)


def test_the_only_task_is_another_process_own_if_two_are_asked_for():
    (process,) = parallel.map(call, [os.getpid], jobs=2)
    assert process != os.getpid()


def test_a_log_is_also_kept_of_tasks_in_this_process(tmp_path):
    assert list(parallel.map(abs, [-1, -2], jobs=parallel.Workers(jobs=1, logs=str(tmp_path)))) == [1, 2]
    (file,) = tmp_path.iterdir()
    assert file.read_text().count(" ends after ") == 2
    list(parallel.map(abs, [-1], jobs=1))
    assert file.read_text().count(" ends after ") == 2


def test_long_work_is_handed_to_other_processes(monkeypatch):
    monkeypatch.setattr(mapping, "PATIENCE", 0.0)
    monkeypatch.setattr(places, "cores", lambda: 2)
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


def test_an_error_in_what_is_not_read_has_no_reader():
    def make(number):
        yield number
        raise UsageError("no")

    assert [next(results) for _, results in parallel.ahead(make, [0, 1, 2])] == [0, 1, 2]


def test_threads_that_cannot_be_started_are_an_error_and_the_others_end(monkeypatch):
    real, started = threading.Thread.start, []

    def start(thread):
        started.append(thread)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(parallel.ahead(count_to, [1, 2], threads=3))
    assert len(started) == 2 and not ahead_threads()


def workers():
    return [child for child in multiprocessing.active_children() if type(child).__name__ == "LokyProcess"]


def test_a_map_that_is_closed_early_kills_its_processes():
    # Idle workers of earlier calls would stay.
    on_loky.close()
    with closing(parallel.map(time.sleep, [0.0, *[60.0] * 9], jobs=2)) as results:
        next(results)
        assert workers()
    assert not workers()
    assert sorted(parallel.map(abs, [-1, -2], jobs=2)) == [1, 2]


def test_a_map_that_is_read_to_the_end_keeps_its_processes_for_the_next():
    first = set(parallel.map(call, [os.getpid] * 9, jobs=2))
    assert first & set(parallel.map(call, [os.getpid] * 9, jobs=2))


def test_a_process_that_is_killed_is_a_sentence_not_a_hang():
    with pytest.raises(SetupError, match="A worker process was killed, most likely because memory ran out"):
        list(parallel.map(os._exit, [9, 9], jobs=2))


def test_closing_ends_the_threads_ahead():
    def endless(number):
        while True:
            yield number

    with closing(parallel.ahead(endless, range(5), threads=3)) as made:
        next(made)
        assert len(ahead_threads()) == 3
    assert not ahead_threads()


def test_a_thread_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(working_ahead, "PARTING", 0.05)
    go_on = threading.Event()

    def hang(number):
        yield number
        go_on.wait()

    with closing(parallel.ahead(hang, range(2))) as made:
        next(next(made)[1])
    (thread,) = ahead_threads()
    assert thread.daemon
    go_on.set()
    thread.join(5)
    assert not ahead_threads()


def ahead_threads():
    return [thread for thread in threading.enumerate() if thread.name == "mmmos-ahead"]


def test_stop_kills_every_child_process():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    parallel.stop()
    child.join(5)
    assert child.exitcode == -getattr(signal, "SIGKILL", signal.SIGTERM)


def test_stop_where_no_process_was_ever_started(monkeypatch):
    monkeypatch.delitem(sys.modules, "multiprocessing")
    parallel.stop()
    assert "multiprocessing" not in sys.modules
    assert list(parallel.map(abs, [-1], jobs=1)) == [1], "the next call begins anew"


def test_a_result_in_order_waits_for_those_before_it():
    asked = []

    def results():
        for number in (2, 0, 1, 4, 3):
            asked.append(number)
            yield number, number

    ordered = mapping._in_order(results())
    assert (next(ordered), asked) == (0, [2, 0])
    assert list(ordered) == [1, 2, 3, 4]
