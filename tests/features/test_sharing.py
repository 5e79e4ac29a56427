"""export and import: embeddings travel without audio and without traces of a machine; nothing foreign is trusted."""

import errno
import getpass
import json
import os
import random
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st

from mmmos.errors import InputError, Rejected, SetupError, StoreError, UsageError
from mmmos.features.extraction.extract import complete, extract, status
from mmmos.features.sharing import exports, imports, verification
from mmmos.features.sharing.exports import export
from mmmos.features.sharing.imports import import_features
from mmmos.features.spec import EncoderRecipe, FeatureRecipe, FeatureSpec
from mmmos.features.store import FeatureSet, describe, lists, shard
from mmmos.features.store.upkeep import summaries, verify
from mmmos.files import key_of, pretty_json
from mmmos.manifest.rows import Report

sys.path.append(str(Path(__file__).parent / "store"))
from stores import ENCODER, FRAMES, SPEC, key, rows


def recipe(fake, *others):
    return FeatureRecipe(encoders=[EncoderRecipe(encoder=fake.name, name="set"), *others])


def elsewhere(clips):
    """The same manifest on a machine that has no audio."""
    return clips.assign(path=[f"/nowhere/{Path(path).stem}.mp3" for path in clips["path"]])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def exported(tmp_path):
    """A handmade export of three clips and a rejected one, with its feature set."""
    folder = tmp_path / "export"
    found = FeatureSet(folder, SPEC)
    found.write([rows(1), rows(2), rows(3)], {key(9): ("non_finite", "NaN", "c9.wav")})
    entries = [(f"c{number}", f"c{number}.wav", None, None, key(number)) for number in (1, 2, 3, 9)]
    (folder / "clips.csv").write_bytes(lists.written(entries))
    (folder / "README.md").write_text("# About\n")
    return folder


def shard_of(folder):
    (path,) = folder.glob("*/*.safetensors")
    return path


def test_embeddings_travel_and_serve_without_audio(fake, make_clips, store, tmp_path, caplog):
    clips = make_clips(3, seconds=1)
    clips.loc["part"] = clips.loc["c0"]
    clips["start"], clips["end"] = [None, None, None, 0.25], [None, None, None, 0.75]
    here = extract(clips, recipe(fake), store=store, device="cpu")
    done = export(clips, recipe(fake), tmp_path / "out", store=store)
    assert (done.sets, done.clips, len(done.left_out)) == (("set",), 4, 0)
    imported = import_features(tmp_path / "out", tmp_path / "theirs")
    assert (imported.sets, imported.clips, imported.shards) == (("set",), 4, 1)
    fake.calls()
    caplog.clear()
    there = extract(elsewhere(clips), recipe(fake), store=tmp_path / "theirs", device="cpu")
    assert fake.calls() == 0 and there.keys == here.keys
    np.testing.assert_array_equal(there["set"].raw, here["set"].raw)
    assert caplog.messages == ["4 clips have no audio here; their embeddings come from an import."]
    assert verify(tmp_path / "theirs", full=True) == []
    again = export(elsewhere(clips), recipe(fake), tmp_path / "again", store=tmp_path / "theirs")
    assert again.clips == 4
    old, new = contents(tmp_path / "out"), contents(tmp_path / "again")
    assert {path: data for path, data in new.items() if path.suffix == ".safetensors"}.items() <= old.items()


def test_the_same_export_is_the_same_bytes(fake, make_clips, store, tmp_path):
    clips = make_clips(3)
    complete(clips, recipe(fake), store=store)
    for name in ("one", "two"):
        export(clips, recipe(fake), tmp_path / name, store=store)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sorted({path.suffix for path in contents(tmp_path / "one")}) == [".csv", ".json", ".md", ".safetensors"]


