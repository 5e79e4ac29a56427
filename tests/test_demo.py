"""The demo corpus: the same bytes for a seed, files as the provenance says, labels that follow what was put in."""

import csv
import json
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmmos import demo
from mmmos.axes import AXES, LONG_NAMES
from mmmos.demo import make_corpus
from mmmos.demo.degradations import DEGRADATIONS, LEVELS, chain_of, degrade, quality_left
from mmmos.demo.plan import SIZES, plan_clips
from mmmos.demo.ratings import simulate_raters, true_scores
from mmmos.demo.render import LOUDNESS, NATURAL, SYNTHETIC, render_clip
from mmmos.demo.scenes import SCENES
from mmmos.demo.signals import frame_size, frames_of, level, seeded, wave_of
from mmmos.demo.speech import voices
from mmmos.demo.systems import SYSTEMS
from mmmos.errors import UnknownName, UsageError

SETS = ("train", "dev", "pam", "test")
RATE = 16000


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("demo") / "corpus", size="tiny").parent


@pytest.fixture(scope="module")
def provenance(corpus) -> list[dict[str, str]]:
    return rows_of(corpus / "provenance.csv")


def test_the_same_seed_writes_the_same_bytes(corpus, tmp_path):
    assert contents(make_corpus(tmp_path, size="tiny").parent) == contents(corpus)


def test_another_process_writes_the_same_bytes(corpus, tmp_path):
    code = "import sys; from mmmos.demo import make_corpus; make_corpus(sys.argv[1], size='tiny')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert contents(tmp_path) == contents(corpus)


def test_another_seed_makes_other_clips(corpus, provenance):
    others = plan_clips(1, "tiny")
    assert {row["system"] for row in provenance} & {clip.system for clip in others} == {""}
    assert {row["seed"] for row in provenance}.isdisjoint(str(clip.seed) for clip in others)


def test_a_clip_depends_on_no_other_clip():
    clips = plan_clips(0, "tiny")
    alone = render_clip(clips[5])
    render_clip(clips[4])
    np.testing.assert_array_equal(render_clip(clips[5]), alone)


def test_a_second_call_changes_nothing(corpus):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    assert make_corpus(corpus, size="tiny") == corpus / "challenge.toml"
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before


@pytest.mark.parametrize("damage", ["missing", "cut", "interrupted"])
def test_a_damaged_corpus_is_made_again(corpus, tmp_path, damage):
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    victim = sorted((tmp_path / "audio").iterdir())[7]
    if damage == "missing":
        victim.unlink()
    elif damage == "cut":
        victim.write_bytes(victim.read_bytes()[:-1])
    else:
        marker = json.loads((tmp_path / "corpus.json").read_text())
        (tmp_path / "corpus.json").write_text(json.dumps(marker | {"digest": None}))
        (tmp_path / "test.csv").unlink()
    make_corpus(tmp_path, size="tiny")
    assert contents(tmp_path) == contents(corpus)


def test_an_interrupted_run_leaves_a_folder_that_the_next_run_completes(corpus, tmp_path, monkeypatch):
    calls = []

    def stop(clip):
        calls.append(clip)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return render_clip(clip)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mmmos.demo.render_clip", stop)
        make_corpus(tmp_path, size="tiny")
    make_corpus(tmp_path, size="tiny")
    assert contents(tmp_path) == contents(corpus)


def test_another_corpus_replaces_the_old_one_and_nothing_else(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "mine").write_text("kept")
    make_corpus(tmp_path, size="tiny", seed=2)
    names = {Path(row["data_path"]).name for name in SETS for row in rows_of(tmp_path / f"{name}.csv")}
    assert {path.name for path in (tmp_path / "audio").iterdir()} == names
    assert (tmp_path / "features" / "mine").read_text() == "kept"


@pytest.mark.parametrize("name", ["challenge.toml", "train.csv", "corpus.json"])
def test_somebody_elses_files_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=re.escape(name)):
        make_corpus(tmp_path, size="tiny")
    assert contents(tmp_path) == {name: b"mine"}


def test_a_marker_that_names_other_folders_removes_nothing_there(tmp_path):
    (tmp_path / "mine").write_text("kept")
    folder = tmp_path / "corpus"
    (folder / "features").mkdir(parents=True)
    (folder / "features" / "mine").write_text("kept")
    marker = {"bytes": {"../mine": 4, "features/mine": 4, str(tmp_path / "mine"): 4}}
    (folder / "corpus.json").write_text(json.dumps(marker))
    demo._make_room(folder, [], demo._read_marker(folder))
    assert (tmp_path / "mine").exists() and (folder / "features" / "mine").exists()


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'small'"):
        make_corpus(tmp_path / "new", size="smal")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("size", "counts"), [("tiny", (24, 10, 12, 18)), ("small", (120, 40, 40, 72))])
