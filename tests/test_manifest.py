import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmmos.axes import AXES, LONG_NAMES
from mmmos.errors import InputError, UnknownName, UsageError
from mmmos.manifest import describe, digest, locate, read_manifest
from mmmos.manifest.readers import AUDIO_EXTENSIONS

HEADER = "sample_id,data_path,Production_Quality,Production_Complexity,Content_Enjoyment,Content_Usefulness\n"
REAL = Path(os.environ.get("MMMOS_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
TRACK2, EVALUATION = REAL / "audiomos2025_track2", REAL / "evaluation_data"
real_data = pytest.mark.skipif(not TRACK2.is_dir(), reason="the challenge's lists are not here")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write text or bytes to a file of the test's own folder, which is also the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def problems(source, **options):
    with pytest.raises(InputError) as caught:
        read_manifest(source, **options)
    return caught.value.problems


def only_problem(source, **options):
    found = problems(source, **options)
    assert len(found) == 1, found
    return found[0]


def lines(*objects):
    return "".join(json.dumps(one) + "\n" for one in objects)


# What is read.


def test_challenge_csv_gives_paths_and_scores_by_id(write, tmp_path):
    clips = read_manifest(write("train.csv", HEADER + "a,/data/a.wav,5.0,3.3,2.9,4.2\nb,sub/b.mp3,0,10,7,1e0\n"))
    assert clips.index.name == "id" and clips.index.tolist() == ["a", "b"]
    assert clips.columns.tolist() == ["path", "domain", "system", "group", *AXES]
    assert clips["path"].tolist() == ["/data/a.wav", str(tmp_path / "sub" / "b.mp3")]
    assert clips[list(AXES)].to_numpy().tolist() == [[5.0, 3.3, 2.9, 4.2], [0.0, 10.0, 7.0, 1.0]]
    assert all(clips[axis].dtype == np.float64 for axis in AXES)


@pytest.mark.parametrize(
    "header",
    [
        "CU,data_path,CE,sample_id,PC,PQ",
        "content usefulness,path,Content Enjoyment,id,production complexity,Production Quality",
        "content_usefulness,PATH,content_enjoyment,ID,production_complexity,production_quality",
    ],
)
def test_columns_are_known_by_name_in_any_order(write, header):
    clips = read_manifest(write("x.csv", f"{header}\n4,a.wav,3,a,2,1\n"))
    assert clips.loc["a", list(AXES)].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: text.replace(b"\n", b"\n\n"),
        lambda text: text.replace(b"\n", b"\r"),
    ],
    ids=["byte order mark", "CRLF", "no last line end", "blank lines", "CR"],
)
def test_how_lines_end_and_a_byte_order_mark_do_not_matter(write, change):
    text = (HEADER + 'é,"/x/Jokers, Jacks & Kings/b 1.wav",1,2,3,4\n-b,-b.wav,1,2,3,4\n').encode()
    clips = read_manifest(write("x.csv", change(text)))
    assert clips.index.tolist() == ["é", "-b"]
    assert clips.loc["é", "path"] == "/x/Jokers, Jacks & Kings/b 1.wav"


def test_other_columns_pass_through_verbatim(write):
    clips = read_manifest(write("x.csv", 'id,path,prompt,Split,PQ,true_PQ\na,a.wav,"one, two",007,5,nan\n'))
    assert clips.loc["a", ["prompt", "Split", "true_PQ"]].tolist() == ["one, two", "007", "nan"]
    assert clips[["PC", "CE", "CU"]].isna().all(axis=None)


def test_domain_system_and_group_columns_win_over_what_is_derived(write):
    text = "id,path,domain,system,group\na-sysX-utt1,a.wav,speech,vits,g\nb-sysY-utt1,b.wav,,,\n"
    clips = read_manifest(write("x.csv", text))
    assert clips[["domain", "system", "group"]].to_numpy().tolist() == [
        ["speech", "vits", "g"],
        [None, "sysY", "b-sysY-utt1"],
    ]


def test_a_row_without_any_score_is_unlabelled(write):
    clips = read_manifest(write("x.csv", HEADER + "a,a.wav,1,2,3,4\nb,b.wav,,,,\n"))
    assert clips[list(AXES)].isna().all(axis=1).tolist() == [False, True]


def test_audiobox_jsonl_has_its_paths_as_ids_and_segments_only_where_needed(write, tmp_path):
    rows = [
        {"path": "/x/a.wav", "start_time": 0, "end_time": 5.5, "tag": [1]},
        {"path": "/x/a.wav", "start_time": 5.5},
        {"path": "/x/a.wav"},
        {"path": "b.wav", "start_time": 1, "end_time": 2},
    ]
    clips = read_manifest(write("x.jsonl", lines(*rows)))
    assert clips.index.tolist() == ["/x/a.wav#0-5.5", "/x/a.wav#5.5-", "/x/a.wav", "b.wav"]
    assert clips["path"].tolist() == ["/x/a.wav"] * 3 + [str(tmp_path / "b.wav")]
    np.testing.assert_array_equal(clips["start"], [0, 5.5, np.nan, 1])
    np.testing.assert_array_equal(clips["end"], [5.5, np.nan, np.nan, 2])
    assert clips["tag"].tolist() == [[1], None, None, None]


