"""Rows as JSON lines, as ``audio-aes`` writes them, as CSV and as Parquet."""

import csv
import io
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from mmmos.axes import AXES
from mmmos.errors import SetupError, UnknownName, UsageError
from mmmos.scoring import tables
from mmmos.scoring.score import Score, SegmentScore

SCORES = {"PQ": 7.2196, "PC": 2.1484, "CE": 5.1459, "CU": 5.7793}
SPREAD = dict.fromkeys(AXES, 0.25)
PARTS = tuple(SegmentScore(start, start + 2, dict.fromkeys(AXES, start), SPREAD) for start in (0.0, 2.0))
GOOD = Score("a", "/x/a.wav", None, None, 4.0, SCORES, SPREAD, ("clipped", "dc"))
BAD = Score("b", "/x/b.wav", 1.0, 2.5, reason="not_audio", detail="it is text, not audio")

JSONL = (
    '{"id": "a", "path": "/x/a.wav", "start": null, "end": null, "domain": "music", "seconds": 4.0,'
    ' "PQ": 7.2196, "PC": 2.1484, "CE": 5.1459, "CU": 5.7793,'
    ' "PQ_spread": 0.25, "PC_spread": 0.25, "CE_spread": 0.25, "CU_spread": 0.25,'
    ' "flags": ["clipped", "dc"], "reason": null, "detail": null}\n'
    '{"id": "b", "path": "/x/b.wav", "start": 1.0, "end": 2.5, "domain": null, "seconds": null,'
    ' "PQ": null, "PC": null, "CE": null, "CU": null,'
    ' "PQ_spread": null, "PC_spread": null, "CE_spread": null, "CU_spread": null,'
    ' "flags": [], "reason": "not_audio", "detail": "it is text, not audio"}\n'
)
AES = '{"CE": 5.1459, "CU": 5.7793, "PC": 2.1484, "PQ": 7.2196}\n{"CE": null, "CU": null, "PC": null, "PQ": null}\n'
CSV = (
    "id,path,start,end,domain,seconds,PQ,PC,CE,CU,PQ_spread,PC_spread,CE_spread,CU_spread,flags,reason,detail\n"
    "a,/x/a.wav,,,music,4.0,7.2196,2.1484,5.1459,5.7793,0.25,0.25,0.25,0.25,clipped dc,,\n"
    'b,/x/b.wav,1.0,2.5,,,,,,,,,,,,not_audio,"it is text, not audio"\n'
)


def rows(*scores, axes=AXES):
    return [tables.row_of(score, axes, "music" if score.scores else None) for score in scores]


def written(form, *scores, axes=AXES, segments=False):
    return b"".join(tables.pieces(rows(*scores, axes=axes), form, axes, segments=segments)).decode()


def cut(score):
    return Score(**{**vars(score), "segments": PARTS if score.scores else ()})


@pytest.mark.parametrize(("form", "text"), [("jsonl", JSONL), ("aes", AES), ("csv", CSV)])
def test_golden_rows(form, text):
    assert written(form, GOOD, BAD) == text


def test_every_row_is_a_piece_so_that_it_can_be_flushed():
    for form in ("jsonl", "aes", "csv"):
        assert len(list(tables.pieces(rows(GOOD, BAD, GOOD), form, AXES, segments=False))) == 3


def test_pieces_come_as_rows_do():
    def endless():
        yield from rows(GOOD)
        raise AssertionError("asked for too early")

    for form in ("jsonl", "aes", "csv"):
        assert b"7.2196" in next(tables.pieces(endless(), form, AXES, segments=False))


def test_aes_has_all_of_audiobox_keys_also_where_a_bundle_lacks_an_axis():
    (line,) = written("aes", GOOD, axes=("PQ",)).splitlines()
    assert json.loads(line) == {"CE": None, "CU": None, "PC": None, "PQ": 7.2196}


def test_csv_has_a_row_for_each_segment_and_one_for_a_rejected_clip():
    found = list(csv.DictReader(io.StringIO(written("csv", cut(GOOD), cut(BAD), segments=True))))
    assert [(row["id"], row["segment_start"], row["segment_end"]) for row in found] == [
        ("a", "0.0", "2.0"),
        ("a", "2.0", "4.0"),
        ("b", "", ""),
    ]
    assert [row["PQ"] for row in found] == ["0.0", "2.0", ""] and found[2]["reason"] == "not_audio"


def test_jsonl_holds_segments_whole():
    row = json.loads(written("jsonl", cut(GOOD), segments=True))
    assert [part["start"] for part in row["segments"]] == [0.0, 2.0] and row["PQ"] == 7.2196


@pytest.mark.parametrize("name", ["=1+1", "a,b", 'a"b', "a\nb", "日本 é", "-x"])
def test_names_survive_every_format(name):
    score = Score(**{**vars(GOOD), "id": name})
    assert json.loads(written("jsonl", score))["id"] == name
    assert next(csv.DictReader(io.StringIO(written("csv", score), newline="")))["id"] == name


def test_names_of_files_that_are_no_text_can_be_written():
    name = b"\xff.wav".decode("utf-8", "surrogateescape")
    score = Score(**{**vars(GOOD), "id": name})
    assert json.loads(written("jsonl", score))["id"] == name
    assert written("csv", score).splitlines()[1].startswith("\\udcff.wav,")


@pytest.mark.parametrize("segments", [False, True])
def test_parquet_has_the_columns_and_values_of_csv(segments):
    pytest.importorskip("pyarrow")
    scores = [cut(GOOD), cut(BAD)] if segments else [GOOD, BAD]
    found = pd.read_parquet(io.BytesIO(tables.parquet(rows(*scores), AXES, segments=segments)))
    text = pd.read_csv(io.StringIO(written("csv", *scores, segments=segments)))
    assert list(found) == list(text)
    pd.testing.assert_frame_equal(found.astype(object).fillna(""), text.astype(object).fillna(""), check_dtype=False)
    assert found["PQ"].dtype == "float64" and found["seconds"].dtype == "float64"


def test_parquet_of_rejected_clips_alone():
    pytest.importorskip("pyarrow")
    found = pd.read_parquet(io.BytesIO(tables.parquet(rows(BAD), AXES, segments=False)))
    assert found["PQ"].dtype == "float64" and found["PQ"].isna().all()


@pytest.mark.parametrize(
    ("named", "to", "form"),
    [
        (None, None, "jsonl"),
        (None, "x.csv", "csv"),
        (None, "x.CSV", "csv"),
        (None, "x.parquet", "parquet"),
        (None, "x.jsonl", "jsonl"),
        (None, "x", "jsonl"),
        ("aes", "x.csv", "aes"),
    ],
)
def test_the_format_is_the_named_one_or_the_suffix(named, to, form):
    assert tables.format_of(named, to and Path(to)) == form


def test_formats_that_cannot_be_written(monkeypatch):
    with pytest.raises(UnknownName, match="Did you mean 'jsonl'"):
        tables.format_of("json", None)
    with pytest.raises(UsageError, match="--to"):
        tables.format_of("parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetupError, match="parquet"):
        tables.format_of(None, Path("x.parquet"))
