"""The checker names each kind of mistake, and never trusts a zip."""

import io
import zipfile

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmos.errors import InputError
from mmmos.submissions import archive
from mmmos.submissions.check import check_submission, read_answer
from mmmos.submissions.formats import Format

RULES = Format(file="answer.txt", archive="answer.zip", header="optional", order="list", newline="lf")
HEADER = "sample_id,PQ,PC,CE,CU\n"
GOOD = HEADER + "a,1,2.5,3,4\nb,5,6,7,10.0\nc,0,1,2,3\n"
LIST = ["a", "b", "c"]


def problems_of(data, tmp_path, name="answer.txt", rules=RULES, clips=LIST):
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return [str(problem).replace(str(path), name) for problem in check_submission(path, format=rules, clips=clips)]


@pytest.mark.parametrize("text", [GOOD, GOOD.removeprefix(HEADER)])
def test_a_good_answer_has_no_problems(tmp_path, text):
    assert problems_of(text, tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("6,7", "6", "answer.txt:3: has 4 fields; 5 are needed"),
        ("2.5", "x", "answer.txt:2: column PC: 'x' is not a number"),
        ("2.5", "", "answer.txt:2: column PC: '' is not a number"),
        ("2.5", "nan", "answer.txt:2: column PC: 'nan' is not a finite number"),
        ("2.5", "-inf", "answer.txt:2: column PC: '-inf' is not a finite number"),
        ("2.5", "2.5e-1", "answer.txt:2: column PC: '2.5e-1' has an exponent, which some scorers skip; write 0.250000"),
        ("2.5", " 2.5", "answer.txt:2: column PC: ' 2.5' is not a plain decimal; write 2.500000"),
        ("2.5", "-0.0", "answer.txt:2: column PC: '-0.0' has a sign"),
        ("10.0", "10.5", "answer.txt:3: column CU: 10.5 is outside 0 to 10"),
        ("2.5", "-1", "answer.txt:2: column PC: -1 is outside 0 to 10"),
        ("b,5", "a,5", "answer.txt:3: column sample_id: the id 'a' stands on line 2 and here again"),
        ("b,5", "B,5", "answer.txt:3: column sample_id: the id 'B' is not in the list"),
        ("b,5,6,7,10.0\n", "", "answer.txt: 1 of 3 clips are missing: 'b'"),
        ("b,5", " b,5", "answer.txt:3: column sample_id: the id ' b' is empty or has spaces"),
        ("PQ,PC,CE,CU", "CE,CU,PC,PQ", "answer.txt:1: the header must be 'sample_id,PQ,PC,CE,CU'"),
        ("sample_id,PQ", "name,quality", "answer.txt:1: the header must be"),
        ("b,5", "\nb,5", "answer.txt:3: is an empty line"),
        ("2,3\n", "2,3", "answer.txt:4: does not end with a newline"),
    ],
)
def test_each_mistake_is_named(tmp_path, old, new, message):
    assert old in GOOD
    found = problems_of(GOOD.replace(old, new), tmp_path)
    assert any(problem.startswith(message) for problem in found), found


def test_every_mistake_is_named_at_once(tmp_path):
    assert len(problems_of("a,x,nan,11,1e-3\na,1,2,3\nz,1,2,3,4\n", tmp_path)) == 8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "is empty"),
        (HEADER, "3 of 3 clips are missing: 'a', 'b', 'c'"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "byte order mark"),
        (GOOD.encode("utf-16"), "is not UTF-8"),
        (GOOD.replace("b,5", "b\udcff,5").encode(errors="surrogateescape"), "answer.txt:3: is not UTF-8: byte 0xff"),
        (GOOD.replace("\n", "\r\n"), "4 lines end with CRLF"),
        (
            HEADER + "b,5,6,7,8\na,1,2,3,4\nc,0,1,2,3\n",
            "answer.txt:2: the order differs from the list: 'b' stands where 'a'",
        ),
    ],
)
def test_mistakes_of_the_whole_file_are_named(tmp_path, data, message):
    found = problems_of(data, tmp_path)
    assert any(message in problem for problem in found), found


def test_what_a_format_allows_is_no_problem(tmp_path):
    free = RULES.model_copy(update={"newline": "any", "order": "any"})
    text = (HEADER + "b,5,6,7,8\na,1,2,3,4\nc,0,1,2,3\n").replace("\n", "\r\n")
    assert problems_of(text, tmp_path, rules=free) == []


def test_lf_is_named_where_the_format_wants_crlf(tmp_path):
    rules = RULES.model_copy(update={"newline": "crlf"})
    assert problems_of(GOOD.replace("\n", "\r\n"), tmp_path, rules=rules) == []
    mixed = GOOD.replace("\n", "\r\n").replace("2.5,3,4\r", "2.5,3,4")
    assert problems_of(mixed, tmp_path, rules=rules) == ["answer.txt:2: 1 lines end with LF; the format wants CRLF."]


def test_headers_are_checked_where_required_or_forbidden(tmp_path):
    required, forbidden = (RULES.model_copy(update={"header": h}) for h in ("required", "forbidden"))
    assert "is missing" in problems_of(GOOD.removeprefix(HEADER), tmp_path, rules=required)[0]
    assert "forbids" in problems_of(GOOD, tmp_path, rules=forbidden)[0]