def test_ratings_are_kept_and_scored_by_their_exact_mean(write):
    ratings = [8, 7, 3, 6, 7, 5, 3, 4, 5, 6.1]
    row = {"data_path": "some-id", **dict.fromkeys(LONG_NAMES.values(), ratings)}
    clips = read_manifest(write("x.jsonl", "\n" + lines(row, {"data_path": "b", "PQ": 7, "PC": 1, "CE": 2, "CU": 3})))
    assert clips.index.tolist() == ["some-id", "b"]
    assert clips["CE"].tolist() == [5.41, 2]
    assert clips["CE_ratings"].tolist() == [tuple(map(float, ratings)), None]


def test_id_list_has_its_ids_as_paths(write, tmp_path):
    clips = read_manifest(write("eval_list.txt", "audiomos2025-track2-sys0v1wm-utt0dJodp\r\nb c.mp3\r\n"))
    assert clips.index.tolist() == ["audiomos2025-track2-sys0v1wm-utt0dJodp", "b c.mp3"]
    assert clips["path"].tolist() == [str(tmp_path / name) for name in clips.index]
    assert clips["system"].tolist() == ["sys0v1wm", None]


def test_wav_scp_paths_may_hold_spaces(write):
    clips = read_manifest(write("wav.scp", "utt-1 /x/a b.wav\nutt-2\t/x/c.wav\n"))
    assert clips["path"].to_dict() == {"utt-1": "/x/a b.wav", "utt-2": "/x/c.wav"}


def test_a_folder_is_scanned_in_order_for_every_audio_extension(write, tmp_path):
    names = {f"d/{number}/x.{extension}" for number, extension in enumerate(AUDIO_EXTENSIONS)} | {"d/Y.WAV", "d/-z.wav"}
    for name in {*names, "d/notes.txt", "d/wav", "d/.hidden.wav", "d/.git/a.wav"}:
        write(name, "")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    clips = read_manifest(tmp_path / "d")
    assert clips.index.tolist() == sorted(name[2:] for name in names)
    assert clips["path"].tolist() == [str(tmp_path / "d" / name) for name in clips.index]
    assert read_manifest("d").equals(clips)


def test_a_glob_has_ids_below_its_fixed_folder(write, tmp_path):
    for name in ("d/a/1.wav", "d/b/2.mp3", "d/b/3.txt", "d/c/4.wav"):
        write(name, "")
    assert read_manifest("d/[ab]/*").index.tolist() == ["a/1.wav", "b/2.mp3"]
    assert read_manifest(str(tmp_path / "**" / "*.wav")).index.tolist() == ["d/a/1.wav", "d/c/4.wav"]
    assert read_manifest("*/a/*.wav")["path"].tolist() == [str(tmp_path / "d/a/1.wav")]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(write):
    assert read_manifest(str(write("a[1].csv", "id,path\nx,x.wav\n"))).index.tolist() == ["x"]


def test_audio_files_are_clips_of_their_own(write, tmp_path):
    write("a.wav", "")
    write("-b.mp3", "")
    clips = read_manifest(["a.wav", "-b.mp3"], root={"/your_path": "/data"})
    assert clips["path"].to_dict() == {"a.wav": str(tmp_path / "a.wav"), "-b.mp3": str(tmp_path / "-b.mp3")}


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a.wav\n/x/b c.wav\n", ["a.wav", "/x/b c.wav"]),
        ('{"path": "a.wav"}\n{"path": "/x/b.wav"}', ["a.wav", "/x/b.wav"]),
        ("id,path\nq,a.wav\n", ["q"]),
    ],
    ids=["paths", "JSONL", "CSV"],
)
def test_standard_input_is_read_by_its_content(write, tmp_path, monkeypatch, text, ids):
    write("unused", "")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    clips = read_manifest("-")
    assert clips.index.tolist() == ids
    assert clips["path"].iloc[0] == str(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["x.txt", "x", "x.manifest"])
def test_an_unknown_extension_is_decided_by_content(write, name):
    assert read_manifest(write(name, '\n{"path": "a.wav"}\n')).index.tolist() == ["a.wav"]
    assert read_manifest(write(name, "PQ,path,id\n1,a.wav,b\n")).index.tolist() == ["b"]


def test_a_list_is_concatenated_and_each_path_is_relative_to_its_own_manifest(write, tmp_path):
    one = write("one/x.csv", "id,path,PQ,note\na,a.wav,1,n\n")
    two = write("two/x.jsonl", lines({"path": "b.wav", "end_time": 3}))
    clips = read_manifest([one, str(two)])
    assert clips["path"].tolist() == [str(tmp_path / "one/a.wav"), str(tmp_path / "two/b.wav")]
    assert clips["note"].tolist() == ["n", None]
    np.testing.assert_array_equal(clips["end"], [np.nan, 3])
    assert clips["end"].dtype == np.float64


def test_ids_that_look_like_attacks_are_kept_verbatim(write):
    ids = ["../../etc/x", "C:\\x", "-i", "$(rm)", "=cmd()", "a b ", "NaN", "1e5", "a\u2028b", "é", "e\u0301"]
    clips = read_manifest(write("x.jsonl", lines(*({"id": one, "path": "a.wav"} for one in ids))))
    assert clips.index.tolist() == ids


# Sets, labels, DataFrames.


def test_sets_are_named_and_only_the_wanted_ones_are_scored(write):
    train = write("train.csv", HEADER + "a,a.wav,1,2,3,4\n")
    hidden = write("test.csv", HEADER + "b,b.wav,99,not a number,,x\n")
    clips = read_manifest({"train": [train], "eval": hidden}, labels={"train"})
    assert clips["set"].to_dict() == {"a": "train", "b": "eval"}
    assert clips.loc["a", list(AXES)].tolist() == [1, 2, 3, 4]
    assert clips.loc["b", list(AXES)].isna().all()
    assert len(problems({"train": train, "eval": hidden})) == 3


