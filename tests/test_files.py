"""Files: whole or absent; JSON with one text for one value."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from mmmos import files


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_holds_the_bytes_and_nothing_else_is_left(tmp_path):
    path = files.write_atomic(tmp_path / "new" / "folder" / "a.txt", "é\n")
    assert path.read_bytes() == "é\n".encode()
    files.write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert left_in(path.parent) == ["a.txt"]


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path, monkeypatch, old, call, error):
    path = tmp_path / "a.txt"
    if old:
        path.write_bytes(old)

    def fail(*_):
        raise error

    data = b"new"
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif call == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        data, error = "\ud800", UnicodeError()  # cannot be encoded
    with pytest.raises(type(error)):
        files.write_atomic(path, data)
    assert left_in(tmp_path) == (["a.txt"] if old else [])
    assert not old or path.read_bytes() == old


def test_the_content_is_durable_before_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(str(Path(f"/proc/self/fd/{fd}").readlink())) or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda old, new: calls.append("rename") or replace(old, new))
    files.write_atomic(tmp_path / "new" / "a.txt", "x")
    assert calls[0].endswith(".tmp")
    assert calls[1:4] == ["rename", str(tmp_path / "new"), str(tmp_path)]


def test_a_file_system_that_cannot_sync_folders_is_no_failure(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    files.sync_folder(tmp_path)


def test_a_folder_that_fails_to_be_synced_is_a_failure(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        files.sync_folder(tmp_path)


def test_folders_above_that_may_not_be_read_are_not_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(files, "sync_folder", synced.append)
    files.write_atomic(tmp_path / "new" / "a.txt", "x")
    assert synced == [tmp_path / "new"] and (tmp_path / "new" / "a.txt").read_bytes() == b"x"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(deadline=None, max_examples=60)
@given(JSON)
def test_canonical_json_is_json_and_blind_to_the_order_of_keys(value):
    text = files.canonical_json(value)
    assert json.loads(text) == value
    if isinstance(value, dict):
        assert files.canonical_json(dict(reversed(value.items()))) == text
        assert json.loads(files.pretty_json(value)) == value


@settings(deadline=None, max_examples=60)
@given(JSON, JSON)
def test_different_values_have_different_keys(one, other):
    same = files.canonical_json(one) == files.canonical_json(other)
    assert (files.key_of(one) == files.key_of(other)) == same
    assert one == other or not same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
@pytest.mark.parametrize("write", [files.canonical_json, files.pretty_json])
def test_numbers_that_json_lacks_are_refused(value, write):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(value)


def test_tensors_come_back_in_every_memory_order():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    views = {
        "c": array,
        "fortran": np.asfortranarray(array),
        "turned": array.transpose(2, 0, 1),
        "slice": array[:, ::2, 1:3],
        "backwards": array[::-1],
        "half": np.asfortranarray(array[0]).astype(np.float16, order="F"),
        "empty": array[:0],
    }
    back = load(files.tensor_bytes(views, {"note": "é"}))
    for name, view in views.items():
        np.testing.assert_array_equal(back[name], view)
        assert back[name].dtype == view.dtype


def test_the_sha256_of_a_file_is_the_known_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert files.sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
