"""What is printed: names of any kind stay on their line, JSON holds them as they are."""

import json

import pandas as pd
import pytest

from mmmos.cli import output

HOSTILE = "a\n\x1b[2J\udcffé"


def test_names_cannot_move_the_cursor_nor_end_the_command(capsys):
    rows = [(HOSTILE, "missing", "no\rfile"), ("b", "changed", "x")]
    clips = pd.DataFrame(rows, columns=["id", "reason", "detail"], dtype=object)
    assert output.say_unusable(clips.set_index("id")) == 3
    output.put_table(clips)
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "\x1b" not in text and "\r" not in text and "é" in text
        assert "a\\n\\x1b[2J\\udcff" in text
        text.encode()
    assert "1 clip was rejected (1 missing)" in err
    assert "1 clip failed (1 changed); the same command tries them again" in err


def test_json_holds_every_name_as_it_is(capsys):
    ids = pd.Series([HOSTILE, None], dtype=object)
    table = pd.DataFrame({"id": ids, "number": [1.5, float("nan")], "count": pd.array([3, None], "Int64")})
    output.put_table(table, as_json=True)
    text = capsys.readouterr().out
    text.encode()
    assert json.loads(text) == [{"id": HOSTILE, "number": 1.5, "count": 3}, {"id": None, "number": None, "count": None}]


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_unusable_is_exit_code_0_and_long_lists_are_cut(capsys, rows):
    clips = pd.DataFrame({"reason": ["missing"] * rows, "detail": ["x"] * rows}, index=map(str, range(rows)))
    assert output.say_unusable(clips, limit=2) == (3 if rows else 0)
    assert ("… and 1 more" in capsys.readouterr().err) == bool(rows)
