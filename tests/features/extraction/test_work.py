"""One task of extraction: one decode for all encoders, blocks in place of files, rows stored as they come."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmmos import audio, progress
from mmmos.errors import SetupError, StoreError, UsageError
from mmmos.features.encoders import encoder
from mmmos.features.extraction import extract as extraction
from mmmos.features.extraction import settle, work
from mmmos.features.extraction.clips import Clip
from mmmos.features.extraction.extract import extract
from mmmos.features.extraction.tasks import Lack, Task, for_any_folder
from mmmos.features.spec import EncoderRecipe, EncoderSpec, FeatureRecipe, FeatureSpec
from mmmos.features.store import DamagedShard, FeatureSet


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in order."""
    stream, files = work.isolated.stream, []

    def count(file, *segment):
        files.append(file)
        return stream(file, *segment)

    monkeypatch.setattr(work.isolated, "stream", count)
    return files


def recipe(*plugins, **settings):
    tables = [EncoderRecipe(encoder=plugin.name, name=plugin.path.stem) for plugin in plugins]
    return FeatureRecipe(encoders=tables, **{"dtype": "float32", **settings})


def test_each_clip_is_decoded_once_for_all_encoders_of_a_recipe(make_fake, make_clips, store, decoded):
    one, other, clips = make_fake("one"), make_fake("other", scale="3"), make_clips(3, rate=44_100)
    features = extract(clips, recipe(one, other, window=0.2), store=store, device="cpu")
    assert sorted(decoded) == sorted(clips["path"])
    assert (one.calls(), other.calls()) == (9, 9)
    for plugin in (one, other):
        alone = extract(clips, recipe(plugin, window=0.2), store=store.with_name(plugin.path.stem), device="cpu")
        np.testing.assert_array_equal(alone[plugin.path.stem].raw, features[plugin.path.stem].raw)


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_threads_and_processes_give_the_same_bits(make_clips, store, jobs, monkeypatch):
    monkeypatch.setattr(work.parallel, "cores", lambda: 3)
    monkeypatch.setattr(settle, "CHUNK", 3)
    clips = make_clips(7, seconds=1.7, rate=16_000)
    alone = [extract(clips.iloc[[row]], ["melstats"], store=store / "alone", device="cpu", jobs=1) for row in range(7)]
    together = extract(clips, ["melstats"], store=store / "together", device="cpu", jobs=jobs)
    np.testing.assert_array_equal(together["melstats"].raw, [one["melstats"].raw[0] for one in alone])


def test_an_encoder_that_fails_on_a_clip_costs_that_clip(make_fake, make_clips, store, monkeypatch):
    monkeypatch.setattr(work.parallel, "cores", lambda: 3)
    fake, clips = make_fake(scale="(2 if frames.abs().max() > 0 else 1 / 0)"), make_clips(6)
    soundfile.write(clips.at["c3", "path"], np.zeros(4000), 8000)
    features = extract(clips, recipe(fake), store=store, device="cpu")
    assert features.ids == ("c0", "c1", "c2", "c4", "c5")
    state, reason, detail, _ = features.status.loc["c3"]
    assert (state, reason, detail) == ("failed", "encoder_failed", "ZeroDivisionError: division by zero")
    fake.calls()
    extract(clips, recipe(fake), store=store, device="cpu")
    assert fake.calls() == 1, "what failed is tried again, and nothing else is"


def test_an_encoder_that_belies_its_spec_ends_the_run_and_keeps_what_is_stored(
    make_fake, make_clips, store, monkeypatch
):
    monkeypatch.setattr(settle, "CHUNK", 2)
    fake = make_fake()
    wrong = "if len(CALLS.read_text().split()) > 3:\n            states = states[..., :2]\n"
    short = f"{wrong}        return torch.stack([states"
    fake.path.write_text(fake.path.read_text().replace("return torch.stack([states", short))
    with pytest.raises(SetupError, match="gave states of shape"):
        extract(make_clips(6), recipe(fake), store=store, device="cpu")
    assert extraction.plan(make_clips(6), recipe(fake), store=store)["stored"].tolist() in ([2], [3])


