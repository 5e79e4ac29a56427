"""The commands of a store: what is in it, whether it is whole, what may go, and sharing it without audio."""

import io
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from mmmos.features.encoders import card
from mmmos.features.extraction.options import Options
from mmmos.features.store import FeatureSet
from mmmos.parallel import Workers

HERE = Options(device="cpu", jobs=1)


@pytest.fixture
def clips(tmp_path):
    """A manifest of five clips: two sound, a clipped one, a rejected one, one that is not there."""
    chance = np.random.default_rng(0)
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", chance.uniform(-0.5, 0.5, 32_000), 32_000)
    soundfile.write(tmp_path / "loud.wav", np.sign(chance.uniform(-1, 1, 32_000)), 32_000)
    soundfile.write(tmp_path / "nan.wav", np.full(32_000, np.nan), 32_000, "FLOAT")
    paths = {name: str(tmp_path / f"{name}.wav") for name in ("a", "b", "loud", "nan", "gone")}
    pd.Series(paths, name="path").rename_axis("id").to_csv(tmp_path / "clips.csv")
    return tmp_path / "clips.csv"


@pytest.fixture
def filled(command, clips, tmp_path):
    """The store that these clips were extracted into."""
    assert command("features", "extract", "melstats", clips, "--store", tmp_path / "store")[0] == 3
    return tmp_path / "store"


def test_extraction_ends_with_what_became_of_the_clips(command, clips, tmp_path):
    code, out, err = command("features", "extract", "melstats", clips, "--store", tmp_path / "store")
    assert (code, out) == (3, "")
    assert "3 of 5 clips are in " in err and "(melstats)." in err
    assert "1 clip is flagged: 1 clipped; mmmos features show RECIPE INPUT… lists them." in err
    assert "2 clips were rejected (" in err and "gone: there is no file" in err and "nan: NaN" in err


def test_failed_clips_are_said_to_be_tried_again(command, clips, tmp_path, monkeypatch):
    from mmmos.features.extraction import extract as extraction

    status = pd.DataFrame(
        [("done", "", "", "")] + [("failed", "changed", f"written {number}", "") for number in range(12)],
        index=[f"c{number}" for number in range(13)],
        columns=["status", "reason", "detail", "flags"],
    )
    monkeypatch.setattr(extraction, "complete", lambda *_, **__: status)
    code, _, err = command("features", "extract", "melstats", clips, "--store", tmp_path / "store")
    assert code == 3 and "12 clips failed (12 changed); the same command tries them again:\n  c1: written 0\n" in err
    assert err.endswith("  … and 2 more\n") and "rejected" not in err


def test_strict_retry_and_rehash_reach_the_extraction(command, clips, tmp_path, monkeypatch):
    from mmmos.features.extraction import extract as extraction

    asked = []
    complete = extraction.complete
    monkeypatch.setattr(extraction, "complete", lambda *a, **o: asked.append(o["options"]) or complete(*a, **o))
    line = ["features", "extract", "melstats", clips, "--store", tmp_path / "store"]
    command(*line, "--strict", "--retry-rejected", "--rehash", "--device", "cpu", "--jobs", "1")
    assert asked == [Options("cpu", Workers(jobs=1), strict=True, retry=True, rehash=True)]
    options = ["--backend", "dask", "--address", "tcp://head:8786", "--jobs", "4", "--logs", tmp_path / "logs"]
    monkeypatch.setattr(
        extraction, "complete", lambda *a, options, **o: asked.append(options) or complete(*a, options=HERE, **o)
    )
    command(*line, *options)
    assert asked[1].jobs == Workers("dask", "tcp://head:8786", 4, str(tmp_path / "logs"))


MINE = """
from mmmos.features.spec import EncoderSpec

class Mine:
    spec = EncoderSpec("mine", "mine", rate=32_000, layers=1, dim=4, hop=0.01, minimum=320, licence="MIT")

    def encode(self, waves):
        return waves.unfold(-1, 320, 320)[:, None, :, :4].contiguous()
"""


