"""Scores from many processes: the same as from one, whatever becomes of a worker."""

import os
import shutil
import signal
import weakref
from contextlib import closing
from dataclasses import replace
from itertools import chain
from multiprocessing import active_children

import pytest

from mmmos import parallel
from mmmos.ensembles.bundle import read_bundle
from mmmos.errors import StoreError, UsageError
from mmmos.features import devices
from mmmos.files import pretty_json
from mmmos.parallel import Workers, on_loky
from mmmos.pipeline.bundles import export
from mmmos.scoring import distributed, naming
from mmmos.scoring.distributed import Block, Work
from mmmos.scoring.inputs import Clip
from mmmos.scoring.naming import Source
from mmmos.scoring.score import Score
from mmmos.scoring.scorer import Scorer

TWO = Workers(jobs=2)


@pytest.fixture(scope="module")
def bundle(tiny_workspace, tmp_path_factory):
    """A bundle of one head on melstats."""
    to = tmp_path_factory.mktemp("bundles") / "tiny"
    export(tiny_workspace / "challenge.toml", to=to)
    return to


@pytest.fixture(scope="module")
def work(bundle):
    """Segments are asked for, and damage is refused."""
    return Work(naming.source(bundle, {}, read_bundle(bundle)), "cpu", segments=0.5, hop=0.25, strict=True)


@pytest.fixture(scope="module")
def clips(tiny_workspace, tmp_path_factory):
    """Audio, a part of audio with a domain, what is no audio, and what is not there."""
    text = tmp_path_factory.mktemp("text") / "text.wav"
    text.write_text("no audio")
    files = sorted((tiny_workspace / "audio").iterdir())[:6]
    whole = [Clip(path.name, str(path)) for path in files]
    part = Clip("part", str(files[0]), start=0.1, end=0.7, domain="music")
    return [*whole[:2], Clip("text", str(text)), part, Clip("absent", str(text.with_name("absent.wav"))), *whole[2:]]


@pytest.fixture(scope="module")
def expected(bundle, work, clips):
    """The scores of one process."""
    scorer = Scorer(read_bundle(bundle), device="cpu", threads=1)
    found = list(scorer.stream(clips, segments=work.segments, hop=work.hop, strict=work.strict))
    assert {score.reason for score in found} == {"", "not_audio", "missing"} and found[0].segments
    return found


# The same scores.


@pytest.mark.parametrize("threads", [0, 2])
def test_two_processes_give_the_scores_of_one(work, clips, expected, threads):
    assert list(distributed.scores(clips, replace(work, threads=threads), TWO)) == expected


def test_a_cluster_gives_the_scores_of_one_process(work, clips, expected):
    pytest.importorskip("distributed")
    assert list(distributed.scores(clips, work, Workers("dask", jobs=2))) == expected


def test_a_worker_that_is_killed_costs_no_clip(work, clips, expected, monkeypatch):
    monkeypatch.setattr(distributed, "BLOCK", 1)
    on_loky.close()
    with closing(distributed.scores(clips * 2, work, TWO)) as scores:
        found = [next(scores)]
        os.kill(next(child.pid for child in active_children() if type(child).__name__ == "LokyProcess"), KILL)
        assert found + list(scores) == expected * 2


KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def test_leaving_early_ends_the_processes(work, clips):
    # Idle workers of earlier calls would stay.
    on_loky.close()
    with closing(distributed.scores(clips, work, TWO)) as scores:
        next(scores)
    assert not [child for child in active_children() if type(child).__name__ == "LokyProcess"]


# A clip that ends its process.

PLUGIN = """
import os, signal
from dataclasses import replace
from mmmos import registry
from mmmos.features.encoders import EncoderCard

def load(card, source, revision, device):
    melstats = registry.load("encoders", "melstats")
    encoder = melstats.load(melstats, source, revision, device)
    encode = encoder.encode
    def checked(waves):
        if waves.shape[1] == LENGTH:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return encode(waves)
    object.__setattr__(encoder, "encode", checked)
    return encoder

CARD = replace(registry.load("encoders", "melstats"), name="deadly", load=load)
"""
SECONDS = 0.4375


