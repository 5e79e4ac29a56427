"""Formats as TOML: what is read, what is refused."""

import pytest

from mmmos.errors import RecipeError, UnknownName, UsageError
from mmmos.recipe import names, parse
from mmmos.submissions.formats import Format, read_format

MINIMAL = 'file = "answer.txt"\n'


def test_every_packaged_format_is_valid():
    assert {"audiomos2025-track2", "csv"} <= set(names("submissions"))
    for name in names("submissions"):
        assert set(read_format(name).axes) == {"PQ", "PC", "CE", "CU"}


def test_track_2_is_what_participants_sent():
    rules = read_format("audiomos2025-track2")
    assert (rules.file, rules.archive, rules.rows) == ("answer.txt", "answer.zip", 3060)
    assert rules.columns == ("sample_id", "PQ", "PC", "CE", "CU")
    assert rules.has_header()


def test_a_workspace_format_comes_before_the_packaged_one(tmp_path):
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "csv.toml").write_text('file = "mine.csv"\n', encoding="utf-8")
    assert read_format("csv", tmp_path).file == "mine.csv"
    assert read_format("submissions/csv.toml", tmp_path).file == "mine.csv"


def test_axes_go_by_any_of_their_names():
    rules = parse(MINIMAL + 'columns = ["sample_id", "Content_Usefulness", "pq"]', Format)
    assert rules.axes == ("CU", "PQ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decimal = 3", "Did you mean 'decimals'"),
        ('columns = ["PQ", "PC"]', "the first of columns must be the id column"),
        ('columns = ["sample_id", "PQ", "Production_Quality"]', "different axes"),
        ('columns = ["sample_id"]', "different axes"),
        ("range = [10, 0]", "the lower end must come first"),
        ('id_pattern = "("', "not a regular expression"),
        ('archive = "../answer.zip"', "archive"),
    ],
)
def test_mistakes_in_a_format_are_named(text, message):
    with pytest.raises(RecipeError, match=message):
        parse(MINIMAL + text, Format)


def test_an_unknown_format_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="audiomos2025-track2"):
        read_format("audiomos2025-track1")


@pytest.mark.parametrize(("header", "wanted"), [("required", False), ("forbidden", True)])
def test_a_header_that_the_format_does_not_allow_is_refused(header, wanted):
    rules = Format(file="answer.txt", header=header)
    assert rules.has_header() is (header == "required")
    with pytest.raises(UsageError, match=header):
        rules.has_header(wanted)
