"""extract: every clip once, never silently wrong, the same bits whatever the circumstances."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from mmmos.errors import RecipeError, UnknownName, UsageError
from mmmos.features.extraction import settle
from mmmos.features.extraction.extract import extract, plan
from mmmos.features.spec import EncoderRecipe, FeatureRecipe


def recipe(fake, **settings):
    return FeatureRecipe(encoders=[fake.name], **{"dtype": "float32", **settings})


def expected(path):
    """What the fake encoder gives for a file of one window, by its definition."""
    frames = soundfile.read(path, dtype="float32")[0]
    frames = frames[: len(frames) // 160 * 160].reshape(-1, 160).astype(np.float64)
    means = np.stack([frames.mean(1), frames[:, 0], 1 + frames[:, -1]], 1).mean(0)
    return np.stack([means, 2 * means])


def same(one, other):
    assert one.ids == other.ids and one.keys == other.keys
    assert list(one.sets) == list(other.sets)
    for name, array in one.sets.items():
        np.testing.assert_array_equal(array.raw, other[name].raw)
    pd.testing.assert_frame_equal(one.status, other.status)


def test_embeddings_are_the_means_over_frames(fake, make_clips, store):
    clips = make_clips(3)
    features = extract(clips, recipe(fake), store=store, device="cpu")
    assert features.ids == ("c0", "c1", "c2")
    assert (features.status["status"] == "done").all()
    for row, path in enumerate(clips["path"]):
        np.testing.assert_allclose(features["FAKE"].raw[row], expected(path), rtol=1e-6, atol=1e-7)
    assert all(store in folder.parents for folder in store.glob("*/*"))


def test_float16_on_disk_costs_little(fake, make_clips, store):
    clips = make_clips(2)
    whole = extract(clips, recipe(fake), store=store, device="cpu")["FAKE"].raw
    half = extract(clips, recipe(fake, dtype="float16"), store=store, device="cpu")["FAKE"].raw
    assert 0 < np.abs(half - whole).max() < 2**-11 * np.linalg.norm(whole, axis=-1).max()


def test_the_second_time_nothing_is_encoded(fake, make_clips, store):
    clips = make_clips(4)
    first = extract(clips, recipe(fake), store=store, device="cpu")
    assert fake.calls() == 4
    same(extract(clips, recipe(fake), store=store, device="cpu"), first)
    assert fake.calls() == 0
    assert plan(clips, recipe(fake), store=store).to_numpy().tolist() == [["FAKE", 4, 4]]


def test_the_same_audio_is_encoded_once_under_any_name_and_time(fake, make_clips, store, tmp_path):
    clips = make_clips(2)
    copy = shutil.copy(clips.at["c0", "path"], tmp_path / "copy of c0.wav")
    clips.loc["twin", "path"] = str(copy)
    features = extract(clips, recipe(fake), store=store, device="cpu")
    assert fake.calls() == 2
    np.testing.assert_array_equal(features["FAKE"].raw[2], features["FAKE"].raw[0])
    moved = shutil.move(clips.at["c1", "path"], tmp_path / "moved")
    os.utime(moved, (1, 1))
    clips.at["c1", "path"] = str(moved)
    same(extract(clips, recipe(fake), store=store, device="cpu"), features)
    assert fake.calls() == 0


def test_other_content_of_equal_size_and_time_is_encoded_again(fake, make_clips, store):
    clips = make_clips(2)
    path, other = map(Path, clips["path"])
    before = extract(clips, recipe(fake), store=store, device="cpu")
    status = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = extract(clips, recipe(fake), store=store, device="cpu")
    np.testing.assert_array_equal(after["FAKE"].raw[0], before["FAKE"].raw[1])


def test_a_segment_is_a_clip_of_its_own(fake, make_clips, store, tmp_path):
    clips = make_clips(1, seconds=1)
    path = clips.at["c0", "path"]
    soundfile.write(tmp_path / "part.wav", soundfile.read(path, dtype="float32")[0][2000:6000], 8000, "FLOAT")
    segments = pd.DataFrame(
        {
            "path": [path, path, str(tmp_path / "part.wav")],
            "start": [np.nan, 0.25, np.nan],
            "end": [np.nan, 0.75, np.nan],
        },
        index=["whole", "part", "cut"],
    )
    raw = extract(segments, recipe(fake), store=store, device="cpu")["FAKE"].raw
    np.testing.assert_array_equal(raw[1], raw[2])
    assert np.abs(raw[0] - raw[1]).max() > 1e-4


def test_windows_of_a_long_clip_are_weighted_by_their_frames(fake, make_clips, store):
    clips = make_clips(1, seconds=2.54)
    features = extract(clips, recipe(fake, window=1.0), store=store, device="cpu")
    assert fake.calls() == 3
    np.testing.assert_allclose(features["FAKE"].raw[0], expected(clips.at["c0", "path"]), rtol=1e-5, atol=1e-6)


def test_order_processes_chunks_and_a_warm_store_change_no_bit(fake, make_clips, tmp_path, monkeypatch):
    clips = make_clips(5, seconds=1.3, rate=22_050, kind="mp3")
    encoders = recipe(fake, window=1.0, dtype="float16")
    whole = extract(clips, encoders, store=tmp_path / "whole", device="cpu", jobs=1)
    same(extract(clips, encoders, store=tmp_path / "whole", device="cpu", jobs=1), whole)
    monkeypatch.setattr(settle, "CHUNK", 1)
    same(extract(clips, encoders, store=tmp_path / "processes", device="cpu", jobs=2), whole)
    backwards = extract(clips[::-1], encoders, store=tmp_path / "backwards", device="cpu", jobs=1)
    same(backwards.of(whole.ids), type(whole)(whole.ids, whole.keys, whole.sets, backwards.status))


@pytest.mark.parametrize("value", ["0 *", "float('nan') *", "float('inf') *", "1e9 *"])
def test_vectors_that_are_not_sound_are_refused_and_remembered(make_fake, make_clips, store, value):
    clips = make_clips(2)
    fake = make_fake("broken", scale=value.removesuffix(" *"))
    if value == "0 *":
        fake.path.write_text(fake.path.read_text().replace("[states, 0 * states]", "[0 * states, 0 * states]"))
    for windows in (2, 0):
        features = extract(clips, recipe(fake), store=store, device="cpu")
        assert features.status["reason"].tolist() == ["bad_embedding"] * 2
        assert len(features) == 0 and features["FAKE"].raw.shape == (0, 2, 3)
        assert fake.calls() == windows


def test_an_encoder_that_belies_its_spec_is_named(fake, make_clips, store):
    fake.path.write_text(fake.path.read_text().replace("8000, 2, 3", "8000, 2, 4"))
    with pytest.raises(Exception, match=r"'fake' gave states of shape \(1, 2, 25, 3\); by its spec .* frames, 4\)"):
        extract(make_clips(1), recipe(fake), store=store, device="cpu")


def test_another_definition_is_another_feature_set(fake, make_fake, make_clips, store):
    clips = make_clips(1, seconds=1.5)
    sets = [recipe(fake), recipe(fake, window=1.0), recipe(fake, window=1.0, hop=0.5), recipe(fake, dtype="float16")]
    sets.append(recipe(make_fake("newer", code="2")))
    for count, each in enumerate(sets, start=1):
        extract(clips, each, store=store, device="cpu")
        assert len(list(store.iterdir())) == count


def test_two_encoders_give_the_clips_that_both_can_use(fake, make_fake, make_clips, store):
    other = make_fake("other", scale="1e9")
    clips = make_clips(2)
    both = FeatureRecipe(encoders=[fake.name, EncoderRecipe(encoder=other.name, name="other")])
    features = extract(clips, both, store=store, device="cpu")
    assert len(features) == 0
    assert len(extract(clips, recipe(fake, dtype="float16"), store=store, device="cpu")) == 2
    assert fake.calls() == 2


def test_no_clips_give_no_features(fake, make_clips, store):
    features = extract(make_clips(1)[:0], recipe(fake), store=store, device="cpu")
    assert len(features) == 0 and features["FAKE"].raw.shape == (0, 2, 3)


def test_mistakes_in_a_call_are_sentences(fake, make_clips, store, tmp_path):
    clips = make_clips(1)
    with pytest.raises(UnknownName, match="Did you mean 'melstats'"):
        extract(clips, ["melstat"], store=store)
    with pytest.raises(UnknownName, match="feature recipe or encoder 'melstast'"):
        extract(clips, "melstast", store=store)
    with pytest.raises(UsageError, match="two feature sets are called 'melstats'"):
        extract(clips, ["melstats", "melstats"], store=store)
    with pytest.raises(UsageError, match=r"too short for .* it needs 0\.02 s"):
        extract(clips, recipe(fake, window=0.01), store=store)
    with pytest.raises(UsageError, match="device 'cdua'"):
        extract(clips, recipe(fake), store=store, device="cdua")
    (tmp_path / "gaps.toml").write_text('encoders = ["melstats"]\nwindow = 5\nhop = 6')
    with pytest.raises(RecipeError, match="a hop of 6 s leaves audio out between windows of 5 s"):
        extract(clips, "gaps.toml", store=store, workspace=tmp_path)
    assert not store.exists()


def test_the_licence_is_said_once_and_not_by_every_process(make_fake, make_clips, store, monkeypatch, caplog, capfd):
    fake = make_fake("restricted", commercial=False)
    monkeypatch.setattr(settle, "CHUNK", 1)
    extract(make_clips(3), recipe(fake), store=store, device="cpu", jobs=2)
    extract(make_clips(4), recipe(fake), store=store, device="cpu", jobs=2)
    assert [record.message for record in caplog.records] == [
        f"The weights of {fake.name} may not be used commercially (for no use at all)."
    ]
    assert "commercially" not in capfd.readouterr().err
    assert fake.calls() == 4
