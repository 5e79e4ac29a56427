"""Folds are even, the same everywhere, and never split a track, a speaker, a prompt or a video."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmos import read_manifest
from mmmos.ensembles.training.folds import grouped_folds
from mmmos.errors import UsageError

REAL = Path(os.environ.get("MMMOS_REAL_DATA", Path(__file__).parents[4] / "shared" / "data"))
LISTS = {
    "train": REAL / "audiomos2025_track2" / "audiomos2025-track2-train_list.csv",
    "dev": REAL / "audiomos2025_track2" / "audiomos2025-track2-dev_list.csv",
    "pam": REAL / "evaluation_data" / "AES_PAM.jsonl",
}
real_data = pytest.mark.skipif(not LISTS["pam"].is_file(), reason="the challenge's lists are not here")

# What clips share by their paths, told here without the manifest.
SHARED = {
    "track": r"/MUSDB18/\w+/([^/]+)/",
    "speaker": r"/(EARS/p\d+|LibriTTS/[\w-]+/\d+)/",
    "prompt": r"/PAM/human_eval/audio/\w+/(.+)\.wav$",
    "video": r"/(?:musiccaps|unbalanced_train_segments/audio|PAM/human_eval/music/\w+)/([\w-]{11})",
}
GROUPS = st.lists(st.integers(0, 12).map(str), min_size=2, max_size=60).filter(lambda groups: len(set(groups)) > 1)


def shared(clips):
    """What each clip shares with others, as "kind name", empty where nothing is known."""
    found = pd.Series("", clips.index)
    for kind, pattern in SHARED.items():
        name = clips["path"].str.extract(pattern)[0]
        found[name.notna()] = f"{kind} " + name[name.notna()]
    return found


def in_both(clips, kind, one, other):
    """Of the things of a kind in the first set, their number and the number of those that are in the second too."""
    things = shared(clips)
    of = [set(things[(clips["set"] == name) & things.str.startswith(kind)]) for name in (one, other)]
    return len(of[0]), len(of[0] & of[1])


def check(clips, folds):
    """No two clips that share something are in different folds, however the clips are ordered."""
    number = pd.Series(grouped_folds(list(clips["group"]), folds), clips.index)
    together = shared(clips)
    assert (number[together != ""].groupby(together).nunique() == 1).all()
    largest = clips.groupby("group").size().max()
    sizes = number.value_counts()
    assert len(sizes) == folds and sizes.max() - sizes.min() <= largest
    again = clips.sample(frac=1, random_state=0)
    assert (grouped_folds(list(again["group"]), folds) == number[again.index]).all()


@settings(deadline=None, max_examples=100)
@given(GROUPS, st.integers(2, 7))
def test_folds_split_no_group_and_are_as_even_as_the_largest_group_allows(groups, folds):
    number = grouped_folds(groups, folds)
    assert len(number) == len(groups) and set(number) == set(range(min(folds, len(set(groups)))))
    assert len(set(zip(groups, number, strict=True))) == len(set(groups))
    sizes = np.bincount(number)
    assert sizes.max() - sizes.min() <= max(Counter(groups).values())


@settings(deadline=None, max_examples=60)
@given(GROUPS, st.integers(2, 7), st.randoms(use_true_random=False))
def test_the_fold_of_a_group_does_not_depend_on_the_order_of_the_clips(groups, folds, random):
    labels = [str(len(group) + int(group) % 3) for group in groups]
    order = random.sample(range(len(groups)), len(groups))
    for own in (None, labels):
        number = grouped_folds(groups, folds, own)
        moved = grouped_folds([groups[i] for i in order], folds, own and [own[i] for i in order])
        assert (moved == number[order]).all()


def test_folds_are_the_same_on_every_machine():
    assert "".join(map(str, grouped_folds([*"aabbbcdefghij"], 3))) == "1100022012102"


def test_names_that_follow_systems_do_not_make_folds_of_systems():
    groups = [f"clip{i:04d}" for i in range(1000)]
    systems = np.arange(1000) % 5
    counts = pd.crosstab(grouped_folds(groups, 5), systems).to_numpy()
    assert counts.min() > 20 and counts.max() < 60


def test_labels_are_dealt_out_evenly_where_sizes_allow():
    groups = [f"g{i // 2}" for i in range(120)] + [f"single{i}" for i in range(60)]
    labels = ["music" if i % 6 < 2 else "speech" for i in range(180)]
    number = grouped_folds(groups, 4, labels)
    counts = pd.crosstab(number, np.array(labels)).to_numpy()
    assert (np.ptp(counts, axis=0) <= 2).all() and np.ptp(np.bincount(number)) <= 2


@pytest.mark.parametrize("labels", [None, ["x"] * 9])
def test_one_group_is_a_sentence(labels):
    with pytest.raises(UsageError, match=r"belong to one group.*at least two values"):
        grouped_folds(["a"] * 9, 5, labels)


def small_lists(folder):
    """The leaks of the published lists in small: the same paths, a few of each."""
    videos = [f"-{i}video-id_" for i in range(6)]
    natural = [
        *(
            f"MUSDB18/{part}/Jokers, Jacks & Kings {part}/{stem}.wav"
            for part in ("train", "test")
            for stem in ("bass", "other")
        ),
        *(f"MUSDB18/train/Track {i}/{stem}.wav" for i in range(4) for stem in ("drums", "vocals", "mixture")),
        *(f"EARS/p{speaker:03d}/emo_{i}.wav" for speaker in range(1, 6) for i in range(4)),
        *(f"LibriTTS/train-other-500/{s}/1162/{s}_1162_00000{i}_000003.wav" for s in (82, 824, 8240) for i in range(3)),
        *(f"musiccaps/{video}.wav" for video in videos),
        *(f"unbalanced_train_segments/audio/{video}_{i}0000_40000.flac" for video in videos[3:] for i in (1, 3)),
        *(f"cv-corpus-13.0-2023-03-09/en/clips/common_voice_en_{i}.mp3" for i in range(9)),
    ]
    systems = ("audiogen_m", "audiolm_l", "real")
    pam = [f"PAM/human_eval/audio/{system}/generated_audio_index_{i}.wav" for system in systems for i in range(5)]
    pam += [f"PAM/human_eval/music/{system}/{video}.wav" for system in systems for video in videos[1:5]]
    for name, paths in (("train", natural[::2]), ("dev", natural[1::2]), ("pam", pam)):
        rows = [f'id-{name}-{i},"/your_path/{path}",5,5,5,5' for i, path in enumerate(paths)]
        (folder / f"{name}.csv").write_text("\n".join(["id,path,PQ,PC,CE,CU", *rows]))
    return {name: folder / f"{name}.csv" for name in ("train", "dev", "pam")}


@pytest.mark.parametrize("folds", [2, 5, 8])
def test_folds_of_a_manifest_keep_tracks_speakers_prompts_and_videos_together(tmp_path, folds):
    clips = read_manifest(small_lists(tmp_path), root={"/your_path": "/data"})
    assert in_both(clips, "track", "dev", "train") == (6, 6)
    assert in_both(clips, "speaker", "dev", "train") == (8, 8)
    assert in_both(clips, "video", "pam", "train")[1] > 0
    assert shared(clips).str.startswith("prompt").sum() == 15
    check(clips, folds)


@pytest.fixture(scope="module")
def published():
    return read_manifest(LISTS, root={"/your_path": "/data"})


@real_data
def test_the_published_lists_leak_as_they_are_known_to(published):
    assert in_both(published, "track", "dev", "train") == (38, 38)
    speakers = published[published["path"].str.contains("/EARS/")]
    assert in_both(speakers, "speaker", "dev", "train") == (9, 6)
    musiccaps = published[published["path"].str.contains("/musiccaps/|/PAM/human_eval/music/")]
    musiccaps = musiccaps.assign(set=musiccaps["set"].replace("dev", "train"))
    assert in_both(musiccaps, "video", "pam", "train") == (100, 9)
    prompts = shared(published)[published["path"].str.contains("/PAM/")]
    assert prompts.value_counts().tolist() == [5] * 200


@real_data
@pytest.mark.parametrize("sets", [("train",), ("train", "dev"), ("train", "pam"), ("train", "dev", "pam")])
@pytest.mark.parametrize("folds", [5, 10])
def test_folds_of_the_published_lists_leak_nothing(published, sets, folds):
    check(published[published["set"].isin(sets)], folds)


@real_data
def test_folds_of_the_published_lists_are_even_in_clips_and_domains(published):
    clips = published[published["set"] != "dev"]
    number = grouped_folds(list(clips["group"]), 5, list(clips["domain"]))
    assert np.bincount(number).tolist() == [740] * 5
    assert np.ptp(pd.crosstab(number, clips["domain"].to_numpy()).to_numpy(), axis=0).max() <= 5