def test_sizes(size, counts):
    clips = plan_clips(0, size)
    assert tuple(sum(clip.set == name for clip in clips) for name in SETS) == counts
    assert len({clip.id for clip in clips}) == sum(counts)
    low, high = SIZES[size].seconds
    assert all(low <= clip.seconds <= high for clip in clips)
    for name, systems in SIZES[size].systems.items():
        assert len({clip.system for clip in clips if clip.set == name}) == systems
        assert {clip.domain for clip in clips if clip.set == name} == {"speech", "music", "sound"}


def test_manifests_have_the_challenge_layout(corpus):
    header = ["sample_id", "data_path", "domain", *LONG_NAMES.values()]
    for name in SETS:
        rows = rows_of(corpus / f"{name}.csv")
        assert list(rows[0]) == header + (["group"] if name in ("train", "dev") else [])
        assert all((corpus / row["data_path"]).is_file() for row in rows)
    challenge = tomllib.loads((corpus / "challenge.toml").read_text())
    assert challenge["data"] == {"train": ["train.csv"], "dev": ["dev.csv"], "pam": ["pam.csv"], "eval": ["test.csv"]}
    assert challenge["features"] == {"recipe": "melstats"}
    assert challenge["ensembles"] == {"recipe": "quick"}
    assert challenge["submission"] == {"format": "audiomos2025-track2", "name": "demo"}


def test_ids_follow_the_challenge_pattern(provenance):
    natural, synthetic = r"demo-(speech|music|sound)-\d{4}", r"demo-(sys[A-Za-z0-9]{5})-utt[A-Za-z0-9]{6}"
    for row in provenance:
        match = re.fullmatch(synthetic if row["system"] else natural, row["sample_id"])
        assert match
        assert match[1] == (row["system"] or row["domain"])
    assert any(row["system"] != row["system"].lower() for row in provenance)


def test_scores_are_exact_means_of_ten_ratings(corpus):
    lines = (corpus / "annotations.jsonl").read_text().splitlines()
    ratings = {item["data_path"]: item for item in map(json.loads, lines)}
    rows = [row for name in SETS for row in rows_of(corpus / f"{name}.csv")]
    assert [row["sample_id"] for row in rows] == list(ratings)
    for row in rows:
        for axis in LONG_NAMES.values():
            ten = ratings[row["sample_id"]][axis]
            assert len(ten) == 10
            assert all(isinstance(rating, float) and rating in range(11) for rating in ten)
            assert float(row[axis]) == np.mean(ten)


def test_provenance_is_in_range_and_scores_follow_it(corpus, provenance):
    scores = {row["sample_id"]: row for name in SETS for row in rows_of(corpus / f"{name}.csv")}
    assert [row["sample_id"] for row in provenance] == list(scores)
    errors = []
    for row in provenance:
        assert 0 < float(row["q"]) <= 1
        assert 1 <= int(row["k"]) <= 5
        assert all(0 <= float(row[f"true_{axis}"]) <= 10 for axis in AXES)
        errors += [float(scores[row["sample_id"]][LONG_NAMES[axis]]) - float(row[f"true_{axis}"]) for axis in AXES]
    assert abs(np.mean(errors)) < 0.15
    assert np.std(errors) == pytest.approx(1.5 / np.sqrt(10), rel=0.2)


def test_every_file_decodes_as_the_provenance_says(corpus, provenance):
    files = {Path(row["data_path"]).stem: row["data_path"] for name in SETS for row in rows_of(corpus / f"{name}.csv")}
    assert {row["format"] for row in provenance} == {"wav", "flac", "mp3"}
    assert {row["channels"] for row in provenance} == {"1", "2"}
    assert {"8000", "48000"} <= {row["rate"] for row in provenance}
    for row in provenance:
        wave, rate = soundfile.read(corpus / files[row["sample_id"]], always_2d=True)
        assert (rate, wave.shape[1]) == (int(row["rate"]), int(row["channels"]))
        assert files[row["sample_id"]].endswith(row["format"])
        assert len(wave) == round(float(row["seconds"]) * rate)
        assert np.isfinite(wave).all()
        assert level(wave) > 1e-3
        assert np.abs(wave).max() <= (1.2 if row["format"] == "mp3" else 0.9)


def test_groups_are_shared_within_a_set_and_never_between_sets(corpus, provenance):
    groups = {name: [row["group"] for row in provenance if row["set"] == name] for name in SETS}
    for name in ("train", "dev"):
        assert len(set(groups[name])) < len(groups[name])
        assert [row["group"] for row in rows_of(corpus / f"{name}.csv")] == groups[name]
    for name in SETS:
        assert all(set(groups[name]).isdisjoint(groups[other]) for other in SETS if other != name)