def test_only_the_clips_asked_for_and_no_names_of_a_machine(fake, make_clips, store, tmp_path):
    clips = make_clips(3)
    whole = export_of(fake, clips, store, tmp_path / "whole")
    clips.index = ["c0", clips.at["c1", "path"], "../up/c2.wav"]
    found = export_of(fake, clips.iloc[1:], store, tmp_path / "out")
    text = b"".join(contents(tmp_path / "out").values()) + " ".join(map(str, contents(tmp_path / "out"))).encode()
    for secret in (str(tmp_path), str(tmp_path.parent), getpass.getuser() + "/", socket.gethostname(), "../up"):
        assert secret.encode() not in text
    assert [entry.split(",")[:2] for entry in (tmp_path / "out" / "clips.csv").read_text().splitlines()[1:]] == [
        ["c1.wav", "c1.wav"],
        ["c2.wav", "c2.wav"],
    ]
    (held,) = summaries(tmp_path / "out")
    assert held.clips == found.clips == 2 and whole.clips == 3
    import_features(tmp_path / "out", tmp_path / "theirs")
    theirs = elsewhere(clips.iloc[1:])
    theirs.index = ["/their/own/c1.wav", "../up/c2.wav"]
    assert (status(theirs, recipe(fake), store=tmp_path / "theirs")["status"] == "done").all()


def export_of(fake, clips, store, to):
    complete(clips, recipe(fake), store=store)
    return export(clips, recipe(fake), to, store=store)


def test_rejections_travel_and_their_paths_do_not(fake, make_clips, store, tmp_path):
    clips = make_clips(1)
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 8000, "FLOAT")
    clips.loc["nan", "path"] = str(tmp_path / "nan.wav")
    clips.loc["gone", "path"] = str(tmp_path / "gone.wav")
    complete(clips, recipe(fake), store=store)
    done = export(clips, recipe(fake), tmp_path / "out", store=store)
    assert done.clips == 2 and done.left_out["reason"].to_dict() == {"gone": "missing"}
    import_features(tmp_path / "out", tmp_path / "theirs")
    theirs = status(elsewhere(clips), recipe(fake), store=tmp_path / "theirs")
    assert theirs["reason"].to_dict() == {"c0": "", "nan": "non_finite", "gone": "missing"}
    assert exports._impersonal(("decode_error", "in file:/home/me/x.ogg: no", "/home/me/x.ogg")) == (
        "decode_error",
        "the decoder gave up",
        "x.ogg",
    )


def test_the_readme_says_what_it_is_and_what_is_not_allowed(make_fake, make_clips, store, tmp_path):
    clips, fake, restricted = make_clips(2), make_fake(), make_fake("restricted", commercial=False)
    both = recipe(fake, EncoderRecipe(encoder=restricted.name, name="restricted"))
    complete(clips, both, store=store)
    export(clips, both, tmp_path / "out", store=store)
    text = (tmp_path / "out" / "README.md").read_text()
    first, second = text.split("\n## ")[1:]
    assert "mmmos features import FOLDER" in text and "hf://owner/name" in text
    front = DatasetCard(text).data
    assert (front.license, front.pretty_name) == ("other", "Embeddings of 2 clips (set, restricted)")
    assert front.tags == ["mmmos", "audio", "embeddings"]
    assert "2 layers × 3, float16" in first and "2 with embeddings, 0 rejected" in first
    assert "windows of 10 s every 10 s" in first and "not be used commercially" not in first
    assert second.startswith("restricted-") and "**may not be used commercially**" in second


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("", "none"),
        ("microsoft/wavlm-base-plus", "microsoft/wavlm-base-plus main, SHA-256 ab12"),
        ("/home/me/mine", "the exporter's own, SHA-256 ab12"),
    ],
)
def test_weights_are_named_where_they_are_published(weights, words):
    about = replace(ENCODER, weights=weights, revision="main", sha256="ab12" if weights else "")
    table = EncoderRecipe(encoder="wavlm-base-plus")
    assert exports._weights(table, FeatureSpec("set", about)) == words


@pytest.mark.parametrize("times", [1, 1000])
def test_an_export_of_a_set_that_is_compacted_meanwhile_begins_again(
    fake, make_clips, store, tmp_path, monkeypatch, times
):
    clips, flatten, calls = make_clips(2), exports.flatten, []
    complete(clips, recipe(fake), store=store)

    def vanish(*arguments):
        calls.append(1)
        if len(calls) <= times:
            raise FileNotFoundError(2, "No such file or directory")
        return flatten(*arguments)

    monkeypatch.setattr(exports, "flatten", vanish)
    (tmp_path / "out").mkdir()
    if times == 1:
        assert export(clips, recipe(fake), tmp_path / "out", store=store).clips == 2
        assert import_features(tmp_path / "out", tmp_path / "theirs").clips == 2
    else:
        with pytest.raises(StoreError, match="changes all the time"):
            export(clips, recipe(fake), tmp_path / "out", store=store)
        assert not any((tmp_path / "out").iterdir()) and not list(tmp_path.glob(".*"))


