"""The store: what is written is read, verified row by row, whole clips only, from any number of shards."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from mmmos.audio import MEASURES
from mmmos.errors import SetupError, StoreError, UsageError
from mmmos.features.spec import FeatureSpec
from mmmos.features.store import FeatureSet, clip_key, feature_set, reading, shard, writing
from mmmos.features.store.shard import ClipRows, DamagedShard
from mmmos.features.store.upkeep import summaries, verify

sys.path.append(str(Path(__file__).parent))
from stores import ENCODER, FRAMES, SPEC, assert_holds, key, rows

OTHER = FeatureSpec("set", ENCODER, window=5.0)


def test_what_is_written_is_read_by_others_in_any_order(tmp_path):
    mine, others = FeatureSet(tmp_path, SPEC), FeatureSet(tmp_path, SPEC)
    mine.write([rows(1), rows(2)], {key(9): ("too_short", "é\ud800", "clip\udcff.wav")})
    mine.write([rows(3)])
    mine.write([])
    others.refresh()
    for found in (mine, others, FeatureSet(tmp_path, SPEC)):
        assert_holds(found, [3, 1, 2])
        assert_holds(found, [2])
        assert key(1) in found and key(9) not in found
        assert found.rejections([key(9), key(1), key(8)]) == {key(9): ("too_short", "é\ud800")}
        assert found.missing([key(7), key(1), key(9), key(8), key(7)]) == [key(7), key(8)]
        assert found.missing([key(1), key(9)], retry=True) == [key(9)]
    assert verify(tmp_path, full=True) == []
    (summary,) = summaries(tmp_path)
    assert (summary.shards, summary.clips, summary.windows, summary.rejected) == (2, 3, 6, 1)


def test_a_store_of_nothing_knows_nothing(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    assert found.missing([key(1)]) == [key(1)] and key(1) not in found
    assert found.gather([]).unit.shape == (0, 2, 3) and found.gather([]).clip.tolist() == []
    assert found.measures([]).shape[0] == 0 and found.rejections([key(1)]) == {}
    with pytest.raises(DamagedShard, match="does not hold clip"):
        found.gather([key(1)])


def test_other_programs_read_the_tensors(tmp_path):
    FeatureSet(tmp_path, SPEC).write([rows(1), rows(2)])
    (path,) = tmp_path.glob("*/*.safetensors")
    with safe_open(path, "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("unit"), np.concatenate([rows(1).unit, rows(2).unit]))
        np.testing.assert_array_equal(file.get_tensor("entries"), [[0, 2, 0, 1], [2, 2, 0, 1]])


def test_windows_in_fortran_order_are_stored_right(tmp_path):
    clip = rows(1)
    turned = ClipRows(
        clip.key, np.asfortranarray(clip.unit), np.asfortranarray(clip.norm), clip.frames,
        np.asfortranarray(clip.span), clip.measures,
    )  # fmt: skip
    FeatureSet(tmp_path, SPEC).write([turned])
    assert_holds(FeatureSet(tmp_path, SPEC), [1])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_clip_of_several_parts_is_done_when_all_are_there(tmp_path, order):
    found = FeatureSet(tmp_path, SPEC)
    parts = [rows(5, part=part, last=part == 2) for part in range(3)]
    for done, part in enumerate(order):
        assert key(5) not in found and found.missing([key(5)]) == [key(5)]
        assert found.index.begun([key(5)]) == ({key(5): frozenset(order[:done])} if done else {})
        found.write([rows(10 + part), parts[part], rows(20 + part)])
    assert key(5) in found and found.index.begun([key(5)]) == {}
    gathered = found.gather([key(10), key(5), key(21)])
    np.testing.assert_array_equal(gathered.unit[2:8], np.concatenate([part.unit for part in parts]))
    assert gathered.span[2:8, 0].tolist() == list(range(6))
    assert gathered.clip.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2]
    assert (found.measures([key(5)]) == 5).all()


def test_frames_are_views_of_the_file(tmp_path):
    found = FeatureSet(tmp_path, FRAMES)
    found.write([rows(1, frames=True), rows(2, frames=True)])
    for number in (2, 1):
        frames, wanted = found.frames(key(number)), rows(number, frames=True)
        np.testing.assert_array_equal(frames.unit, wanted.frame_unit)
        np.testing.assert_array_equal(frames.norm, wanted.frame_norm)
        assert frames.windows.tolist() == [0, 1, 3]
        assert not frames.unit.flags.owndata and not frames.unit.flags.writeable
    assert_holds_pooled = found.gather([key(1)])
    np.testing.assert_array_equal(assert_holds_pooled.unit, rows(1, frames=True).unit)


def test_frames_of_parts_are_joined_and_a_set_without_any_says_so(tmp_path):
    found = FeatureSet(tmp_path, FRAMES)
    parts = [rows(1, part=part, last=part == 1, frames=True) for part in range(2)]
    for part in parts:
        found.write([part])
    np.testing.assert_array_equal(found.frames(key(1)).unit, np.concatenate([part.frame_unit for part in parts]))
    assert found.frames(key(1)).windows.tolist() == [0, 1, 3, 4, 6]
    with pytest.raises(UsageError, match=r"keeps no frames; ask for them in the feature recipe"):
        FeatureSet(tmp_path, SPEC).frames(key(1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["unit", "norm", "frame_unit", "frame_norm"])
def test_rows_that_no_reader_should_meet_are_refused(tmp_path, name, value):
    clip = rows(1, frames=True)
    getattr(clip, name)[-1, 0] = value
    with pytest.raises(StoreError, match="not finite, absurd or zero"):
        FeatureSet(tmp_path, FRAMES).write([rows(2, frames=True), clip])
    assert list(tmp_path.rglob("*.safetensors")) == []


@pytest.mark.parametrize(("name", "value"), [("norm", 0), ("norm", -1), ("norm", 1e8), ("unit", 3), ("frames", 0)])
def test_absurd_and_zero_rows_are_refused(tmp_path, name, value):
    clip = rows(1)
    getattr(clip, name)[-1] = value
    with pytest.raises(StoreError, match="not finite, absurd or zero"):
        FeatureSet(tmp_path, SPEC).write([clip])


def test_a_damaged_row_costs_its_clip_alone(tmp_path):
    FeatureSet(tmp_path, SPEC).write([rows(1), rows(2), rows(3)])
    (path,) = tmp_path.glob("*/*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = FeatureSet(tmp_path, SPEC)
    assert_holds(found, [1, 2])
    with pytest.raises(DamagedShard, match="row 5 does not match its checksum"):
        found.gather([key(1), key(3)])
    assert found.missing([key(1), key(2), key(3)]) == [key(3)]
    assert "the rows of 1 of its 3 clips" in verify(tmp_path, full=True)[0]
    assert verify(tmp_path) == []
    found.write([rows(3)])
    assert_holds(found, [3, 1])
    assert_holds(FeatureSet(tmp_path, SPEC), [3, 1])


def test_a_shard_of_another_set_is_left_alone(tmp_path, caplog):
    FeatureSet(tmp_path, OTHER).write([rows(1)])
    (foreign,) = tmp_path.glob("*/*.safetensors")
    FeatureSet(tmp_path, SPEC).write([rows(2)])
    folder = writing.folder_of(tmp_path, SPEC)
    shutil.copy(foreign, folder)
    found = FeatureSet(tmp_path, SPEC)
    assert key(1) not in found and key(2) in found
    assert "belongs to another feature set" in caplog.text
    assert "belongs to another feature set" in verify(tmp_path)[0]
    assert (folder / foreign.name).exists()


def test_a_shard_under_another_name_is_not_trusted(tmp_path):
    FeatureSet(tmp_path, SPEC).write([rows(1)])
    (path,) = tmp_path.glob("*/*.safetensors")
    moved = path.rename(path.with_name("a" * 32 + ".safetensors"))
    found = FeatureSet(tmp_path, SPEC)
    assert found.missing([key(1)]) == [key(1)]
    found.prepare()
    assert not moved.exists() and moved.with_suffix(".damaged").exists()


def test_a_damaged_shard_that_cannot_be_set_aside_is_said_and_in_nobody_s_way(tmp_path, caplog):
    found = FeatureSet(tmp_path, SPEC)
    damaged = found.folder / ("a" * 32 + ".safetensors")
    damaged.with_suffix(".damaged").mkdir(parents=True)
    damaged.touch()
    found.refresh()
    found.prepare()
    assert f"{damaged} is damaged and cannot be set aside (Is a directory)." in caplog.messages
    found.write([rows(1)])
    assert_holds(FeatureSet(tmp_path, SPEC), [1])


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path):
    folder = writing.folder_of(tmp_path, SPEC)
    folder.touch()
    with pytest.raises(StoreError, match=rf"{folder.name} cannot be read: Not a directory\."):
        FeatureSet(tmp_path, SPEC)


def test_measures_of_other_versions_are_unknown_and_go_by_their_names(tmp_path, monkeypatch):
    clip = replace(rows(1), measures=np.array([2.0, 3.0]))
    monkeypatch.setattr(shard, "MEASURES", (MEASURES[1], "of a later version"))
    FeatureSet(tmp_path, SPEC).write([clip])
    monkeypatch.undo()
    (found,) = FeatureSet(tmp_path, SPEC).measures([key(1)])
    assert found[1] == 2 and np.isnan(np.delete(found, 1)).all()


def test_a_store_that_was_moved_serves_what_it_did(tmp_path):
    FeatureSet(tmp_path / "here", SPEC).write([rows(1)])
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert_holds(FeatureSet(tmp_path / "there", SPEC), [1])


def test_the_disk_refusing_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    FeatureSet(tmp_path, SPEC).write([rows(1)])
    before = sorted(tmp_path.rglob("*"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmmos.files.os.write", full)
    with pytest.raises(SetupError, match=r"No space left on device\. 0\.0 MB were to be written\. What is stored"):
        FeatureSet(tmp_path, SPEC).write([rows(2)])
    with pytest.raises(SetupError, match="cannot be written: No space left"):
        FeatureSet(tmp_path, SPEC).prepare()
    monkeypatch.undo()
    assert sorted(tmp_path.rglob("*")) == before
    assert_holds(FeatureSet(tmp_path, SPEC), [1])


def test_a_disk_that_cannot_be_read_is_no_damage(tmp_path, monkeypatch):
    FeatureSet(tmp_path, SPEC).write([rows(1)])
    opened = Path.open

    def refuse(self, *arguments, **options):
        if self.suffix == ".safetensors":
            raise OSError(5, "Input/output error")
        return opened(self, *arguments, **options)

    found = FeatureSet(tmp_path, SPEC)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match=r"cannot be read: Input/output error"):
        FeatureSet(tmp_path, SPEC)
    with pytest.raises(StoreError, match=r"cannot be read: Input/output error"):
        found.gather([key(1)])
    monkeypatch.undo()
    assert_holds(found, [1])
    assert list(tmp_path.rglob("*.damaged")) == []


def test_a_shard_that_another_process_joined_to_others_is_found_there(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1)])
    (path,) = tmp_path.glob("*/*.safetensors")
    FeatureSet(tmp_path, SPEC).write([rows(1), rows(2)])
    path.unlink()
    assert_holds(found, [1])


def test_more_shards_than_are_mapped_at_a_time_are_served(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_set, "OPEN", 2)
    found = FeatureSet(tmp_path, SPEC)
    for number in range(5):
        found.write([rows(number)])
    assert_holds(found, [4, 0, 3, 1, 2])
    assert len(found._readers) == 2


def test_the_key_of_a_clip_is_its_content_and_segment():
    keys = {clip_key(content, start, end) for content in "ab" for start in (None, 1.5) for end in (None, 2)}
    assert len(keys) == 8
    assert clip_key("a", None, None) == clip_key("a", 0, None)
    assert clip_key("a", 1, 2) == clip_key("a", 1.0, 2.0)


def test_a_header_that_promises_too_much_is_not_believed(tmp_path):
    FeatureSet(tmp_path, SPEC).write([rows(1)])
    (path,) = tmp_path.glob("*/*.safetensors")
    for length in (2**62, 2**20, 0, 1):
        path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
        with pytest.raises(DamagedShard, match="does not begin like one"):
            reading.open_shard(path)


@pytest.mark.parametrize("tensor", ["entries", "rejected", "unit"])
@pytest.mark.parametrize("shape", [[1 << 50], [-1], [0]])
def test_a_forged_header_makes_nobody_reserve_memory(tmp_path, tensor, shape):
    FeatureSet(tmp_path, SPEC).write([rows(1)], {key(2): ("too_short", "", "")})
    (path,) = tmp_path.glob("*/*.safetensors")
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:end])
    tensors[tensor]["shape"] = shape
    text = json.dumps(tensors).encode()
    header = len(text).to_bytes(8, "little") + text
    forged = path.with_name(f"{shard.digest_name(header)}{shard.SUFFIX}")
    forged.write_bytes(header + content[end:])
    with pytest.raises(DamagedShard, match=f"the tensor '{tensor}' does not lie where it should"):
        reading.open_shard(forged)
