"""Looking after a store: summaries, what was rejected, verify, compact, and what nobody needs any more."""

import os
import sys
import time
from pathlib import Path

import pytest

from mmmos.errors import StoreError, UsageError
from mmmos.features import garbage, weights
from mmmos.features.extraction.extract import complete
from mmmos.features.garbage import Reach, reach, waste
from mmmos.features.spec import EncoderRecipe, FeatureRecipe, FeatureSpec
from mmmos.features.store import FeatureSet, reading, upkeep
from mmmos.features.store.upkeep import compact_all, rejections, summaries, verify

sys.path.append(str(Path(__file__).parent))
from stores import ENCODER, SPEC, assert_holds, key, rows

TINY = Path(__file__).parents[2] / "data" / "wavlm_tiny"


def recipe(*tables):
    return FeatureRecipe(encoders=list(tables))


def names(found):
    return sorted((each.path.name, each.why) for each in found)


def test_summaries_count_clips_begun_ones_windows_and_rejections(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1), rows(2), rows(3, part=1)], {key(9): ("no_samples", "", "x"), key(1): ("no_samples", "", "y")})
    (each,) = summaries(tmp_path)
    assert (each.shards, each.clips, each.begun, each.windows, each.rejected) == (1, 2, 1, 4, 1)
    assert each.megabytes == next(tmp_path.glob("*/*.safetensors")).stat().st_size / 1e6
    assert rejections(tmp_path).to_numpy().tolist() == [[found.folder.name, "no_samples", "", "x", key(9)]]


def test_without_a_store_there_is_a_sentence():
    for verb in (summaries, verify, compact_all):
        with pytest.raises(UsageError, match="There is no store 'nowhere'; mmmos features extract makes one"):
            verb("nowhere")


def test_verify_names_everything_that_is_wrong(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1)])
    (path,) = tmp_path.glob("*/*.safetensors")
    (found.folder / "old.damaged").touch()
    path.with_name("f" * 32 + ".safetensors").write_bytes(path.read_bytes())
    (found.folder / "spec.json").write_text("{}")
    problems = verify(tmp_path)
    assert len(problems) == 3
    assert "describes another feature set than its folder is named by. The next extraction" in problems[0]
    assert problems[1].endswith("old.damaged was set aside as damaged. Delete it.")
    assert "its header is not the one that it is named by" in problems[2]


def test_verify_says_what_cannot_be_read_and_not_what_a_compaction_deletes_meanwhile(tmp_path, monkeypatch):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1)])
    folder = found.folder / ("f" * 32 + ".safetensors")
    folder.mkdir()
    assert verify(tmp_path) == [f"{folder} cannot be read: Is a directory."]

    def late(path):
        path.unlink() if path.is_file() else path.rmdir()
        return reading.open_shard(path)

    monkeypatch.setattr(upkeep, "open_shard", late)
    assert verify(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 9999, '{"a": NaN}', '"' + "x" * 70_000 + '"', "\xff"])