def test_what_is_not_in_the_store_is_not_exported(fake, make_clips, store, tmp_path):
    clips = make_clips(3)
    complete(clips.iloc[:1], recipe(fake), store=store)
    with pytest.raises(UsageError, match=r"2 of 3 clips are not in .*mmmos features extract RECIPE with the same"):
        export(clips, recipe(fake), tmp_path / "out", store=store)
    with pytest.raises(InputError, match=r"none of 3 clips can be read, for one there is no file"):
        export(elsewhere(clips), recipe(fake), tmp_path / "out", store=store)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UsageError, match="is there already"):
        export(clips.iloc[:1], recipe(fake), tmp_path / "out", store=store)


def test_damaged_rows_are_not_exported(fake, make_clips, store, tmp_path):
    clips = make_clips(2)
    complete(clips, recipe(fake), store=store)
    flip(next(store.glob("*/*.safetensors")), -1)
    with pytest.raises(StoreError, match=r"The rows of 1 of 2 clips in .* are damaged; nothing is exported"):
        export(clips, recipe(fake), tmp_path / "out", store=store)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_importing_twice_does_nothing_more_and_mends_what_was_damaged(exported, tmp_path):
    store = tmp_path / "store"
    assert import_features(exported, store).shards == 1
    before = contents(store)
    done = import_features(exported, store)
    assert (done.clips, done.shards, done.size) == (4, 0, 0) and contents(store) == before
    flip(shard_of(store), -1)
    assert import_features(exported, store).shards == 1
    assert contents(store) == before and verify(store, full=True) == []


def test_an_import_adds_to_what_is_there(exported, tmp_path):
    store = tmp_path / "store"
    mine = FeatureSet(store, SPEC)
    mine.write([rows(7)])
    import_features(exported, store)
    mine.refresh()
    assert mine.missing([key(number) for number in (1, 2, 3, 7, 9)]) == []
    assert mine.rejections([key(9)]) == {key(9): ("non_finite", "NaN")}


def test_frames_and_their_shape_are_verified(tmp_path):
    folder = tmp_path / "export"
    FeatureSet(folder, FRAMES).write([rows(1, frames=True)])
    (folder / "clips.csv").write_bytes(lists.written([("c1", "c1.wav", None, None, key(1))]))
    import_features(folder, tmp_path / "store")
    np.testing.assert_array_equal(
        FeatureSet(tmp_path / "store", FRAMES).frames(key(1)).unit, rows(1, frames=True).frame_unit
    )
    flip(shard_of(folder), -1)
    with pytest.raises(InputError, match="does not match its checksum"):
        import_features(folder, tmp_path / "store")


def rewrite_list(folder, old, new):
    path = folder / "clips.csv"
    path.write_text(path.read_text().replace(old, new, 1))


def respec(folder, **changes):
    """Another spec with the fingerprint that follows from it, in a folder of that name."""
    about = SPEC.numbers() | changes
    (old,) = (path for path in folder.iterdir() if path.is_dir())
    (old / "spec.json").write_text(pretty_json({"name": "set"} | about))
    about.pop("name", None)
    old.rename(folder / f"set-{key_of(about)[:12]}")


def rename_set(folder, name):
    (old,) = (path for path in folder.iterdir() if path.is_dir())
    old.rename(folder / name)


def replace_by_link(path):
    moved = path.with_name("moved")
    path.rename(moved)
    target = shutil.move(moved, path.parents[2] / "moved") if path.suffix == ".safetensors" else moved
    path.symlink_to(target)


