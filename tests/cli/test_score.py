"""``mmmos score`` as a shell sees it, with a bundle of the tiny workspace."""

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mmmos import scoring
from mmmos.axes import AXES
from mmmos.cli import main
from mmmos.pipeline.bundles import export
from mmmos.scoring import scorer

COLUMNS = [
    *("id", "path", "start", "end", "domain", "seconds"),
    *AXES,
    *(f"{axis}_spread" for axis in AXES),
    *("flags", "reason", "detail"),
]
AES = ["CE", "CU", "PC", "PQ"]


@pytest.fixture(scope="session")
def bundle(workspace, tmp_path_factory):
    """A bundle of one head on melstats."""
    to = tmp_path_factory.mktemp("bundles") / "first"
    export(workspace / "challenge.toml", to=to)
    return to


@pytest.fixture
def audio(workspace, tmp_path):
    """A folder of six clips that tests may change."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for path in sorted((workspace / "audio").iterdir())[:6]:
        shutil.copy(path, folder / path.name)
    time.sleep(0.02)
    return folder


@pytest.fixture
def score(command, bundle):
    """``mmmos score`` with the bundle: code, stdout, stderr."""
    return lambda *arguments, **options: command("score", *arguments, "--bundle", bundle, **options)


@pytest.fixture
def stdin(monkeypatch):
    return lambda text: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


# Rows.


def test_a_folder_gives_one_row_for_each_clip_in_order(score, audio, bundle):
    code, out, err = score(audio)
    found = rows(out)
    assert code == 0 and list(found[0]) == COLUMNS
    assert [row["id"] for row in found] == sorted(path.name for path in audio.iterdir())
    assert "6 of 6 clips are scored" in err and "s of audio a second" in err
    loaded = scoring.load(bundle)
    for row in found:
        same = loaded(row["path"])
        assert {axis: same[axis] for axis in AXES} == {axis: row[axis] for axis in AXES}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_hold_what_jsonl_holds(score, audio, tmp_path, form):
    (audio / "broken.wav").write_text("no audio at all, but text")
    code, out, _ = score(audio)
    to = tmp_path / f"scores.{form}"
    assert code == 3 and score(audio, "--to", to)[0] == 3
    table = pd.read_csv(to) if form == "csv" else pd.read_parquet(to)
    assert list(table) == COLUMNS
    for mine, row in zip(table.to_dict("records"), rows(out), strict=True):
        assert all(mine[axis] == row[axis] or (mine[axis] != mine[axis] and row[axis] is None) for axis in AXES)
        assert mine["id"] == row["id"]
    if form == "csv":
        assert score(audio, "--format", "csv")[1] == to.read_text()


def test_aes_has_a_row_for_each_line_whatever_becomes_of_it(score, audio, stdin):
    good, other = (str(path) for path in sorted(audio.iterdir())[:2])
    (audio / "broken.wav").write_text("no audio at all, but text")
    lines = [
        {"path": good},
        {"path": str(audio / "broken.wav")},
        {"path": good},
        {"path": str(audio / "absent.wav")},
        {"path": other, "start_time": 0.25},
        {"path": good, "start_time": 0.1, "end_time": 0.6},
    ]
    stdin("".join(f"{json.dumps(line)}\n\n" for line in lines))
    code, out, err = score("-", "--format", "aes")
    found = rows(out)
    assert code == 3 and len(found) == 6 and all(list(row) == AES for row in found)
    assert found[0] == found[2] and None not in {*found[0].values(), *found[4].values(), *found[5].values()}
    assert [number for number, row in enumerate(found) if set(row.values()) == {None}] == [1, 3]
    assert "1 not_audio" in err and "1 missing" in err and "NaN" not in out


def test_audio_listed_twice_and_in_two_folders_is_numbered(score, audio):
    first = min(audio.iterdir())
    code, out, _ = score(audio, first, audio)
    names = [row["id"] for row in rows(out)]
    assert code == 0 and len(set(names)) == 13 and f"{first.name}#2" in names


def test_segments(score, audio, tmp_path):
    path = max(audio.iterdir(), key=lambda path: pd.read_json(io.StringIO(score(path)[1]), lines=True)["seconds"][0])
    code, out, _ = score(path, "--segments", "0.5", "--hop", "0.25")
    (row,) = rows(out)
    assert code == 0 and len(row["segments"]) > 2 and [part["start"] for part in row["segments"][:2]] == [0, 0.25]
    code, out, _ = score(path, "--segments", "0.5", "--hop", "0.25", "--format", "csv")
    table = pd.read_csv(io.StringIO(out))
    assert table["PQ"].tolist() == [part["PQ"] for part in row["segments"]]
    assert table["segment_end"].tolist() == [part["end"] for part in row["segments"]]


def test_domains_of_a_list_are_in_the_rows(score, audio, tmp_path):
    first = min(audio.iterdir())
    (tmp_path / "list.csv").write_text(f"id,path,domain\na,{first},music\nb,/there/{first.name},\n")
    code, out, _ = score(tmp_path / "list.csv", "--root", f"/there={audio}")
    assert code == 0 and [row["domain"] for row in rows(out)] == ["music", None]


# A file of rows.


def test_a_file_goes_on_with_files_added_changed_and_failed(score, audio, tmp_path):
    to = tmp_path / "scores.jsonl"
    first, second, *_ = sorted(audio.iterdir())
    second.rename(tmp_path / "away")
    (tmp_path / "list").write_text("".join(f"{path}\n" for path in [first, second, *sorted(audio.iterdir())[1:]]))
    code, _, err = score(tmp_path / "list", "--to", to)
    assert code == 3 and "5 of 6 clips are scored" in err and "1 missing" in err
    (tmp_path / "away").rename(second)
    shutil.copy(first, audio / "new.wav")
    with (tmp_path / "list").open("a") as file:
        file.write(f"{audio / 'new.wav'}\n")
    code, _, err = score(tmp_path / "list", "--to", to)
    assert code == 0 and "7 of 7 clips are scored" in err and "5 rows were there" in err
    assert to.read_text() == score(tmp_path / "list")[1]


def test_a_complete_file_is_said_to_be_so_without_loading_an_encoder(score, audio, tmp_path, monkeypatch):
    (audio / "broken.wav").write_text("no audio at all, but text")
    for name in ("scores.jsonl", "scores.csv"):
        assert score(audio, "--to", tmp_path / name)[0] == 3
    monkeypatch.setattr(scorer, "Scorer", None)
    for name in ("scores.jsonl", "scores.csv"):
        code, out, err = score(audio, "--to", tmp_path / name)
        assert (code, out) == (3, "") and f"{name} is complete already: 7 rows; 1 clip was rejected" in err


def test_other_settings_and_bundles_are_refused(score, command, audio, bundle, tmp_path):
    to = tmp_path / "scores.jsonl"
    score(audio, "--to", to)
    before = to.read_bytes()
    code, _, err = score(audio, "--to", to, "--strict")
    assert code == 2 and "strict off instead of on" in err and "--overwrite" in err
    other = shutil.copytree(bundle, tmp_path / "other")
    about = json.loads((other / "bundle.json").read_text())
    about["name"] = "other"
    (other / "bundle.json").write_text(json.dumps(about))
    code, _, err = command("score", audio, "--bundle", other, "--to", to)
    assert code in {2, 4, 5} and to.read_bytes() == before
    assert score(audio, "--to", to, "--strict", "--overwrite")[0] == 0


def test_there_is_nothing_to_overwrite_on_standard_output(score, audio):
    code, out, err = score(audio, "--overwrite")
    assert (code, out) == (2, "") and "--to" in err


def test_a_file_that_is_not_ours_stays(score, audio, tmp_path):
    (tmp_path / "mine.csv").write_text("mine")
    code, _, err = score(audio, "--to", tmp_path / "mine.csv")
    assert code == 2 and "nothing beside it says" in err and (tmp_path / "mine.csv").read_text() == "mine"


# Processes.

COMMAND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mmmos.cli import main; main()"


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, "-c", COMMAND, "score", *map(str, arguments)], **options)


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def until(is_alive, path, lines):
    while is_alive() and lines_of(path) < lines:
        time.sleep(0.002)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_kills_at_any_moment_change_nothing(workspace, bundle, score, tmp_path):
    draw = random.Random(0)
    to, undisturbed = tmp_path / "scores.jsonl", tmp_path / "undisturbed.jsonl"
    inputs = (*sorted((workspace / "audio").iterdir())[:44], "--segments", "0.5", "--threads", "1")
    score(*inputs, "--to", undisturbed)
    total, killed = lines_of(undisturbed), 0
    # Every process is forked from one that has imported all: it starts at once.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["mmmos.cli.score", "mmmos.scoring.scorer", "nnAudio.features", "numba"])
    for round_ in range(6):
        had = lines_of(to)
        line = ["score", *inputs, "--bundle", bundle, "--to", to, "--quiet"]
        process = processes.Process(target=main, args=([str(word) for word in line],))
        process.start()
        until(process.is_alive, to, had + draw.randrange(1, 8))
        time.sleep(draw.random() / 50)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert lines_of(to) >= had
        if round_ % 2:
            to.write_bytes(to.read_bytes()[: -draw.randrange(1, 40)])
    assert killed >= 3 and lines_of(to) < total
    assert score(*inputs, "--to", to)[0] == 0
    assert to.read_bytes() == undisturbed.read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_leaves_the_rows_and_says_how_to_go_on(workspace, bundle, tmp_path):
    to = tmp_path / "scores.jsonl"
    arguments = (workspace / "audio", "--bundle", bundle, "--to", to, "--segments", "0.2", "--hop", "0.02")
    process = start(*arguments, stderr=subprocess.PIPE, text=True)
    until(lambda: process.poll() is None, to, 3)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143 and "The same command goes on from there" in err
    assert f"rows are in {to}" in err and lines_of(to) >= 3 and to.read_bytes().endswith(b"}\n")


def test_a_reader_that_leaves_is_no_error(workspace, bundle):
    process = start(workspace / "audio", "--bundle", bundle, "--quiet", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith(b'{"id": ')
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0 and not err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full")
def test_a_full_disk_behind_standard_output_is_a_sentence(workspace, bundle):
    with Path("/dev/full").open("wb") as full:
        process = start(workspace / "audio", "--bundle", bundle, "-q", stdout=full, stderr=subprocess.PIPE, text=True)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (5, "Standard output cannot be written: No space left on device.\n")


# Many processes and machines.


@pytest.mark.parametrize("form", ["jsonl", "aes"])
def test_the_files_of_all_shards_are_the_whole_file(score, audio, tmp_path, form):
    first = min(audio.iterdir())
    shutil.copy(first, audio / "again.wav")
    inputs = (audio, first, "--format", form)
    whole = score(*inputs)[1].encode()
    said = [score(*inputs, "--shard", f"{number}/3", "--to", tmp_path / f"{number}")[2] for number in (1, 2, 3)]
    assert b"".join((tmp_path / f"{number}").read_bytes() for number in (1, 2, 3)) == whole
    assert "Shard 1/3: 2 of 8 clips." in said[0] and "Shard 3/3: 3 of 8 clips." in said[2]
    assert score(*inputs, "--shard", "1/1")[1].encode() == whole


def test_a_shard_of_a_table_has_its_header_also_without_rows(score, audio, tmp_path):
    first = min(audio.iterdir())
    parts = [score(first, "--format", "csv", "--shard", f"{number}/2") for number in (1, 2)]
    assert [code for code, *_ in parts] == [0, 0]
    assert [pd.read_csv(io.StringIO(out))["path"].tolist() for _, out, _ in parts] == [[], [str(first)]]
    assert score(first, "--shard", "1/2", "--to", tmp_path / "none.jsonl")[0] == 0
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_a_shard_goes_on_with_its_own_file_alone(score, audio, tmp_path):
    to = tmp_path / "scores.jsonl"
    assert score(audio, "--shard", "1/2", "--to", to)[0] == 0
    before = to.read_bytes()
    for other in ([], ["--shard", "2/2"]):
        code, _, err = score(audio, "--to", to, *other)
        assert code == 2 and "was made with shard 1/2 instead of" in err and to.read_bytes() == before
    to.write_bytes(before[:-9])
    code, _, err = score(audio, "--shard", "1/2", "--to", to)
    assert code == 0 and "2 rows were there" in err and to.read_bytes() == before


def test_rows_of_two_processes_are_those_of_one(score, audio, tmp_path, stdin):
    (audio / "broken.wav").write_text("no audio at all, but text")
    names = "".join(f"{path}\n" for path in sorted(audio.iterdir()))
    stdin(names)
    code, expected, _ = score("-")
    stdin(names)
    assert score("-", "--jobs", "2", "--logs", tmp_path / "logs")[:2] == (code, expected) == (3, expected)
    assert len(list((tmp_path / "logs").iterdir())) == 2
    stdin(names)
    assert score("-", "--jobs", "2", "--to", tmp_path / "scores.jsonl")[0] == 3
    assert (tmp_path / "scores.jsonl").read_text() == expected


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_kill_of_the_command_ends_its_processes_and_keeps_the_rows(workspace, bundle, score, tmp_path):
    to, undisturbed = tmp_path / "scores.jsonl", tmp_path / "undisturbed.jsonl"
    files = sorted((workspace / "audio").iterdir())[:32]
    inputs = (*files, "--segments", "0.5", "--hop", "0.1")
    line = (*inputs, "--bundle", bundle, "--to", to, "--jobs", "2", "--quiet")
    process = start(*line, stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: process.poll() is None, to, 3)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL and 3 <= lines_of(to) < len(files)
    deadline = time.monotonic() + 5
    while living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living(process.pid)
    assert score(*inputs, "--to", to)[0] == score(*inputs, "--to", undisturbed)[0] == 0
    assert to.read_bytes() == undisturbed.read_bytes()


def living(session):
    """Processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, own = path.read_text().rpartition(")")[2].split()[:4]
            found += [path] if int(own) == session and state not in "ZX" else []
    return found


