"""Every command works on a tiny workspace: data on stdout, everything else on stderr."""

import json

import pytest


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