MISTAKES = {
    "a file too many": (lambda f: (f / "run.sh").touch(), r"'run.sh': it does not belong to an export"),
    "a hidden file": (lambda f: (f / ".x").touch(), r"'.x': it does not belong"),
    "a name with an escape": (lambda f: (f / "\x1b[2J").touch(), r"'\\x1b\[2J': it does not belong"),
    "audio": (lambda f: (shard_of(f).parent / "c1.wav").touch(), r"set-.*/c1.wav': it does not belong"),
    "another folder": (lambda f: (f / "hashes").mkdir(), "'hashes': it does not belong"),
    "a link to a shard": (lambda f: replace_by_link(shard_of(f)), "it is a link, a folder or a device"),
    "a pipe": (lambda f: (shard_of(f).unlink(), os.mkfifo(f / shard_of_name(f))), "it is a link, a folder or a device"),
    "no list": (lambda f: (f / "clips.csv").unlink(), "it holds no clips.csv"),
    "no sets": (lambda f: shutil.rmtree(shard_of(f).parent), "it holds no feature set"),
    "no shards": (lambda f: shard_of(f).unlink(), "it holds no shards"),
    "an empty set": (lambda f: (f / "set-0123456789ab").mkdir(), "set-0123456789ab: it holds no spec.json"),
    "no spec": (lambda f: (shard_of(f).parent / "spec.json").unlink(), "it holds no spec.json"),
    "another name of a set": (lambda f: rename_set(f, "set-0123456789ab"), "another feature set than its folder"),
    "a folder that goes up": (lambda f: rename_set(f, "..-0123456789ab"), "'..-0123456789ab': it does not belong"),
    "a set under another name": (lambda f: rename_set(f, "x" + shard_of(f).parent.name[3:]), "called 'set', and its"),
    "a huge spec": (lambda f: (shard_of(f).parent / "spec.json").write_text(" " * 70_000), "at most 65536 are read"),
    "no JSON": (lambda f: (shard_of(f).parent / "spec.json").write_text("[" * 9999), "it is no spec"),
    "a list as spec": (lambda f: (shard_of(f).parent / "spec.json").write_text("[]"), "it is no spec"),
    "another schema": (lambda f: respec(f, schema=1), "of schema 1; this version of MMMOS reads schema"),
    "an absurd dtype": (lambda f: respec(f, dtype="object"), "'object'; allowed are float16 and float32"),
    "no encoder": (lambda f: respec(f, encoder=7), "it describes no encoder"),
    "no layers": (
        lambda f: respec(f, encoder=SPEC.numbers()["encoder"] | {"layers": -1}),
        "no numbers of layers and dimensions",
    ),
    "unnamed layers": (
        lambda f: respec(f, encoder=SPEC.numbers()["encoder"] | {"layers": 3}),
        "its layers, their names",
    ),
    "another dimension": (
        lambda f: respec(f, encoder=SPEC.numbers()["encoder"] | {"dim": 4}),
        "its tensors are not those of its feature set",
    ),
    "another fingerprint": (lambda f: respec(f, window=5.0), "it belongs to another feature set"),
    "a shard cut": (lambda f: os.truncate(shard_of(f), 900), "its header is cut off or damaged"),
    "a row cut": (lambda f: os.truncate(shard_of(f), shard_of(f).stat().st_size - 1), r"it has \d+ bytes instead of"),
    "a row changed": (lambda f: flip(shard_of(f), -1), "row 5 does not match its checksum"),
    "a header changed": (lambda f: flip(shard_of(f), 100), "safetensors: "),
    "a shard renamed": (
        lambda f: shard_of(f).rename(shard_of(f).with_name("0" * 32 + ".safetensors")),
        "its header is not the one that it is named by",
    ),
    "other columns": (lambda f: rewrite_list(f, "file", "path"), "clips.csv:1: the columns are not id, file, start"),
    "an empty list": (lambda f: (f / "clips.csv").write_text("id,file,start,end,key\n"), "it lists no clips"),
    "a field too many": (lambda f: rewrite_list(f, "c1,", "c1,,"), "clips.csv:2: 6 fields instead of 5"),
    "no key": (lambda f: rewrite_list(f, key(2), "../../x"), r"clips.csv:3: column key: '../../x' is not a key"),
    "no time": (lambda f: rewrite_list(f, "c2.wav,,", "c2.wav,x,"), "clips.csv:3: column start: 'x' is not a number"),
    "NaN as time": (lambda f: rewrite_list(f, "c2.wav,,", "c2.wav,,nan"), "column end: 'nan' is not a number"),
    "a time below 0": (lambda f: rewrite_list(f, "c2.wav,,", "c2.wav,-1,"), "column start: '-1' is out of range"),
    "no time at all": (lambda f: rewrite_list(f, "c2.wav,,", "c2.wav,2,1"), "the segment ends at 1.0 s but starts at"),
    "a path": (lambda f: rewrite_list(f, "c2.wav", "../c2.wav"), "column file: '../c2.wav' is not a base name"),
    "no id": (lambda f: rewrite_list(f, "c2,", ","), "clips.csv:3: column id: empty"),
    "an escape": (lambda f: rewrite_list(f, "c2,", "c\x1b[2J,"), "holds the control character"),
    "a quote": (lambda f: rewrite_list(f, "c2,", '"c2,'), "clips.csv.*not CSV"),
    "a line twice": (lambda f: rewrite_list(f, "c2", "\n".join([first_line(f), "c2"])), "is there twice"),
    "a clip that is not there": (lambda f: rewrite_list(f, key(2), key(5)), "1 of its clips are not in set-"),
}


