"""A store at a URL keeps every promise of one in a folder, whatever the object store does."""

import json
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fsspec.registry import known_implementations

from mmmos import cli
from mmmos.errors import SetupError, UnknownName, UsageError
from mmmos.features.extraction.extract import extract, plan
from mmmos.features.garbage import Reach, reach, waste
from mmmos.features.sharing.imports import import_features
from mmmos.features.store import FeatureSet, lists, location, remote, writing
from mmmos.features.store.bulk import TOGETHER
from mmmos.features.store.compaction import compact, flatten
from mmmos.features.store.index import Index
from mmmos.features.store.remote import Remote
from mmmos.features.store.shard import DamagedShard
from mmmos.features.store.upkeep import compact_all, rejections, summaries, verify

sys.path.append(str(Path(__file__).parent))
from objects import Faulty, lose_the_answer, refuse, s3, tear
from stores import FRAMES, SPEC, assert_holds, assert_sound, key, rows, same

URL = "faulty://bucket/features"
CLIPS = dict.fromkeys(range(6), 1) | {3: 3}
SHORT = dict.fromkeys(range(4), 1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, an empty store in memory, and no second try."""
    monkeypatch.setenv("MMMOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PATIENCE", 0)
    Faulty.empty()
    yield tmp_path / "cache"
    Faulty.empty()


@pytest.fixture(scope="module")
def bucket():
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with s3("bucket") as url:
        yield url


@pytest.fixture(params=["memory", "s3"])
def store(request):
    """The URL of an empty store."""
    return URL if request.param == "memory" else f"{request.getfixturevalue('bucket')}/{request.node.name}"


def objects(suffix=".safetensors"):
    """The objects in memory, by path."""
    return {path: file for path, file in Faulty.store.items() if path.endswith(suffix)}


def copies(cache):
    return sorted(cache.rglob("*.safetensors"))


def fill(store=URL, spec=SPEC):
    """Store what ``CLIPS`` says in several shards, one clip in parts."""
    frames = bool(spec.frames)
    found = FeatureSet(store, spec)
    found.write([rows(number, frames=frames) for number in (0, 1)], {key(9): ("no_samples", "", "x.wav")})
    found.write([rows(number, frames=frames) for number in (2, 4, 5)])
    for part in range(3):
        found.write([rows(3, part=part, last=part == 2, frames=frames)])
    return found


def run(acknowledged):
    """Write three clips, noting those that are acknowledged, then make one object of them."""
    found = FeatureSet(URL, SPEC)
    found.prepare()
    for number in (0, 1, 2):
        writing.write(URL, SPEC, [rows(number)], {})
        acknowledged.append(number)
    found.refresh()
    assert_sound(found, SHORT, acknowledged)
    compact(found.folder, SPEC.fingerprint)


def test_what_is_written_is_read_by_others(store):
    mine, others = FeatureSet(store, SPEC), FeatureSet(store, SPEC)
    assert mine.missing([key(1)]) == [key(1)] and mine.gather([]).unit.shape == (0, 2, 3)
    mine.prepare()
    mine.write([rows(1), rows(2)], {key(9): ("too_short", "é\ud800", "clip\udcff.wav")})
    mine.write([rows(3)])
    others.refresh()
    for found in (mine, others, FeatureSet(f"{store}/", SPEC), pickle.loads(pickle.dumps(mine))):
        assert_holds(found, [3, 1, 2])
        assert found.missing([key(7), key(1), key(9)]) == [key(7)]
        assert found.rejections([key(9)]) == {key(9): ("too_short", "é\ud800")}
    assert verify(store) == [] and verify(store, full=True) == []
    (summary,) = summaries(store)
    assert (summary.shards, summary.clips, summary.windows, summary.rejected) == (2, 3, 6, 1)
    assert rejections(store)["key"].tolist() == [key(9)]


@pytest.mark.parametrize("spec", [SPEC, FRAMES], ids=["windows", "frames"])
def test_many_objects_become_one_with_the_bytes_that_a_folder_would_hold(spec, tmp_path):
    found, copied = fill(URL, spec), tmp_path / "copied"
    copied.mkdir()
    for each in found.folder.iterdir():
        (copied / each.name).write_bytes(each.read_bytes())
    (mine,) = flatten(Index(found.folder, spec.fingerprint), tmp_path / "of-objects")
    (theirs,) = flatten(Index(copied, spec.fingerprint), tmp_path / "of-files")
    assert mine.name == theirs.name and mine.read_bytes() == theirs.read_bytes()
    late = FeatureSet(URL, spec)
    (done,) = compact_all(URL)
    assert (done.files_before, done.files) == (5, 1) and len(found.folder.glob("*.safetensors")) == 1
    for each in (found, late, FeatureSet(URL, spec)):
        assert_sound(each, CLIPS, CLIPS, [9])


def test_nothing_but_indices_is_transferred_to_know_what_is_missing():
    fill()
    Faulty.reset()
    found = FeatureSet(URL, SPEC)
    assert found.missing(map(key, range(8))) == [key(6), key(7)]
    assert sorted(Faulty.names) == ["cat_file"] * 5 + ["ls"] * 2
    assert_sound(found, CLIPS, CLIPS, [9])
    assert_sound(FeatureSet(URL, SPEC), CLIPS, CLIPS, [9])
    assert Faulty.names.count("get_file") == 5


def test_an_index_longer_than_what_is_read_ahead_is_read_to_its_end():
    FeatureSet(URL, SPEC).write([rows(number) for number in range(400)])
    assert_holds(FeatureSet(URL, SPEC), range(400))


def test_more_shards_than_are_asked_for_at_once_are_all_read():
    found = FeatureSet(URL, SPEC)
    for number in range(TOGETHER + 2):
        writing.write(URL, SPEC, [rows(number)], {})
    found.refresh()
    assert_holds(found, range(TOGETHER + 2))


def test_a_damaged_copy_is_fetched_again(cache):
    found = FeatureSet(URL, SPEC)
    found.write([rows(number) for number in range(3)])
    assert_holds(found, range(3))
    (copy,) = copies(cache)
    whole = copy.read_bytes()
    vectors = len(whole) - found.index.shards[0].places["norm"][2]
    for place in range(1, vectors + 1, 7):
        copy.write_bytes(whole[:-place] + bytes([whole[-place] ^ 4]) + whole[len(whole) - place + 1 :])
        assert_holds(FeatureSet(URL, SPEC), range(3))
        assert copy.read_bytes() == whole
    for length in (0, 1, len(whole) - 1):
        copy.write_bytes(whole[:length])
        assert_holds(FeatureSet(URL, SPEC), range(3))
    copy.unlink()
    assert_holds(FeatureSet(URL, SPEC), range(3))


def test_a_damaged_object_costs_its_clips_and_stays(caplog):
    FeatureSet(URL, SPEC).write([rows(1)])
    ((path, file),) = objects().items()
    whole = file.getvalue()
    vectors = FeatureSet(URL, SPEC).index.shards[0].places["norm"][2]
    for place in range(0, len(whole), 5):
        file.getbuffer()[place] ^= 4
        found = FeatureSet(URL, SPEC)
        if place >= vectors:
            with pytest.raises(DamagedShard, match=r"row \d does not match"):
                found.gather([key(1)])
        else:
            assert "faulty://bucket" in caplog.records[-1].message and "computed again" in caplog.records[-1].message
        assert found.missing([key(1)]) == [key(1)] and verify(URL, full=True) != []
        file.getbuffer()[place] ^= 4
    for length in range(0, len(whole), 50):
        Faulty.store[path].seek(0)
        Faulty.store[path].truncate(length)
        found = FeatureSet(URL, SPEC)
        assert found.missing([key(1)]) == [key(1)] and verify(URL) != []
        found.prepare()
        assert path in objects()
        Faulty.store[path].seek(0)
        Faulty.store[path].write(whole)
    assert_holds(FeatureSet(URL, SPEC), [1])


def test_all_bytes_of_the_objects_are_verified_not_those_of_the_copies():
    found = fill()
    assert_sound(found, CLIPS, CLIPS, [9])
    path, file = next(iter(objects().items()))
    file.getbuffer()[len(file.getvalue()) - 1] ^= 1
    assert verify(URL) == []
    (problem,) = verify(URL, full=True)
    assert path in problem and "is damaged" in problem


def test_a_store_in_the_url_of_a_folder_is_that_folder(tmp_path):
    fill(f"file://{tmp_path}/store")
    assert location(f"file://{tmp_path}/store") == tmp_path / "store"
    assert_sound(FeatureSet(tmp_path / "store", SPEC), CLIPS, CLIPS, [9])


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("s33://bucket/a", UnknownName, "Did you mean 's3'"),
        ("s3://", UsageError, r"names no bucket and no folder; write s3://bucket/folder"),
        ("sftp://me:secret@host/a", UsageError, "no password belongs there"),
        ("simplecache::s3://bucket/a", UsageError, "chain of URLs"),
        (Path("s3://bucket/a"), UsageError, r"it lacks a slash: s3://bucket/a, not as a Path"),
        ("s3:/bucket/a", UsageError, "it lacks a slash"),
    ],
)
def test_a_url_that_cannot_be_meant_is_a_sentence(url, error, words):
    with pytest.raises(error, match=words) as caught:
        FeatureSet(url, SPEC)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["features", "/a/b", "C:/a", "a:/b", "odd:/name", "~", "a b://c"])
def test_what_is_no_url_is_a_folder(name):
    assert location(name) == location(Path(name)) == Path(name)


def test_a_user_in_a_url_is_no_password():
    assert location("sftp://me@host/a") == Remote("sftp://me@host/a")


def test_an_absent_package_is_named(monkeypatch):
    broken = {"class": "no_such_package.FileSystem", "err": "Install it"}
    monkeypatch.setitem(known_implementations, "broken", broken)
    with pytest.raises(SetupError, match=r"broken:// needs a package.*: pip install no_such_package"):
        FeatureSet("broken://bucket/a", SPEC)


def test_a_bucket_that_is_not_there_is_said_before_anything_is_computed(bucket):
    found = FeatureSet("s3://no-such-bucket/a", SPEC)
    with pytest.raises(SetupError, match=r"s3://no-such-bucket/a/set-\w+ cannot be written: No such object or bucket"):
        found.prepare()
    with pytest.raises(SetupError, match="No such object or bucket"):
        found.write([rows(1)])
    with pytest.raises(UsageError, match="There is no store 's3://no-such-bucket/a'"):
        summaries("s3://no-such-bucket/a")


def test_a_store_that_does_not_answer_is_a_sentence():
    found = fill()
    Faulty.reset(1, refuse, lasting=True)
    for call in (
        lambda: FeatureSet(URL, SPEC),
        found.refresh,
        found.prepare,
        lambda: found.write([rows(7)]),
        lambda: found.gather([key(1)]),
        lambda: lists.known(URL),
        lambda: compact(found.folder, SPEC.fingerprint),
    ):
        with pytest.raises(SetupError, match=r"faulty://bucket/features.* cannot be .*: the line is dead\. Look at"):
            call()
    Faulty.reset()
    assert_sound(FeatureSet(URL, SPEC), CLIPS, CLIPS, [9])


@pytest.mark.parametrize("fault", [refuse, lose_the_answer, tear])
def test_a_failure_that_passes_is_not_noticed(fault, monkeypatch, cache):
    monkeypatch.setattr(remote, "PATIENCE", 5)
    monkeypatch.setattr(remote.time, "sleep", lambda _: None)
    at = 0
    while at <= Faulty.count:
        at += 1
        Faulty.empty()
        for copy in copies(cache):
            copy.unlink()
        Faulty.reset(at, fault)
        run(acknowledged := [])
        assert_sound(FeatureSet(URL, SPEC), SHORT, acknowledged)
        assert acknowledged == [0, 1, 2]
    assert at > 20


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("fault", [refuse, lose_the_answer, tear])
def test_failures_lose_nothing_that_was_acknowledged(fault, lasting, cache):
    """The n-th call fails, for every n until a run makes no more calls; then another run goes on."""
    at = 0
    while at <= Faulty.count:
        at += 1
        Faulty.empty()
        for copy in copies(cache):
            copy.unlink()
        Faulty.reset(at, fault, lasting)
        acknowledged = []
        with suppress(SetupError):
            run(acknowledged)
        last, Faulty.count = Faulty.count, 0
        Faulty.reset()
        again = FeatureSet(URL, SPEC)
        assert_sound(again, SHORT, acknowledged)
        again.prepare()
        again.write([rows(number) for number in SHORT if key(number) not in again])
        assert_sound(FeatureSet(URL, SPEC), SHORT, SHORT)
        assert not list(cache.rglob("*.tmp"))
        Faulty.count = last
    assert at > 20 and acknowledged == [0, 1, 2]


def test_a_listing_that_lags_behind_costs_recomputation_only():
    folder = f"/bucket/features/{writing.folder_of(URL, SPEC).name}"
    found = FeatureSet(URL, SPEC)
    found.write([rows(1)])
    Faulty.old = {folder: Faulty().ls(folder)}
    found.write([rows(2)])
    assert found.missing([key(1), key(2)]) == [key(2)]
    found.write([rows(2)])
    Faulty.old = {}
    assert_holds(FeatureSet(URL, SPEC), [1, 2])
    before, reading = Faulty().ls(folder), FeatureSet(URL, SPEC)
    compact(found.folder, SPEC.fingerprint)
    new = [entry for entry in Faulty().ls(folder) if entry not in before]
    Faulty.old = {folder: before + new}
    assert_holds(reading, [1, 2])
    assert_holds(FeatureSet(URL, SPEC), [1, 2])
    Faulty.old = {folder: before}
    assert FeatureSet(URL, SPEC).missing([key(1), key(2)]) == [key(1), key(2)]


def test_a_full_disk_for_copies_names_what_to_do(monkeypatch):
    fill()

    def full(name, call, path):
        raise OSError(28, "No space left on device")

    found = FeatureSet(URL, SPEC)
    Faulty.reset(1, full, lasting=True)
    with pytest.raises(SetupError, match=r"copied to .*cache.*No space left on device\. MMMOS_CACHE names another"):
        found.gather([key(1)])


def test_the_memory_of_one_process_is_no_store_for_others(monkeypatch):
    monkeypatch.setattr(remote, "parent_process", object)
    with pytest.raises(UsageError, match="in the memory of another process"):
        FeatureSet("memory://features", SPEC)


def test_what_needs_a_folder_says_so(tmp_path):
    with pytest.raises(UsageError, match=r"only a folder can be tidied up\. Copy the store to a folder"):
        reach([], URL)
    with pytest.raises(UsageError, match="only a folder can be tidied up"):
        waste(URL, Reach(frozenset(), {}))
    with pytest.raises(UsageError, match="only a folder can be imported into"):
        import_features(tmp_path, URL)


def test_commands_take_a_url(capsys):
    def command(*arguments):
        code = cli._call(["features", *arguments, "--store", f"{URL}/"], False)
        return code, *capsys.readouterr()

    fill()
    assert command("verify", "--full") == (0, "", f"{URL} is whole.\n")
    code, out, _ = command("compact")
    assert code == 0 and len(found := FeatureSet(URL, SPEC).index.shards) == 1 and found[0].path.name in str(objects())
    assert "set-" in out
    code, out, _ = command("show", "--json")
    assert code == 0 and json.loads(out)[0]["clips"] == 6
    code, _, err = command("gc", ".")
    assert code == 2 and "only a folder can be tidied up" in err
    code, _, err = command("import", "exported")
    assert code == 2 and "only a folder can be imported into" in err
    next(iter(objects().values())).getbuffer()[0] ^= 1
    code, _, err = command("verify")
    assert code == 4 and f"{URL}/set-" in err


def test_lists_of_imports_that_were_copied_there_are_read():
    data = lists.written([("a", "a.wav", None, None, key(1))])
    place = location(URL) / lists.FOLDER
    (place / lists.file_name(data)).write([data])
    (place / "0123.csv").write([b"other"])
    assert lists.known(URL).key("a", "x/a.flac", None, None) == key(1)


def test_an_object_that_arrived_in_part_is_not_acknowledged():
    def cut(name, call, path):
        found = call()
        if name == "put_file":
            Faulty.store[path].truncate(3)
        return found

    found = FeatureSet(URL, SPEC)
    Faulty.reset(1, cut, lasting=True)
    with pytest.raises(SetupError, match=r"cannot be written: of \d+ bytes 3 arrived"):
        found.write([rows(1)])


def test_an_object_that_is_not_there_can_be_deleted_where_that_is_no_matter():
    absent = location(URL) / "absent"
    absent.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match="No such object or bucket"):
        absent.unlink()


def test_features_at_a_url_are_those_of_a_folder(fake, make_clips, bucket, tmp_path):
    clips, store = make_clips(3), f"{bucket}/features"
    here, there = (extract(clips, [fake.name], store=where, device="cpu") for where in (tmp_path / "store", store))
    fake.calls()
    again = extract(clips, [fake.name], store=store, device="cpu")
    assert fake.calls() == 0 and plan(clips, [fake.name], store=store)["stored"].tolist() == [3]
    for each in (there, again):
        assert each.keys == here.keys and each.status.equals(here.status)
        np.testing.assert_array_equal(each["FAKE"].raw, here["FAKE"].raw)


def test_hashes_of_a_store_at_a_url_are_remembered_here(cache):
    from mmmos.features.store.hashes import Hashes

    first, second = Hashes(URL), Hashes("faulty://bucket/other")
    assert first.folder.is_relative_to(cache) and first.folder != second.folder


WRITER = """
import sys
sys.path.append(sys.argv[1])
from stores import SPEC, rows
from mmmos.features.store import FeatureSet

for number in (3, 2, 4, 5):
    FeatureSet(sys.argv[2], SPEC).write([rows(number)])
    print(number, flush=True)
"""


def test_processes_write_to_one_store_at_once(bucket, tmp_path):
    script, store = tmp_path / "writer.py", f"{bucket}/together"
    script.write_text(WRITER)
    command = [sys.executable, str(script), str(Path(__file__).parent), store]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        said = [other.stdout.readline()]
        found = FeatureSet(store, SPEC)
        for number in range(4):
            found.write([rows(number)])
        said += other.communicate(timeout=60)[0].split()
    assert other.returncode == 0 and list(map(int, said)) == [3, 2, 4, 5]
    found.refresh()
    assert all(same(found, number) for number in range(6)) and len(found.index.shards) == 8
    compact(found.folder, SPEC.fingerprint)
    assert_holds(FeatureSet(store, SPEC), range(6))
