"""The power is cut: what was not synced may be gone, torn, or there in any combination. What was acknowledged stays.

In the manner of ALICE and CrashMonkey: the operations of a job are recorded, and the folder is rebuilt as it may be
found after a cut behind each of them. Mutants of the code show that the same harness finds what it is made to find.
"""

import os
import random
import shutil
import stat
import sys
from pathlib import Path
from unittest import mock

import pytest

from mmmos import files
from mmmos.features.store import FeatureSet, compaction, reading, shard, writing

sys.path.append(str(Path(__file__).parent))
from faults import SOAK, Disk, Interrupted, Recorder, build, content_of, interrupt
from stores import FRAMES, SPEC, assert_sound, key, rows

CLIPS = {1: 1, 2: 1, 3: 3, 4: 1}


def part(number, at=0, spec=SPEC):
    return rows(number, part=at, last=at == CLIPS[number] - 1, frames=bool(spec.frames))


def one_shard(root, say, spec=SPEC):
    writing.write(root, spec, [part(1, 0, spec), *(part(3, at, spec) for at in range(3))], {key(9): ("a", "b", "c")})
    say(1), say(3)


def three_shards(root, say, spec=SPEC):
    found = FeatureSet(root, spec)
    found.prepare()
    for number in (1, 2, 4):
        found.write([part(number, 0, spec)])
        say(number)


def four_shards(root, spec=SPEC):
    write = FeatureSet(root, spec).write
    write([part(1, 0, spec), part(3, 0, spec)])
    write([part(3, 2, spec), part(1, 0, spec)])
    write([part(2, 0, spec), part(3, 1, spec)], {key(9): ("a", "b", "c")})
    write([part(4, 0, spec)])


def compacted(root, say, spec=SPEC):
    folder = writing.folder_of(root, spec)
    compaction.compact(folder, spec.fingerprint)
    FeatureSet(root, spec).write([part(4, 0, spec)])
    compaction.compact(folder, spec.fingerprint)


def cut(job, folder, spec=SPEC, *, states=8, seed=0):
    """Run a job, cut the power behind every operation, and check what is found. Returns the number of states."""
    root = folder / "begun" / "store"
    root.parent.mkdir(parents=True)
    stored = ()
    if job is compacted:
        four_shards(root, spec)
        stored = tuple(CLIPS)
    before = content_of(root.parent)
    with Recorder(root.parent).watched() as recorder:
        job(root, recorder.acknowledge, spec)
    return sum(
        survives(recorder.log[:end], before, folder, spec, stored, random.Random(f"{seed} {end}"), states)
        for end in range(len(recorder.log) + 1)
    )


def survives(log, before, folder, spec, stored, chance, states):
    disk = Disk(log, before)
    count = 0
    for state in disk.states(chance, states):
        found = folder / "found"
        build(found, state)
        check(found / "store", spec, {*stored, *disk.acknowledged})
        shutil.rmtree(found, ignore_errors=True)
        count += 1
    return count


def check(root, spec, acknowledged):
    found = FeatureSet(root, spec)
    assert_sound(found, CLIPS, acknowledged, [9])
    assert not found.index.damaged, "a torn file under a final name"


@pytest.mark.parametrize("spec", [SPEC, FRAMES], ids=["windows", "frames"])
@pytest.mark.parametrize("job", [one_shard, three_shards, compacted])
def test_no_cut_of_the_power_loses_what_was_acknowledged_or_serves_anything_else(job, spec, tmp_path):
    for seed in range(SOAK):
        assert cut(job, tmp_path / str(seed), spec, seed=seed) > 60


def test_folders_that_a_killed_process_made_are_made_durable_by_the_next(tmp_path):
    """The first writer is killed at every call, the second one acknowledges, then the power goes."""
    at, alive = 0, True
    while alive:
        at += 1
        root = tmp_path / str(at) / "new" / "store"
        root.parent.parent.mkdir()
        first = Recorder(root.parent.parent, at, interrupt)
        with first.watched():
            try:
                one_shard(root, lambda _: None)
                alive = False
            except Interrupted:
                pass
        second = Recorder(root.parent.parent)
        second.descriptors = {}
        with second.watched():
            one_shard(root, second.acknowledge)
        disk = Disk(first.log + second.log)
        for state in disk.states(random.Random(at), 6):
            build(tmp_path / "found", state)
            check(tmp_path / "found" / "new" / "store", SPEC, set(disk.acknowledged))
            shutil.rmtree(tmp_path / "found")
    assert at > 20


class OnlyFolders:
    """The module ``os``, whose ``fsync`` does nothing for files."""

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)


def no_sync_of_content():
    return mock.patch.object(files, "os", OnlyFolders())


def no_sync_of_folders():
    return mock.patch.object(files, "sync_folder", lambda folder: None)


def no_sync_of_the_folders_above():
    return mock.patch.object(files, "_keep", lambda folder: None)


def write_without_care(path, data, temporary):
    """Write a file under a name, give it its own, and only then make it durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT)
    for piece in data:
        files._write_all(descriptor, piece)
    if temporary != path:
        temporary.replace(path)
    os.fsync(descriptor)
    os.close(descriptor)
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        files.sync_folder(folder)
    return path


def renamed_before_it_is_synced():
    def write(path, data):
        return write_without_care(path, data, path.with_name(f".{path.name}{files.TEMPORARY}"))

    return mock.patch.object(shard, "write_atomic", write)


def written_in_place():
    return mock.patch.object(shard, "write_atomic", lambda path, data: write_without_care(path, data, path))


def sources_deleted_first():
    real = compaction.flatten

    def flatten(index, folder, keys=None):
        readers = {contents.path: reading.Reader(contents) for contents in index.shards}
        for path in readers:
            path.unlink()
        with mock.patch.object(compaction, "Reader", lambda contents: readers[contents.path]):
            return real(index, folder, keys)

    return mock.patch.object(compaction, "flatten", flatten)


FOUND = {
    no_sync_of_content: (one_shard, three_shards, compacted),
    no_sync_of_folders: (one_shard, three_shards, compacted),
    no_sync_of_the_folders_above: (one_shard, three_shards),
    renamed_before_it_is_synced: (one_shard, three_shards, compacted),
    written_in_place: (one_shard, three_shards, compacted),
    sources_deleted_first: (compacted,),
}


@pytest.mark.parametrize(("mutant", "job"), [(mutant, job) for mutant, jobs in FOUND.items() for job in jobs])
def test_the_harness_finds_what_it_is_there_to_find(mutant, job, tmp_path):
    with mutant(), pytest.raises(AssertionError, match=r"lost|torn"):
        cut(job, tmp_path, states=12)
