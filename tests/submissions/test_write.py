"""The writer: what it writes a plain reader gives back, and what it refuses leaves nothing behind."""

import csv
import hashlib
import io
import json
import string
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmmos import cli
from mmmos.axes import AXES
from mmmos.errors import InputError, UsageError
from mmmos.predictions import read_predictions
from mmmos.recipe import names
from mmmos.submissions import write
from mmmos.submissions.check import check_submission, read_answer
from mmmos.submissions.formats import Format, read_format
from mmmos.submissions.write import answer_text, package_versions, write_submission

IDS = [f"audiomos2025-track2-sys0v1wm-utt{letter * 6}" for letter in "abcdef"]
tables = st.lists(st.tuples(*[st.floats(0, 10)] * 4), min_size=1, max_size=8)
any_ids = st.lists(
    st.text(string.ascii_letters + string.digits + ',"=-é& ', min_size=1).filter(lambda s: s == s.strip()),
    min_size=8,
    max_size=8,
    unique=True,
)


@pytest.fixture
def predictions():
    scores = np.random.default_rng(0).uniform(0, 10, (6, 4)).astype(np.float32)
    return pd.DataFrame(scores, index=IDS, columns=["CU", "PC", "PQ", "CE"])


@given(rows=tables, ids=any_ids)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_a_plain_csv_reader_gives_back_what_was_written(rows, ids, tmp_path):
    frame = pd.DataFrame(rows, index=ids[: len(rows)], columns=["CE", "CU", "PQ", "PC"])
    path = write_submission(frame, format="csv", to=tmp_path)
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["sample_id", *AXES]
    assert [line[0] for line in lines] == list(frame.index)
    np.testing.assert_allclose(np.array([line[1:] for line in lines], float), frame[list(AXES)], rtol=0, atol=5.1e-7)
    assert check_submission(path, format="csv", clips=frame) == []
    pd.testing.assert_frame_equal(
        read_answer(path, "csv"), frame[list(AXES)].round(6), check_names=False, check_index_type=False, atol=1e-9
    )