def first_line(folder):
    return (folder / "clips.csv").read_text().splitlines()[1]


def shard_of_name(folder):
    return next(folder.glob("*/spec.json")).parent.relative_to(folder) / f"{'a' * 32}.safetensors"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_folder_with_anything_wrong_is_named_and_left_outside(exported, tmp_path, mistake):
    damage, sentence = MISTAKES[mistake]
    damage(exported)
    with pytest.raises(InputError, match=sentence) as caught:
        import_features(exported, tmp_path / "store")
    assert "\x1b" not in str(caught.value) and str(tmp_path / "store") not in str(caught.value)
    assert str(caught.value).endswith(f"Nothing of {exported} is imported.")
    assert not (tmp_path / "store").exists()


def forged(change):
    """A consistent shard, checksums and all, with contents that no extraction writes."""

    def damage(folder):
        path = shard_of(folder)
        clips, rejected = [rows(1), rows(2), rows(3)], {key(9): ("non_finite", "NaN", "c9.wav")}
        found = change(clips, rejected)
        path.unlink()
        shard.write(path.parent, SPEC.fingerprint, clips if found is None else found, rejected)

    return damage


def put(name, place, value):
    return forged(lambda clips, _: getattr(clips[1], name).__setitem__(place, value))


def reject(**rejection):
    return forged(lambda _, rejected: rejected.update({rejection.get("key", key(8)): tuple(rejection["why"])}))


