"""The scorer: a clip's scores are its own, whatever comes beside it; bad audio costs itself; memory is bounded."""

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from mmmos import audio
from mmmos.errors import SetupError, UsageError
from mmmos.features.extraction.extract import extract
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.scoring import stream
from mmmos.scoring.inputs import Clip
from mmmos.scoring.scorer import Scorer
from mmmos.scoring.segments import grid

RATES = (8000, 16_000, 44_100)


def numbers(scores):
    """What was said of each clip, by id."""
    return {score.id: (score.scores, score.spread, score.flags) for score in scores}


def test_a_clip_has_the_same_bits_alone_among_others_in_any_order_with_any_threads(mixed, make_clips):
    clips = make_clips(9, rate=RATES)
    scorer = Scorer(mixed, device="cpu", threads=2)
    alone = numbers(score for clip in clips for score in scorer.stream([clip]))
    assert all(set(scores) == {"PQ", "PC", "CE", "CU"} for scores, _, _ in alone.values())
    assert len({scores["PQ"] for scores, _, _ in alone.values()}) == 9
    for threads in (1, 2, 4):
        shuffled = random.Random(threads).sample(clips, len(clips))
        scores = list(Scorer(mixed, device="cpu", threads=threads).stream(shuffled))
        assert [score.id for score in scores] == [clip.id for clip in shuffled]
        assert numbers(scores) == alone


def test_threads_that_share_a_scorer_get_the_same_bits(mixed, make_clips):
    clips = make_clips(6, rate=RATES)
    scorer = Scorer(mixed, device="cpu", threads=2)
    alone = numbers(scorer.stream(clips))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda turn: numbers(scorer.stream(clips[turn % 3 :])), range(8)):
            assert found.items() <= alone.items()


def test_segments_change_nothing_of_the_whole(mixed, make_clips):
    clips = make_clips(4, seconds=1.1, rate=RATES)
    scorer = Scorer(mixed, device="cpu", threads=2)
    whole = numbers(scorer.stream(clips))
    for segments, hop in ((0.5, None), (0.4, 0.1), (30, None)):
        assert numbers(scorer.stream(clips, segments=segments, hop=hop)) == whole


def test_features_are_those_of_a_store(mixed, make_clips, tmp_path, melstats):
    clips = make_clips(3, seconds=1.3, rate=RATES)
    recipe = FeatureRecipe(encoders=[EncoderRecipe(encoder="melstats", window=0.5, hop=0.5)])
    import pandas as pd

    table = pd.DataFrame({"path": [clip.path for clip in clips]}, index=[clip.id for clip in clips])
    stored = extract(table, recipe, store=tmp_path / "store", device="cpu")
    mixed.sets = mixed.sets[1:]
    for score in Scorer(mixed, device="cpu").stream(clips):
        scores = mixed.predict(stored.of([score.id]), [None]).scores[0]
        assert list(score.scores.values()) == scores.tolist()


def test_a_segment_is_a_clip_of_its_own(linear, tiny, noise):
    """At the encoder's rate, where cutting before and after resampling is the same."""
    scorer = Scorer(linear(("tiny", tiny, {"window": 0.3, "hop": 0.2, "frames": ("0", "1")})), device="cpu")
    samples = noise(5.27)
    clip = Clip("x", samples=samples, rate=8000)
    for segments, hop in ((1.0, 0.5), (0.7, None), (2.0, 1.9)):
        (score,) = scorer.stream([clip], segments=segments, hop=hop)
        assert len(score.segments) > 2
        for segment in score.segments:
            part = samples[round(segment.start * 8000) : round(segment.end * 8000)]
            (own,) = scorer.stream([Clip("own", samples=part, rate=8000)])
            assert (own.scores, own.spread) == (segment.scores, segment.spread)


def test_windows_that_a_segment_shares_with_the_whole_are_encoded_once(scorer, tiny, noise):
    clip = Clip("x", samples=noise(1.0), rate=8000)
    list(scorer.stream([clip], segments=0.2))
    assert len(tiny.lengths) == 5
    tiny.lengths.clear()
    list(scorer.stream([clip], segments=0.2, hop=0.1))
    assert len(tiny.lengths) == 5 + 4


def test_times_of_segments_are_those_of_the_file(scorer, noise):
    clip = Clip("x", samples=noise(3.0), rate=8000, start=1.0, end=2.7)
    (score,) = scorer.stream([clip], segments=1.0)
    assert [(each.start, each.end) for each in score.segments] == [(1.0, 2.0), (2.0, 2.7)]
    assert (score.start, score.end, score.seconds) == (1.0, 2.7, 1.7)