def test_encoders_are_named_without_a_recipe_one_of_them_in_a_file(command, clips, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    named = ["--encoder", f"{tmp_path}/mine.py:Mine", "--encoder", "melstats", "--store", tmp_path / "store"]
    code, out, err = command("features", "extract", clips, *named, "--jobs", "1")
    assert (code, out) == (3, "") and "3 of 5 clips are in " in err and "(Mine, melstats)." in err
    code, out, err = command("features", "show", *named[:2], clips, *named[4:])
    assert code == 3 and err.startswith("Of 5 clips: 3 done, 2 rejected, 0 failed, 0 absent.")


def test_one_named_encoder_takes_weights_and_precision(command, clips, tmp_path, monkeypatch):
    from mmmos.features.extraction import extract as extraction

    asked = []
    monkeypatch.setattr(extraction, "plan", lambda _, recipe, **__: asked.extend(recipe.tables()) or pd.DataFrame())
    command(
        "features", "extract", "--encoder", "wavlm", clips, "--weights", "w", "--precision", "bfloat16", "--dry-run"
    )
    assert [(each.encoder, each.weights, each.precision) for each in asked] == [("wavlm", "w", "bfloat16")]


def test_shards_speak_of_their_own_clips_and_are_the_whole_together(command, clips, tmp_path):
    line = ["features", "extract", "melstats", clips, "--store", tmp_path / "store", "--jobs", "1"]
    code, out, err = command(*line, "--shard", "2/2")
    assert (code, out) == (3, "") and err.startswith("shard 2/2: 2 of 5 clips.\n1 of 2 clips are in ")
    assert "nan: NaN" in err and "gone" not in err
    code, out, err = command(*line, "--shard", "1/2", "--dry-run")
    assert (code, out.split()[-3:], err) == (0, ["melstats", "2", "0"], "shard 1/2: 3 of 5 clips.\n")
    assert command(*line, "--shard", "1/2")[0] == 3
    assert command(*line, "--dry-run")[1].split()[-2:] == ["4", "4"]
    code, out, err = command(*line, "--shard", "6/9")
    assert code == 0 and "shard 6/9: 0 of 5 clips.\n0 of 0 clips are in " in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--backend", "dusk"], 'Did you mean "dask"?'),
        (["--address", "tcp://head:8786"], "choose --backend dask or ray"),
        (["--shard", "3/2"], "A shard is i/N with i from 1 to N; got 3/2."),
        (["--shard", "half"], "A shard is i/N, such as 1/8"),
        (["--jobs", "-1"], "jobs must be 0 (one process for each core) or more; got -1."),
    ],
)
def test_workers_and_shards_that_cannot_be_are_said_before_anything_is_read(command, tmp_path, options, sentence):
    code, out, err = command("features", "extract", "melstats", "gone.csv", "--store", tmp_path / "store", *options)
    assert (code, out) == (2, "") and sentence in err and not (tmp_path / "store").exists()


def test_truncated_audio_is_flagged_and_rejected_when_strict(command, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 64_000)
    soundfile.write(tmp_path / "cut.wav", noise, 32_000)
    os.truncate(tmp_path / "cut.wav", 80_000)
    line = ["features", "extract", "melstats", tmp_path / "cut.wav", "--store", tmp_path / "store"]
    code, _, err = command(*line)
    assert code == 0 and "1 truncated" in err
    code, _, err = command(*line, "--strict")
    assert code == 3 and "0 of 1 clips" in err and "1 clip was rejected (1 truncated)" in err


def test_show_says_what_became_of_each_clip(command, clips, filled):
    line = ["features", "show", "melstats", clips, "--store", filled]
    code, out, err = command(*line)
    assert code == 3 and "Of 5 clips: 3 done, 2 rejected, 0 failed, 0 absent." in err
    assert [row.split()[:2] for row in out.splitlines()[1:]] == [
        ["loud", "done"],
        ["nan", "rejected"],
        ["gone", "rejected"],
    ]
    shown = {
        choice: [row["id"] for row in json.loads(command(*line, *choice, "--json")[1])]
        for choice in ((), ("--rejected",), ("--flagged",), ("--rejected", "--flagged"))
    }
    assert list(shown.values()) == [
        ["a", "b", "loud", "nan", "gone"],
        ["nan", "gone"],
        ["loud"],
        ["loud", "nan", "gone"],
    ]
    rows = json.loads(command(*line, "--json")[1])
    assert rows[2] | {"status": "done", "flags": "clipped"} == rows[2] and rows[3]["reason"] == "non_finite"