@pytest.fixture
def deadly(bundle, tmp_path, monkeypatch):
    """The bundle with an encoder that kills the process for a clip of ``SECONDS``."""
    from mmmos.ensembles.bundle.about import digest_of
    from mmmos.ensembles.bundle.arrays import json_of

    fields = json_of((bundle / "bundle.json").read_bytes(), "")
    rate = fields["encoders"][0]["facts"]["rate"]
    fields["encoders"][0]["encoder"] = "deadly"
    fields["digest"] = digest_of(fields)
    folder = shutil.copytree(bundle, tmp_path / "deadly")
    (folder / "bundle.json").write_text(pretty_json(fields))
    site = tmp_path / "site"
    (site / "deadly-1.dist-info").mkdir(parents=True)
    (site / "deadly-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1\n")
    (site / "deadly-1.dist-info" / "entry_points.txt").write_text("[mmmos.encoders]\ndeadly = deadly:CARD\n")
    (site / "deadly.py").write_text(PLUGIN.replace("LENGTH", str(round(SECONDS * rate))))
    monkeypatch.syspath_prepend(site)
    parallel.stop()
    yield folder
    parallel.stop()


def test_a_clip_that_ends_its_process_three_times_is_named_and_set_aside(deadly, clips, expected, monkeypatch):
    monkeypatch.setattr(distributed, "_blocks", lambda clips, _: [Block((clip,)) for clip in clips])
    work = Work(naming.source(deadly, {}, read_bundle(deadly)), "cpu", segments=0.5, hop=0.25, strict=True)
    poison = replace(clips[0], id="poison", start=0.0, end=SECONDS)
    first, second = distributed.scores([clips[0], poison], work, TWO)
    assert first == expected[0]
    assert (second.id, second.reason, second.segments) == ("poison", "worker_killed", ())


@pytest.fixture
def fake_map(monkeypatch):
    """``parallel.map`` in this process: a block with a clip called "poison" is lost; the tasks it was given."""
    given = []

    def fake(function, tasks, *, jobs, device, lost, ordered):
        assert ordered
        given.append(tasks)
        for block in tasks:
            yield lost(block) if any(clip.id == "poison" for clip in block.clips) else function(block)

    monkeypatch.setattr(parallel, "map", fake)
    monkeypatch.setattr(distributed, "score_block", lambda work, block: tuple(Score(each.id) for each in block.clips))
    return given


def named(*names):
    return [Clip(name, f"/{name}.wav") for name in names]


def test_a_lost_block_is_scored_clip_by_clip_behind_a_task_without_clips(work, fake_map, monkeypatch):
    monkeypatch.setattr(distributed, "SHARE", 1)
    names = ["a", "b", "c", "poison", "d", "e", "poison", "f"]
    found = list(distributed.scores(named(*names), work, TWO))
    assert [score.id for score in found] == names
    assert [score.reason for score in found] == ["worker_killed" if name == "poison" else "" for name in names]
    assert [[len(block.clips) for block in tasks] for tasks in fake_map] == [[4, 4], [0, 1, 1, 1, 1], [0, 1, 1, 1, 1]]


def test_a_cluster_scores_a_lost_block_with_the_workers_that_it_has(work, fake_map, monkeypatch):
    asked, given = [], parallel.map
    monkeypatch.setattr(parallel, "map", lambda *a, jobs, **b: asked.append(jobs) or given(*a, jobs=jobs, **b))
    cluster = parallel.Workers("dask", jobs=1)
    found = list(distributed.scores(named("a", "b", "poison"), work, cluster))
    assert [score.reason for score in found] == ["", "", "worker_killed"]
    assert asked == [cluster] * len(asked)


def test_a_clip_that_is_the_only_one_may_be_lost_like_any_other(work, fake_map):
    (score,) = distributed.scores(named("poison"), work, TWO)
    assert score.reason == "worker_killed" and [len(block.clips) for block in fake_map[0]] == [1]


def test_a_clip_that_was_lost_by_itself_is_not_tried_again(work, fake_map):
    found = list(distributed.scores(named("a", "poison"), work, TWO))
    assert [score.reason for score in found] == ["", "worker_killed"] and len(fake_map) == 1


