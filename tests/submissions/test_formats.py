"""Formats as TOML: what is read, what is refused; and each packaged one against a file with every kind of mistake."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest

from mmmos.axes import AXES
from mmmos.errors import RecipeError, UnknownName, UsageError
from mmmos.recipe import names, parse
from mmmos.submissions.check import check_submission, read_answer
from mmmos.submissions.formats import Format, read_format
from mmmos.submissions.write import write_submission

MINIMAL = 'file = "answer.txt"\n'
MOS = 'id = "id"\ncolumns = ["id", "MOS"]\n'

SCORES = {
    "audiomos2025-track1": ("overall", "textual"),
    "audiomos2025-track2": AXES,
    "audiomos2025-track3": ("score",),
    "csv": AXES,
    "voicemos2022": ("score",),
    "voicemos2023": ("score",),
    "voicemos2024": ("score",),
}
FORMATS = names("submissions", "no workspace")


@pytest.mark.parametrize("name", FORMATS)
def test_every_packaged_format_has_a_title_and_the_scores_of_its_challenge(name):
    rules = read_format(name, "no workspace")
    assert rules.title and rules.axes == SCORES[name]


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"csv"}))
def test_the_challenges_want_answer_txt_at_the_root_of_a_zip(name):
    rules = read_format(name, "no workspace")
    assert (rules.file, rules.archive, rules.delimiter) == ("answer.txt", "answer.zip", ",")


def test_track_2_is_what_participants_sent():
    rules = read_format("audiomos2025-track2")
    assert rules.rows == 3060
    assert rules.columns == ("sample_id", "PQ", "PC", "CE", "CU")
    assert rules.has_header()


def test_the_family_writes_no_header():
    assert not any(read_format(name).has_header() for name in FORMATS if name not in ("audiomos2025-track2", "csv"))


def test_a_workspace_format_comes_before_the_packaged_one(tmp_path):
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "csv.toml").write_text('file = "mine.csv"\n', encoding="utf-8")
    assert read_format("csv", tmp_path).file == "mine.csv"
    assert read_format("submissions/csv.toml", tmp_path).file == "mine.csv"


def test_axes_go_by_any_of_their_names_and_other_scores_by_their_own():
    rules = parse(MINIMAL + 'columns = ["sample_id", "Content_Usefulness", "Overall", "pq"]', Format)
    assert rules.axes == ("CU", "Overall", "PQ")
    found = [rules.axis_of(name) for name in ("overall", " OVERALL", "Production Quality", "cu", "PC", "sample_id")]
    assert found == ["Overall", "Overall", "PQ", "CU", None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decimal = 3", "Did you mean 'decimals'"),
        ('columns = ["PQ", "PC"]', "the first of columns must be the id column"),
        ('columns = ["sample_id", "PQ", "Production_Quality"]', "different from each other"),
        ('columns = ["sample_id", "MOS", "mos"]', "different from each other"),
        ('columns = ["sample_id", "Sample_ID"]', "different from each other"),
        ('columns = ["sample_id"]', "must hold a score"),
        ('columns = ["sample_id", "1"]', "must be text, not a number"),
        ('columns = ["sample_id", "nan"]', "must be text, not a number"),
        ('columns = ["sample_id", "a,b"]', "without ','"),
        ('columns = ["sample_id", " a"]', "without ',', quotes and outer spaces"),
        ('columns = ["sample_id", "a\\nb"]', "must be text"),
        ('columns = ["sample_id", ""]', "must be text"),
        ("range = [10, 0]", "the lower end must come first"),
        ("range = [0, inf]", "both finite"),
        ("decimals = 0\nrange = [0.5, 2]", "at most 0 decimals"),
        ("fewest_decimals = 7", "from fewest_decimals to most_decimals"),
        ("most_decimals = 5", "from fewest_decimals to most_decimals"),
        ('id_pattern = "("', "not a regular expression"),
        ('id_extension = "no"', "id_extension"),
        ('archive = "../answer.zip"', "archive"),
    ],
)
def test_mistakes_in_a_format_are_named(text, message):
    with pytest.raises(RecipeError, match=message):
        parse(MINIMAL + text, Format)


def test_an_unknown_format_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'audiomos2025-track3'"):
        read_format("audiomos2025_track3")


@pytest.mark.parametrize(("header", "wanted"), [("required", False), ("forbidden", True)])
def test_a_header_that_the_format_does_not_allow_is_refused(header, wanted):
    rules = Format(file="answer.txt", header=header)
    assert rules.has_header() is (header == "required")
    with pytest.raises(UsageError, match=header):
        rules.has_header(wanted)


IDS = [f"audiomos2025-track2-sys0v1wm-utt{letter * 6}" for letter in "abcde"]

# Kind of mistake, which field of the third line of scores becomes what, and what is said of that line.
LINES = [
    ("an id that is not in the list", 0, "other", "the id 'other' is not in the list of clips"),
    ("an id in other case", 0, IDS[2].upper(), "is not in the list of clips"),
    ("an id twice", 0, IDS[0], "and here again"),
    ("no id", 0, "", "is empty or has spaces around it"),
    ("a space before an id", 0, " " + IDS[2], "is empty or has spaces around it"),
    ("a space after an id", 0, IDS[2] + " ", "is empty or has spaces around it"),
    ("a zero byte in an id", 0, IDS[2] + "\0", "is not in the list of clips"),
    ("a field too many", -1, "3,3", "are needed"),
    ("a decimal comma", -1, "3,25", "are needed"),
    ("a delimiter at the end", -1, "3,", "are needed"),
    ("one field", "line", IDS[2], "has 1 field;"),
    ("a word", -1, "good", "'good' is not a number"),
    ("an empty number", -1, "", "'' is not a number"),
    ("a hexadecimal number", -1, "0x3", "'0x3' is not a number"),
    ("two points", -1, "3.2.1", "'3.2.1' is not a number"),
    ("nan", -1, "nan", "is not a finite number"),
    ("infinity", -1, "inf", "is not a finite number"),
    ("a number too large for a float", -1, "1e999", "is not a finite number"),
    ("an exponent", -1, "3e0", "has an exponent"),
    ("a plus sign", -1, "+3", "is not a plain decimal; write 3.0"),
    ("a space before a number", -1, " 3", "is not a plain decimal; write 3.0"),
    ("a space after a number", -1, "3 ", "is not a plain decimal; write 3.0"),
    ("an underscore", -1, "0_3", "is not a plain decimal; write 3.0"),
    ("no digit after the point", -1, "3.", "is not a plain decimal; write 3.0"),
    ("no digit before the point", -1, ".3", "is not a plain decimal; write 0.3"),
    ("digits of another script", -1, "３", "is not a plain decimal; write 3.0"),
    ("minus zero", -1, "-0.0", "has a sign; write 0"),
    ("a score below the range", -1, "-0.5", "is outside"),
    ("a score above the range", -1, "10.001", "is outside"),
    ("another delimiter", "line", IDS[2] + ";3", "are needed"),
    ("an empty line before", 0, "\n" + IDS[2], "is an empty line"),
    ("a line of spaces before", 0, "  \n" + IDS[2], "is an empty line"),
    ("a carriage return in a line", 0, "\r" + IDS[2], "holds a carriage return"),
    ("a byte that is not UTF-8", 0, "\udce9", "is not UTF-8: byte 0xe9"),
]


def change_line(text, place, value):
    """Text with one field of the third line of scores replaced, or the whole line, and that line's number."""
    lines = text.split("\n")
    number = next(number for number, line in enumerate(lines) if line.startswith(IDS[2]))
    fields = [value] if place == "line" else lines[number].split(",")
    if place != "line":
        fields[place] = value
    lines[number] = ",".join(fields)
    return "\n".join(lines), number + 1