def test_unread_labels_leave_no_trace(write):
    rated = {"data_path": "a", **{axis: [1, 2] for axis in AXES}}
    plain = read_manifest(write("plain.jsonl", lines({"data_path": "a"})))
    assert read_manifest(write("x.jsonl", lines(rated)), labels=False).equals(plain)
    assert read_manifest(read_manifest(write("x.jsonl", lines(rated))), labels=False).equals(plain)


def test_labels_of_an_unknown_set_are_refused(write):
    with pytest.raises(UnknownName, match=r"'trian'.*Did you mean 'train'"):
        read_manifest({"train": write("x.csv", "id,path\na,a\n")}, labels=["trian"])


def test_nothing_to_read_is_a_usage_error():
    with pytest.raises(UsageError, match="nothing to read"):
        read_manifest([])


def test_reading_a_manifest_again_changes_nothing(write):
    rated = {"path": "/x/a.wav", "start_time": 1, "tag": {"k": [1]}, **{axis: [1, 2.5] for axis in AXES}}
    clips = read_manifest({"one": write("x.jsonl", lines(rated, {"path": "b.wav"})), "two": write("y.txt", "c\n")})
    pd.testing.assert_frame_equal(read_manifest(clips), clips)
    pd.testing.assert_frame_equal(read_manifest(clips.reset_index()), clips)


def test_a_dataframe_with_two_columns_for_one_role_is_refused():
    frame = pd.DataFrame({"id": ["a"], "sample_id": ["b"], "path": ["a.wav"]})
    with pytest.raises(UsageError, match="2 columns for 'id'"):
        read_manifest(frame)
    assert "no column 'sample_id' or 'id'" in only_problem(frame[["path"]]).what


def test_a_dataframe_is_checked_and_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"sample_id": ["a", "b"], "path": ["/your_path/a.wav", Path("b.wav")], "PQ": [1, np.nan]})
    clips = read_manifest(frame, root="/your_path=/data")
    assert clips["path"].tolist() == ["/data/a.wav", str(tmp_path / "b.wav")]
    np.testing.assert_array_equal(clips["PQ"], [1, np.nan])
    frame["PQ"] = [11, np.inf]
    assert [(one.line, one.column) for one in problems(frame)] == [(2, "PQ"), (3, "PQ")]
    frame["sample_id"] = [1, 2]
    assert "1 is not text" in problems(frame)[0].what


# Roots.


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("/your_path=/data", "/your_path/a.wav", "/data/a.wav"),
        ("/your_path/=/data/", "/your_path/a.wav", "/data/a.wav"),
        ("/your_path=/", "/your_path/a.wav", "/a.wav"),
        ("/your_path=/data", "/your_path2/a.wav", "/your_path2/a.wav"),
        ("/your_path=/data", "/x/your_path/a.wav", "/x/your_path/a.wav"),
        ({"/y": "/d", "/y/MUSDB18": "/mus"}, "/y/MUSDB18/t/a.wav", "/mus/t/a.wav"),
        ({"/y/MUSDB18": "/mus", "/y": "/d"}, "/y/MUSDB18HQ/a.wav", "/d/MUSDB18HQ/a.wav"),
        (["/y=/d", "/y/EARS=/ears"], "/y/EARS/p001/a.wav", "/ears/p001/a.wav"),
        ("clips=/data", "clips/a.wav", "/data/a.wav"),
        ("/folder", "a/b.wav", "/folder/a/b.wav"),
        (Path("/folder=x"), "a.wav", "/folder=x/a.wav"),
        (["/folder", "/y=/d"], "/y/a.wav", "/d/a.wav"),
        (None, "/y/../a.wav", "/y/../a.wav"),
    ],
)
def test_roots_map_whole_leading_folders_the_longest_first(write, root, path, expected):
    clips = read_manifest(write("x.csv", f"id,path\na,{path}\n"), root=root)
    assert clips.loc["a", "path"] == expected


@pytest.mark.parametrize("root", ["=/data", "/a=", ["/a=/b", "/a=/c"], ["/a", "/b"], {"": "/x"}])
def test_roots_that_mean_nothing_are_usage_errors(write, root):
    with pytest.raises(UsageError, match="root"):
        read_manifest(write("x.csv", "id,path\na,a\n"), root=root)


def test_what_a_path_says_of_its_clip_outlives_the_root(write):
    text = "id,path\na,/your_path/MUSDB18/train/A - B/drums.wav\nb,/your_path/PAM/human_eval/audio/real/x.wav\n"
    clips = read_manifest(write("x.csv", text), root={"/your_path/MUSDB18": "/m", "/your_path/PAM/human_eval": "/p"})
    assert clips["domain"].tolist() == ["music", "sound"]
    assert clips["group"].tolist() == ["MUSDB18/A - B", "audio/x.wav"]


# Domain, system, group.


