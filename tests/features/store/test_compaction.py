"""Compaction: one file of what many held, to the bit, whoever else reads, writes or compacts at the same time."""

import errno
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from mmmos.errors import SetupError, StoreError
from mmmos.features.store import FeatureSet, compaction, feature_set, index, shard
from mmmos.features.store import reading as shard_reading
from mmmos.features.store.compaction import compact, flatten
from mmmos.features.store.index import Index
from mmmos.features.store.upkeep import compact_all, verify

sys.path.append(str(Path(__file__).parent))
from stores import FRAMES, SPEC, assert_sound, key, rows, same

CLIPS = {1: 1, 2: 1, 3: 3, 4: 1, 6: 1}
REASON = ("too_short", "x", "clip.wav")


def part(spec, number, at=0, clips=CLIPS):
    return rows(number, part=at, last=at == clips[number] - 1, frames=bool(spec.frames))


@pytest.fixture(params=[SPEC, FRAMES], ids=["windows", "frames"])
def found(request, tmp_path):
    """Five shards: a duplicate, parts in any order, parts of a clip that has begun, rejections."""
    found = FeatureSet(tmp_path, request.param)
    spec = found.spec
    found.write([part(spec, 1), part(spec, 3, 2)])
    found.write([part(spec, 3, 0), part(spec, 1), part(spec, 2)], {key(9): REASON})
    found.write([part(spec, 3, 1), part(spec, 5, 1, {5: 4})], {key(4): REASON})
    found.write([part(spec, 4), part(spec, 8, 0, {8: 2})])
    found.write([part(spec, 6)], {key(8): REASON})
    return found


def again(found):
    return FeatureSet(found.store, found.spec)


def squeeze(found):
    return compact(found.folder, found.spec.fingerprint)


def assert_whole(found):
    """The set serves all that it should, knows what is begun and rejected, and is whole to the last byte."""
    allowed = CLIPS | {5: 4, 8: 2}
    assert assert_sound(found, allowed, CLIPS, [4, 8, 9]) == list(CLIPS)
    assert found.index.begun([key(5)]) == {key(5): frozenset([1])}
    assert set(found.rejections([key(number) for number in (4, 8, 9)])) == {key(8), key(9)}
    assert verify(found.store, full=True) == []


def test_many_shards_become_one_that_serves_the_same(found):
    assert_whole(found)
    done = squeeze(found)
    assert (done.files_before, done.files) == (5, 1) and done.bytes < done.bytes_before
    (path,) = found.folder.glob("*.safetensors")
    assert path.stat().st_size == done.bytes
    assert_whole(again(found))
    entries = again(found).index.shards[0].entries
    assert len(entries) == len(CLIPS) + 2 and entries[:, 3].sum() == len(CLIPS)


def test_a_set_of_one_file_is_left_as_it_is(found):
    squeeze(found)
    before = {path: path.stat().st_mtime_ns for path in found.folder.iterdir()}
    assert squeeze(found).files == 1
    assert {path: path.stat().st_mtime_ns for path in found.folder.iterdir()} == before


def test_what_comes_after_a_compaction_joins_it(found):
    squeeze(found)
    spec = found.spec
    again(found).write([part(spec, 5, at, {5: 4}) for at in (0, 2, 3)] + [part(spec, 8, 1, {8: 2})])
    squeeze(found)
    clips = CLIPS | {5: 4, 8: 2}
    assert assert_sound(again(found), clips, clips, [4, 8, 9]) == list(clips)
    assert len(again(found).index.shards) == 1


def test_parts_of_a_rejected_clip_stay_for_the_process_that_tries_it_again(found):
    """It has stored the first part and is told that the second completes the clip."""
    squeeze(found)
    FeatureSet(found.store, found.spec).write([part(found.spec, 8, 1, {8: 2})])
    assert same(again(found), 8, 2) and again(found).rejections([key(8)]) == {}