def test_clips_that_are_not_there_yet_are_absent(command, clips, filled):
    code, out, err = command("features", "show", "melstats", clips.parent / "a.wav", "dev.csv", "--store", filled)
    assert (code, out) == (0, "") and "Of 11 clips: 1 done, 0 rejected, 0 failed, 10 absent." in err


def test_show_lists_all_rejections_of_a_store(command, filled):
    code, out, _ = command("features", "show", "--rejected", "--store", filled, "--json")
    (row,) = json.loads(out)
    assert code == 0 and (row["reason"], row["name"]) == ("non_finite", "nan.wav")
    (held,) = json.loads(command("features", "show", "--store", filled, "--json")[1])
    assert (held["clips"], held["rejected"]) == (3, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--flagged"], "Flags depend on the encoder"),
        (["--manifest", "dev.csv", "--rejected"], "--manifest looks for audio on disk"),
        (["melstats", "dev.csv", "--manifest", "dev.csv"], "--manifest looks for audio on disk"),
    ],
)
def test_what_show_cannot_do_is_said(command, options, sentence):
    code, out, err = command("features", "show", *options)
    assert (code, out) == (2, "") and sentence in err


def test_verify_finds_damage_of_rows_only_when_it_reads_them(command, filled):
    path = next(filled.glob("*/*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    code, _, err = command("features", "verify", "--store", filled)
    assert code == 0 and "is whole; --full reads every byte." in err
    code, _, err = command("features", "verify", "--full", "--store", filled)
    assert code == 4 and "the rows of 1 of its 3 clips are not what was written" in err


def test_compaction_shows_files_and_sizes(command, clips, filled):
    command("features", "extract", "melstats", "dev.csv", "--store", filled)
    code, out, _ = command("features", "compact", "--store", filled)
    assert code == 0
    header, row = (line.split() for line in out.splitlines())
    assert header == ["feature_set", "files_before", "files", "MB_before", "MB"] and row[1:3] == ["2", "1"]
    assert command("features", "verify", "--full", "--store", filled)[0] == 0


class Terminal(io.StringIO):
    """Someone who answers."""

    def isatty(self):
        return True


@pytest.fixture
def littered(workspace, tmp_path):
    """A copy of the workspace whose store holds a feature set that no recipe leads to."""
    folder = tmp_path / "copy"
    shutil.copytree(workspace, folder, ignore=shutil.ignore_patterns("audio", "submissions", "ensembles"))
    (old,) = (folder / "features").glob("melstats-*")
    (folder / "features" / "old.toml").write_text('encoders = ["melstats"]\nwindow = 3.0\n')
    shutil.copytree(old, folder / "features" / "other-0123456789ab")
    return folder


def test_gc_without_anyone_to_ask_deletes_nothing(command, littered, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, out, err = command("features", "gc", littered)
    assert code == 2 and "no recipe leads to it" in out and "To delete these 1 thing, " in err and "--yes" in err
    assert (littered / "features" / "other-0123456789ab").exists()
    code, _, err = command("features", "gc", littered, "--dry-run")
    assert code == 0 and "would be deleted" in err and (littered / "features" / "other-0123456789ab").exists()


@pytest.mark.parametrize(
    ("answer", "stays"), [("y\n", False), ("Yes\n", False), ("\n", True), ("n\n", True), ("", True)]
)
def test_gc_deletes_after_yes_alone(command, littered, monkeypatch, answer, stays):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    code, _, err = command("features", "gc", littered)
    assert code == 0 and "? [y/N] " in err and ("Nothing is deleted." in err) == stays
    assert (littered / "features" / "other-0123456789ab").exists() == stays
    assert len(list((littered / "features").glob("melstats-*"))) == 1


def test_gc_with_yes_asks_nobody_and_leaves_what_challenges_need(command, littered):
    challenge = (littered / "challenge.toml").read_text()
    asked = '[features]\nencoders = [{ encoder = "melstats", name = "mine", window = 4.0 }]\n[ensembles]'
    begin, _, rest = challenge.partition("[features]")
    (littered / "challenge-other.toml").write_text(begin + asked + rest.partition("[ensembles]")[2])
    store = littered / "features"
    (littered / "mine.toml").write_text('encoders = [{ encoder = "melstats", name = "mine", window = 4.0 }]\n')
    from mmmos.features.extraction.extract import open_set
    from mmmos.features.spec import resolve

    (table,) = resolve(str(littered / "mine.toml")).tables()
    mine: FeatureSet = open_set(table, store)
    mine.prepare()
    code, out, err = command("features", "gc", littered, "--yes")
    assert code == 0 and len(out.splitlines()) == 2 and "1 thing, 0." in err
    assert mine.folder.exists() and not (store / "other-0123456789ab").exists()
    (littered / "challenge-other.toml").unlink()
    assert mine.folder.name in command("features", "gc", littered, "--yes")[1]
    assert not mine.folder.exists()
    assert "There is nothing to delete" in command("features", "gc", littered)[2]


@pytest.mark.parametrize("file", ["features/bad.toml", "challenge2.toml"])
def test_gc_stops_at_a_recipe_that_cannot_be_read(command, littered, file):
    (littered / file).write_text("encodrs = 3\n")
    code, out, err = command("features", "gc", littered, "--yes")
    assert (code, out) == (2, "") and file.rpartition("/")[2] in err and "unknown key 'encodrs'" in err
    assert (littered / "features" / "other-0123456789ab").exists()


def test_gc_says_whose_sets_are_kept(command, littered):
    (littered / "features" / "far.toml").write_text('encoders = [{ encoder = "wavlm-large", name = "other" }]\n')
    code, out, err = command("features", "gc", littered, "--yes")
    assert (code, out) == (0, "") and "Feature sets called other are kept" in err and "not on this machine" in err


def test_features_travel_from_one_store_to_another(command, clips, filled, tmp_path):
    line = ["features", "export", "melstats", clips, "--store", filled, "--to", tmp_path / "out"]
    code, _, err = command(*line)
    assert code == 3 and "4 clips (melstats), " in err and "types: mmmos features import out" in err
    assert "gone: there is no file" in err
    assert command(*line)[0] == 2
    theirs = tmp_path / "theirs"
    code, _, err = command("features", "import", tmp_path / "out", "--store", theirs)
    assert code == 0 and "4 clips (melstats) are in " in err and "1 file, " in err and "is new" in err
    assert "nothing is new" in command("features", "import", tmp_path / "out", "--store", theirs)[2]
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    code, _, err = command("features", "extract", "melstats", clips, "--store", theirs)
    assert code == 3 and "3 of 5 clips are in" in err and "2 clips were rejected" in err


def test_what_cannot_be_exported_or_imported_is_a_sentence(command, tmp_path):
    code, _, err = command("features", "export", "melstats", "dev.csv", "--store", tmp_path, "--to", tmp_path / "out")
    assert code == 2 and "First type mmmos features extract melstats with the same inputs" in err
    (tmp_path / "odd").mkdir()
    code, _, err = command("features", "import", tmp_path / "odd", "--store", tmp_path / "store")
    assert code == 4 and "it holds no feature set" in err and "Nothing of " in err
    assert not (tmp_path / "store").exists()


def test_fetch_takes_a_recipe_for_all_its_encoders(command, tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr("mmmos.features.weights.fetch", lambda source, pinned: fetched.append((source, pinned)))
    monkeypatch.setattr("mmmos.features.weights.checked", lambda path, expected: expected)
    (tmp_path / "two.toml").write_text('encoders = ["melstats", "wavlm-base-plus"]\n')
    code, _, err = command("features", "fetch", tmp_path / "two.toml")
    known = card("wavlm-base-plus")
    assert code == 0 and "The encoder melstats has no weights of its own" in err and known.sha256 in err
    assert fetched == [(known.weights, known.revision)]
    code, _, err = command("features", "fetch", "wavlm-base-pluss")
    assert code == 2 and "Did you mean 'wavlm-base-plus'?" in err