# Kind of mistake, how the whole text is changed, the line that is named, and what is said.
FILES = [
    ("nothing in it", lambda text: "", None, "is empty"),
    ("only an end of line", lambda text: "\n", 1, "is an empty line"),
    ("no end of the last line", lambda text: text[:-1], "last", "does not end with a newline"),
    ("an empty line at the end", lambda text: text + "\n", "after", "is an empty line"),
    ("a byte order mark", lambda text: "\ufeff" + text, 1, "byte order mark"),
    ("ends of line of old Macs", lambda text: text.replace("\n", "\r"), 1, "holds a carriage return"),
    ("a clip left out", lambda text: text.replace(f"{IDS[2]},", f"{IDS[0]},"), None, "1 of 5 clips are"),
    ("half of the file", lambda text: text[: len(text) // 2], None, "clips are missing"),
    ("another header", lambda text: "name,quality\n" + text, 1, "header"),
    ("a header twice", lambda text: "id,a,b,c,d\n" * 2 + text, 2, ""),
    ("UTF-16", lambda text: text.encode("utf-16"), 1, "is not UTF-8"),
]


def zipped(*entries, flags=0):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data)
    data = buffer.getvalue()
    # The general purpose flags of the central directory, of which bit 0 says "encrypted".
    place = data.find(b"PK\x01\x02") + 8
    return data[:place] + bytes([data[place] | flags]) + data[place + 1 :]


# Kind of mistake, the zip made of the right name and data, and what is said.
ZIPS = [
    ("the answer in a folder", lambda name, data: zipped(("a/" + name, data)), "must lie at the root"),
    ("no answer", lambda name, data: zipped(("notes.md", data)), "at its root; one is needed"),
    ("nothing", lambda name, data: zipped(), "at its root; one is needed"),
    ("the answer in other case", lambda name, data: zipped((name.upper(), data)), "at its root; one is needed"),
    ("another file too", lambda name, data: zipped((name, data), ("notes.md", data)), "also holds 'notes.md'"),
    ("a path that leads out", lambda name, data: zipped((name, data), ("../x", data)), "leads out of the folder"),
    ("an encrypted answer", lambda name, data: zipped((name, data), flags=1), "is encrypted"),
    ("the first half", lambda name, data: zipped((name, data))[:60], "is not a zip that can be read"),
    ("no zip", lambda name, data: data, "is not a zip that can be read"),
    ("a mistake", lambda name, data: zipped((name, data.replace(b"utta", b"uttz"))), "is not in the list"),
]


@pytest.fixture(params=FORMATS)
def answer(request, tmp_path):
    """A packaged format, and the path of a valid answer in it for five clips."""
    rules = read_format(request.param, "no workspace")
    scores = np.random.default_rng(0).uniform(*rules.range, (len(IDS), len(rules.axes)))
    frame = pd.DataFrame(scores, index=IDS, columns=list(rules.axes))
    return rules, write_submission(frame, IDS, format=rules, to=tmp_path / "first")


def found(path, rules):
    return [(problem.line, str(problem)) for problem in check_submission(path, format=rules, clips=IDS)]


def test_a_valid_answer_has_no_problems_plain_zipped_and_as_a_folder(answer):
    rules, path = answer
    (path.parent / "mine.zip").write_bytes(zipped((path.name, path.read_bytes())))
    assert [found(each, rules) for each in (path, path.parent / "mine.zip", path.parent)] == [[], [], []]
    assert list(read_answer(path, rules).columns) == list(rules.axes)


@pytest.mark.parametrize(("place", "value", "message"), [k[1:] for k in LINES], ids=[k[0] for k in LINES])
def test_a_mistake_in_a_line_is_found_there(answer, place, value, message):
    rules, path = answer
    text, line = change_line(path.read_text(encoding="utf-8"), place, value)
    path.write_bytes(text.encode(errors="surrogateescape"))
    problems = found(path, rules)
    assert any(number == line and message in problem for number, problem in problems), problems
    if place == -1:
        assert {number for number, _ in problems} <= {line, None}, problems


@pytest.mark.parametrize(("change", "line", "message"), [k[1:] for k in FILES], ids=[k[0] for k in FILES])
def test_a_mistake_of_the_whole_file_is_found(answer, change, line, message):
    rules, path = answer
    text = path.read_text(encoding="utf-8")
    wrong = change(text)
    path.write_bytes(wrong if isinstance(wrong, bytes) else wrong.encode())
    line = {"last": text.count("\n"), "after": text.count("\n") + 1}.get(line, line)
    problems = found(path, rules)
    assert any(number == line and message in problem for number, problem in problems), problems


@pytest.mark.parametrize(("change", "message"), [kind[1:] for kind in ZIPS], ids=[kind[0] for kind in ZIPS])
def test_a_mistake_of_the_zip_is_found(answer, change, message):
    rules, path = answer
    archive = path.parent / "mine.zip"
    archive.write_bytes(change(path.name, path.read_bytes()))
    problems = found(archive, rules)
    assert any(message in problem and "mine.zip" in problem for _, problem in problems), problems
    (path.parent / "answer.zip").unlink(missing_ok=True)
    assert bool(found(path.parent, rules)) is (rules.archive is not None)


def test_what_only_some_formats_forbid_is_found_in_those_and_no_problem_in_the_others(answer):
    rules, path = answer
    text = path.read_text(encoding="utf-8")
    header = ",".join(rules.columns) + "\n"
    has_header, bare = text.startswith(header), text.removeprefix(header)
    turned = header * has_header + "".join(bare.splitlines(keepends=True)[::-1])
    cases = [
        (header + bare, 1, rules.header == "forbidden"),
        (bare, 1, rules.header == "required"),
        (text.replace("\n", "\r\n"), 1, rules.newline == "lf"),
        (turned, 1 + has_header, rules.order == "list"),
        (header.replace(",", ";") + bare, 1, True),
    ]
    for changed, line, is_wrong in cases:
        path.write_bytes(changed.encode())
        lines = [number for number, _ in found(path, rules)]
        assert (line in lines) if is_wrong else not lines, changed


def test_a_clip_named_with_its_extension_is_found_where_ids_have_none(answer):
    rules, path = answer
    text, line = change_line(path.read_text(encoding="utf-8"), 0, IDS[2] + ".WAV")
    path.write_text(text, encoding="utf-8")
    clips = [*IDS[:2], IDS[2] + ".WAV", *IDS[3:]]
    lines = [problem.line for problem in check_submission(path, format=rules, clips=clips)]
    assert lines == ([line] if rules.id_extension == "forbidden" else [])


def test_too_few_and_too_many_decimals_are_found_where_a_format_counts_them(tmp_path):
    rules = parse(MINIMAL + MOS + "decimals = 2\nfewest_decimals = 1\nmost_decimals = 3\nrange = [1, 5]", Format)
    (tmp_path / "answer.txt").write_text("id,MOS\na,3\nb,3.1\nc,3.123\nd,3.1234\n", encoding="utf-8")
    problems = [(p.line, p.column, p.what) for p in check_submission(tmp_path / "answer.txt", format=rules)]
    assert problems == [
        (2, "MOS", "3 has too few decimals; the least is 1."),
        (5, "MOS", "3.1234 has too many decimals; the most is 3."),
    ]
