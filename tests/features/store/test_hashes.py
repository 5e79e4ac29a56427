"""What is known of files without reading them: trusted only where the file system cannot be fooled."""

import os
import time

import pytest

from mmmos import audio
from mmmos.features import clips as finding
from mmmos.features.extract import complete, extract, plan, status
from mmmos.features.store.hashes import Hashes, sign

CONTENT = "ab" * 32


@pytest.fixture
def read(monkeypatch):
    """The files that were read for their hash."""
    files, content_hash = [], audio.content_hash
    monkeypatch.setattr(audio, "content_hash", lambda path: files.append(str(path)) or content_hash(path))
    return files


@pytest.fixture
def settled(monkeypatch):
    """A clock by which every file was written long ago."""
    now = time.time
    monkeypatch.setattr(finding.time, "time", lambda: now() + 10)


def remembered(store, path):
    return Hashes(store).look_up([sign(str(path), path.stat())])[0]


def put(path, content=b"audio"):
    path.write_bytes(content)
    return path, path.stat()


def test_a_file_is_known_by_what_the_file_system_says_of_it(tmp_path):
    path, status = put(tmp_path / "a.wav")
    memory = Hashes(tmp_path)
    memory.add(sign(str(path), status), status, CONTENT, time.time() + 10)
    memory.save()
    assert remembered(tmp_path, path) == CONTENT
    path.write_bytes(b"other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns and remembered(tmp_path, path) is None
    assert Hashes(tmp_path, forget=True).look_up([sign(str(path), status)]) == [None]


def test_a_file_just_written_is_not_remembered(tmp_path):
    path, status = put(tmp_path / "a.wav")
    memory = Hashes(tmp_path)
    memory.add(sign(str(path), status), status, CONTENT, time.time())
    memory.save()
    assert remembered(tmp_path, path) is None and not memory.folder.exists()


def test_many_memories_become_one_and_lose_nothing(tmp_path):
    found = []
    for number in range(40):
        path, status = put(tmp_path / f"{number}.wav")
        memory = Hashes(tmp_path)
        memory.add(sign(str(path), status), status, f"{number:064x}", time.time() + 10)
        memory.save()
        found.append(path)
    assert len(list(Hashes(tmp_path).folder.iterdir())) < 20
    assert [int(remembered(tmp_path, path), 16) for path in found] == list(range(40))


def test_damage_of_any_byte_is_forgetfulness_and_never_another_hash(tmp_path):
    memory, signs = Hashes(tmp_path), []
    for number in range(3):
        path, status = put(tmp_path / f"{number}.wav")
        signs.append(sign(str(path), status))
        memory.add(signs[-1], status, f"{number:064x}", time.time() + 10)
    memory.save()
    (file,) = memory.folder.iterdir()
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        known = Hashes(tmp_path).look_up(signs)
        assert sorted(known, key=str).count(None) == 1
        assert all(content in (None, f"{number:064x}") for number, content in enumerate(known))
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        known = Hashes(tmp_path).look_up(signs)
        assert 3 - known.count(None) == length * 3 // len(whole)


def test_a_rerun_with_nothing_to_do_reads_no_file(fake, make_clips, store, read, settled):
    clips = make_clips(5)
    features = extract(clips, [fake.name], store=store, device="cpu")
    assert sorted(read) == sorted(clips["path"])
    read.clear()
    again = extract(clips, [fake.name], store=store, device="cpu")
    assert again.keys == features.keys and read == []
    assert (complete(clips, [fake.name], store=store)["status"] == "done").all()
    assert plan(clips, [fake.name], store=store)["stored"].tolist() == [5] and read == []
    assert (status(clips, [fake.name], store=store)["status"] == "done").all() and read == []
    extract(clips, [fake.name], store=store, device="cpu", rehash=True)
    assert len(read) == 5


def test_a_store_that_cannot_be_written_is_searched_all_the_same(fake, make_clips, store, read, settled, read_only):
    clips = make_clips(2)
    extract(clips, [fake.name], store=store, device="cpu")
    for file in (store / "hashes").iterdir():
        file.unlink()

    read_only()
    assert len(extract(clips, [fake.name], store=store, device="cpu")) == 2
