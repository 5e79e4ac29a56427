"""check_format: what is sound passes, each kind of broken one is caught and named."""

import re

import pytest

from mmmos.submissions.formats import Format, format_names
from mmmos.testing import check_format
from mmmos.testing.format_subject import Subject, invented

SOUND = Format(file="answer.txt", id="clip", columns=("clip", "mos"), range=(1.0, 5.0), decimals=3)


def other(**changes):
    return SOUND.model_copy(update=changes)


class EndsLinesOtherwise(Format):
    @property
    def line_end(self):
        return "\r"


class ForgetsTheHeader(Format):
    def has_header(self, wanted=None):
        return False


BROKEN = [
    (other(decimals=0), "decimals_tell_scores_apart: with decimals = 0, scores 0.04 apart are the same"),
    (other(id_pattern=".*"), "ids cannot be invented|ids_fit_their_pattern: .* matches 'no clip .*; make it narrower"),
    (EndsLinesOtherwise(**SOUND.model_dump()), "what_is_written_can_be_sent: a written answer has problems"),
    (ForgetsTheHeader(**SOUND.model_dump()), "what_is_written_can_be_sent: .* the header 'clip,mos' is missing"),
]


@pytest.mark.parametrize("name", format_names())
def test_every_format_of_mmmos_passes(name):
    check_format(name)


@pytest.mark.parametrize(
    "changes",
    [
        {"delimiter": "\t", "newline": "crlf", "header": "forbidden", "archive": "a.zip"},
        {"delimiter": " ", "header": "optional", "write_header": False, "order": "list", "decimals": 15},
        {"delimiter": ";", "quoting": True, "newline": "any", "id_extension": "forbidden", "range": (-1.0, 1.0)},
        {"id_pattern": r"[a-c]{3}-\d+_\w{4}\.x", "rows": 20, "fewest_decimals": 3, "most_decimals": 3},
    ],
)
def test_a_sound_format_of_any_kind_passes(changes):
    check_format(Format(**(SOUND.model_dump() | changes)))


@pytest.mark.parametrize(("broken", "said"), BROKEN)
def test_a_broken_format_is_caught(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_format(broken)


@pytest.mark.parametrize("rule", ["rows", "pattern"])
def test_ids_that_the_format_refuses_are_named(rule):
    rules, said = {
        "rows": (other(rows=5, id_pattern="a[0-9]"), None),
        "pattern": (
            other(id_pattern="b[0-9]"),
            r"ids_fit_their_pattern: id_pattern = 'b\[0-9\]' does not match the id 'a0'",
        ),
    }[rule]
    if said is None:
        check_format(rules, ids=["a0", "a1", "a2"])
        return
    with pytest.raises(AssertionError, match=said):
        check_format(rules, ids=["a0", "a1", "a2"])


def test_ids_are_asked_for_where_they_cannot_be_invented():
    rules = other(id_pattern=r"(?:one|two)-[0-9]+(?<!9)")
    with pytest.raises(AssertionError, match=r"ids cannot be invented from id_pattern = .*; pass some .*: ids = \["):
        check_format(rules)
    check_format(rules, ids=["one-1", "two-2", "one-3"])


@pytest.mark.parametrize("pattern", ["[A-Za-z0-9]{5}", r"sys\d{5}-utt\w{6}\.wav", "a-[0-9]+", "x[0-9]?[a-z]{2,3}"])
def test_invented_ids_are_different_and_match(pattern):
    ids = invented(pattern, 30)
    assert len(set(ids)) == 30
    assert all(re.fullmatch(pattern, clip) for clip in ids)


def test_a_checker_that_overlooks_a_damage_is_caught(monkeypatch):
    monkeypatch.setattr(Subject, "problems", lambda self, data, clips: [] if b"nan" in data else ["one"])
    with pytest.raises(AssertionError, match="every_damage_is_found: nothing is said where a score is 'nan'\n"):
        check_format(other(id_pattern=None), ids=["a", "b"])


def test_a_format_is_checked_by_path_and_in_a_local_file(tmp_path):
    text = 'file = "a.csv"\nid = "id"\ncolumns = ["id", "PQ"]\n'
    (tmp_path / "mine.toml").write_text(text)
    (tmp_path / "bad.toml").write_text(text + "rnage = [0, 1]\n")
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nMINE = Path(__file__).with_name('mine.toml')\nNONE = 'mine.toml'\n"
    )
    check_format(tmp_path / "mine.toml")
    check_format(f"{tmp_path}/mine.py:MINE")
    with pytest.raises(AssertionError, match=r"it cannot be read: .*unknown key 'rnage'"):
        check_format(tmp_path / "bad.toml")
    with pytest.raises(AssertionError, match=r"is the relative path 'mine\.toml'; it is a .*Format, or the absolute"):
        check_format(f"{tmp_path}/mine.py:NONE")