def test_without_a_list_ids_must_match_the_pattern_and_the_number_of_rows(tmp_path):
    rules = RULES.model_copy(update={"id_pattern": "[ab]", "rows": 4})
    assert problems_of(GOOD, tmp_path, rules=rules, clips=None) == [
        "answer.txt:4: column sample_id: the id 'c' is not one of this challenge's.",
        "answer.txt: has 3 rows; the challenge has 4 clips.",
    ]
    assert problems_of(GOOD, tmp_path, rules=rules, clips=pd.DataFrame(index=LIST)) == []


def test_a_header_alone_holds_no_scores(tmp_path):
    assert problems_of(HEADER, tmp_path, clips=None) == ["answer.txt: holds no scores."]


def test_many_missing_clips_are_counted_and_some_named(tmp_path):
    (problem,) = problems_of(GOOD, tmp_path, clips=[*LIST, *map(str, range(100))])
    assert "100 of 103 clips are missing" in problem
    assert problem.endswith("… and 90 more.")


def test_an_answer_file_of_another_name_and_one_that_is_absent_are_named(tmp_path):
    assert "must be called answer.txt" in problems_of(GOOD, tmp_path, name="mine.txt")[0]
    assert "is not there" in str(check_submission(tmp_path / "absent.txt", format=RULES)[0])


def zipped(*entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in entries:
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def test_a_zip_of_any_name_is_checked_like_its_answer(tmp_path):
    assert problems_of(zipped(("answer.txt", GOOD)), tmp_path, name="mine.zip") == []
    assert "outside" in problems_of(zipped(("answer.txt", GOOD.replace("2.5", "25"))), tmp_path, name="mine.zip")[0]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("first/answer.txt", GOOD)], "must lie at the root"),
        ([], "holds no answer.txt"),
        ([("answer.txt", GOOD), ("notes.txt", "")], "also holds 'notes.txt'"),
        ([("answer.txt", GOOD), ("../answer.txt", GOOD)], "leads out of the folder"),
        ([("answer.txt", GOOD), ("/etc/passwd", "")], "leads out of the folder"),
        ([("answer.txt", GOOD), *((f"{i}.txt", "") for i in range(99))], "holds 100 files"),
    ],
)
def test_a_zip_holds_the_answer_at_its_root_and_nothing_else(tmp_path, entries, message):
    found = problems_of(zipped(*entries), tmp_path, name="answer.zip")
    assert any(message in problem for problem in found), found


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    assert (
        "more than 1000 bytes when unpacked" in problems_of(zipped(("answer.txt", "0" * 10**6)), tmp_path, "a.zip")[0]
    )
    assert "at most 1000" in problems_of("0" * 2000, tmp_path)[0]


@pytest.mark.parametrize("cut", [slice(0, 40), slice(30, None), slice(0, 0)])
def test_a_damaged_zip_is_a_problem(tmp_path, cut):
    assert "is not a zip" in problems_of(zipped(("answer.txt", GOOD))[cut], tmp_path, name="answer.zip")[0]


def test_a_folder_must_hold_the_same_answer_plain_and_zipped(tmp_path):
    (tmp_path / "answer.txt").write_text(GOOD, encoding="utf-8")
    assert "answer.zip: is not there" in str(check_submission(tmp_path, format=RULES, clips=LIST)[0])
    (tmp_path / "answer.zip").write_bytes(zipped(("answer.txt", GOOD.replace("2.5", "2.6"))))
    assert "holds another answer.txt" in str(check_submission(tmp_path, format=RULES, clips=LIST)[0])
    (tmp_path / "answer.zip").write_bytes(zipped(("answer.txt", GOOD)))
    assert check_submission(tmp_path, format=RULES, clips=LIST) == []


def test_a_zip_of_another_name_stands_for_the_formats_own_and_the_answer_is_missed_beside_it(tmp_path):
    (tmp_path / "team 7.zip").write_bytes(zipped(("answer.txt", GOOD)))
    (problem,) = check_submission(tmp_path, format=RULES, clips=LIST)
    assert str(problem) == f"{tmp_path / 'answer.txt'}: is not there."
    (tmp_path / "answer.txt").write_text(GOOD, encoding="utf-8")
    assert check_submission(tmp_path, format=RULES, clips=LIST) == []
    (tmp_path / "answer.zip").write_bytes(b"")
    assert "answer.zip: is not a zip" in str(check_submission(tmp_path, format=RULES, clips=LIST)[0])


def test_read_answer_gives_scores_by_axis_or_the_problems(tmp_path):
    rules = Format(file="answer.txt", columns=("sample_id", "Content_Usefulness", "PQ"), quoting=True)
    path = tmp_path / "answer.txt"
    path.write_text('sample_id,Content_Usefulness,PQ\n"a,b",4,1\n', encoding="utf-8")
    assert read_answer(path, rules).loc["a,b"].to_dict() == {"CU": 4.0, "PQ": 1.0}
    path.write_text('sample_id,Content_Usefulness,PQ\n"a,b,4,1\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"answer\.txt:2: has a quote"):
        read_answer(path, rules)


@settings(deadline=None)
@given(data=st.binary(max_size=200) | st.text('a,1.\n\r"-e', max_size=80).map(str.encode))
def test_any_bytes_are_either_scores_or_named_problems(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    (folder / "answer.txt").write_bytes(data)
    if check_submission(folder / "answer.txt", format=RULES):
        return
    assert read_answer(folder / "answer.txt", RULES).notna().all(axis=None)