def test_a_spec_that_cannot_be_read_is_a_sentence(tmp_path, text):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1)])
    (found.folder / "spec.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=r"spec\.json: .*The next extraction into this set writes it again"):
        summaries(tmp_path)


def test_compaction_leaves_one_file_for_each_set(tmp_path):
    sets = [FeatureSet(tmp_path, SPEC), FeatureSet(tmp_path, FeatureSpec("other", ENCODER))]
    for number in range(3):
        for each in sets:
            each.write([rows(number)])
    done = compact_all(tmp_path)
    assert [(each.files_before, each.files) for each in done] == [(3, 1), (3, 1)]
    assert_holds(FeatureSet(tmp_path, SPEC), [0, 1, 2])
    assert verify(tmp_path, full=True) == []


def test_sets_that_a_recipe_leads_to_are_kept(fake, make_fake, make_clips, store):
    clips, other = make_clips(1), make_fake("other")
    wanted = recipe(EncoderRecipe(encoder=fake.name, name="one"), EncoderRecipe(encoder=other.name, name="two"))
    old = recipe(EncoderRecipe(encoder=fake.name, name="one", window=5.0), EncoderRecipe(encoder=fake.name, name="old"))
    kept = {path.name for path in complete_folders(clips, wanted, store)}
    lost = {path.name for path in complete_folders(clips, old, store)} - kept
    reached = reach([wanted], store)
    assert reached == Reach(frozenset(kept), {})
    found = waste(store, reached)
    assert names(found) == sorted((name, "no recipe leads to it") for name in lost)
    sizes = [sum(file.stat().st_size for file in each.path.iterdir()) for each in found]
    assert [each.size for each in found] == sizes
    for each in found:
        each.remove()
        each.remove()
    assert {path.name for path in store.glob("*-*")} == kept
    assert verify(store, full=True) == [] and waste(store, reached) == []


def complete_folders(clips, encoders, store):
    complete(clips, encoders, store=store)
    return store.glob("*-*")


def test_an_encoder_that_cannot_be_loaded_keeps_all_sets_of_its_name(tmp_path, make_fake):
    broken = make_fake("broken")
    broken.path.write_text(broken.path.read_text().replace("return Fake()", 'raise KeyError("surprise")'))
    for name in ("far", "broken", "gone", "none"):
        FeatureSet(tmp_path, FeatureSpec(name, ENCODER)).write([rows(1)])
    asked = [
        EncoderRecipe(encoder="wavlm-large", name="far"),
        EncoderRecipe(encoder=broken.name, name="broken"),
        EncoderRecipe(encoder="gone.py:GONE", name="gone"),
    ]
    reached = reach([recipe(*asked)], tmp_path)
    assert not reached.folders and list(reached.untold) == ["far", "broken", "gone"]
    assert reached.untold["far"] == "its weights microsoft/wavlm-large are not on this machine"
    assert "surprise" in reached.untold["broken"] and "does not exist" in reached.untold["gone"]
    assert [each.path.name[:4] for each in waste(tmp_path, reached)] == ["none"]


def test_nothing_is_downloaded_and_one_encoder_is_in_memory_at_a_time(tmp_path, monkeypatch):
    tables = [
        EncoderRecipe(encoder="wavlm", name=name, weights=str(TINY), window=window)
        for name, window in (("a", 5.0), ("b", 6.0))
    ]
    far = EncoderRecipe(encoder="wavlm-base-plus", name="far")
    for name in ("a", "b", "far"):
        FeatureSet(tmp_path, FeatureSpec(name, ENCODER)).write([rows(1)])
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weights, "_from_hub", lambda *_: pytest.fail("the hub was asked"))
    monkeypatch.setattr(weights, "is_here", lambda source, _: Path(source) if Path(source).exists() else None)
    loaded, load = [], garbage.load_encoders

    def counted(tables, device):
        loaded.append(len(tables))
        return load(tables, device)

    monkeypatch.setattr(garbage, "load_encoders", counted)
    reached = reach([recipe(*tables), recipe(far)], tmp_path)
    assert len(reached.folders) == 2 and list(reached.untold) == ["far"]
    assert loaded == [1, 1, 0]
    assert sorted(each.path.name[0] for each in waste(tmp_path, reached)) == ["a", "b"]


def test_encoders_of_absent_sets_are_not_loaded(tmp_path, monkeypatch):
    FeatureSet(tmp_path, SPEC).write([rows(1)])
    monkeypatch.setattr(garbage, "_folder", lambda *_: pytest.fail("an encoder was loaded"))
    assert reach([recipe("melstats", "wavlm-large")], tmp_path) == Reach(frozenset(), {})


def test_what_broken_writers_left_goes_and_what_living_ones_write_stays(tmp_path):
    found = FeatureSet(tmp_path, SPEC)
    found.write([rows(1)])
    for folder in ("hashes", "shared", ".import.1-a.tmp"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".import.1-a.tmp" / "x").write_bytes(b"12345")
    left = [found.folder / ".a.1.tmp", tmp_path / "hashes" / ".b.1.tmp", tmp_path / "shared" / ".c.tmp"]
    for path in left:
        path.write_bytes(b"123")
    for path in (*left, tmp_path / ".import.1-a.tmp"):
        os.utime(path, (time.time() - 7200,) * 2)
    (found.folder / ".alive.2.tmp").touch()
    (found.folder / "x.damaged").write_bytes(b"1")
    reached = Reach(frozenset({found.folder.name}), {})
    assert names(waste(tmp_path, reached)) == [
        (".a.1.tmp", "left by a killed process"),
        (".b.1.tmp", "left by a killed process"),
        (".c.tmp", "left by a killed process"),
        (".import.1-a.tmp", "left by a killed process"),
        ("x.damaged", "set aside as damaged"),
    ]
    assert sum(each.size for each in waste(tmp_path, reached)) == 3 * 3 + 5 + 1
    for each in waste(tmp_path, reached):
        each.remove()
    assert waste(tmp_path, reached) == [] and (found.folder / ".alive.2.tmp").exists()
    assert_holds(FeatureSet(tmp_path, SPEC), [1])


def test_folders_that_are_no_feature_sets_and_what_links_lead_to_stay(tmp_path):
    store, mine = tmp_path / "store", tmp_path / "mine-0123456789ab"
    (store / "photos-0123456789ab").mkdir(parents=True)
    FeatureSet(tmp_path, SPEC).write([rows(1)])
    real = next(tmp_path.glob("set-*")).rename(mine)
    (store / mine.name).symlink_to(real)
    found = waste(store, Reach(frozenset(), {}))
    assert names(found) == [(mine.name, "no recipe leads to it")]
    found[0].remove()
    assert (store / "photos-0123456789ab").is_dir() and not (store / mine.name).exists()
    assert len(list(real.glob("*.safetensors"))) == 1