def test_scores_do_not_pile_up(work, fake_map):
    seen = []
    for score in distributed.scores(named(*map(str, range(2000))), work, TWO):
        seen.append(weakref.ref(score))
        del score
        assert sum(each() is not None for each in seen[-200:]) <= 2 * distributed.BLOCK


# Tasks.


@pytest.mark.parametrize("count", [1, 2, 15, 16, 40, 511, 512, 5000])
@pytest.mark.parametrize("workers", [TWO, Workers("dask"), Workers("ray", jobs=64)])
def test_blocks_are_the_clips_in_order_and_every_worker_has_some(count, workers):
    clips = named(*map(str, range(count)))
    blocks = distributed._blocks(clips, workers)
    assert list(chain.from_iterable(block.clips for block in blocks)) == clips
    sizes = {len(block.clips) for block in blocks}
    assert max(sizes) <= 32 and len(blocks) >= min(count, distributed.SHARE * (workers.jobs or parallel.cores()))


def test_a_block_is_named_by_its_first_file():
    assert Block(tuple(named("a", "b"))).label == "2 clips, first a.wav"
    assert (Block(tuple(named("a"))).label, Block(()).label) == ("a.wav", "no clips")


@pytest.mark.parametrize("clip", [Clip("a", "a.wav"), Clip("0", samples=[0.0], rate=8000)])
def test_clips_that_another_process_cannot_find_are_refused(work, clip):
    with pytest.raises(UsageError, match="absolute paths"):
        list(distributed.scores([clip], work, TWO))


def test_another_model_in_a_worker_is_refused(work, clips):
    other = replace(work, source=replace(work.source, digest="0" * 64))
    with pytest.raises(StoreError, match=f"is another model .* and not {'0' * 16}"):
        distributed.score_block(other, Block(tuple(clips[:1])))


@pytest.mark.parametrize(("given", "expected"), [({}, "w.pt"), ({"melstats": "x.pt"}, "x.pt")])
def test_a_source_names_everything_by_absolute_path(bundle, tmp_path, monkeypatch, given, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("w.pt", "x.pt"):
        (tmp_path / name).touch()
    shutil.copytree(bundle, tmp_path / "deep" / "mine")
    model = read_bundle("deep/mine")
    local = tuple(each.model_copy(update={"weights": "w.pt"}) for each in model.about.encoders)
    changed = replace(model, about=model.about.model_copy(update={"encoders": local}))
    place = str(tmp_path / "deep" / "mine")
    assert naming.source("deep/mine", {}, model) == Source(place, (), model.digest)
    weights = (("melstats", str(tmp_path / expected)),)
    assert naming.source("deep/mine", given, changed) == Source(place, weights, model.digest)


@pytest.mark.parametrize("name", ["audiobox", "facebook/audiobox-aesthetics", "hf://owner/name@main"])
def test_what_is_the_same_everywhere_stays_as_it_is(name, model):
    assert naming.source(name, {}, model) == Source(name, (), model.digest)


# Who scores.


def test_one_process_scores_unless_there_are_several_or_several_gpus(monkeypatch):
    assert distributed.crew(Workers(), "cpu") is None and distributed.crew(Workers(jobs=1), "auto") is None
    assert distributed.crew(TWO, "cpu") == TWO and distributed.crew(Workers("ray"), "cpu") == Workers("ray")
    monkeypatch.setattr(devices, "own_gpus", lambda: [0, 1, 2])
    assert distributed.crew(Workers(), "auto") == Workers(jobs=3)
    assert distributed.crew(Workers(), "cuda:1") is None and distributed.crew(Workers(jobs=1), "auto") is None


@pytest.mark.parametrize(("commercial", "told"), [(True, 0), (False, 1)])
def test_weights_that_others_load_are_named_where_they_may_not_be_used_commercially(bundle, caplog, commercial, told):
    model = read_bundle(bundle)
    encoders = tuple(each.model_copy(update={"commercial": commercial}) for each in model.about.encoders)
    distributed.tell_licences(replace(model, about=model.about.model_copy(update={"encoders": encoders})))
    assert len(caplog.messages) == told and all("melstats may not be used commercially" in m for m in caplog.messages)
