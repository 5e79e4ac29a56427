"""Workers that are killed: what they were at is done again, what kills them is named and set aside."""

import logging
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from mmmos.features.extraction import extract as extraction
from mmmos.features.extraction import settle
from mmmos.features.extraction.extract import complete, extract
from mmmos.features.extraction.options import Options
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.parallel import Workers

LOUD = 0.9


@pytest.fixture
def deadly(make_fake):
    """A fake encoder that ends its process at a clip of nothing but ``LOUD``, and, once, where a file says so."""
    fake = make_fake("deadly")
    killing = f"""        once = CALLS.with_suffix(".once")
        loud = waves.min() > {LOUD - 0.1} and not CALLS.with_suffix(".healed").exists()
        if loud or once.exists():
            once.unlink(missing_ok=True)
            __import__("os").kill(__import__("os").getpid(), {int(signal.SIGKILL)})
        frames = waves.unfold("""
    fake.path.write_text(fake.path.read_text().replace("        frames = waves.unfold(", killing))
    return fake


def poison(clips, name):
    soundfile.write(clips.at[name, "path"], np.full(4000, LOUD), 8000)


TWO = Workers(jobs=2)


def test_a_killed_worker_costs_its_unfinished_chunk_and_nothing_else(deadly, make_clips, store, tmp_path, monkeypatch):
    clips = make_clips(6)
    monkeypatch.setattr(settle, "CHUNK", 2)
    whole = extract(clips, [deadly.name], store=tmp_path / "whole", device="cpu", jobs=1)
    assert deadly.calls() == 6
    deadly.path.with_suffix(".once").touch()
    logs = tmp_path / "logs"
    features = extract(clips, [deadly.name], store=store, device="cpu", jobs=Workers(jobs=2, logs=str(logs)))
    assert deadly.calls() in (7, 8), "two clips of one chunk are encoded again, the second perhaps for the first time"
    pd.testing.assert_frame_equal(features.status, whole.status)
    np.testing.assert_array_equal(features["FAKE"].raw, whole["FAKE"].raw)
    lines = "\n".join(file.read_text() for file in logs.iterdir())
    assert lines.count("begins") == 4 and lines.count(" ends after ") == 3


def test_a_clip_that_kills_its_process_is_named_and_set_aside(deadly, make_clips, store, monkeypatch):
    clips = make_clips(4)
    poison(clips, "c2")
    monkeypatch.setattr(settle, "CHUNK", 1)
    features = extract(clips, [deadly.name], store=store, device="cpu", jobs=TWO)
    assert features.ids == ("c0", "c1", "c3")
    assert features.status.loc["c2"].tolist() == [
        *("rejected", "worker_killed"),
        *("the process that encoded it was ended three times; --retry-rejected tries it again", ""),
    ]
    assert deadly.calls() == 6, "its window is counted three times"
    again = complete(clips, [deadly.name], store=store, options=Options("cpu", TWO))
    assert deadly.calls() == 0, "it is not tried again"
    pd.testing.assert_frame_equal(again, features.status)
    deadly.path.with_suffix(".healed").touch()
    healed = complete(clips, [deadly.name], store=store, options=Options("cpu", 1, retry=True))
    assert deadly.calls() == 1 and (healed["status"] == "done").all()


@pytest.fixture
def lose(monkeypatch):
    """An engine that carries tasks out here, in order, and loses those that a fatal clip and encoder meet in."""
    tried = []

    def lose(*fatal):
        def play(function, tasks, *, jobs, device, lost):
            for task in tasks:
                names = {(Path(clip.file).name, table.name) for clip in task.clips for table in task.tables}
                tried.append(task.label)
                yield lost(task) if names & set(fatal) else function(task)

        monkeypatch.setattr(settle.parallel, "map", play)
        return tried

    return lose


def both(one, other):
    return FeatureRecipe(encoders=[EncoderRecipe(encoder=each.name, name=each.path.stem) for each in (one, other)])


def test_a_chunk_is_taken_apart_and_a_clip_rejected_for_the_encoder_that_it_kills(
    make_fake, make_clips, store, lose, monkeypatch, caplog
):
    one, other, clips = make_fake("one"), make_fake("other"), make_clips(6)
    monkeypatch.setattr(settle, "CHUNK", 3)
    tried = lose(("c1.wav", "other"))
    status = complete(clips, both(one, other), store=store, options=Options("cpu", TWO))
    assert status["reason"].tolist() == ["", "worker_killed", "", "", "", ""]
    parts = [f"c{number}.wav" for number in range(3)]
    assert tried == ["3 clips from c0.wav", "3 clips from c3.wav", *parts, *parts]
    assert (one.calls(), other.calls()) == (6, 5)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "3 clips from c0.wav ended three processes; each clip is now tried by itself."
    ]
    known = extraction.status(clips, FeatureRecipe(encoders=both(one, other).encoders[:1]), store=store)
    assert (known["status"] == "done").all()


def test_the_only_clip_of_a_chunk_is_not_tried_anew(make_fake, make_clips, store, lose, monkeypatch):
    fake, clips = make_fake(), make_clips(3)
    monkeypatch.setattr(settle, "CHUNK", 2)
    tried = lose(("c2.wav", None))
    status = complete(clips, [fake.name], store=store, options=Options("cpu", TWO))
    assert status["status"].tolist() == ["done", "done", "rejected"]
    assert tried == ["2 clips from c0.wav", "c2.wav"]


def test_a_task_that_was_done_already_may_be_done_again(make_fake, make_clips, store, monkeypatch):
    fake, clips = make_fake(), make_clips(3)

    def twice(function, tasks, *, jobs, device, lost):
        for task in tasks:
            function(task)
            yield function(task)

    monkeypatch.setattr(settle.parallel, "map", twice)
    features = extract(clips, [fake.name], store=store, device="cpu", jobs=1)
    assert fake.calls() == 6
    once = extract(clips, [fake.name], store=store.with_name("once"), device="cpu", jobs=1)
    np.testing.assert_array_equal(features["FAKE"].raw, once["FAKE"].raw)