def test_an_encoder_that_fails_on_a_segment_leaves_the_whole(linear, tiny, noise, monkeypatch):
    scorer = Scorer(linear(("tiny", tiny, {"window": 1.0, "hop": 1.0})), device="cpu")
    encode = tiny.encode
    monkeypatch.setattr(tiny, "encode", lambda waves: encode(waves) if waves.shape[1] == 8000 else 1 / 0)
    (score,) = scorer.stream([Clip("x", samples=noise(2.0), rate=8000)], segments=0.5)
    assert len(score.scores) == 4 and not score.reason
    assert [segment.scores for segment in score.segments] == [{}] * 4


def bad_clips(put, noise, tmp_path):
    """Files that cannot be used, by the reason for it."""
    nan = noise(0.5)
    nan[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", nan, 8000, "FLOAT")
    soundfile.write(tmp_path / "whole.flac", noise(3.0), 8000)
    flac = (tmp_path / "whole.flac").read_bytes()
    soundfile.write(tmp_path / "short.wav", noise(0.05), 8000)
    return {
        "not_audio": put("text.wav", b"<!doctype html><html><body>not found, sorry</body></html>" * 9),
        "empty_file": put("empty.wav"),
        "missing": str(tmp_path / "gone.wav"),
        "not_a_file": str(tmp_path),
        "decode_error": put("cut.flac", flac[: len(flac) // 2]),
        "non_finite": str(tmp_path / "nan.wav"),
        "too_short": str(tmp_path / "short.wav"),
    }


def test_a_clip_that_cannot_be_used_has_a_reason_and_costs_nothing_else(scorer, make_clips, put, noise, tmp_path):
    bad, good = bad_clips(put, noise, tmp_path), make_clips(3)
    clips = [good[0], *(Clip(reason, path) for reason, path in bad.items()), *good[1:]]
    scores = list(scorer.stream(clips, segments=0.5))
    assert [score.id for score in scores] == [clip.id for clip in clips]
    assert {score.id: score.reason for score in scores} == {reason: reason for reason in bad} | {
        clip.id: "" for clip in good
    }
    for score in scores:
        assert bool(score.detail) == bool(score.reason) == (not score.scores) == (not score.segments)
        assert None in score.row(scorer.axes).values(), "there is no NaN"
    assert numbers(scores).items() >= numbers(scorer.stream(good)).items()


def test_damage_is_flagged_or_refused(scorer, put, noise, tmp_path):
    soundfile.write(tmp_path / "whole.wav", noise(2.0), 8000)
    path = put("cut.mp3", (tmp_path / "whole.wav").read_bytes()[:20_000])
    (flagged,) = scorer.stream([Clip("x", path)])
    assert flagged.scores and set(flagged.flags) == {"truncated", "frames_mismatch", "extension_mismatch"}
    (refused,) = scorer.stream([Clip("x", path)], strict=True, segments=1)
    assert (refused.reason, refused.detail) == ("truncated", audio.FLAGS["truncated"])
    assert refused.flags == flagged.flags and not refused.scores and refused.segments == ()


def test_an_encoder_that_fails_costs_the_clip(linear, tiny, noise):
    tiny.fails_above = 0.6
    scorer = Scorer(linear(("tiny", tiny, {})), device="cpu", threads=2)
    clips = [Clip(str(n), samples=noise(0.3, n, peak=0.9 if n == 2 else 0.5), rate=8000) for n in range(5)]
    scores = list(scorer.stream(clips))
    assert [score.reason for score in scores] == ["", "", "encoder_failed", "", ""]
    assert scores[2].detail == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_none(scorer, model, noise, monkeypatch, value):
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda *given: predict(*given)._replace(scores=np.full((1, 4), value)))
    (score,) = scorer.stream([Clip("x", samples=noise(), rate=8000)])
    assert score.reason == "encoder_failed" and not score.scores and not score.spread


def test_heads_that_fail_cost_the_clip_and_a_wrong_setup_ends_all(scorer, model, noise, monkeypatch):
    clip = Clip("x", samples=noise(), rate=8000)
    monkeypatch.setattr(model, "predict", lambda *given: 1 / 0)
    (score,) = scorer.stream([clip])
    assert score.reason == "encoder_failed" and "division by zero" in score.detail

    def refuse(*given):
        raise SetupError("no")

    monkeypatch.setattr(model, "predict", refuse)
    with pytest.raises(SetupError, match="no"):
        list(scorer.stream([clip]))


def test_the_domain_reaches_the_model(scorer, model, noise):
    samples = noise()
    list(scorer.stream([Clip(str(n), samples=samples, rate=8000, domain=name) for n, name in enumerate(["a", None])]))
    assert sorted(model.domains, key=str) == [None, "a"]


def test_clips_in_flight_are_bounded_and_asked_for_lazily(model, tiny, noise, monkeypatch):
    monkeypatch.setattr(stream, "FLIGHT", 4)
    samples, asked, samples_held = noise(0.2), itertools.count(), 0

    def endless():
        nonlocal samples_held
        for samples_held in asked:
            yield Clip(str(samples_held), samples=samples, rate=8000)

    scorer = Scorer(model, device="cpu", threads=1)
    with closing(scorer.stream(endless())) as scores:
        for number, score in enumerate(scores):
            assert score.id == str(number)
            assert samples_held - number < 4 + 4, "4 in flight, and what the decoding threads hold"
            if number == 50:
                break


def test_a_long_clip_does_not_keep_those_before_it_waiting(model, tiny, noise):
    scorer = Scorer(model, device="cpu", threads=1)
    list(scorer.stream([Clip("warm", samples=noise(), rate=8000)]))
    tiny.sleep = 0.02
    clips = [Clip("short", samples=noise(0.2), rate=8000), Clip("long", samples=noise(40.0), rate=8000)]
    tiny.lengths.clear()
    with closing(scorer.stream(clips)) as scores:
        assert next(scores).id == "short"
        assert len(tiny.lengths) < 50, "of 201 windows"


def test_closing_early_ends_everything_at_once(model, tiny, noise):
    tiny.sleep = 0.1
    scorer = Scorer(model, device="cpu", threads=2)
    clips = [Clip(str(n), samples=noise(4.0), rate=8000) for n in range(20)]
    scores = scorer.stream(clips)
    next(scores)
    begun = time.monotonic()
    scores.close()
    assert time.monotonic() - begun < 2
    encoded = len(tiny.lengths)
    time.sleep(0.5)
    assert len(tiny.lengths) <= encoded + 2, "those that the two threads had in hand"
    assert not [thread for thread in threading.enumerate() if thread.name == "mmmos-ahead"]
    tiny.sleep = 0
    assert len(list(scorer.stream(clips[:2]))) == 2, "the scorer goes on"


def test_a_run_that_is_stopped_predicts_no_further_segment(scorer, model, noise, monkeypatch):
    run, calls, predict = stream.Run(scorer._engine, grid(0.2, None), False), [], model.predict

    def stop_at_the_third(features, domains):
        calls.append(domains)
        if len(calls) == 3:
            run._stopped.set()
        return predict(features, domains)

    monkeypatch.setattr(model, "predict", stop_at_the_third)
    (score,) = run.scores([Clip("long", samples=noise(4.0), rate=8000)])
    assert len(calls) == 3 and len(score.segments) == 2, "the whole, and two of 20 segments"


def test_an_error_of_the_list_ends_the_stream_and_closes_it(scorer, noise):
    def clips():
        yield Clip("x", samples=noise(), rate=8000)
        raise UsageError("line 2")

    with pytest.raises(UsageError, match="line 2"):
        list(scorer.stream(clips()))
    assert not [thread for thread in threading.enumerate() if thread.name == "mmmos-ahead"]


def test_equal_lengths_share_batches_where_that_pays(linear, tiny, noise, monkeypatch):
    monkeypatch.setattr(stream, "FLIGHT", 6)
    scorer = Scorer(linear(("tiny", tiny, {"window": 0.2, "hop": 0.2})), device="cpu", threads=1)
    clips = [Clip(str(n), samples=noise(0.5 if n % 2 else 0.3, n), rate=8000) for n in range(14)]
    alone = numbers(scorer.stream(clips))
    tiny.lengths.clear()
    scorer._engine = replace(scorer._engine, device="elsewhere")
    scores = list(scorer.stream(clips))
    assert [score.id for score in scores] == [clip.id for clip in clips]
    assert max(map(len, tiny.lengths)) > 3, "windows of several clips"
    assert all(len(set(each)) == 1 for each in tiny.lengths)
    for id_, (found, _, _) in numbers(scores).items():
        assert found == pytest.approx(alone[id_][0], rel=1e-5)


def test_torch_has_its_threads_back_and_the_caller_never_lost_them(scorer, noise):
    clip = Clip("x", samples=noise(), rate=8000)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with closing(scorer.stream([clip, clip])) as scores:
            next(scores)
            assert torch.get_num_threads() == 2
            with closing(scorer.stream([clip])) as others:
                next(others)
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(torch.get_num_threads).result() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_segments_that_cannot_be_cut_are_refused_before_anything_is_read(scorer):
    for segments, hop, says in [
        (0.05, None, "Segments are 0.1 s long at least; got 0.05 s"),
        (float("nan"), None, "got nan s"),
        (10, 11, "The hop lies between 0 and the length of a segment, 10 s"),
        (10, 0, "got 0 s"),
        (None, 5, "A hop needs segments"),
    ]:
        with pytest.raises(UsageError, match=says):
            scorer.stream([], segments=segments, hop=hop)


def test_threads_are_not_negative(model):
    with pytest.raises(UsageError, match="threads must be 0"):
        Scorer(model, device="cpu", threads=-1)