@pytest.mark.parametrize(
    ("clip", "path", "domain", "system", "group"),
    [
        ("a", "/y/EARS/p001/emo.wav", "speech", None, "EARS/p001"),
        ("a", "/y/LibriTTS/train-clean-100/250/142276/250_142276_000003_000002.wav", "speech", None, "LibriTTS/250"),
        ("a", "/y/cv-corpus-13.0-2023-03-09/en/clips/common_voice_en_1.mp3", "speech", None, "a"),
        ("a", "/y/MUSDB18/test/Jokers - Me/bass.wav", "music", None, "MUSDB18/Jokers - Me"),
        ("a", "/y/MUSDB18/test/song.stem.mp4", "music", None, "a"),
        ("a", "/y/musiccaps/-0vPFx-wRRI.wav", "music", None, "-0vPFx-wRRI"),
        ("a", "/y/unbalanced_train_segments/audio/-0vPFx-wRRI_30000_40000.flac", "sound", None, "-0vPFx-wRRI"),
        ("a", "/y/PAM/human_eval/music/musicldm/-0vPFx-wRRI.wav", "music", "music/musicldm", "-0vPFx-wRRI"),
        ("a", "/y/PAM/human_eval/audio/real/index_1.wav", "sound", "audio/real", "audio/index_1.wav"),
        ("a", "/y/PAM/other/x.wav", None, None, "a"),
        ("a", "/home/me/musiccaps.wav", None, None, "a"),
        ("audiomos2025-track2-audio-x", "x.wav", "sound", None, "audiomos2025-track2-audio-x"),
        ("audiomos2025-track2-music-x", "x.wav", "music", None, "audiomos2025-track2-music-x"),
        ("audiomos2025-track2-speech-x", "x.wav", "speech", None, "audiomos2025-track2-speech-x"),
        ("audiomos2025-track2-sysQhZ5s-uttl1y", "x.wav", None, "sysQhZ5s", "audiomos2025-track2-sysQhZ5s-uttl1y"),
        ("sys1-utt2", "x.wav", None, "sys1", "sys1-utt2"),
        ("mysys1-utt2", "x.wav", None, None, "mysys1-utt2"),
    ],
)
def test_challenge_data_tell_domain_system_and_group(write, clip, path, domain, system, group):
    found = read_manifest(write("x.csv", f"id,path\n{clip},{path}\n")).loc[clip, ["domain", "system", "group"]]
    assert found.tolist() == [domain, system, group]


# Bad CSV.


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("10.1", "out of range (allowed: 0 to 10)"),
        ("-0.1", "out of range"),
        ("nan", "'nan' is not a number"),
        ("inf", "'inf' is not a number"),
        ("1e400", "not a finite number"),
        ("1_000", "'1_000' is not a number"),
        ("٣", "'٣' is not a number"),
        ("0x1", "'0x1' is not a number"),
        ("five", "'five' is not a number"),
        ('"5,3"', "decimal comma"),
        ('"1,000,000"', "is not a number"),
        ("", "empty, though other axes"),
    ],
)
def test_a_bad_label_is_named_with_line_and_column(write, cell, words):
    text = HEADER + f'a,"multi\u00e9.wav",1,2,3,4\n\nb,b.wav,5,{cell},5,5\n'
    problem = only_problem(write("x.csv", text))
    assert (problem.line, problem.column) == (4, "Production_Complexity")
    assert words in problem.what


def test_the_label_range_can_be_another(write):
    path = write("x.csv", "id,path,PQ\na,a.wav,-3\n")
    assert read_manifest(path, label_range=(-5, 5)).loc["a", "PQ"] == -3
    assert "allowed: 1 to 5" in only_problem(path, label_range=(1, 5)).what


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", None, None, "empty"),
        (" \n\n", None, None, "empty"),
        (HEADER, 1, None, "no rows below the header"),
        ("\n" + HEADER, 2, None, "no rows below the header"),
        (HEADER.replace(",", ";") + "a;a.wav;1;2;3;4\n", 1, None, "semicolons; use commas"),
        (HEADER.replace(",", "\t") + "a\ta.wav\t1\t2\t3\t4\n", 1, None, "tabs; use commas"),
        ("path,PQ\na.wav,1\n", 1, None, "no column 'sample_id' or 'id'"),
        ("id,PQ\na,1\n", 1, None, "no column 'data_path' or 'path'"),
        ("id,pth\na,1\n", 1, None, "is it 'pth'?"),
        ("sampel_id,path\na,1\n", 1, None, "is it 'sampel_id'?"),
        ("id,path,PQ,PQ\na,a,1,1\n", 1, "PQ", "twice"),
        ("id,path,note,note\na,a,1,1\n", 1, "note", "twice"),
        ("id,path,PQ,Production_Quality\na,a,1,1\n", 1, "Production_Quality", "the same as column 'PQ'"),
        ("id,sample_id,path\na,a,a\n", 1, "sample_id", "the same as column 'id'"),
        (",id,path\n0,a,a\n", 1, None, "column 1 has no name"),
        ("id,path,Production_Qualty\na,a,1\n", 1, "Production_Qualty", "did you mean 'Production_Quality'"),
        ("id,path,ContentEnjoyment\na,a,1\n", 1, "ContentEnjoyment", "did you mean 'Content_Enjoyment'"),
        ("id,path,P.Q\na,a,1\n", 1, "P.Q", "'PQ'"),
        ("id,path,PQ,PC,CE,CI\na,a,1,1,1,1\n", 1, "CI", "'CU'"),
        ("id,path\na,a.wav\nb,b,c.wav\n", 3, None, "3 fields, but the header has 2"),
        ("id,path\na\n", 2, None, "1 fields, but the header has 2"),
        ('id,path\na,a.wav\nb,"b.wav\nc,c.wav\n', 3, None, "never closed"),
        ('id,path\na,"a"x\n', 2, None, "expected after"),
        ("id,path\na," + "x" * 200_000 + "\n", 2, None, "more than 131072 characters"),
        ("id,path\na,a.wav\nb,b.wav\na,c.wav\n", 4, "id", "'a' is already in"),
        ("id,path\n,a.wav\n", 2, "id", "empty"),
        ("id,path\na,\n", 2, "path", "empty"),
        ("id,path\na\tb,a.wav\n", 2, "id", "control character '\\t'"),
        ('id,path\n"a\nb",a.wav\n', 2, "id", "control character '\\n'"),
        ('id,path\na,"a\nb.wav"\n', 2, "path", "control character"),
        ("id,path\na,https://x.org/a.wav\n", 2, "path", "URL"),
        ("id,path,start\na,a.wav,-1\n", 2, "start", "out of range (allowed: seconds"),
        ("id,path,start\na,a.wav,1s\n", 2, "start", "'1s' is not a number"),
        ("id,path,start_time,end_time\na,a.wav,3,2\n", 2, "end_time", "ends at 2.0 s but starts at 3.0 s"),
        ("id,path,end\na,a.wav,0\n", 2, "end", "must be greater"),
    ],
)
def test_a_bad_csv_is_named_with_line_and_column(write, text, line, column, words):
    problem = only_problem(write("x.csv", text))
    assert (problem.line, problem.column) == (line, column)
    assert problem.file.endswith("x.csv")
    assert words in problem.what


