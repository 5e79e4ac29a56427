"""``mmmos ensembles ablate``: tables on the screen, as JSON and in files."""

import json

import pandas as pd
import pytest

from mmmos.ensembles.ablation.contributions import COLUMNS


def test_contributions_are_shown_by_axis(command):
    code, out, _ = command("ensembles", "ablate", "--intervals", "20", "--on", "pam")
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split() == ["factor", "level", "set", "domain", "runs", "mean", "PQ", "PC", "CE", "CU"]
    assert [row.split()[:5] for row in rows] == [
        ["encoder", "melstats", "pam", "all", "2"],
        ["head", "ridge", "pam", "all", "1"],
        ["head", "svr", "pam", "all", "1"],
    ]


def test_json_has_every_row_and_the_files_have_the_same(command, tmp_path):
    code, out, _ = command("ensembles", "ablate", "--intervals", "0", "--json", "--to", tmp_path / "out")
    rows = json.loads(out)
    assert code == 0 and list(rows[0]) == COLUMNS
    assert {row["set"] for row in rows} == {"dev", "pam", "oof"} and {"all", "speech"} <= {
        row["domain"] for row in rows
    }
    written = pd.read_csv(tmp_path / "out" / "ablation.csv", keep_default_na=False)
    assert len(written) == len(rows) and list(written) == COLUMNS
    text = (tmp_path / "out" / "ablation.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == 5 and "All heads learn from the same share" in text


@pytest.mark.parametrize("table", ["axes", "generalisation", "sizes"])
def test_the_other_tables(command, table):
    code, out, _ = command("ensembles", "ablate", "--table", table, "--intervals", "10", "--metric", "utt_MSE")
    assert code == 0 and len(out.splitlines()) > 2
    code, out, _ = command("ensembles", "ablate", "--table", table, "--intervals", "10", "--json")
    assert code == 0 and {"axis", "metric"} <= set(json.loads(out)[0])


def test_a_named_factor_is_shown_by_domain(command):
    _, out, _ = command("ensembles", "ablate", "--factor", "head", "--on", "oof", "--intervals", "0")
    assert {line.split()[3] for line in out.splitlines()[1:]} == {"all", "music", "sound", "speech"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--on eval", "the evaluation set is never selected on"),
        ("--on pan", "no labelled set 'pan'. Did you mean 'pam'?"),
        ("--factor los", "no factor that varies in this pool 'los'"),
        ("--metric utt_SRC", "no metric 'utt_SRC'"),
        ("--table curves", 'value "curves" for --table. Choose from: "contributions"'),
        ("--table curve", "same share of the training groups"),
        ("--intervals -1", "intervals is a number of resamples"),
    ],
)
def test_mistakes_are_sentences(command, line, sentence):
    code, out, err = command("ensembles", "ablate", *line.split())
    assert (code, out) == (2, "") and sentence in err
