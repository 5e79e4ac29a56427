"""Every command works on a tiny workspace: data on stdout, everything else on stderr."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from mmmos import cli, progress
from mmmos.cli import signals


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("features list", None),
        ("features show", 1),
        ("features show --manifest train.csv", 3),
        ("ensembles show", 2),
        ("ensembles select other --rule average", 2),
        ("submissions leaderboard submissions/demo/answer.txt --truth test.csv --intervals 0", 1),
        ("evaluate submissions/demo/answer.txt test.csv --intervals 10", 32),
        ("evaluate submissions/demo/answer.txt test.csv --by domain --method jackknife --unit clip", 160),
        ("doctor", None),
    ],
)
def test_tables_are_json_on_request(command, line, rows):
    code, out, _ = command(*line.split(), "--json")
    table = json.loads(out)
    assert code == 0 and (rows is None or len(table) == rows)


def test_evaluate_prints_32_rows_and_a_header(command):
    code, out, err = command("evaluate", "submissions/demo/answer.txt", "test.csv", "--intervals", "0")
    assert code == 0 and len(out.splitlines()) == 33 and not err


def test_a_finished_run_says_where_everything_is_and_how_good_it_is(command):
    code, out, err = command("run", "--jobs", "1")
    assert code == 0
    assert [line.split() for line in err.splitlines()[-3:]] == [
        ["answer", "submissions/demo/answer.txt"],
        ["leaderboard", "submissions/demo/leaderboard.html"],
        ["report", "submissions/demo/report.html"],
    ]
    assert "1 of 2 heads chosen by top_k on pam: ensembles/demo.json" in err
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["eval", "pam", "dev", "oof"]


def test_a_dry_run_says_that_nothing_is_left_to_do(command):
    code, out, err = command("run", "--dry-run")
    assert code == 0 and not err
    assert {line.split()[-1] for line in out.splitlines()[1:]} == {"0"}


def test_training_and_reporting_again_find_everything_done(command):
    code, out, err = command("ensembles", "train", "light", "--jobs", "1")
    assert (code, out, err) == (0, "", "2 heads in ensembles/light/\n")
    assert command("submissions", "report")[0] == 0


def test_showing_heads_trains_none(command, workspace, tmp_path):
    (workspace / "other.toml").write_text('[[grid]]\nhead = "extra_trees"\n')
    code, out, err = command("ensembles", "show", "other.toml")
    assert (code, out) == (2, "") and "None of the 1 heads of 'other' is trained on these clips" in err
    assert not (workspace / "ensembles" / "other").exists()


def test_features_are_extracted_and_verified(command):
    code, _, err = command("features", "extract", "melstats", "dev.csv")
    assert code == 0 and "10 of 10 clips are in features/" in err
    code, out, _ = command("features", "extract", "melstats", "dev.csv", "--dry-run")
    assert code == 0 and "melstats" in out
    assert command("features", "verify")[0] == 0


def test_an_answer_is_written_and_checked(command, tmp_path):
    code, _, err = command(
        "submissions", "write", "submissions/demo/answer.txt", "--clips", "test.csv", "--to", tmp_path / "new"
    )
    assert code == 0 and "answer.txt" in err
    assert command("submissions", "check", tmp_path / "new", "--clips", "test.csv")[0] == 0
    (tmp_path / "new" / "answer.txt").write_text("sample_id,PQ,PC,CE,CU\n")
    code, out, err = command("submissions", "check", tmp_path / "new" / "answer.txt", "--clips", "test.csv")
    assert code == 4 and out and "not to be sent" in err


def test_init_names_the_command_to_type_next(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("init", tmp_path / "my work")
    assert code == 0 and not out and "then type mmmos run '" in err
    assert command("init", tmp_path / "my work")[2].startswith("0 files written to ")


def test_clips_that_are_not_there_cost_exit_code_3(command, tmp_path):
    (tmp_path / "list.csv").write_text("sample_id,data_path\na,nowhere/a.wav\nb,nowhere/b.wav\n")
    code, _, err = command("features", "show", "--manifest", tmp_path / "list.csv")
    assert code == 3 and "0 of 2 clips exist" in err and "missing: a: " in err


def test_help_names_every_command(command):
    code, out, _ = command("--help")
    assert code == 0
    assert all(
        name in out for name in ("run", "init", "demo", "doctor", "evaluate", "features", "ensembles", "submissions")
    )


TINY = Path(__file__).parents[1] / "data" / "wavlm_tiny"


def test_one_encoder_runs_by_name_with_weights_of_its_own(command, tmp_path):
    line = ["features", "extract", "wavlm", "dev.csv", "--weights", TINY, "--store", tmp_path / "store"]
    code, _, err = command(*line)
    assert code == 0 and "10 of 10 clips" in err and "(wavlm)" in err
    code, _, err = command(*line, "--precision", "bfloat16", "--jobs", "1")
    assert code == 0 and len(list((tmp_path / "store").glob("wavlm-*"))) == 2


def test_fetching_what_is_here_says_where_and_what_it_is(command):
    code, out, err = command("features", "fetch", "melstats", TINY)
    assert (code, out) == (0, "")
    assert "melstats has no weights of its own" in err and f"{TINY}: {TINY}" in err and "SHA-256 " in err


def test_the_list_of_encoders_fits_a_wide_terminal_and_is_whole_as_json(command):
    _, out, _ = command("features", "list")
    assert max(map(len, out.splitlines())) <= 180 and "release v0.3.0" in out
    rows = {row["encoder"]: row for row in json.loads(command("features", "list", "--json")[1])}
    assert rows["m2d-clap-as-ft"]["weights"].startswith("https://") and len(rows["wavlm-large"]["revision"]) == 40


@pytest.fixture
def guarded(monkeypatch):
    """The host names and addresses that something tried to reach."""
    tried = []

    def refuse(*arguments, **_):
        tried.append(arguments)
        raise OSError("the guard let nothing out")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return tried


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"features extract wavlm dev.csv --weights {TINY} --jobs 1", 0),
        ("features extract wavlm-large dev.csv", 5),
        ("features extract beats-iter3 dev.csv", 5),
        ("features extract m2d-clap-as-ft dev.csv", 5),
        ("features extract mmmos dev.csv", 5),
        ("features fetch wavlm-base", 5),
        ("features fetch m2d-clap", 5),
        ("features fetch hf://owner/name/file.pt", 5),
        ("features list", 0),
        ("doctor", 0),
    ],
)
def test_offline_no_socket_is_opened(command, workspace, monkeypatch, guarded, tmp_path, line, code):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(workspace)
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    before = {number: signal.getsignal(number) for number in signals.WORDS}
    store = ["--store", str(tmp_path / "store")] if "extract" in line else []
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main([*line.split(), *store, "--offline"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        progress.show(False)
        os.environ.pop("HF_HUB_OFFLINE", None)
    assert ended.value.code == code and guarded == []