FORGERIES = {
    "NaN": (put("unit", 0, np.nan), "vectors that are not finite, absurd or zero"),
    "an infinite norm": (put("norm", 0, np.inf), "vectors that are not finite"),
    "a zero": (put("norm", 1, 0), "vectors that are not finite"),
    "an absurd norm": (put("norm", 1, 1e9), "vectors that are not finite"),
    "a long vector": (put("unit", 1, 60), "vectors that are not finite"),
    "no frames": (put("frames", 0, 0), "windows without frames"),
    "frames beyond counting": (put("frames", 0, 1 << 62), "windows without frames"),
    "time backwards": (put("span", 0, [2, 1]), "begin after their end"),
    "time without end": (put("span", 0, [0, np.inf]), "begin after their end"),
    "infinite measures": (put("measures", 0, np.inf), "infinite measures"),
    "parts": (forged(lambda clips, _: [rows(1, part=1, last=False), *clips[1:]]), "it holds parts of clips"),
    "a clip twice": (forged(lambda clips, _: [*clips, clips[0]]), "it holds a clip twice"),
    "a rejection without key": (reject(key="../x", why=("non_finite", "", "")), r"no extraction stores \('../x'"),
    "an unknown reason": (reject(why=("because", "", "")), "no extraction stores"),
    "a reason that is not kept": (reject(why=("missing", "", "")), "no extraction stores"),
    "an escape": (reject(why=("non_finite", "\x1b[2J", "")), "no extraction stores"),
    "a path": (reject(why=("non_finite", "", "/etc/passwd")), "no extraction stores"),
    "a long text": (reject(why=("non_finite", "x" * 2000, "")), "no extraction stores"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_shard_stays_outside(exported, tmp_path, forgery, monkeypatch):
    damage, sentence = FORGERIES[forgery]
    monkeypatch.setattr(shard, "_refuse", lambda clip: None)
    damage(exported)
    with pytest.raises(InputError, match=sentence):
        import_features(exported, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("size", [-1, 1.0, True, "1", None, 1 << 45, [1]])
@pytest.mark.parametrize("tensor", ["entries", "span", "rejected", "norm"])
def test_a_header_that_lies_about_shapes_is_refused_before_anything_is_read(exported, tmp_path, tensor, size):
    path = shard_of(exported)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[tensor]["shape"][0] = size
    text = json.dumps(header).encode()
    path.unlink()
    head = len(text).to_bytes(8, "little") + text
    (path.parent / f"{shard.digest_name(head)}.safetensors").write_bytes(head + data[8 + length :])
    with pytest.raises(InputError):
        import_features(exported, tmp_path / "store")


def test_an_index_beyond_the_limit_is_not_read(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "_INDEX", 100)
    with pytest.raises(InputError, match="its index is larger than any that MMMOS writes"):
        import_features(exported, tmp_path / "store")


def test_random_damage_is_refused_or_harmless(exported, tmp_path):
    chance = random.Random(0)
    files = sorted(path for path in exported.rglob("*") if path.is_file())
    for number in range(120):
        path = chance.choice(files)
        before = path.read_bytes()
        data = bytearray(before)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice([1, 4])):
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        store = tmp_path / f"store{number}"
        try:
            import_features(exported, store)
        except InputError:
            assert not store.exists()
        else:
            assert verify(store, full=True) == []
            assert path.name in ("README.md", "clips.csv") or bytes(data) == before
        path.write_bytes(before)


def test_an_import_that_is_stopped_in_the_middle_is_finished_by_the_same_command(exported, tmp_path, monkeypatch):
    store = tmp_path / "store"
    other = FeatureSet(exported, FRAMES)
    other.write([rows(number, frames=True) for number in (1, 2, 3)], {key(9): ("non_finite", "NaN", "c9.wav")})
    whole = import_features(exported, tmp_path / "whole")
    settle, calls = imports._settle, []

    def full(each, folder):
        if calls:
            raise OSError(28, "No space left on device")
        calls.append(settle(each, folder))
        return calls[-1]

    monkeypatch.setattr(imports, "_settle", full)
    with pytest.raises(SetupError, match=r"No space left on device\. Mend that and type the same again"):
        import_features(exported, store)
    monkeypatch.undo()
    assert verify(store, full=True) == [] and not list(store.glob(".*"))
    assert import_features(exported, store).shards == whole.shards - 1
    assert contents(store) == contents(tmp_path / "whole")


def test_a_folder_that_cannot_be_listed_is_said(exported, tmp_path, monkeypatch):
    listed = os.scandir

    def refuse(folder):
        if str(folder).startswith(str(exported / "set-")):
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(imports.os, "scandir", refuse)
    with pytest.raises(InputError, match=r"set-\w+: the folder cannot be read: Permission denied"):
        import_features(exported, tmp_path / "store")


def test_what_became_a_link_or_a_pipe_after_it_was_listed_is_not_copied(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    report = Report(9)
    for name in ("link", "pipe"):
        imports._copy(tmp_path / name, tmp_path / "copy", None, name, report)
    found = [(problem.file, problem.what) for problem in report.problems]
    assert found == [("link", f"it cannot be read: {os.strerror(errno.ELOOP)}"), ("pipe", "it is no plain file")]
    assert not (tmp_path / "copy").exists()


def test_rejections_alone_are_imported(exported, tmp_path):
    FeatureSet(exported, SPEC).write([], {key(8): ("too_short", "0.01 s", "c8.wav")})
    with (exported / "clips.csv").open("a") as file:
        file.write(f"c8,c8.wav,,,{key(8)}\n")
    assert import_features(exported, tmp_path / "store").shards == 2
    assert FeatureSet(tmp_path / "store", SPEC).rejections([key(8)]) == {key(8): ("too_short", "0.01 s")}


def test_what_is_no_folder_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"There is no folder .*; mmmos features export makes one"):
        import_features(tmp_path / "nothing", tmp_path / "store")


def shared(tmp_path, *some):
    (tmp_path / "shared").mkdir()
    for entries in some:
        data = lists.written(entries)
        (tmp_path / "shared" / lists.file_name(data)).write_bytes(data)
    return lists.known(tmp_path)


def test_a_clip_is_known_by_id_stem_and_segment(tmp_path):
    known = shared(tmp_path, [("a", "/x/one.wav", None, None, key(1)), ("a", "two.wav", 0.5, 1, key(2))])
    assert known.key("a", "/y/one.flac", None, None) == known.key("a", "one", 0, None) == key(1)
    assert known.key("a", "two.mp3", 0.5, 1.0) == key(2)
    for other in (("b", "one.wav", None, None), ("a", "other.wav", None, None), ("a", "one.wav", 0, 1)):
        assert known.key(*other) is None


def test_two_clips_of_one_name_are_never_mixed_up(tmp_path):
    one, two = ("a", "one.wav", None, None, key(1)), ("a", "one.wav", None, None, key(2))
    again = ("b", "two.wav", None, None, key(3))
    known = shared(tmp_path, [one, again], [two, again], [one])
    with pytest.raises(Rejected, match="the imports hold different clips called a: they cannot be told apart"):
        known.key("a", "one.wav", None, None)
    assert known.key("b", "two.wav", None, None) == key(3)


def test_a_damaged_list_is_said_and_not_used(tmp_path, caplog):
    shared(tmp_path, [("a", "one.wav", None, None, key(1))])
    flip(next((tmp_path / "shared").iterdir()), -2)
    assert lists.known(tmp_path).key("a", "one.wav", None, None) is None
    assert "is damaged and not used; import its folder again" in caplog.text


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(str.strip)
TIMES = st.none() | st.floats(0, 1e5)


@given(st.lists(st.tuples(NAMES, NAMES, TIMES), min_size=1, unique_by=lambda row: row[0]))
def test_what_is_written_is_accepted_and_found(rows):
    rows = [(clip, file.replace("/", "_"), start) for clip, file, start in rows if lists.portable(clip).strip()]
    rows = [(clip, file, start) for clip, file, start in rows if file not in (".", "..") and "://" not in file]
    entries = [(clip, file, start, None, key(number)) for number, (clip, file, start) in enumerate(rows)]
    report = Report(9)
    found = lists.checked(lists.written(entries), "clips.csv", report)
    assert found == [entry[4] for entry in entries]
    assert report.problems == ([] if entries else report.problems)


def test_a_list_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "shared" / "list.csv").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"list.csv cannot be read: Is a directory\."):
        lists.known(tmp_path)


