"""extract, interrupted: what is stored is kept, what went wrong is tried again or remembered, nothing is invented."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from safetensors.torch import load_file, save_file

from mmmos.errors import SetupError, UnknownName
from mmmos.features import encoding
from mmmos.features.extraction import extract as extraction
from mmmos.features.extraction import settle, work
from mmmos.features.extraction.extract import complete, extract, plan
from mmmos.features.extraction.options import Options
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.features.store import FeatureSet, lists
from mmmos.features.store.upkeep import verify


def recipe(fake, **settings):
    return FeatureRecipe(encoders=[fake.name], **{"dtype": "float32", **settings})


def same(one, other):
    assert one.ids == other.ids and one.keys == other.keys
    assert list(one.sets) == list(other.sets)
    for name, array in one.sets.items():
        np.testing.assert_array_equal(array.raw, other[name].raw)
    pd.testing.assert_frame_equal(one.status, other.status)


def test_a_stopped_run_goes_on_where_it_was(fake, make_clips, store, tmp_path, monkeypatch):
    clips = make_clips(5)
    monkeypatch.setattr(settle, "CHUNK", 2)
    write, written = work.store.write, []

    def stop_after_one(*arguments):
        if written:
            raise KeyboardInterrupt
        written.append(write(*arguments))

    monkeypatch.setattr(work.store, "write", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        extract(clips, recipe(fake), store=store, device="cpu")
    monkeypatch.setattr(work.store, "write", write)
    fake.calls()
    assert plan(clips, recipe(fake), store=store)["stored"].tolist() == [2]
    resumed = extract(clips, recipe(fake), store=store, device="cpu")
    assert fake.calls() == 3
    same(resumed, extract(clips, recipe(fake), store=tmp_path / "undisturbed", device="cpu"))


def test_rejected_clips_are_remembered_and_never_become_silence(fake, make_clips, store, tmp_path):
    clips = make_clips(2)
    (tmp_path / "page.wav").write_text("<!doctype html>" + "x" * 100)
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 8000)
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 8000, "FLOAT")
    for name in ("page", "short", "nan"):
        clips.loc[name, "path"] = str(tmp_path / f"{name}.wav")
    features = extract(clips, recipe(fake), store=store, device="cpu")
    assert features.ids == ("c0", "c1") and len(features["FAKE"].raw) == 2
    rejected = features.rejected()
    assert rejected["reason"].to_dict() == {"page": "not_audio", "short": "too_short", "nan": "non_finite"}
    assert rejected["detail"].str.len().gt(10).all()
    fake.calls()
    reading = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work.isolated, "stream", lambda *args: reading.append(args))
        same(extract(clips, recipe(fake), store=store, device="cpu"), features)
    assert reading == [] and fake.calls() == 0


def test_what_stands_in_the_place_of_a_file_is_named(fake, make_clips, store, tmp_path):
    clips = make_clips(1)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    for name in ("pipe", "folder", "loop", "nothing"):
        clips.loc[name, "path"] = str(tmp_path / f"{name}.wav")
    reasons = extract(clips, recipe(fake), store=store, device="cpu").rejected()["reason"].to_dict()
    assert reasons == {"pipe": "not_a_file", "folder": "not_a_file", "loop": "unreadable", "nothing": "missing"}


def test_missing_files_are_tried_again(fake, make_clips, store):
    clips = make_clips(2)
    path = Path(clips.at["c1", "path"])
    content = path.read_bytes()
    path.unlink()
    features = extract(clips, recipe(fake), store=store, device="cpu")
    assert features.rejected()["reason"].to_dict() == {"c1": "missing"}
    path.write_bytes(content)
    assert len(extract(clips, recipe(fake), store=store, device="cpu")) == 2


@pytest.mark.parametrize("end", ["gone", "folder", "empty", "other", "page"])
def test_a_file_that_changes_after_it_was_hashed_is_not_stored(fake, make_clips, store, monkeypatch, end):
    clips = make_clips(2)
    path = Path(clips.at["c1", "path"])
    content, read = path.read_bytes(), work.isolated.stream

    def change(file, *segment):
        if file == str(path):
            path.unlink()
            if end == "folder":
                path.mkdir()
            elif end != "gone":
                path.write_bytes({"empty": b"", "other": content[:-2000], "page": b"<html>" + b"x" * 99}[end])
        return read(file, *segment)

    monkeypatch.setattr(work.isolated, "stream", change)
    features = extract(clips, recipe(fake), store=store, device="cpu")
    wanted = {"gone": "missing", "folder": "not_a_file", "empty": "empty_file", "other": "changed", "page": "changed"}
    assert features.rejected()["reason"].to_dict() == {"c1": wanted[end]}
    monkeypatch.undo()
    path.rmdir() if end == "folder" else path.unlink(missing_ok=True)
    path.write_bytes(content)
    assert len(extract(clips, recipe(fake), store=store, device="cpu")) == 2


def test_a_damaged_row_costs_its_clip_and_is_computed_again(fake, make_clips, store):
    clips = make_clips(4)
    before = extract(clips, recipe(fake), store=store, device="cpu")
    fake.calls()
    (shard,) = store.glob("*/*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert verify(store) == [] and "the rows of 1 of its 4 clips" in verify(store, full=True)[0]
    for computed in (1, 0):
        same(extract(clips, recipe(fake), store=store, device="cpu"), before)
        assert fake.calls() == computed


@pytest.mark.parametrize("damage", ["header", "cut"])
def test_a_damaged_shard_is_set_aside_and_its_clips_are_computed_again(fake, make_clips, store, monkeypatch, damage):
    clips = make_clips(4)
    monkeypatch.setattr(settle, "CHUNK", 2)
    before = extract(clips, recipe(fake), store=store, device="cpu")
    fake.calls()
    shard = min(store.glob("*/*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[100] ^= damage == "header"
    shard.write_bytes(content[:-50] if damage == "cut" else content)
    (problem,) = verify(store)
    assert shard.name in problem
    same(extract(clips, recipe(fake), store=store, device="cpu"), before)
    assert fake.calls() == 2
    assert shard.with_suffix(".damaged").exists() and "set aside" in verify(store)[0]
    shard.with_suffix(".damaged").unlink()
    assert verify(store) == []
    same(extract(clips, recipe(fake), store=store, device="cpu"), before)
    assert fake.calls() == 0


def test_a_store_that_cannot_be_written_is_one_sentence(fake, make_clips, store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match="cannot be written: No space left on device"):
        extract(make_clips(1), recipe(fake), store=store, device="cpu")
    assert list(store.rglob("*.*")) == []


def test_weights_that_change_under_their_path_are_loaded_again(make_clips, store, tmp_path):
    folder = tmp_path / "wavlm"
    shutil.copytree(Path(__file__).parents[2] / "data" / "wavlm_tiny", folder)
    clips = make_clips(1)
    encoders = FeatureRecipe(encoders=[EncoderRecipe(encoder="wavlm", weights=str(folder))])
    before = extract(clips, encoders, store=store, device="cpu")["wavlm"]
    tensors = load_file(folder / "model.safetensors")
    tensors["feature_projection.projection.bias"] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    after = extract(clips, encoders, store=store, device="cpu")["wavlm"]
    assert after.fingerprint != before.fingerprint
    assert np.abs(after.raw - before.raw).max() > 1e-3


def test_a_long_file_goes_on_inside(fake, make_clips, store, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "PART", 4)
    monkeypatch.setattr(work, "SHARD_BYTES", 0)
    clips = make_clips(2, seconds=3.5)
    table = recipe(fake, window=0.25)
    write, parts = work.store.write, []

    def stop_after_four(*arguments):
        if len(parts) == 4:
            raise KeyboardInterrupt
        parts.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(work.store, "write", stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        extract(clips, table, store=store, device="cpu", jobs=1)
    monkeypatch.setattr(work.store, "write", write)
    fake.calls()
    resumed = extract(clips, table, store=store, device="cpu", jobs=1)
    assert 0 < fake.calls() <= 14, "the windows of the parts that were stored are not encoded again"
    monkeypatch.undo()
    same(resumed, extract(clips, table, store=tmp_path / "undisturbed", device="cpu", jobs=1))


def test_frames_of_a_recipe_are_stored_beside_the_means(fake, make_clips, store):
    clips = make_clips(2)
    table = FeatureRecipe(encoders=[EncoderRecipe(encoder=fake.name, frames=["1"])], window=0.2)
    features = extract(clips, table, store=store, device="cpu")
    found = extraction.open_set(table.tables()[0], store)
    frames = found.frames(features.keys[1])
    assert frames.unit.shape == (25, 1, 3) and frames.windows.tolist() == [0, 10, 20, 25]
    raw = frames.unit[:, 0].astype(np.float32) * frames.norm
    np.testing.assert_allclose(raw.mean(0), features["FAKE"].raw[1, 1], rtol=2e-3, atol=1e-4)
    with pytest.raises(UnknownName, match=r"layer of .* '7'"):
        extract(clips, [EncoderRecipe(encoder=fake.name, frames=[7])], store=store, device="cpu")


def test_rejected_clips_are_tried_again_when_asked(fake, make_clips, store, tmp_path, monkeypatch):
    clips = make_clips(1)
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 8000, "FLOAT")
    clips.loc["nan", "path"] = str(tmp_path / "nan.wav")
    extract(clips, recipe(fake), store=store, device="cpu")
    stream, tried = work.isolated.stream, []
    monkeypatch.setattr(work.isolated, "stream", lambda *segment: tried.append(segment) or stream(*segment))
    extract(clips, recipe(fake), store=store, device="cpu")
    assert tried == []
    assert len(extract(clips, recipe(fake), store=store, device="cpu", retry=True).rejected()) == 1
    assert len(tried) == 1


def test_flags_stand_beside_the_status_and_strictness_is_a_choice_of_the_reader(fake, make_clips, store):
    clips = make_clips(3)
    cut = Path(clips.at["c1", "path"])
    cut.write_bytes(cut.read_bytes()[:6000])
    soundfile.write(clips.at["c2", "path"], np.ones(4000), 8000, format="FLAC")
    features = extract(clips, recipe(fake), store=store, device="cpu")
    assert (features.status["status"] == "done").all()
    flags = features.status["flags"].str.split(", ").to_dict()
    assert (
        "truncated" in flags["c1"]
        and "clipped" in flags["c2"]
        and "dc" in flags["c2"]
        and "extension_mismatch" in flags["c2"]
    )
    assert flags["c0"] == [""]
    strict = extract(clips, recipe(fake), store=store, device="cpu", strict=True)
    assert strict.ids == ("c0", "c2")
    assert strict.rejected()["reason"].to_dict() == {"c1": "truncated"}
    assert len(extract(clips, recipe(fake), store=store, device="cpu")) == 3


def test_completing_loads_nothing_and_says_what_became_of_every_clip(fake, make_clips, store, tmp_path, monkeypatch):
    clips = make_clips(2)
    (tmp_path / "page.wav").write_text("<!doctype html>" + "x" * 100)
    clips.loc["page", "path"] = str(tmp_path / "page.wav")
    clips.loc["gone", "path"] = str(tmp_path / "gone.wav")
    before = extraction.status(clips, recipe(fake), store=store)
    assert before["status"].tolist() == ["absent", "absent", "absent", "rejected"]
    monkeypatch.setattr(FeatureSet, "gather", None)
    table = complete(clips, recipe(fake), store=store, options=Options(device="cpu"))
    assert table["status"].tolist() == ["done", "done", "rejected", "rejected"]
    assert table["reason"].tolist() == ["", "", "not_audio", "missing"]
    pd.testing.assert_frame_equal(extraction.status(clips, recipe(fake), store=store), table)


def test_a_store_that_is_read_only_serves_and_refuses_before_anything_is_computed(fake, make_clips, store, read_only):
    clips = make_clips(2)
    before = extract(clips.head(1), recipe(fake), store=store, device="cpu")

    read_only()
    fake.calls()
    same(extract(clips.head(1), recipe(fake), store=store, device="cpu"), before)
    with pytest.raises(SetupError, match="cannot be written: Read-only file system"):
        extract(clips, recipe(fake), store=store, device="cpu")
    assert fake.calls() == 0


def test_a_clip_that_only_an_import_knows_cannot_be_computed(fake, make_clips, store):
    clips = make_clips(1)
    features = extract(clips, recipe(fake), store=store, device="cpu")
    rows = [("c0", "c0.wav", None, None, features.keys[0]), ("other", "other.wav", None, None, "0" * 32)]
    (store / lists.FOLDER).mkdir()
    (store / lists.FOLDER / lists.file_name(lists.written(rows))).write_bytes(lists.written(rows))
    Path(clips.at["c0", "path"]).unlink()
    clips.loc["other", "path"] = str(Path(clips.at["c0", "path"]).with_name("other.wav"))
    again = extract(clips, recipe(fake), store=store, device="cpu")
    np.testing.assert_array_equal(again["FAKE"].raw, features["FAKE"].raw)
    state, reason, detail, _ = again.status.loc["other"]
    assert (state, reason) == ("rejected", "missing")
    assert detail == "there is no audio, and the import does not hold its embedding under FAKE"
