"""Shards: parts of an extraction that know nothing of each other and together are the whole."""

from threading import Thread

import numpy as np
import pandas as pd
import pytest

from mmmos.errors import UsageError
from mmmos.features.extraction import work
from mmmos.features.extraction.extract import complete, extract, part
from mmmos.features.extraction.options import Options
from mmmos.features.spec import FeatureRecipe
from mmmos.parallel import Shard

HERE = Options(device="cpu", jobs=1)


@pytest.fixture
def clips(make_clips):
    """Five files; two segments of the first and of the fourth, far apart in the manifest."""
    whole = make_clips(5, seconds=1.0).assign(start=np.nan, end=np.nan)
    first, fourth = whole.at["c0", "path"], whole.at["c3", "path"]
    segments = {"path": [fourth, first], "start": [0.25, 0.5], "end": [0.75, 1.0]}
    return pd.concat([whole, pd.DataFrame(segments, index=["part of c3", "part of c0"])])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_all_clips_and_all_segments_of_a_file_are_in_one(clips, count):
    shards = [part(clips, f"{number}/{count}") for number in range(1, count + 1)]
    assert sorted(clip for shard in shards for clip in shard.index) == sorted(clips.index)
    files = [set(shard["path"]) for shard in shards]
    assert sum(map(len, files)) == 5 and len(set.union(*files)) == 5
    assert all(list(shard.index) == [clip for clip in clips.index if clip in shard.index] for shard in shards)


def test_no_shard_is_everything_and_what_is_no_shard_is_said(clips):
    pd.testing.assert_frame_equal(part(clips, None), clips)
    assert list(part(clips, Shard(2, 5)).index) == ["c1"]
    with pytest.raises(UsageError, match="3/2"):
        part(clips, "3/2")


def test_only_the_files_of_a_shard_are_read(fake, clips, store, monkeypatch):
    hashed, content_hash = [], work.audio.content_hash
    monkeypatch.setattr(work.audio, "content_hash", lambda file: hashed.append(file) or content_hash(file))
    status = complete(clips, [fake.name], store=store, options=HERE, shard="1/3")
    assert list(status.index) == ["c0", "c3", "part of c3", "part of c0"] and (status["status"] == "done").all()
    assert hashed == [clips.at["c0", "path"], clips.at["c3", "path"]]
    assert extract(clips, [fake.name], store=store, device="cpu", shard="1/3").ids == tuple(status.index)


def one_after_the_other(run):
    for number in (1, 2, 3):
        run(number)


def backwards(run):
    for number in (3, 2, 1):
        run(number)


def at_once(run):
    threads = [Thread(target=run, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("order", [one_after_the_other, backwards, at_once])
def test_all_shards_in_any_order_leave_the_store_of_one_run(fake, clips, store, order, tmp_path):
    (tmp_path / "page.wav").write_text("<!doctype html>" + "x" * 100)
    clips.loc["page", "path"] = str(tmp_path / "page.wav")
    recipe = FeatureRecipe(encoders=[fake.name], window=0.25)
    whole = extract(clips, recipe, store=tmp_path / "whole", device="cpu", jobs=1)
    fake.calls()
    parts = {}

    def run(number):
        parts[number] = complete(clips, recipe, store=store, options=HERE, shard=f"{number}/3")

    order(run)
    assert fake.calls() == 24
    together = extract(clips, recipe, store=store, device="cpu", jobs=1)
    assert fake.calls() == 0, "nothing is left to compute"
    pd.testing.assert_frame_equal(pd.concat(parts.values()).loc[clips.index], whole.status)
    pd.testing.assert_frame_equal(together.status, whole.status)
    rows, expected = (features["FAKE"].source.gather(whole.keys) for features in (together, whole))
    for name in ("unit", "norm", "frames", "span", "clip"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name))


def test_a_shard_without_clips_is_done(fake, clips, store):
    status = complete(clips, [fake.name], store=store, options=HERE, shard="7/7")
    assert status.empty and list(status.columns) == ["status", "reason", "detail", "flags"]