@pytest.mark.parametrize("name", names("submissions", "no workspace"))
@given(parts=st.lists(st.floats(0, 1), min_size=8, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
def test_what_is_written_in_any_format_is_valid_and_read_back(name, parts, tmp_path):
    rules = read_format(name, "no workspace")
    low, high = rules.range
    scores = low + (high - low) * np.resize(parts, (len(IDS), len(rules.axes)))
    frame = pd.DataFrame(scores.clip(low, high), index=IDS, columns=list(rules.axes))
    path = write_submission(frame, IDS, format=rules, to=tmp_path)
    assert check_submission(tmp_path, format=rules, clips=IDS) == []
    half = 0.51 * 10.0**-rules.decimals
    for read in (read_answer(path, rules), read_predictions(path, rules.axes, rules.axis_of)):
        assert list(read.index) == IDS and list(read) == list(rules.axes)
        np.testing.assert_allclose(read, frame, rtol=0, atol=half)


def test_scores_that_are_no_axes_go_by_their_own_names(tmp_path):
    frame = pd.DataFrame({"textual": [2.5], "PQ": [9.0], "Overall": [3.0]}, index=["a"])
    path = write_submission(frame, format="audiomos2025-track1", to=tmp_path)
    assert path.read_text(encoding="utf-8") == "a,3.00000000,2.50000000\n"
    with pytest.raises(InputError, match=r"0 columns for overall; one is needed\. They have: textual, PQ, MOS"):
        write_submission(frame.rename(columns={"Overall": "MOS"}), format="audiomos2025-track1", to=tmp_path)


def test_ids_with_an_extension_are_refused_where_the_format_forbids_them(tmp_path):
    frame = pd.DataFrame({"score": [2.5, 3.5]}, index=["a.1", "b.wav"])
    with pytest.raises(InputError, match=r"1 ids end in a file's extension, which the format forbids: 'b\.wav'"):
        write_submission(frame, format="voicemos2022", to=tmp_path)
    assert write_submission(frame, format="voicemos2023", to=tmp_path).read_text(encoding="utf-8").startswith("a.1,")


def test_rows_stand_in_the_order_of_the_list_and_columns_go_by_name(predictions, tmp_path):
    path = write_submission(predictions, IDS[::-1], to=tmp_path / "first")
    lines = path.read_bytes().decode().split("\n")
    assert path == tmp_path / "first" / "answer.txt"
    assert lines[0] == "sample_id,PQ,PC,CE,CU"
    assert [line.split(",")[0] for line in lines[1:-1]] == IDS[::-1]
    assert lines[1].split(",")[1] == f"{predictions.loc[IDS[-1], 'PQ']:.6f}"
    assert lines[-1] == ""


def test_the_zip_holds_the_answer_at_its_root_and_the_same_bytes_each_time(predictions, tmp_path):
    for name in ("a", "b"):
        write_submission(predictions, IDS, to=tmp_path / name)
    first = (tmp_path / "a" / "answer.zip").read_bytes()
    assert first == (tmp_path / "b" / "answer.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == ["answer.txt"]
        assert archive.read("answer.txt") == (tmp_path / "a" / "answer.txt").read_bytes()


def test_provenance_names_the_answer_by_its_hash(predictions, tmp_path):
    given_record = {"members": [{"key": "ab", "weight": np.float32(0.5)}], "store": tmp_path, "seeds": {2, 1}}
    path = write_submission(predictions, IDS, to=tmp_path, provenance=given_record)
    record = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))
    assert record["answer"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["format"] == "audiomos2025-track2"
    assert record["made_from"] == {"members": [{"key": "ab", "weight": 0.5}], "store": str(tmp_path), "seeds": [1, 2]}
    assert {"python", "mmmos", "numpy"} <= set(record["packages"])


def test_an_object_that_predicts_is_asked_for_the_clips(predictions, tmp_path):
    class Ensemble:
        def predict(self, clips):
            return predictions.loc[clips.index]

    clips = pd.DataFrame(index=IDS)
    path = write_submission(Ensemble(), clips, to=tmp_path)
    assert check_submission(tmp_path, clips=clips) == []
    assert path.read_text(encoding="utf-8").startswith("sample_id")


@pytest.mark.parametrize("wrong", [None, 3, "answer.txt"])
def test_what_cannot_predict_is_refused(wrong, predictions, tmp_path):
    with pytest.raises(UsageError, match="method predict"):
        write_submission(wrong, IDS, to=tmp_path)


def test_the_header_can_be_left_out_where_the_format_allows(predictions, tmp_path):
    path = write_submission(predictions, IDS, to=tmp_path, header=False)
    assert path.read_text(encoding="utf-8").startswith(IDS[0])
    assert check_submission(path, clips=IDS) == []
    with pytest.raises(UsageError, match="required"):
        write_submission(predictions, IDS, format="csv", to=tmp_path, header=False)


def test_small_numbers_are_plain_decimals_without_a_sign():
    scores = pd.DataFrame([[1e-5, 1e-9, -0.0, 10.0]], index=["a"], columns=list(AXES))
    text = answer_text(scores, Format(file="answer.txt"))
    assert text.splitlines()[1] == "a,0.000010,0.000000,0.000000,10.000000"


def set_value(value):
    def change(frame):
        frame = frame.astype(float)
        frame.loc[IDS[1], "PC"] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.drop(IDS[2]), f"1 clips have no prediction: '{IDS[2]}'"),
        (lambda p: pd.concat([p, p.head(1)]), "predicted more than once"),
        (lambda p: pd.concat([p, p.head(1).rename(index={IDS[0]: "new"})]), "not in the list: 'new'"),
        (set_value(np.nan), "1 scores on PC are not finite"),
        (set_value(np.inf), "1 scores on PC are not finite"),
        (set_value(10.5), "outside 0 to 10"),
        (lambda p: p.drop(columns="PQ"), "0 columns for PQ"),
        (lambda p: p.assign(production_quality=1), "2 columns for PQ"),
        (lambda p: p.astype(object).assign(PQ="high"), "must be numbers"),
    ],
)
def test_a_failed_write_names_the_problem_and_leaves_nothing_behind(predictions, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        write_submission(change(predictions), IDS, to=tmp_path / "first")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_earlier_submission(predictions, tmp_path):
    path = write_submission(predictions, IDS, to=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError):
        write_submission(predictions * 100, IDS, to=tmp_path)
    with pytest.raises(UsageError, match=r"provenance\.loss"):
        write_submission(predictions, IDS, to=path.parent, provenance={"loss": float("nan")})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("clip", ["a,b", "a\nb", "a\rb", " a", "", '"a"', "a\u2028b", "\ud800"])
def test_ids_that_a_line_cannot_hold_are_refused(predictions, tmp_path, clip):
    ids = pd.Index([clip, *IDS[1:]], dtype=object)
    with pytest.raises(InputError, match="cannot be written"):
        write_submission(predictions.set_axis(ids), list(ids), to=tmp_path)


def test_ids_that_are_not_text_are_refused(predictions, tmp_path):
    with pytest.raises(InputError, match="not text"):
        write_submission(predictions.reset_index(drop=True), format="csv", to=tmp_path)


def test_scores_are_clipped_only_when_asked_and_that_is_counted(predictions, tmp_path, caplog):
    high = set_value(10.5)(predictions)
    path = write_submission(high, IDS, to=tmp_path, outside="clip")
    assert read_answer(path, "audiomos2025-track2").loc[IDS[1], "PC"] == 10
    assert json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))["answer"]["clipped"] == 1
    assert "1 scores lay outside" in caplog.text
    with pytest.raises(UsageError, match="outside must be"):
        write_submission(high, IDS, to=tmp_path, outside="ignore")


def test_without_a_list_the_ids_must_be_the_challenge_s(predictions, tmp_path):
    with pytest.raises(InputError, match="has 3060 clips, and there are 6"):
        write_submission(predictions, to=tmp_path)
    with pytest.raises(InputError, match="not this challenge's"):
        write_submission(predictions.rename(index={IDS[0]: "other"}), to=tmp_path)
    with pytest.raises(InputError, match="no clip to write"):
        write_submission(predictions.head(0), to=tmp_path)


