"""The tally: where the time of an extraction went, summed over threads, tasks and workers."""

import json
import time
from threading import Thread

import pytest

from mmmos import progress
from mmmos.features.extraction import settle, tally
from mmmos.features.extraction.extract import extract
from mmmos.features.extraction.tally import Stopwatch, Tally


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""
    now = [100.0]

    class Clock:
        perf_counter = staticmethod(lambda: now[0])

        @staticmethod
        def goes_on(seconds):
            now[0] += seconds

    monkeypatch.setattr(tally, "time", Clock)
    return Clock


def busy(watch):
    return dict(zip(tally.STAGES, watch.tally(0, 0, 0).busy, strict=True))


def test_a_stage_inside_another_counts_once(clock):
    watch = Stopwatch()
    with watch.at("resample"):
        clock.goes_on(1)
        for _ in range(2):
            with watch.at("decode"):
                clock.goes_on(10)
                with watch.at("write"):
                    clock.goes_on(100)
            clock.goes_on(2)
    clock.goes_on(1000)
    assert busy(watch) == {"resample": 5, "decode": 20, "write": 200, "encode": 0}
    assert watch.tally(0, 0, 0).wall == 1225


def test_items_count_for_the_stage_that_makes_them_and_not_for_who_uses_them(clock):
    watch = Stopwatch()

    def blocks():
        for _ in range(3):
            clock.goes_on(1)
            yield 0
        clock.goes_on(4)

    def waves():
        for _ in watch.each("decode", blocks()):
            clock.goes_on(10)
            yield 0

    for _ in watch.each("resample", waves()):
        clock.goes_on(100)
    assert busy(watch) == {"decode": 7, "resample": 30, "encode": 0, "write": 0}


def test_an_error_ends_a_stage_and_passes(clock):
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.at("encode"), watch.at("write"):
        clock.goes_on(3)
        raise KeyError
    with watch.at("encode"):
        clock.goes_on(1)
    assert busy(watch) == {"decode": 0, "resample": 0, "encode": 1, "write": 3}


def test_threads_add_up():
    watch = Stopwatch()

    def work():
        with watch.at("encode"):
            time.sleep(0.05)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert busy(watch)["encode"] >= 0.2


def test_sums_are_sums_and_a_worker_is_one():
    one = Tally((1.0, 2.0, 3.0, 4.0), 2, 60.0, 100, 11.0, frozenset(["a:1"]))
    two = Tally((0.5, 0.0, 1.0, 0.5), 1, 30.0, 50, 2.0, frozenset(["a:1", "b:1"]))
    assert one + two == Tally((1.5, 2.0, 4.0, 4.5), 3, 90.0, 150, 13.0, frozenset(["a:1", "b:1"]))
    assert sum([one, two], Tally()) == one + two


def test_the_table_says_share_and_speed_of_each_stage():
    tallied = Tally((10.0, 30.0, 60.0, 0.0), 1000, 7560.0, 5, 100.0, frozenset(["a:1", "a:2"]))
    assert tallied.table("melstats", 94.5).splitlines() == [
        "stage         busy s   share  × real time",
        "decode          10.0     10%          756",
        "resample        30.0     30%          252",
        "encode          60.0     60%          126",
        "write            0.0      0%            –",
        "melstats: 1,000 clips, 2.1 h of audio in 94 s with 2 workers: 80 × real time",
    ]
    assert "1 clips, 90.0 s of audio in 3 s with 0 workers: 30 × real time" not in tallied.table("x", 1)
    assert "1.5 min of audio in 3 s with 1 worker: 30 ×" in Tally(audio=90.0, workers=frozenset("a")).table("x", 3)


@pytest.fixture
def told(capfd):
    """What was said on stderr since the last time of asking."""
    yield lambda: capfd.readouterr().err
    progress.show(False)


def slow(fake, seconds):
    """Have a fake encoder take its time for each window."""
    text = fake.path.read_text().replace("    def encode(self, waves):", "    def encode(self, waves):\n        {}")
    fake.path.write_text(text.replace("{}", f"__import__('time').sleep({seconds})"))


def test_a_run_tells_what_each_stage_took_over_all_tasks(make_fake, make_clips, store, told, monkeypatch):
    fake, clips = make_fake(), make_clips(4, seconds=1.0, rate=16_000)
    slow(fake, 0.02)
    monkeypatch.setattr(settle, "CHUNK", 2)
    write = settle.encode_chunk.__globals__["store"].write
    monkeypatch.setattr(
        settle.encode_chunk.__globals__["store"], "write", lambda *rows: time.sleep(0.05) or write(*rows)
    )
    progress.show("json")
    extract(clips, [fake.name], store=store, device="cpu", jobs=1)
    (facts,) = [line for line in map(json.loads, told().splitlines()) if line["event"] == "throughput"]
    assert (facts["label"], facts["clips"], facts["audio_s"], facts["workers"]) == ("FAKE", 4, 4.0, 1)
    assert facts["busy_s"]["encode"] >= 0.08 and facts["busy_s"]["write"] >= 0.1
    assert facts["busy_s"]["decode"] > 0 and facts["busy_s"]["resample"] > 0
    assert facts["bytes"] > 0 and facts["elapsed_s"] >= facts["task_s"] >= 0.18
    extract(clips, [fake.name], store=store, device="cpu", jobs=1)
    assert "throughput" not in told()


def test_people_are_told_when_it_took_long(make_fake, make_clips, store, told, monkeypatch):
    fake = make_fake()
    progress.show(True)
    extract(make_clips(1), [fake.name], store=store, device="cpu", jobs=1)
    assert "real time" not in told()
    monkeypatch.setattr(tally, "WORTH", 0.0)
    extract(make_clips(2), [fake.name], store=store, device="cpu", jobs=1)
    assert "FAKE: 1 clips, 0.5 s of audio in " in (said := told()) and said.startswith("stage ")