def test_a_missing_column_lists_those_that_are_there(write):
    assert only_problem(write("x.csv", "id,clip,PQ\na,a.wav,1\n")).what.endswith("The columns are: 'id', 'clip', 'PQ'")


@pytest.mark.parametrize("name", ["Quality", "PQ_std", "Production_Quality_std", "true_PQ", "sr", "production", "CER"])
def test_a_column_that_only_resembles_an_axis_passes_through(write, name):
    assert name in read_manifest(write("x.csv", f"id,path,{name}\na,a.wav,1\n")).columns


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (HEADER.encode("utf-16"), None, "UTF-16"),
        (HEADER.encode("utf-16-be"), 1, "NUL"),
        (b"id,path\na,a.wav\nb,b\0.wav\n", 3, "NUL"),
        ("id,path\na,é.wav\n".encode("latin-1"), 2, "0xE9 is not UTF-8"),
        (b"\xef\xbb\xbfid,path\n" + "é,a.wav\n".encode("latin-1"), 2, "Latin-1"),
        (b"\x1f\x8b\x08\0", None, "gzip"),
        (b"PK\x03\x04\0", None, "Excel"),
        (b"\xef\xbb\xbf", None, "empty"),
    ],
)
def test_what_is_not_utf8_text_is_refused_with_a_hint(write, content, line, words):
    problem = only_problem(write("x.csv", content))
    assert problem.line == line
    assert words in problem.what


# Bad JSONL, lists, places.


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ('{"path": "b.wav",}', None, "not JSON"),
        ('{"path": "b.w', None, "cut off"),
        ('{"path": "b.wav"', None, "cut off"),
        ('{"path": "b.wav"}{"path": "c.wav"}', None, "one object per line"),
        ('{"path": "b.wav", "PQ": NaN}', None, "NaN is not a JSON number"),
        ('{"path": "b.wav", "x": -Infinity}', None, "-Infinity is not a JSON number"),
        ('{"path": "b.wav", "path": "c.wav"}', None, "key 'path' occurs twice"),
        ('{"path": "b.wav", "data_path": "c.wav"}', None, "mean the same"),
        ('["b.wav"]', None, "not a JSON object"),
        ('{"path": "b.wav", "x": ' + "[" * 16 + "]" * 16 + "}", None, "deeper than 16"),
        ('{"path": "b.wav", "x": ' + "[" * 200_000 + "]" * 200_000 + "}", None, "deeper than 16"),
        ('{"path": "' + "x" * 2**20 + '"}', None, "at most 1048576"),
        ('{"file": "b.wav"}', "path", "empty"),
        ('{"path": null}', "path", "empty"),
        ('{"path": 3}', "path", "3 is not text"),
        ('{"path": "b.wav", "id": 7}', "id", "7 is not text"),
        ('{"path": "b\\u0000.wav"}', "path", "control character"),
        ('{"path": "b.wav", "system": 1.5}', "system", "1.5 is not text"),
        ('{"path": "b.wav", "Production_Qualty": 1}', "Production_Qualty", "did you mean"),
        ('{"path": "b.wav", "PQ": true}', "PQ", "True is not a number"),
        ('{"path": "b.wav", "PQ": {}}', "PQ", "{} is not a number"),
        ('{"path": "b.wav", "PQ": 1e400}', "PQ", "inf is not a finite number"),
        ('{"path": "b.wav", "PQ": 1' + "0" * 400 + "}", "PQ", "not a finite number"),
        ('{"path": "b.wav", "PQ": 1' + "0" * 5000 + "}", None, "digits"),
        ('{"path": "b.wav", "PQ": [1, 11]}', "PQ", "11 is out of range"),
        ('{"path": "b.wav", "PQ": [1, null]}', "PQ", "empty rating"),
        ('{"path": "b.wav", "PQ": [[1]]}', "PQ", "[1] is not a number"),
        ('{"path": "b.wav", "PQ": []}', "PQ", "empty list"),
        ('{"path": "b.wav", "PQ": [1], "PQ_ratings": [1]}', "PQ_ratings", "twice"),
        ('{"path": "b.wav", "start_time": [1]}', "start_time", "[1] is not a number"),
        ('{"path": "b.wav", "start_time": 2, "end_time": 1}', "end_time", "must be greater"),
        ('{"path": "a.wav"}', "id", "already in"),
    ],
)
def test_a_bad_json_line_is_named_with_line_and_key(write, line, column, words):
    problem = only_problem(write("x.jsonl", '{"path": "a.wav"}\n\n' + line + "\n"))
    assert problem.line == (None if words == "twice" else 3)
    assert problem.column == column
    assert words in problem.what


