"""Shards and the store: whole or absent, checked on reading, any number of writers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmmos.errors import StoreError, UsageError
from mmmos.features import shard, store
from mmmos.features.shard import ClipRows, DamagedShard
from mmmos.features.spec import EncoderSpec, FeatureSpec
from mmmos.features.store import FeatureSet, clip_key

SPEC = FeatureSpec("set", EncoderSpec("e", "f", 8000, 2, 3, 0.02, 160, "none"))
OTHER = FeatureSpec("set", EncoderSpec("e", "f", 8000, 2, 3, 0.02, 160, "none", code="2"))


def rows(number, windows=2):
    """The windows of a clip whose numbers follow from its own."""
    values = np.random.default_rng(number)
    unit = values.standard_normal((windows, 2, 3)).astype(np.float16)
    span = np.stack([np.arange(windows), np.arange(windows) + 1.0], 1)
    return ClipRows(
        f"k{number}", unit, np.float32(number + np.ones((windows, 2))), np.arange(1, windows + 1, dtype=np.int32), span
    )


def assert_holds(found, numbers, windows=2):
    gathered = found.gather([f"k{number}" for number in numbers])
    for name in ("unit", "norm", "frames", "span"):
        wanted = np.concatenate([getattr(rows(number, windows), name) for number in numbers])
        np.testing.assert_array_equal(getattr(gathered, name), wanted)
        assert getattr(gathered, name).dtype == wanted.dtype
    assert gathered.clip.tolist() == [place for place in range(len(numbers)) for _ in range(windows)]


def test_what_is_written_is_read_by_others_in_any_order(tmp_path):
    mine, others = FeatureSet(tmp_path, SPEC), FeatureSet(tmp_path, SPEC)
    mine.write([rows(1), rows(2)], {"r": ("too_short", "é")})
    mine.write([rows(3)], {})
    mine.write([], {})
    others.refresh()
    for found in (mine, others, FeatureSet(tmp_path, SPEC)):
        assert_holds(found, [3, 1, 2])
        assert_holds(found, [2])
        assert "k1" in found and "r" not in found
        assert found.rejection("r") == ("too_short", "é") and found.rejection("k1") is None
        assert found.missing(["x", "k1", "r", "y", "x"]) == ["x", "y"]
    assert store.verify(tmp_path) == []
    (summary,) = store.summaries(tmp_path)
    assert (summary.shards, summary.clips, summary.windows, summary.rejected) == (2, 3, 6, 1)
    assert summary.as_dict()["folder"].startswith("set-")


def test_windows_in_fortran_order_are_stored_right(tmp_path):
    clip = rows(1)
    turned = ClipRows(clip.key, np.asfortranarray(clip.unit), np.asfortranarray(clip.norm), clip.frames, clip.span)
    FeatureSet(tmp_path, SPEC).write([turned], {})
    assert_holds(FeatureSet(tmp_path, SPEC), [1])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_nothing_to_be_served(tmp_path, monkeypatch, call):
    FeatureSet(tmp_path, SPEC).write([rows(1)], {})
    before = sorted(tmp_path.rglob("*"))

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(StoreError, match="cannot be written: Input/output error"):
        FeatureSet(tmp_path, SPEC).write([rows(2)], {})
    assert sorted(tmp_path.rglob("*")) == before
    assert FeatureSet(tmp_path, SPEC).missing(["k1", "k2"]) == ["k2"]


KILLED = """
import os, random, signal, sys, time
sys.path[:0] = sys.argv[1:3]
from test_store import SPEC, rows
from mmmos.features.store import FeatureSet
random.seed(0)
for first in range(0, 30 * 100, 100):
    child = os.fork()
    if child == 0:
        found = FeatureSet(sys.argv[3], SPEC)
        for number in range(first, first + 100):
            found.write([rows(number)], {})
            os.write(1, f"{number}\\n".encode())
    time.sleep(random.uniform(0.001, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_killed_writers_lose_nothing_that_they_acknowledged_and_leave_nothing_broken(tmp_path):
    here = Path(__file__)
    arguments = [sys.executable, "-c", KILLED, str(here.parent), str(here.parents[2]), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    acknowledged = [int(line) for line in done.stdout.split()]
    found = FeatureSet(tmp_path, SPEC)
    assert len(acknowledged) > 10
    assert_holds(found, acknowledged)
    served = [number for number in range(3000) if f"k{number}" in found]
    assert set(served) - set(acknowledged) <= {
        max((n for n in acknowledged if n // 100 == r), default=r * 100 - 1) + 1 for r in range(30)
    }
    assert_holds(found, served)
    assert store.verify(tmp_path) == []


WRITER = """
import sys
sys.path[:0] = sys.argv[1:3]
from test_store import SPEC, rows
from mmmos.features.store import FeatureSet
found = FeatureSet(sys.argv[3], SPEC)
for number in range(int(sys.argv[4]), 40):
    found.write([rows(number), rows(number + 1)], {})
"""


def test_writers_of_the_same_clips_at_once_do_no_harm(tmp_path):
    here = Path(__file__)
    arguments = [sys.executable, "-c", WRITER, str(here.parent), str(here.parents[2]), str(tmp_path)]
    writers = [subprocess.Popen([*arguments, first]) for first in ("0", "0", "15")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert store.verify(tmp_path) == []
    assert_holds(FeatureSet(tmp_path, SPEC), range(41))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 40
    assert list(tmp_path.rglob("*.tmp")) == []


def damaged(content):
    """Copies of a file with a bit flipped at every 5th byte, cut at every 37th, and lengthened."""
    for place in range(0, len(content), 5):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        yield bytes(flipped)
    yield from (content[:length] for length in range(0, len(content), 37))
    yield content + b"\0"


def test_damage_anywhere_is_seen_or_harmless(tmp_path):
    FeatureSet(tmp_path, SPEC).write([rows(1), rows(2)], {"r": ("too_short", "detail")})
    (path,) = tmp_path.rglob("*.safetensors")
    content = path.read_bytes()
    for copy in damaged(content):
        path.write_bytes(copy)
        assert any(path.name in problem for problem in store.verify(tmp_path))
        found = FeatureSet(tmp_path, SPEC)
        assert found.rejection("r") in (None, ("too_short", "detail"))
        if found.missing(["k1", "k2"]) == []:
            with pytest.raises(DamagedShard):
                found.gather(["k1", "k2"])
            assert found.missing(["k1", "k2", "r"]) == ["k1", "k2", "r"]
            assert path.with_suffix(".damaged").exists()


def test_another_copy_of_a_clip_counts_when_one_is_damaged(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1)], {})
    found.write([rows(1), rows(2)], {})
    for path in tmp_path.rglob("*.safetensors"):
        if shard.read_contents(path).clips.keys() == {"k1"}:
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    found = FeatureSet(tmp_path, SPEC)
    try:
        found.gather(["k1", "k2"])
    except DamagedShard:
        assert_holds(found, [1, 2])
    assert found.missing(["k1", "k2"]) == []


def test_a_shard_of_another_set_or_under_another_name_is_not_served(tmp_path, caplog):
    FeatureSet(tmp_path, OTHER).write([rows(1)], {})
    (foreign,) = tmp_path.rglob("*.safetensors")
    mine = FeatureSet(tmp_path, SPEC)
    mine.folder.mkdir()
    shutil.copy(foreign, mine.folder)
    renamed = shutil.copy(foreign, foreign.with_name("0" * 32 + ".safetensors"))
    assert FeatureSet(tmp_path, SPEC).missing(["k1"]) == ["k1"]
    assert "belongs to another feature set" in caplog.text
    assert_holds(FeatureSet(tmp_path, OTHER), [1])
    problems = store.verify(tmp_path)
    assert len(problems) == 2
    assert any("another feature set" in problem for problem in problems)
    assert any(renamed.name in problem for problem in problems)


def test_shards_are_found_without_the_description_beside_them(tmp_path):
    FeatureSet(tmp_path, SPEC).write([rows(1)], {})
    next(tmp_path.rglob("spec.json")).unlink()
    assert_holds(FeatureSet(tmp_path, SPEC), [1])
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert len(store.verify(tmp_path)) == 1


def test_a_store_that_is_not_there_is_not_called_whole(tmp_path):
    for look in (store.verify, store.summaries):
        assert look(tmp_path) == []
        with pytest.raises(UsageError, match="There is no store"):
            look(tmp_path / "fetaures")


def test_a_damaged_shard_that_cannot_be_renamed_ends_the_run(tmp_path, monkeypatch):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1)], {})
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StoreError, match=r"cannot be set aside \(Permission denied\): delete it") as caught:
        found.gather(["k1"])
    assert not isinstance(caught.value, DamagedShard)


def test_a_key_is_of_the_content_and_the_segment():
    assert clip_key("a", None, None) == clip_key("a", 0, None) == clip_key("a", np.float64(0.0), None)
    keys = {
        clip_key(*parts)
        for parts in [("a", None, None), ("b", None, None), ("a", 1, None), ("a", None, 1), ("a", 1, 2)]
    }
    assert len(keys) == 5 and all(len(key) == 32 for key in keys)