def test_what_a_predictor_gives_back_must_be_scores_of_a_manifest(predictions, tmp_path):
    class Wrong:
        def predict(self, clips):
            return predictions.to_numpy()

    with pytest.raises(UsageError, match="needs the clips"):
        write_submission(Wrong(), IDS, to=tmp_path)
    with pytest.raises(UsageError, match="must return a DataFrame"):
        write_submission(Wrong(), pd.DataFrame(index=IDS), to=tmp_path)


RULES = Format(file="answer.txt", id="id", columns=("id", "overall", "CU"), range=(1, 5))


@pytest.mark.parametrize(
    "text",
    [
        "clip,Content Usefulness,system,OVERALL\na,2,s1,1.5\n\nb,4,s2,3\n",
        "a,1.5,2\nb,3,4\n",
        "\ufeffid,overall,CU\r\na,1.5,2\r\nb,3,4",
    ],
    ids=["named", "without a header", "as a spreadsheet saves it"],
)
def test_a_table_of_predictions_is_read_by_name_or_in_the_order_of_the_format(text, tmp_path):
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8", newline="")
    read = read_predictions(tmp_path / "scores.csv", RULES.axes, RULES.axis_of)
    assert read.index.name == "id" and set(read) == {"overall", "CU"}
    assert read[["overall", "CU"]].to_dict("index") == {
        "a": {"overall": 1.5, "CU": 2.0},
        "b": {"overall": 3.0, "CU": 4.0},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,overal,Cu_\na,1,2\n", r"csv:1: expected an id and 2 columns with overall, CU; got 'id,overal,Cu_'"),
        ("id,overall,CU\na,1,2\nb,1\n", r"csv:3: expected an id and 2 columns"),
        ("id,overall,CU\na,1,high\n", r"csv:2: expected an id and 2 columns with overall, CU; got 'a,1,high'"),
        (f"id,overall,CU\na,1,{'x' * 999}\n", r"csv:2: .*; got 'a,1,x{50,60}…\.$"),
        ("id,overall,CU\n", "csv: holds no scores"),
        ("", "csv: holds no scores"),
        ('id,overall,CU\n"a,1,2\n', "csv: cannot be read as comma-separated text"),
        ("id,overall,CU\n\udce9,1,2\n", "csv: cannot be read as comma-separated text"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_its_line(text, message, tmp_path):
    (tmp_path / "scores.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / "scores.csv", RULES.axes, RULES.axis_of)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"scores\.csv: does not exist"):
        read_predictions(tmp_path / "scores.csv", RULES.axes, RULES.axis_of)


def test_a_column_of_predictions_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "scores.csv").write_text("id,overall,Overall,CU\na,1,2,3\n", encoding="utf-8")
    with pytest.raises(InputError, match="2 columns for overall"):
        write_submission(
            read_predictions(tmp_path / "scores.csv", RULES.axes, RULES.axis_of), format=RULES, to=tmp_path
        )


def test_the_commands_write_check_and_list_formats_of_ones_own(tmp_path, monkeypatch, capsys):
    def call(line):
        return cli._call(line.split(), False), *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    (tmp_path / "submissions").mkdir()
    own = 'title = "Mine"\nfile = "m.txt"\nid = "id"\ncolumns = ["id", "MOS"]\nrange = [1, 5]\nrows = 2\n'
    (tmp_path / "submissions" / "mine.toml").write_text(own, encoding="utf-8")
    (tmp_path / "scores.csv").write_text("id,mos\na,0.5\nb,3\n", encoding="utf-8")
    code, out, err = call("submissions write scores.csv --format mine --to new")
    assert (code, out) == (4, "") and "1 scores on MOS lie outside 1 to 5: 'a'" in err
    assert call("submissions write scores.csv --format mine --to new --outside clip")[:2] == (0, "")
    assert (tmp_path / "new" / "m.txt").read_text(encoding="utf-8") == "id,MOS\na,1.000000\nb,3.000000\n"
    assert call("submissions check new --format mine")[:2] == (0, "")

    (tmp_path / "submissions" / "broken.toml").write_text("file = 3\n", encoding="utf-8")
    code, out, err = call("submissions formats --json")
    rows = {row["format"]: row for row in json.loads(out)}
    path = str(Path("submissions", "mine.toml"))
    assert code == 3 and "broken.toml:1" in err and "broken" not in rows
    assert rows["mine"] == {"format": "mine", "title": "Mine", "columns": ["id", "MOS"], "rows": 2, "path": path}
    assert rows["audiomos2025-track2"]["rows"] == 3060 and rows["csv"]["rows"] is None
    (tmp_path / "submissions" / "broken.toml").unlink()
    code, out, err = call("submissions formats")
    assert code == 0 and not err and len(out.splitlines()) == len(names("submissions", "no workspace")) + 2


def test_versions_are_of_what_is_installed(monkeypatch):
    monkeypatch.setattr(write, "PACKAGES", ("numpy", "no-such-package"))
    assert package_versions().keys() == {"python", "mmmos", "numpy"}
    assert package_versions()["numpy"] == np.__version__
