"""``mmmos ensembles shift`` on the command line."""

import json

import pytest


def test_every_table_is_printed_and_written(command, tmp_path):
    code, out, err = command("ensembles", "shift", "--intervals", "20", "--to", tmp_path / "out")
    assert code == 0 and out.split()[:3] == ["set", "clips", "feature_set"]
    names = {f"shift-{name}.csv" for name in ("summary", "features", "predictions", "runs", "rankings")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"shift.md"}
    text = (tmp_path / "out" / "shift.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == 5 and "shift.md" in err


def test_a_table_as_json(command):
    code, out, _ = command("ensembles", "shift", "light", "--table", "runs", "--intervals", "20", "--json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 2 and {"oof", "pam", "change", "beyond_low"} <= set(rows[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--table", "runz"), "runs"),
        (("--table", "runs", "--on", "eval"), "'eval' is asked for"),
        (("--table", "rankings", "--metric", "SRC"), "SRCC"),
        (("--intervals", "0"), "1 or more"),
    ],
)
def test_mistakes_are_sentences(command, arguments, words):
    code, out, err = command("ensembles", "shift", *arguments)
    assert code == 2 and not out and words in err