# Mistakes.


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("CLIPS --bundle demmo", 2, "There is no bundle 'demmo'."),
        ("CLIPS --bundle audiobx", 2, "Did you mean 'audiobox'?"),
        ("CLIPS", 2, "--bundle"),
        ("--bundle BUNDLE", 2, "Name what to score"),
        ("CLIPS --bundle BUNDLE --segmnets 2", 2, "Did you mean --segments?"),
        ("CLIPS --bundle BUNDLE --hop 2", 2, "segments"),
        ("CLIPS --bundle BUNDLE --segments 0", 2, "at least"),
        ("CLIPS --bundle BUNDLE --segments 2 --format aes", 2, "aes has one row for each clip"),
        ("CLIPS --bundle BUNDLE --format jsn", 2, "jsonl"),
        ("CLIPS --bundle BUNDLE --format parquet", 2, "--to scores.parquet"),
        ("CLIPS --bundle BUNDLE --weights melstats", 2, "NAME=PATH"),
        ("CLIPS --bundle BUNDLE --weights wavlm=x.pt", 2, "'wavlm'"),
        ("CLIPS --bundle BUNDLE --shard 3/2", 2, "A shard is i/N with i from 1 to N; got 3/2."),
        ("CLIPS --bundle BUNDLE --shard half", 2, "A shard is i/N, such as 1/8"),
        ("CLIPS --bundle BUNDLE --backend dusk", 2, 'Did you mean "dask"?'),
        ("CLIPS --bundle BUNDLE --address tcp://host:8786", 2, "choose --backend dask or ray"),
        ("CLIPS --bundle BUNDLE --jobs -2", 2, "jobs must be 0"),
        ("CLIPS --bundle BUNDLE --device cdua", 2, "The device 'cdua' cannot be used"),
        ("CLIPS --bundle BUNDLE --to nowhere/scores.jsonl", 2, "There is no folder nowhere"),
        ("CLIPS --bundle BUNDLE --to CLIPS", 2, "is a folder; name a file in it"),
        ("CLIPZ --bundle BUNDLE", 4, "did you mean"),
        ("CLIPS/broken.jsonl --bundle BUNDLE", 4, "broken.jsonl:3"),
    ],
)
def test_a_mistake_is_a_sentence_and_nothing_is_scored(command, audio, bundle, line, code, words):
    first = json.dumps({"path": str(min(audio.iterdir()))})
    (audio / "broken.jsonl").write_text(f"{first}\n{first}\n{{'path': 1}}\n")
    places = {"CLIPS": str(audio), "BUNDLE": str(bundle), "CLIPZ": str(audio.with_name("clipz"))}
    for name, place in sorted(places.items(), reverse=True):
        line = line.replace(name, place)
    got, out, err = command("score", *line.split())
    assert (got, out) == (code, "") and words in err and "Traceback" not in err


def test_weights_that_are_nowhere_are_named_with_the_advice_how_to_get_them(command, audio, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    code, out, err = command("score", audio, "--bundle", tmp_path / "absent.pt")
    assert code in {2, 5} and not out and "absent.pt" in err