def test_nesting_up_to_the_limit_and_brackets_in_text_are_fine(write):
    deep = '{"path": "a.wav", "x": ' + "[" * 15 + "]" * 15 + ', "y": "' + "[{" * 99 + '"}'
    assert len(read_manifest(write("x.jsonl", deep))) == 1


def test_jsonl_without_any_path_lists_its_keys(write):
    problem = only_problem(write("x.jsonl", '{"pth": "a.wav"}\n'))
    assert "'data_path' or 'path'; is it 'pth'? The columns are: 'pth'" in problem.what


def test_a_json_array_is_refused_with_a_hint(write):
    assert "one object {…} per line" in only_problem(write("x.json", '[{"path": "a.wav"}]')).what


def test_keys_without_end_are_refused(write):
    text = lines(*({"path": "a", f"key{number}": 1} for number in range(1100)))
    assert "more than 1000" in only_problem(write("x.jsonl", text)).what


def test_commands_in_wav_scp_are_never_run(write, tmp_path):
    problem = only_problem(write("wav.scp", "a a.wav\nb touch owned |\n"))
    assert problem.line == 2 and "is a command" in problem.what
    assert not (tmp_path / "owned").exists()
    assert "no path after 'lonely'" in only_problem(write("wav.scp", "lonely\n")).what


def test_duplicates_name_both_places_and_both_sets(write):
    one = write("one.csv", "id,path\na,a.wav\nb,b.wav\n")
    two = write("two.csv", "id,path\nc,a.wav\nb,b.wav\n")
    same = only_problem([one, two])
    assert (same.file, same.line) == (str(two), 3)
    assert f"already in {one}, line 3" in same.what
    across = only_problem({"dev": one, "eval": two})
    assert "in set 'dev'" in across.what and "in set 'eval'" in across.what and f"{one}, line 3" in across.what
    assert len(problems([one, one])) == 2


def test_repeated_ids_are_numbered_when_asked_for(write, tmp_path):
    one = write("one.csv", "id,path\na,a.wav\na#2,b.wav\na,c.wav\n")
    two = write("two.jsonl", lines({"path": "a"}, {"path": "d"}, {"path": "a"}))
    clips = read_manifest([one, two, two], repeated="number")
    assert clips.index.tolist() == ["a", "a#2", "a#3", "a#4", "d", "a#5", "a#6", "d#2", "a#7"]
    assert [Path(path).name for path in clips["path"]] == ["a.wav", "b.wav", "c.wav", "a", "d", "a", "a", "d", "a"]
    with pytest.raises(InputError):
        read_manifest([one, two])


def test_numbering_hides_no_other_problem(write):
    assert only_problem(write("x.csv", "id,path\na,a.wav\n,b.wav\na,c.wav\n"), repeated="number").line == 3


def test_one_file_listed_very_often_is_numbered(write):
    text = lines({"path": "a.wav"}) * 100_000
    clips = read_manifest(write("x.jsonl", text), repeated="number")
    assert clips.index[-1] == "a.wav#100000" and clips.index.is_unique


def test_all_problems_of_all_inputs_come_at_once_up_to_the_limit(write):
    bad = write("bad.csv", HEADER + "".join(f"{i},a.wav,1,2,x,99\n" for i in range(30)) + "ragged\n")
    sources = [bad, write("bad.jsonl", "{\n{}\n"), "absent.csv"]
    with pytest.raises(InputError) as caught:
        read_manifest(sources, limit=5)
    assert len(caught.value.problems) == 5
    assert caught.value.more == 60 + 1 + 3 - 5
    assert "… and 59 more" in str(caught.value)
    assert caught.value.exit_code == 4
    assert {one.file for one in problems(sources, limit=1000)} == {str(bad), str(sources[1]), "absent.csv"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("trian.csv", "did you mean 'train.csv'"),
        ("zzz.bin", "does not exist"),
        ("nowhere/train.csv", "nor does its folder"),
        ("a\0b", "does not exist"),
        ("x" * 5000, "does not exist"),
        ("none/*.wav", "no audio file found"),
        ("empty", "no audio file found"),
    ],
)
def test_an_input_that_is_not_there_is_named(write, tmp_path, source, words):
    write("train.csv", "id,path\na,a\n")
    (tmp_path / "empty").mkdir()
    problem = only_problem(source)
    assert problem.file == source and words in problem.what


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "wav.scp", "x.txt"])
def test_damaged_inputs_are_read_or_refused_in_words(write, name):
    whole = {
        "x.csv": HEADER + 'a,"/x/a, b.wav",1,2,3,4\r\nb,b.wav,5,,1e1,0\r\n',
        "x.jsonl": lines({"path": "a", "start_time": 1, "PQ": [1, 2], "x": {"y": [None]}}, {"id": "é", "path": "b"}),
        "wav.scp": "a a.wav\nb b c.wav\n",
        "x.txt": "a.wav\nb.wav\n",
    }[name].encode()
    random = np.random.default_rng(0)
    fragments = [
        b'"',
        b",",
        b"\n",
        b"{",
        b"}",
        b"[",
        b"\\",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b"-",
        b"1e999",
        b":",
        b"null",
        b"",
    ]
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            start = int(random.integers(len(data) + 1))
            data[start : start + int(random.integers(3))] = fragments[random.integers(len(fragments))]
        try:
            assert read_manifest(write(name, bytes(data))).index.is_unique
        except InputError as error:
            assert error.problems


