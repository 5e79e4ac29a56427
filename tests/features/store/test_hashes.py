"""What is known of files without reading them: trusted only where the file system cannot be fooled."""

import os
import time

import pytest

from mmmos import audio
from mmmos.errors import Rejected
from mmmos.features.extraction import clips as finding
from mmmos.features.extraction.extract import complete, extract, plan, status
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


def test_a_memory_that_is_all_of_the_joined_ones_stays(tmp_path):
    _, status = put(tmp_path / "a.wav")

    def remember(numbers):
        memory = Hashes(tmp_path)
        for number in numbers:
            memory.add(b"%016d" % number, status, f"{number:064x}", time.time() + 10)
        memory.save()

    remember(range(16))
    (whole,) = Hashes(tmp_path).folder.iterdir()
    for number in range(15):
        remember([number])
    assert len(list(whole.parent.iterdir())) == 16
    remember([15])
    assert list(whole.parent.iterdir()) == [whole]


def test_a_memory_that_cannot_be_read_is_forgetfulness(tmp_path, monkeypatch):
    path, status = put(tmp_path / "a.wav")
    memory = Hashes(tmp_path)
    memory.add(sign(str(path), status), status, CONTENT, time.time() + 10)
    memory.save()
    (memory.folder / "folder.bin").mkdir()
    assert remembered(tmp_path, path) == CONTENT

    def refuse(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", refuse)
    assert remembered(tmp_path, path) is None


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


def test_hashes_are_remembered_on_the_way(make_clips, store, settled, monkeypatch):
    monkeypatch.setattr(finding, "_EVERY", -1.0)
    finding.find(make_clips(3), store)
    assert len(list((store / "hashes").iterdir())) == 3


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(make_clips, store, read, settled, monkeypatch):
    clips, content_hash = make_clips(1), audio.content_hash

    def late(path):
        found = content_hash(path)
        os.utime(path, (1, 1))
        return found

    monkeypatch.setattr(audio, "content_hash", late)
    finding.find(clips, store)
    assert len(read) == 1
    finding.find(clips, store)
    assert len(read) == 2


def test_files_that_cannot_be_read_are_rejected_with_their_reason(make_clips, store, tmp_path, monkeypatch):
    clips, content_hash = make_clips(2), audio.content_hash
    (tmp_path / "empty.wav").touch()
    clips.loc["empty", "path"] = str(tmp_path / "empty.wav")

    def refuse(path):
        if path == clips.at["c1", "path"]:
            raise Rejected("unreadable", "the disk is ill")
        return content_hash(path)

    monkeypatch.setattr(audio, "content_hash", refuse)
    found, rejected = finding.find(clips, store)
    assert list(found) == ["c0"] and rejected["c1"] == ("unreadable", "the disk is ill")
    assert rejected["empty"] == ("empty_file", f"{tmp_path / 'empty.wav'} has 0 bytes")


def test_a_file_that_comes_after_it_was_looked_for_is_missing_until_the_next_time(make_clips, store, monkeypatch):
    clips, located = make_clips(1), finding.locate
    monkeypatch.setattr(finding, "locate", lambda table: located(table).assign(file=None))
    assert finding.find(clips, store)[1]["c0"][0] == "missing"
    monkeypatch.undo()
    assert list(finding.find(clips, store)[0]) == ["c0"]