def test_a_clip_whose_audio_is_here_needs_no_import(fake, make_clips, store, tmp_path, caplog):
    clips = make_clips(1)
    export_of(fake, clips, store, tmp_path / "out")
    import_features(tmp_path / "out", store)
    caplog.clear()
    assert len(extract(clips, recipe(fake), store=store, device="cpu")) == 1
    assert caplog.messages == []


def test_a_clip_that_only_another_set_has_cannot_be_encoded_and_says_so(fake, make_clips, store, tmp_path):
    clips = make_clips(2)
    export_of(fake, clips, store, tmp_path / "out")
    import_features(tmp_path / "out", tmp_path / "theirs")
    other = FeatureRecipe(encoders=[EncoderRecipe(encoder=fake.name, name="set", window=1.0)])
    found = complete(elsewhere(clips), other, store=tmp_path / "theirs")
    assert found["reason"].tolist() == ["missing"] * 2 and found["detail"].str.contains("no audio").all()
    assert len(pd.unique(found["status"])) == 1


def test_spec_of_the_store_is_not_changed_by_an_import(exported, tmp_path):
    folder = tmp_path / "store" / shard_of(exported).parent.name
    describe(folder, SPEC)
    before = (folder / "spec.json").read_bytes()
    import_features(exported, tmp_path / "store")
    assert (folder / "spec.json").read_bytes() == before
