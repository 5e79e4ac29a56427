"""A typo costs one sentence and exit code 2 or 4, the environment 5, a fault of ours 1; never a traceback."""

import os
import subprocess
import sys

import pytest

from mmmos import pipeline


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("rnu", 2, "rnu"),
        ("run --jbos 2", 2, "--jbos"),
        ("run --jobs two", 2, "two"),
        ("run chalenge.toml", 2, "There is no file 'chalenge.toml'. Did you mean 'challenge.toml'?"),
        ("run --device cdua", 2, "The device 'cdua' cannot be used"),
        (
            "features extract melstat dev.csv",
            2,
            "There is no feature recipe or encoder 'melstat'. Did you mean 'melstats'?",
        ),
        ("features extract melstats dve.csv", 4, "dve.csv"),
        (
            "features fetch wavlm-base-pluss",
            2,
            "no feature recipe or encoder 'wavlm-base-pluss'. Did you mean 'wavlm-base-plus'?",
        ),
        ("features extract wavlm-larg dev.csv", 2, "recipe or encoder 'wavlm-larg'. Did you mean 'wavlm-large'?"),
        ("features extract wavlm dev.csv --weights no/such/path", 2, "There are no weights at 'no/such/path'."),
        ("features extract wavlm dev.csv --precision fp16", 2, "fp16"),
        ("features fetch", 2, "Name what to fetch"),
        ("ensembles show quikc", 2, "There is no ensemble recipe 'quikc'. Did you mean 'quick'?"),
        ("ensembles select x --rule topk", 2, "There is no selector 'topk'. Did you mean 'top_k'?"),
        ("ensembles select x --rule top_k --on pan", 2, "There is no labelled set 'pan'."),
        ("ensembles select x --rule top_k --on eval", 2, "the evaluation set is never selected on"),
        ("ensembles select x --metric utt_SRC", 2, "no metric 'utt_SRC'. Did you mean 'utt_SRCC'?"),
        ("ensembles select ../x", 2, "An ensemble's name is letters"),
        ("evaluate answer.txt test.csv", 4, "answer.txt"),
        ("evaluate submissions/demo/answer.txt dev.csv", 4, "without a prediction"),
        ("submissions check submissions/demo --format audiomos", 2, "no submission format 'audiomos'"),
        ("submissions leaderboard nothing.txt --truth test.csv", 4, "nothing.txt"),
        ("init challenge.toml", 2, "challenge.toml is a file; name a folder to make or to fill."),
        ("demo challenge.toml --size tiny", 2, "challenge.toml is a file"),
        ("run audio", 2, "audio cannot be read: it is a folder; name a file in it."),
        ("demo elsewhere --size huge", 2, 'value "huge" for --size. Choose from: "tiny", "small".'),
        (
            "run --backend dusk",
            2,
            'for --backend. Choose from: "local", "dask", "ray". Did you mean "dask"?',
        ),
        (
            "features extract",
            2,
            "Say what encodes which clips: mmmos features extract RECIPE INPUT…, or --encoder",
        ),
        (
            "features extract dev.csv",
            2,
            "Say what encodes dev.csv: mmmos features extract RECIPE dev.csv, or",
        ),
        ("features extract melstats", 2, "Name the clips too: manifests, folders or globs"),
        ("features extract --encoder melstats", 2, "Name the clips too"),
        ("features extract --encoder melstat dev.csv", 2, "no encoder 'melstat'. Did you mean 'melstats'?"),
        ("features extract --encoder mine.py:Mine dev.csv", 2, "names the file 'mine.py', which does not exist."),
        (
            "features extract --encoder wavlm --encoder muq dev.csv --precision bfloat16",
            2,
            "--weights and --precision are of one encoder; got wavlm, muq. Use a recipe.",
        ),
        ("features show melstats", 2, "Name the clips too"),
    ],
)
def test_a_typo_on_the_command_line_is_one_sentence(command, line, code, sentence):
    got, out, err = command(*line.split())
    assert (got, out) == (code, "") and sentence in err
    assert "Traceback" not in err and len(err.strip().splitlines()) <= 2, err


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ('[[grid]]\nhead = "rigde"\n', "[[grid]] number 1: There is no head 'rigde'. Did you mean 'ridge'?"),
        ('[[grid]]\nhead = "mlp"\nloss = "utmoss"\n', "There is no loss 'utmoss'. Did you mean 'utmos'?"),
        ('[[grid]]\nhaed = "mlp"\n', "bad.toml:2: unknown key 'grid.0.haed'. Did you mean 'head'?"),
        ('axes = ["PX"]\n[[grid]]\nhead = "ridge"\n', "there is no axis 'PX'."),
        ('[[grid]]\nhead = "mlp"\noptions = {hiden = 3}\n', "unknown key 'hiden'. Did you mean 'hidden'?"),
        ('[[grid]]\nhead = "ridge"\nlayers = "lst"\n', "There is no layer of melstats 'lst'."),
        ('[[grid]]\nhead = "ridge"\n[select]\nrule = "bets"\n', "There is no selector 'bets'. Did you mean 'best'?"),
        ('train = ["trian"]\n[[grid]]\nhead = "ridge"\n', "There is no set of [data] 'trian'. Did you mean 'train'?"),
    ],
)
def test_a_typo_in_a_recipe_is_one_sentence(command, workspace, recipe, sentence):
    (workspace / "bad.toml").write_text(recipe)
    code, out, err = command("ensembles", "select", "x", "--recipe", "bad.toml")
    assert (code, out) == (2, "") and sentence.split("grid.0.")[-1] in err and "Traceback" not in err


def test_a_mistyped_column_names_file_and_line(command, tmp_path):
    (tmp_path / "list.csv").write_text("sample_id,data_path,Production_Qualty\na,a.wav,11\n")
    code, _, err = command("features", "show", "--manifest", tmp_path / "list.csv")
    assert code == 4 and "list.csv" in err and "Production_Qualty" in err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ZeroDivisionError("no"), 1, "Internal error: ZeroDivisionError: no"),
        (PermissionError(13, "Permission denied", "x/y"), 5, "Permission denied: x/y."),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_other_failures_are_sentences_and_tracebacks_only_with_debug(command, monkeypatch, error, code, sentence):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "run", fail)
    got, out, err = command("run")
    assert (got, out) == (code, "") and sentence in err and "Traceback" not in err
    if code != 130:
        assert ("Please report it" in err) == (code == 1)
        assert "Traceback" in command("run", debug=True)[2]


def start(workspace, *arguments):
    # What runs in the background of a shell inherits a SIGINT that is ignored.
    text = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mmmos.cli import main; main()"
    line = [sys.executable, "-c", text, *arguments]
    return subprocess.Popen(line, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_quiet_and_debug_are_options_of_every_command(workspace):
    process = start(workspace, "run", "nowhere.toml", "--debug", "--quiet")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and not out and "Traceback" in err and os.linesep in err
