"""Many processes at one store: writers of the same and of other clips, readers, compactions; some are killed."""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from unittest import mock

import pytest

from mmmos.features.store import DamagedShard, FeatureSet, writing
from mmmos.features.store.compaction import compact
from mmmos.features.store.hashes import Hashes
from mmmos.features.store.upkeep import verify

sys.path.append(str(Path(__file__).parent))
from faults import SOAK
from stores import SPEC, assert_sound, key, rows, same

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
CLIPS = {number: 3 if number % 10 == 0 else 1 for number in range(40)}


class Process:
    """A forked process that runs ``work(say)``; ``said`` are the lines that it said, an exception being the last."""

    def __init__(self, work):
        receiving, sending = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                work(lambda text: os.write(sending, f"{text}\n".encode()))
                code = 0
            except BaseException:
                os.write(sending, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(sending)
        self.pipe = os.fdopen(receiving)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def end(self, *allowed):
        """Wait for its end; its exit code is 0 or an allowed one."""
        with self.pipe:
            said = self.pipe.read().splitlines()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert code in (0, *allowed), "\n".join(said)
        return said


def write(root, say, numbers, seed):
    """Store clips in an order of one's own, one to three to a shard, the parts of a long one by themselves."""
    chance = random.Random(seed)
    numbers = chance.sample(numbers, len(numbers))
    while numbers:
        some, numbers = numbers[: (count := chance.randint(1, 3))], numbers[count:]
        for number in (number for number in some if CLIPS[number] > 1):
            for at in chance.sample(range(3), 3):
                writing.write(root, SPEC, [rows(number, part=at, last=at == 2)], {})
            say(number)
        short = [number for number in some if CLIPS[number] == 1]
        writing.write(root, SPEC, [rows(number) for number in short], {})
        for number in short:
            say(number)


def tidy(root, stop):
    """Compact again and again."""
    folder = writing.folder_of(root, SPEC)
    while not stop.exists():
        compact(folder, SPEC.fingerprint)
        time.sleep(0.002)


def read(root, stop, seed):
    """Read again and again, with an index that grows and with fresh ones; what was there once stays there."""
    chance, mine, had = random.Random(seed), FeatureSet(root, SPEC), set()
    while not stop.exists():
        mine.refresh()
        found = mine if chance.random() < 0.5 else FeatureSet(root, SPEC)
        had |= set(assert_sound(found, CLIPS, had))
        if had:
            found.gather([key(number) for number in chance.sample(sorted(had), len(had))])


def round_of(root, stop, writers, seed, *, overlap, tidiers=0, readers=0):
    """One round; returns what was acknowledged. One of the writers and of the compactions is killed."""
    chance = random.Random(seed)
    numbers = list(CLIPS)
    shares = [numbers if overlap else numbers[place::writers] for place in range(writers)]
    others = [Process(lambda say: tidy(root, stop)) for _ in range(tidiers)]
    others += [Process(lambda say, place=place: read(root, stop, seed + place)) for place in range(readers)]
    working = [
        Process(lambda say, share=share, place=place: write(root, say, share, f"{seed} {place}"))
        for place, share in enumerate(shares)
    ]
    time.sleep(chance.uniform(0, 0.02 * writers))
    victims = [chance.choice(working), *others[: tidiers and 1]]
    for victim in victims:
        victim.kill()
    said = [line for each in working for line in each.end(*[-signal.SIGKILL] * (each in victims))]
    stop.touch()
    for each in others:
        each.end(*[-signal.SIGKILL] * (each in victims))
    stop.unlink()
    return {int(line) for line in said}


@pytest.mark.parametrize("overlap", [True, False], ids=["same clips", "other clips"])
@pytest.mark.parametrize("writers", [2, 4, 8, 16])
def test_writers_of_which_one_is_killed_lose_nothing(writers, overlap, tmp_path):
    for trial in range(SOAK):
        root = tmp_path / str(trial)
        acknowledged = round_of(root, tmp_path / "stop", writers, trial, overlap=overlap)
        assert_settled(root, acknowledged)
        assert overlap is False or len(acknowledged) == len(CLIPS)


@pytest.mark.parametrize("overlap", [True, False], ids=["same clips", "other clips"])
@pytest.mark.parametrize("writers", [2, 4, 8])
def test_compactions_and_readers_meanwhile_change_nothing(writers, overlap, tmp_path):
    """Two compactions, one of which is killed, and two readers."""
    for trial in range(SOAK):
        root = tmp_path / str(trial)
        acknowledged = round_of(root, tmp_path / "stop", writers, trial, overlap=overlap, tidiers=2, readers=2)
        assert_settled(root, acknowledged)


def assert_settled(root, acknowledged):
    """All is there and sound; the rest can be added; after a compaction there is one file with each clip once."""
    found = FeatureSet(root, SPEC)
    done = assert_sound(found, CLIPS, acknowledged)
    assert verify(root, full=True) == [] and not list(root.rglob("*.damaged"))
    for number in set(CLIPS) - set(done):
        found.write([rows(number, part=at, last=at == CLIPS[number] - 1) for at in range(CLIPS[number])])
    compact(found.folder, SPEC.fingerprint)
    found = FeatureSet(root, SPEC)
    assert assert_sound(found, CLIPS, CLIPS) == list(CLIPS)
    (contents,) = found.index.shards
    assert len(contents.keys) == len(CLIPS) and verify(root, full=True) == []


def test_compactions_alone_race_without_loss(tmp_path):
    """Four at once, round after round, over shards with duplicates in every order."""
    for trial in range(4 * SOAK):
        root = tmp_path / str(trial)
        for number in range(6):
            writing.write(root, SPEC, [rows(number), rows((number + 3) % 6)], {})
        folder = writing.folder_of(root, SPEC)
        some = [Process(lambda say, folder=folder: compact(folder, SPEC.fingerprint)) for _ in range(4)]
        for each in some:
            each.end()
        assert assert_sound(FeatureSet(root, SPEC), dict.fromkeys(range(6), 1), range(6)) == list(range(6))


def test_hosts_that_share_a_folder_may_have_the_same_process_ids(tmp_path):
    def host(say):
        with mock.patch("os.getpid", lambda: 7):
            FeatureSet(tmp_path, SPEC).prepare()
            write(tmp_path, say, list(CLIPS), 0)

    hosts = [Process(host) for _ in range(3)]
    assert [sorted(map(int, each.end())) for each in hosts] == [list(CLIPS)] * 3
    assert_settled(tmp_path, CLIPS)
    assert not list(tmp_path.rglob("*.tmp"))


def test_two_that_find_the_same_damage_keep_what_the_first_has_mended(tmp_path):
    """The second sets damaged shards aside after the first has written their clips again."""
    FeatureSet(tmp_path, SPEC).write([rows(1), rows(2)])
    (path,) = tmp_path.glob("*/*.safetensors")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    first, second = FeatureSet(tmp_path, SPEC), FeatureSet(tmp_path, SPEC)
    first.prepare()
    first.write([rows(1), rows(2)])
    second.prepare()
    for found in (first, second, FeatureSet(tmp_path, SPEC)):
        found.refresh()
        assert same(found, 1) and same(found, 2)
    assert not list(tmp_path.glob("*/.*.tmp"))


def test_rows_that_were_damaged_and_stored_again_are_served_by_the_same_process(tmp_path):
    FeatureSet(tmp_path, SPEC).write([rows(1)])
    (path,) = tmp_path.glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    found = FeatureSet(tmp_path, SPEC)
    with pytest.raises(DamagedShard):
        found.gather([key(1)])
    found.write([rows(1)])
    assert same(found, 1) and same(FeatureSet(tmp_path, SPEC), 1)


def test_measures_of_a_clip_that_is_not_there_are_never_another_s(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1)])
    with pytest.raises(DamagedShard, match="does not hold clip"):
        found.measures([key(2)])


@pytest.mark.parametrize("processes", [2, 8])
def test_processes_that_remember_hashes_at_once_keep_what_they_remember_right(processes, tmp_path):
    def content(number):
        return f"{number:064x}"

    def work(place):
        status = Path(__file__).stat()
        for number in range(place, 200, processes):
            memory = Hashes(tmp_path)
            memory.add(b"%016d" % number, status, content(number), time.time() + 10)
            memory.save()

    some = [Process(lambda say, place=place: work(place)) for place in range(processes)]
    time.sleep(0.05)
    some[0].kill()
    some[0].end(-signal.SIGKILL)
    for each in some[1:]:
        each.end()
    found = Hashes(tmp_path).look_up([b"%016d" % number for number in range(200)])
    kept = [number for number in range(200) if found[number] is not None]
    assert all(found[number] == content(number) for number in kept)
    assert {number for number in range(200) if number % processes} <= set(kept)