def test_an_encoder_that_joins_later_computes_its_own_part_alone(make_fake, make_clips, store, decoded):
    one, other, clips = make_fake("one"), make_fake("other"), make_clips(3)
    extract(clips.head(2), recipe(one), store=store, device="cpu")
    one.calls(), decoded.clear()
    features = extract(clips, recipe(one, other), store=store, device="cpu")
    assert (one.calls(), other.calls(), len(decoded)) == (1, 3, 3)
    np.testing.assert_array_equal(features["one"].raw, features["other"].raw)


def test_many_encoders_take_turns_in_memory(make_fake, make_clips, store, monkeypatch):
    monkeypatch.setattr(settle, "TOGETHER", 2)
    plugins, clips = [make_fake(name) for name in ("a", "b", "c")], make_clips(2)
    features = extract(clips, recipe(*plugins), store=store, device="cpu")
    assert list(features.sets) == ["a", "b", "c"] and [plugin.calls() for plugin in plugins] == [2, 2, 2]
    assert len(work._loaded) == 1


def test_a_clip_that_one_encoder_cannot_use_is_rejected_for_all(make_fake, make_clips, store):
    sound, infinite = make_fake("sound"), make_fake("infinite", scale="float('inf')")
    features = extract(make_clips(2), recipe(sound, infinite), store=store, device="cpu")
    assert features.rejected()["reason"].tolist() == ["bad_embedding"] * 2
    assert len(extract(make_clips(2), recipe(sound), store=store, device="cpu")) == 2


def in_blocks_of(count):
    """A decoder that gives its samples a few at a time."""

    @contextmanager
    def stream(*segment):
        with audio.stream(*segment) as file:
            samples = np.concatenate(list(file.blocks))
            blocks = (samples[first : first + count] for first in range(0, len(samples), count))
            yield replace(file, blocks=blocks)

    return stream


def test_blocks_of_any_size_give_the_same_numbers(make_fake, make_clips, store, monkeypatch):
    fake, clips = make_fake(), make_clips(2, seconds=3.3, rate=44_100)
    whole = extract(clips, recipe(fake, window=1.0, hop=0.5), store=store, device="cpu")
    monkeypatch.setattr(work.isolated, "stream", in_blocks_of(1000))
    blocks = extract(clips, recipe(fake, window=1.0, hop=0.5), store=store.with_name("blocks"), device="cpu")
    np.testing.assert_array_equal(whole["fake"].raw, blocks["fake"].raw)


def test_rows_are_stored_before_they_pile_up(make_fake, make_clips, store, monkeypatch):
    monkeypatch.setattr(work, "SHARD_BYTES", 100)
    extract(make_clips(3, seconds=1.0), recipe(make_fake(), window=0.1), store=store, device="cpu", jobs=1)
    assert len(list(store.rglob("*.safetensors"))) == 3


def test_rows_are_stored_when_the_last_time_was_long_ago(make_fake, make_clips, store, monkeypatch):
    monkeypatch.setattr(work, "SHARD_SECONDS", 0)
    extract(make_clips(3), recipe(make_fake()), store=store, device="cpu", jobs=1)
    assert len(list(store.rglob("*.safetensors"))) == 3


def test_equal_lengths_of_all_clips_share_batches_where_that_pays(make_fake, make_clips, store):
    fake, clips = make_fake(), make_clips(5, seconds=0.5)
    one_by_one = extract(clips, recipe(fake, window=0.2), store=store, device="cpu")
    batches = []
    with pytest.MonkeyPatch.context() as patch:
        bench = work.encoding.Bench
        patch.setattr(work.encoding, "Bench", lambda spec, loaded, *_: Spy(bench(spec, loaded, "elsewhere"), batches))
        shared = extract(clips, recipe(fake, window=0.2), store=store.with_name("shared"), device="cpu")
    assert sorted(batches) == [5, 10]
    np.testing.assert_allclose(shared["fake"].raw, one_by_one["fake"].raw, rtol=1e-5)


class Spy:
    """A bench whose batch sizes are noted."""

    def __init__(self, bench, batches):
        self._bench, states = bench, bench._states

        def note(waves):
            batches.append(len(waves))
            return states(waves)

        bench._states = note

    def __getattr__(self, name):
        return getattr(self._bench, name)


def test_a_long_file_shows_its_own_progress(make_fake, make_clips, store, monkeypatch, capsys):
    monkeypatch.setattr(work, "LONG_FILE", 1)
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    monkeypatch.setattr(progress, "_shown", True)
    extract(make_clips(1, seconds=1.0), recipe(make_fake(), window=0.25), store=store, device="cpu")
    said = capsys.readouterr().err.splitlines()
    assert said[2:] == [*(f"c0.wav, windows: {done} of 4" for done in range(1, 5)), "fake: 32 clips each: 1 of 1"]