def test_no_generator_is_shared_between_natural_pam_and_test():
    clips = plan_clips(0, "small")
    generators = [
        {clip.generator for clip in clips if clip.set in sets} for sets in (("train", "dev"), ("pam",), ("test",))
    ]
    assert generators[0] == {"natural"}
    assert len(set.union(*generators)) == sum(map(len, generators))
    makers = [*NATURAL.values(), *SYNTHETIC.values()]
    assert len(set(map(id, makers))) == len(makers)


def test_label_statistics_resemble_the_challenge():
    clips = plan_clips(0, "small")
    natural = [clip for clip in clips if not clip.system]
    scores = {axis: np.array([np.mean(clip.ratings[axis]) for clip in natural]) for axis in AXES}
    for axis, mean, spread in zip(AXES, (6.28, 3.35, 5.18, 5.85), (1.30, 1.83, 1.64, 1.42), strict=True):
        assert scores[axis].mean() == pytest.approx(mean, abs=0.4)
        assert scores[axis].std() == pytest.approx(spread, abs=0.3)
    assert 0.75 < np.corrcoef(scores["PQ"], scores["CU"])[0, 1] < 0.95
    for axis in ("CE", "CU"):
        synthetic = np.mean([np.mean(clip.ratings[axis]) for clip in clips if clip.set == "test"])
        assert synthetic < scores[axis].mean() - 0.3


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_quality_falls_and_damage_grows_with_strength(name):
    wave = 0.1 * voices(seeded(1), seeded(2), 1, 2 * RATE, RATE).T
    qualities, damages = [1.0], []
    for step in range(1, LEVELS + 1):
        qualities.append(quality_left({name: step}))
        damaged = degrade(seeded(3), wave, RATE, chain_of({name: step}))
        assert damaged.shape == wave.shape
        gain = np.sum(damaged * wave) / np.sum(damaged**2)
        damages.append(level(gain * damaged - wave))
    assert all(a > b > 0 for a, b in pairwise(qualities))
    assert damages == sorted(damages)
    assert damages[-1] > 1.3 * damages[0]
    pq = [true_scores("speech", q, 1, {})["PQ"] for q in qualities]
    assert pq == sorted(pq, reverse=True)


def test_a_chain_names_what_it_applies():
    assert chain_of({}) == "none"
    assert chain_of({"lp": 4, "noise": 4}) == "noise:12+lp:2500"
    wave = np.ones((100, 2))
    assert degrade(seeded(0), wave, RATE, "none") is wave
    with pytest.raises(UnknownName, match="Did you mean 'noise'"):
        chain_of({"nois": 1})
    with pytest.raises(UnknownName, match="degradation"):
        degrade(seeded(0), wave, RATE, "nois:12")


def test_complexity_grows_with_the_number_of_sources():
    for domain in ("speech", "music", "sound"):
        scores = [true_scores(domain, 0.7, k, {})["PC"] for k in range(1, 6)]
        assert scores == sorted(set(scores))


def test_raters_stay_on_the_scale():
    for score in (0.0, 5.0, 10.0):
        ratings = simulate_raters(seeded(score), dict.fromkeys(AXES, score))
        assert all(0 <= rating <= 10 for ten in ratings.values() for rating in ten)


@pytest.mark.parametrize("make", [*NATURAL.values(), *SYNTHETIC.values()], ids=[*NATURAL, *SYNTHETIC])
@pytest.mark.parametrize(("rate", "n"), [(16000, 12800), (48000, 40001)])
def test_generators_make_k_audible_sources(make, rate, n):
    for k in (1, 3):
        sources = make(seeded(1), seeded(2), k, n, rate)
        assert sources.shape == (k, n)
        assert np.isfinite(sources).all()
        assert all(level(source) > 0.1 for source in sources)


def test_clips_are_at_sane_levels_and_clipped_by_their_chain_only():
    for clip in plan_clips(0, "tiny"):
        if clip.chain == "none":
            wave = render_clip(clip)
            assert LOUDNESS[0] - 6 < 20 * np.log10(level(wave)) < LOUDNESS[1] + 0.1
            peak = np.abs(wave).max()
            assert np.mean(np.abs(wave) > 0.999 * peak) < 0.01


def test_frames_give_their_wave_back():
    for n in (1000, 12801):
        wave = seeded(0).standard_normal(n)
        spectra, centres = frames_of(wave, frame_size(0.024, RATE))
        assert len(spectra) == len(centres)
        np.testing.assert_allclose(wave_of(spectra, n), wave, atol=1e-12)


def test_tables_are_consistent():
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS)
    assert len(SCENES) >= 5
    for system in SYSTEMS:
        assert max(system.layers) <= (5 if system.domain == "music" else 4)
        assert chain_of(system.habit)
    for degradation in DEGRADATIONS.values():
        assert len(degradation.ladder) == LEVELS
        assert list(degradation.ladder) in (sorted(degradation.ladder), sorted(degradation.ladder, reverse=True))


def test_importing_the_demo_is_light():
    code = "import sys, mmmos.demo; assert not {'torch', 'pandas', 'sklearn'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
