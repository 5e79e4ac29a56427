"""extract, interrupted: what is stored is kept, what went wrong is tried again or remembered, nothing is invented."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from safetensors.torch import load_file, save_file

from mmmos.errors import StoreError
from mmmos.features import extract as extraction
from mmmos.features import work
from mmmos.features.extract import extract, plan
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.features.store import verify


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
    monkeypatch.setattr(extraction, "CHUNK", 2)
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
        patch.setattr(work.audio, "stream", lambda *args: reading.append(args))
        same(extract(clips, recipe(fake), store=store, device="cpu"), features)
    assert reading == [] and fake.calls() == 0


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
    content, read = path.read_bytes(), work.audio.stream

    def change(file, *segment):
        if file == str(path):
            path.unlink()
            if end == "folder":
                path.mkdir()
            elif end != "gone":
                path.write_bytes({"empty": b"", "other": content[:-2000], "page": b"<html>" + b"x" * 99}[end])
        return read(file, *segment)

    monkeypatch.setattr(work.audio, "stream", change)
    features = extract(clips, recipe(fake), store=store, device="cpu")
    wanted = {"gone": "missing", "folder": "not_a_file", "empty": "empty_file", "other": "changed", "page": "changed"}
    assert features.rejected()["reason"].to_dict() == {"c1": wanted[end]}
    monkeypatch.undo()
    path.rmdir() if end == "folder" else path.unlink(missing_ok=True)
    path.write_bytes(content)
    assert len(extract(clips, recipe(fake), store=store, device="cpu")) == 2


@pytest.mark.parametrize("damage", ["tensors", "header", "cut"])
def test_a_damaged_shard_is_set_aside_and_its_clips_are_computed_again(fake, make_clips, store, monkeypatch, damage):
    clips = make_clips(4)
    monkeypatch.setattr(extraction, "CHUNK", 2)
    before = extract(clips, recipe(fake), store=store, device="cpu")
    fake.calls()
    shard = sorted(store.glob("*/*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[{"tensors": -1, "header": 100}.get(damage, 0)] ^= 1
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
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        extract(make_clips(1), recipe(fake), store=store, device="cpu")
    assert list(store.rglob("*.*")) == []


def test_weights_that_change_under_their_path_are_loaded_again(make_clips, store, tmp_path):
    folder = tmp_path / "wavlm"
    shutil.copytree(Path(__file__).parents[1] / "data" / "wavlm_tiny", folder)
    clips = make_clips(1)
    encoders = FeatureRecipe(encoders=[EncoderRecipe(encoder="wavlm", weights=str(folder))])
    before = extract(clips, encoders, store=store, device="cpu")["wavlm"]
    tensors = load_file(folder / "model.safetensors")
    tensors["feature_projection.projection.bias"] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    after = extract(clips, encoders, store=store, device="cpu")["wavlm"]
    assert after.fingerprint != before.fingerprint
    assert np.abs(after.raw - before.raw).max() > 1e-3