def test_any_mixture_of_a_joined_clip_and_its_parts_serves_it_once(tmp_path):
    """What a compaction leaves that was killed while it deleted, or another writer's parts come later."""
    found = FeatureSet(tmp_path, SPEC)
    for at in range(3):
        found.write([rows(5, part=at, last=at == 2)])
    parts = {path: path.read_bytes() for path in found.folder.glob("*.safetensors")}
    for trial in range(6):
        compact(found.folder, SPEC.fingerprint)
        for subset in range(8):
            for place, (path, content) in enumerate(parts.items()):
                path.unlink(missing_ok=True)
                if subset >> place & 1:
                    path.write_bytes(content)
            assert same(again(found), 5, 3), (trial, subset)
        assert len(parts) == 3


def test_a_joined_clip_that_is_damaged_is_served_from_its_parts(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    for at in range(3):
        found.write([rows(5, part=at, last=at == 2)])
    parts = {path: path.read_bytes() for path in found.folder.glob("*.safetensors")}
    compact(found.folder, SPEC.fingerprint)
    (joined,) = found.folder.glob("*.safetensors")
    joined.write_bytes(joined.read_bytes()[:-1] + b"\x55")
    for path, content in parts.items():
        path.write_bytes(content)
    assert same(again(found), 5, 3)


def test_damaged_rows_stay_behind_and_the_rest_is_kept(found):
    for path in found.folder.glob("*.safetensors"):
        if len(shard_reading.open_shard(path).keys) == 3:
            path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    squeeze(found)
    assert assert_sound(again(found), CLIPS | {5: 4, 8: 2}, [1, 3, 4, 6], [4, 8, 9]) == [1, 3, 4, 6]
    assert again(found).missing([key(2)]) == [key(2)] and verify(found.store, full=True) == []


def test_a_file_that_would_be_too_large_is_several(found, monkeypatch):
    monkeypatch.setattr(compaction, "FLAT_BYTES", 700)
    done = squeeze(found)
    assert done.files > 2 and len(list(found.folder.glob("*.safetensors"))) == done.files
    assert_whole(again(found))
    squeeze(found)
    assert_whole(again(found))


def test_some_clips_flattened_elsewhere_are_the_same_bytes_each_time(found, tmp_path):
    keys = [key(number) for number in (3, 1, 9, 5)]
    paths = []
    for name in ("one", "other"):
        folder = tmp_path / name / found.folder.name
        (path,) = flatten(Index(found.folder, found.spec.fingerprint), folder, keys)
        paths.append(path)
        elsewhere = FeatureSet(folder.parent, found.spec)
        assert assert_sound(elsewhere, CLIPS, [1, 3], [9]) == [1, 3]
        assert set(elsewhere.index.rejected) == {key(9)}
    assert paths[0].name == paths[1].name and paths[0].read_bytes() == paths[1].read_bytes()
    assert_whole(again(found))


def test_no_shard_is_ever_named_as_another_one_was(found):
    """So nobody deletes or sets aside what was written under the name of a file that he saw before."""
    names = {path.name for path in found.folder.glob("*.safetensors")}
    found.write([part(found.spec, 6)], {key(8): REASON})
    squeeze(found)
    more = {path.name for path in found.folder.glob("*.safetensors")}
    squeeze(found)
    found.refresh()
    found.write([part(found.spec, 6)])
    squeeze(found)
    assert not names & more and more != {path.name for path in found.folder.glob("*.safetensors")}


def test_two_compactions_at_once_never_delete_each_other_s_last_copy(tmp_path):
    """One begins, the other does all of its work whenever the first touches the disk, in any order of names."""
    for trial in range(12):
        found = FeatureSet(tmp_path / str(trial), SPEC)
        found.write([rows(1), rows(2)])
        found.write([rows(2)])
        found.write([rows(3), rows(1)])
        unlink, busy = Path.unlink, []

        def interleave(path, missing_ok=False, unlink=unlink, busy=busy, found=found):
            if not busy and path.suffix == shard.SUFFIX:
                busy.append(1)
                squeeze(found)
                busy.clear()
            unlink(path, missing_ok)

        with mock.patch.object(Path, "unlink", interleave):
            squeeze(found)
        assert assert_sound(again(found), {1: 1, 2: 1, 3: 1}, [1, 2, 3]) == [1, 2, 3]


def test_a_source_that_is_deleted_meanwhile_begins_it_again(found):
    real, done = shard_reading.Reader, []

    def reader(contents):
        if not done:
            done.append(1)
            with mock.patch.object(compaction, "Reader", real):
                squeeze(again(found))
        return real(contents)

    with mock.patch.object(compaction, "Reader", reader):
        squeeze(found)
    assert_whole(again(found))
    assert len(again(found).index.shards) == 1


def after_squeezing(found, real):
    """A function before whose first call another process compacts the set."""
    done = []

    def call(argument):
        if not done:
            done.append(1)
            squeeze(found)
        return real(argument)

    return call


def test_a_shard_that_goes_between_the_look_and_the_opening_hides_nothing(found):
    with mock.patch.object(index, "open_shard", after_squeezing(found, shard_reading.open_shard)):
        new = again(found)
    assert_whole(new)


def test_a_look_that_misses_both_what_was_made_and_of_what_hides_nothing(found):
    """A folder may be read while files come and go: neither need be seen."""
    real, looks = index._listing, []

    def look(folder):
        looks.append(folder)
        if len(looks) > 1:
            return real(folder)
        squeeze(found)
        return set()

    with mock.patch.object(index, "_listing", look):
        new = again(found)
    assert_whole(new)


def test_a_reader_goes_on_when_its_shards_are_joined(found):
    """Also in the middle of gathering, of windows and of frames."""
    reading = again(found)
    squeeze(found)
    assert all(same(reading, number, parts) for number, parts in CLIPS.items())
    found.refresh()
    found.write([part(found.spec, 6)])
    reading = again(found)
    with mock.patch.object(feature_set, "Reader", after_squeezing(found, shard_reading.Reader)):
        if found.spec.frames:
            wanted = np.concatenate([part(found.spec, 3, at).frame_unit for at in range(3)])
            np.testing.assert_array_equal(reading.frames(key(3)).unit, wanted)
        assert all(same(reading, number, parts) for number, parts in CLIPS.items())


def test_a_folder_that_changes_all_the_time_is_a_sentence(found):
    def vanish(path):
        raise FileNotFoundError(2, "No such file or directory")

    with mock.patch.object(index, "open_shard", vanish):
        with pytest.raises(StoreError, match="changes all the time; run the same command again"):
            again(found)
        with pytest.raises(StoreError, match="changes all the time; run the same command again"):
            squeeze(found)


def test_shards_that_go_whenever_they_are_read_are_a_sentence(found):
    def vanish(contents):
        raise FileNotFoundError(2, "No such file or directory")

    reading = again(found)
    words = "changes all the time; run the same command again"
    with mock.patch.object(feature_set, "Reader", vanish), pytest.raises(StoreError, match=words):
        reading.gather([key(1)])
    with mock.patch.object(compaction, "Reader", vanish), pytest.raises(StoreError, match=words):
        squeeze(found)
    assert_whole(reading)


def test_rejections_alone_become_one_shard(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    for number in (1, 2):
        found.write([], {key(number): REASON})
    assert verify(tmp_path, full=True) == []
    assert (squeeze(found).files_before, squeeze(found).files) == (2, 1)
    assert again(found).rejections([key(1), key(2)]) == {key(1): REASON[:2], key(2): REASON[:2]}


def test_a_disk_that_refuses_is_a_sentence(found):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    words = r"cannot be compacted: No space left on device\. It needs room for a second copy\. Nothing is lost\."
    with mock.patch("mmmos.files.os.write", refuse), pytest.raises(SetupError, match=words):
        squeeze(found)
    assert_whole(again(found))


def test_a_whole_store_is_compacted_set_by_set(tmp_path):
    for spec in (SPEC, FRAMES):
        for number in (1, 2):
            FeatureSet(tmp_path, spec).write([rows(number, frames=bool(spec.frames))])
    assert [(each.files_before, each.files) for each in compact_all(tmp_path)] == [(2, 1), (2, 1)]
    for spec in (SPEC, FRAMES):
        assert assert_sound(FeatureSet(tmp_path, spec), {1: 1, 2: 1}, [1, 2]) == [1, 2]
