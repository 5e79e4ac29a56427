"""Uploaded files: heard, scored, refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mmmos.app import clips, page
from mmmos.app.clips import Upload
from mmmos.errors import SetupError
from mmmos.scoring.score import Score


class Scores:
    """A scorer that says 5 of everything, and remembers what it was asked."""

    axes = ("PQ",)

    def __init__(self, **change):
        self.change, self.asked = change, []

    def stream(self, given, *, segments, hop):
        for clip in given:
            self.asked.append((clip.path, segments, hop))
            yield replace(Score(clip.id, clip.path, seconds=1.0, scores={"PQ": 5.0}), **self.change)


def write(path, seconds, rate=16_000):
    soundfile.write(path, 0.1 * np.sin(np.arange(round(seconds * rate))), rate)
    return path


def test_a_file_is_scored_and_can_be_heard(tmp_path):
    path, scorer = write(tmp_path / "upload.wav", 4.0), Scores()
    entry = clips.entry(Upload("mine.wav", path), "mine.wav", scorer, tmp_path)
    assert entry.score.scores == {"PQ": 5.0}
    assert scorer.asked == [(str(path), 2.0, 1.0)]
    wave, rate = soundfile.read(entry.sound)
    assert (len(wave) / rate, rate) == (4.0, 16_000)
    assert entry.picture.startswith(b"\x89PNG")


def test_paths_of_this_machine_are_not_told(tmp_path):
    path = write(tmp_path / "upload.wav", 0.5)
    scorer = Scores(reason="changed", detail=f"{path} was written to, see {path.parent}")
    entry = clips.entry(Upload("mine.wav", path), "mine.wav", scorer, tmp_path)
    assert entry.score.reason == "changed"
    assert str(tmp_path) not in repr(entry)
    assert entry.score.path == "mine.wav"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty_file"), (b"dear diary\n" * 40, "not_audio"), (b"RIFF\xff\xff\xff\xff", "")]
)
def test_a_hostile_file_costs_itself(tmp_path, content, reason):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    score = clips.entry(Upload("x.wav", path), "x.wav", Scores(), tmp_path).score
    assert score.reason == reason or (not reason and score.reason)
    assert score.reason in clips.REASONS
    assert not score.scores


def test_too_much_audio_is_refused_before_it_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "MAX_SECONDS", 1.0)
    scorer = Scores()
    entry = clips.entry(Upload("long.wav", write(tmp_path / "long.wav", 1.1)), "long.wav", scorer, tmp_path)
    assert entry.score.reason == "too_long"
    assert not scorer.asked


def test_a_file_that_did_not_come_has_its_reason(tmp_path):
    sent = [{"name": "big.wav", "reason": "too_large"}, {"name": "big.wav"}]
    *_, (status, entries, first) = page.scored((), sent, Scores(), tmp_path)
    assert [(each.score.id, each.score.reason) for each in entries] == [
        ("big.wav", "too_large"),
        ("big.wav (2)", "upload_failed"),
    ]
    assert (status, first) == ("", None)


def test_what_a_user_can_mend_is_said_in_a_sentence_without_paths(tmp_path):
    path = write(tmp_path / "upload.wav", 0.5)

    class Lacking(Scores):
        def stream(self, given, **_):
            raise SetupError(f"{path} needs ffmpeg.\nInstall it.")

    score = clips.entry(Upload("a.wav", path), "a.wav", Lacking(), tmp_path).score
    assert (score.reason, score.detail) == ("failed", "a.wav needs ffmpeg")


@pytest.mark.parametrize("error", [RuntimeError("/secret"), MemoryError()])
def test_a_fault_of_the_scorer_costs_one_file(tmp_path, error):
    class Broken(Scores):
        def stream(self, given, **_):
            raise error

    entry = clips.entry(Upload("a.wav", write(tmp_path / "a.wav", 0.5)), "a.wav", Broken(), tmp_path)
    assert entry.score.reason == "failed"
    assert "/secret" not in entry.score.detail


@pytest.mark.parametrize(("rate", "heard"), [(4_000, 8_000), (44_100, 44_100), (96_000, 48_000)])
def test_listening_copies_have_rates_that_browsers_play(tmp_path, rate, heard):
    assert clips.hear(write(tmp_path / "a.wav", 0.5, rate)).rate == heard
    assert clips.hear(tmp_path / "a.wav").seconds == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(("seconds", "length"), [(0.3, 1), (3, 1.5), (12, 6), (20, 10), (500, 10)])
def test_segments_are_short_in_short_clips(seconds, length):
    assert math.isclose(clips.segment_length(seconds), length)


def test_only_regular_files_of_the_upload_folder_are_taken(tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    inside, outside = write(folder / "a.wav", 0.2), write(tmp_path / "b.wav", 0.2)
    link = folder / "link.wav"
    link.symlink_to(outside)
    sent = [
        *({"name": path.name, "path": str(path)} for path in (inside, outside, link, folder, folder / "gone")),
        {"name": "b.wav", "path": str(folder / ".." / "b.wav")},
        {"name": "big.wav", "reason": "too_large"},
        {"path": 7},
        "nonsense",
    ]
    found = list(clips.uploads(sent, folder))
    assert [each.path for each in found] == [inside, *[None] * 8]
    assert [each.reason for each in found[1:]] == [*["upload_failed"] * 5, "too_large", *["upload_failed"] * 2]
    assert list(clips.uploads(None, folder)) == []


def test_equal_names_are_told_apart():
    assert clips.unused("a.wav", set()) == "a.wav"
    assert clips.unused("a.wav", {"a.wav", "a.wav (2)"}) == "a.wav (3)"