def test_an_input_that_cannot_be_opened_is_named(write, monkeypatch):
    path = write("x.csv", "id,path\na,a\n")
    monkeypatch.setattr(Path, "read_bytes", lambda self: Path("/no such file").stat())
    problem = only_problem(path)
    assert problem.file == str(path) and "cannot be read: No such file" in problem.what


def test_a_folder_inside_that_cannot_be_listed_is_named(write, tmp_path, monkeypatch):
    write("d/a.wav", "")
    write("d/locked/b.wav", "")
    listed = os.scandir

    def refuse(folder):
        if os.fspath(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    problem = only_problem(tmp_path / "d")
    assert problem.file == str(tmp_path / "d" / "locked") and problem.what == "cannot be listed: Permission denied"


# Locate.


@pytest.mark.parametrize(
    ("named", "there", "expected", "how"),
    [
        ("a.wav", ["a.wav", "a.flac"], "a.wav", "exact"),
        ("a.txt", ["a.txt"], "a.txt", "exact"),
        ("a.wav", ["a.mp3"], "a.mp3", "other extension"),
        ("a.wav", ["a.WAV"], "a.WAV", "other extension"),
        ("a", ["a.ogg"], "a.ogg", "other extension"),
        ("a", ["a"], "a", "exact"),
        ("a.v1.2", ["a.v1.2.opus", "a.v1.wav", "a.wav"], "a.v1.2.opus", "other extension"),
        ("cv_1.mp3", ["cv_1.mp3.wav"], "cv_1.mp3.wav", "other extension"),
        ("cv_1.mp3", ["cv_1.mp3.wav", "cv_1.wav"], "cv_1.mp3.wav", "other extension"),
        ("-a b", ["-a b.wav"], "-a b.wav", "other extension"),
        ("a.m4a", ["a.mp3", "a.aiff", "a.flac", "a.wav"], "a.wav", "other extension"),
        ("a.m4a", ["a.mp3", "a.aiff", "a.flac"], "a.flac", "other extension"),
        ("a.m4a", ["a.ogg", "a.mp3"], "a.mp3", "other extension"),
        ("a.wav", ["a.txt", "a.json", "ab.wav", "A.wav"], None, "missing"),
        ("a.v1", ["a.wav"], None, "missing"),
        ("a.wav", [], None, "missing"),
    ],
)
def test_locate_finds_a_clip_under_its_name_or_its_stem(write, tmp_path, named, there, expected, how):
    for name in there:
        write(f"d/{name}", "")
    clips = read_manifest(write("x.csv", f"id,path\nq,d/{named}\n"))
    found = locate(clips)
    assert found.index.equals(clips.index)
    assert found.loc["q"].to_dict() == {"file": expected and str(tmp_path / "d" / expected), "how": how}


def test_locate_takes_regular_files_only(write, tmp_path):
    (tmp_path / "a.wav").mkdir()
    os.mkfifo(tmp_path / "b.wav")
    (tmp_path / "c.wav").symlink_to("nowhere")
    (tmp_path / "d.wav").symlink_to("d.wav")
    write("real.bin", "")
    (tmp_path / "e.wav").symlink_to("real.bin")
    found = locate(read_manifest(write("x.txt", "a.wav\nb.wav\nc.wav\nd.wav\ne.wav\n")))
    assert found["how"].tolist() == ["missing"] * 4 + ["exact"]


def test_locate_lists_a_folder_once_however_many_clips_it_holds(write, monkeypatch):
    write("d/0.wav", "")
    clips = read_manifest(write("x.txt", "".join(f"d/{number}.wav\n" for number in range(50))))
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    assert locate(clips)["how"].value_counts().to_dict() == {"missing": 49, "exact": 1}
    assert len(listed) == 1


def test_locate_of_no_clips_is_an_empty_table(write):
    clips = read_manifest(write("x.txt", "a\n")).iloc[:0]
    assert locate(clips).columns.tolist() == ["file", "how"] and locate(clips).empty


# Digest, describe.


def test_digest_depends_on_ids_and_the_named_columns_only(write):
    rows = [{"path": name, "PQ": [1, 2.25], "n": 1} for name in "abc"]
    clips = read_manifest(write("x.jsonl", lines(*rows)))
    reference = digest(clips, ["PQ", "PQ_ratings", "domain"])
    assert len(reference) == 64
    assert digest(clips.iloc[::-1], ["PQ", "PQ_ratings", "domain"]) == reference
    assert digest(clips.assign(n=9, PC=3.0), ["PQ", "PQ_ratings", "domain"]) == reference
    assert digest(clips.assign(domain=np.nan), ["PQ", "PQ_ratings", "domain"]) == reference
    changed = [
        digest(clips.assign(PQ=np.nextafter(clips["PQ"], 9)), ["PQ", "PQ_ratings", "domain"]),
        digest(clips.rename(index={"a": "z"}), ["PQ", "PQ_ratings", "domain"]),
        digest(clips.iloc[:2], ["PQ", "PQ_ratings", "domain"]),
        digest(clips.assign(domain="music"), ["PQ", "PQ_ratings", "domain"]),
        digest(clips, ["PQ", "domain"]),
    ]
    assert len({reference, *changed}) == 6


def test_digest_is_the_same_everywhere():
    clips = pd.DataFrame(
        {"PQ": [0.1 + 0.2, np.nan], "s": [None, "é"], "t": [(1.0, 2.0), None]}, pd.Index(["b", "a"], name="id")
    )
    assert digest(clips, ["PQ", "s", "t"]) == "5de131af11d30d28482ee04bbb2bff0b2b0698488c385bc0f31e7039a184d64f"


def test_digest_reads_arrays_whole():
    arrays = np.zeros((2, 2000))
    arrays[1, 1000] = 1
    one, two = (pd.DataFrame({"x": pd.Series([row], ["a"], dtype=object)}) for row in arrays)
    assert digest(one, ["x"]) != digest(two, ["x"])


def test_digest_takes_names_that_are_not_utf8(write):
    clips = read_manifest(write("x.jsonl", '{"path": "\\udce9.wav"}\n'))
    assert len(digest(clips, ["path"])) == 64


def test_digest_refuses_a_column_that_is_not_there(write):
    with pytest.raises(UnknownName, match="no column 'PX'"):
        digest(read_manifest(write("x.txt", "a\n")), ["PX"])


def test_describe_counts_per_set_and_domain(write):
    one = write("x.csv", "id,path,domain,PQ\na,a,music,1\nb,b,music,\nc-sysA-utt1,c,,2\n")
    assert describe(read_manifest({"dev": one})).to_dict("records") == [
        {"set": "dev", "domain": "music", "clips": 2, "labelled": 1, "systems": 0, "groups": 2},
        {"set": "dev", "domain": "unknown", "clips": 1, "labelled": 1, "systems": 1, "groups": 1},
    ]
    assert "set" not in describe(read_manifest(one)).columns


# Scale, and the real lists.


def test_a_hundred_thousand_rows_read_within_seconds(write):
    rows = "".join(f"id{i},/y/musiccaps/{i}.wav,{i % 101 / 10},2,3,4\n" for i in range(100_000))
    path = write("x.csv", HEADER + rows)
    start = time.perf_counter()
    assert len(read_manifest(path, root="/y=/data")) == 100_000
    assert time.perf_counter() - start < 30


@real_data
def test_the_challenge_lists_read_whole():
    lists = {name: TRACK2 / f"audiomos2025-track2-{name}_list.csv" for name in ("train", "dev")}
    clips = read_manifest({**lists, "pam": EVALUATION / "AES_PAM.jsonl"}, root={"/your_path": "/data"})
    counts = describe(clips).set_index(["set", "domain"])
    assert counts["clips"].to_dict() == {
        **{("train", domain): 900 for domain in ("sound", "music", "speech")},
        ("dev", "sound"): 100,
        ("dev", "music"): 100,
        ("dev", "speech"): 50,
        ("pam", "sound"): 500,
        ("pam", "music"): 500,
    }
    assert counts["labelled"].sum() == 3950
    assert clips["path"].str.startswith("/data/").all()
    assert clips["path"].str.rsplit("/", n=1).str[1].duplicated(keep=False)[clips["set"] != "pam"].sum() >= 587
    pam = clips[clips["set"] == "pam"]
    assert pam.groupby("system").size().tolist() == [100] * 10
    assert pam.groupby("group").size().tolist() == [5] * 200
    shared = set(pam["group"]) & set(clips.loc[clips["set"] != "pam", "group"])
    assert len(shared) == 9
    tracks = [
        set(clips.loc[(clips["set"] == name), "group"].str.extract(r"^(MUSDB18/.*)")[0].dropna()) for name in lists
    ]
    assert len(tracks[1]) == 38 and tracks[1] <= tracks[0]


@real_data
def test_means_of_the_published_ratings_are_the_published_scores():
    scores = read_manifest([TRACK2 / f"audiomos2025-track2-{name}_list.csv" for name in ("train", "dev")])
    natural = read_manifest([EVALUATION / f"AES_natural_{name}.jsonl" for name in ("music", "sound", "speech")])
    assert len(natural) == 2950
    by_path = natural.set_index("path").loc[scores["path"], list(AXES)]
    np.testing.assert_array_equal(by_path.to_numpy(), scores[list(AXES)].to_numpy())
    assert {len(ratings) for ratings in natural["PQ_ratings"]} == {10}


@real_data
def test_the_evaluation_list_reads_with_and_without_its_labels():
    path = TRACK2 / "audiomos2025_track2_human_annotations.jsonl"
    clips = read_manifest(path)
    assert clips.groupby("system").size().tolist() == [85] * 36
    assert clips[list(AXES)].notna().all(axis=None)
    assert read_manifest({"eval": path}, labels=())[list(AXES)].isna().all(axis=None)


@real_data
def test_the_sample_set_is_found_on_disk():
    folder = REAL / "sample_set"
    clips = read_manifest({name: folder / f"{name}.csv" for name in ("train", "dev", "pam", "test")})
    assert locate(clips)["how"].eq("exact").all()
    assert clips.groupby("set", sort=False)["system"].nunique().to_dict() == {"train": 0, "dev": 0, "pam": 3, "test": 7}
    rated = read_manifest(folder / "annotations.jsonl", root=folder / "audio")
    assert locate(rated)["how"].eq("other extension").all()