def test_windows_that_an_encoder_does_not_take_are_refused(make_fake, make_clips, store, monkeypatch):
    fake = make_fake()
    loaded = encoder(fake.name, device="cpu")
    loaded.spec = replace(loaded.spec, maximum=8000)
    with pytest.raises(UsageError, match=r"A window of 1\.5 s is too long for .*: it takes 1 s at most"):
        work.feature_spec(recipe(fake, window=1.5).tables()[0], loaded)
    with pytest.raises(UsageError, match=r"A window of 0\.01 s is too short for .*: it needs 0\.02 s"):
        work.feature_spec(recipe(fake, window=0.01).tables()[0], loaded)
    assert work.feature_spec(recipe(fake, window=1.0).tables()[0], loaded).window == 1.0


def test_precision_and_options_of_a_table_reach_the_encoder(make_fake, make_clips, store):
    fake = make_fake()
    with pytest.raises(UsageError, match=r"There is no option of the encoder .* called 'precision'. Known: none"):
        extract(make_clips(1), [EncoderRecipe(encoder=fake.name, precision="bfloat16")], store=store, device="cpu")
    with pytest.raises(UsageError, match="called 'layout'"):
        extract(make_clips(1), [EncoderRecipe(encoder=fake.name, options={"layout": "x"})], store=store, device="cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_file_of_an_hour_passes_in_little_memory(make_fake, store, tmp_path):
    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3

    import pandas as pd

    path, block = tmp_path / "hour.flac", np.random.default_rng(0).uniform(-0.1, 0.1, 8000 * 60)
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(60):
            file.write(np.round(block, 2))
    clips = pd.DataFrame({"path": [str(path)]}, index=["hour"])
    fake = make_fake()
    extract(clips.assign(start=0.0, end=60.0), recipe(fake), store=store, device="cpu")
    before = resident()
    features = extract(clips, recipe(fake), store=store, device="cpu")
    assert features.ids == ("hour",) and fake.calls() == 366
    # The signal alone would be 115 MB.
    assert resident() - before < 60


KEY = "ab" * 16


def task_of(fingerprint, store, name="melstats"):
    clip, lack = Clip(KEY, "/x/a.wav", (0, 0), None, None), Lack(fingerprint, frozenset([KEY]), {})
    return Task((EncoderRecipe(encoder=name),), (lack,), (clip,), str(store), "cpu")


def test_weights_that_change_before_a_task_is_carried_out_end_it(fake, store):
    with pytest.raises(StoreError, match=r"The weights of '.*fake.py:FAKE' changed while they were in use"):
        work.encode_chunk(task_of("0" * 64, store, fake.name))
    assert not store.exists()


def test_a_clip_that_ends_its_process_is_rejected_where_that_happened_alone(store):
    encoder_spec = EncoderSpec("e", "f", 8000, 2, 3, 0.02, 160, "none")
    sets = [FeatureSet(store, FeatureSpec(name, encoder_spec, window)) for name, window in (("one", 5.0), ("two", 6.0))]
    settle._lost(sets, [], task_of(sets[1].spec.fingerprint, store))
    assert [list(each.rejections([KEY])) for each in sets] == [[], [KEY]]
    assert sets[1].rejections([KEY])[KEY][0] == "worker_killed"


def test_rows_that_are_damaged_whenever_they_are_read_are_an_error(fake, make_clips, store, monkeypatch):
    tried = []

    def damaged(each, keys):
        tried.append(keys)
        raise DamagedShard("It is damaged.")

    monkeypatch.setattr(settle, "_array", damaged)
    with pytest.raises(DamagedShard):
        extract(make_clips(1), [fake.name], store=store, device="cpu")
    assert len(tried) == 3


def test_local_weights_and_plug_ins_are_found_from_any_folder_and_hub_ids_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").touch()
    found = for_any_folder(EncoderRecipe(encoder="mine.py:MINE", weights="w.pt"))
    assert (found.encoder, found.weights) == (f"{tmp_path / 'mine.py'}:MINE", str(tmp_path / "w.pt"))
    table = EncoderRecipe(encoder="wavlm", weights="owner/name")
    assert for_any_folder(table) == table
