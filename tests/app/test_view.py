"""The page's HTML."""

import csv
import io
import re
from html import unescape
from urllib.parse import unquote

import numpy as np
import pytest

from mmmos.app import page, view
from mmmos.app.clips import Entry, refused
from mmmos.scoring import tables
from mmmos.scoring.score import Score, SegmentScore

AXES = ("PQ", "PC", "CE", "CU")
QUANTILES = np.linspace(1, 9, 21).tolist()
REFERENCE = {name: dict.fromkeys(AXES, QUANTILES) for name in ("", "music", "speech")}
HOSTILE = "</th><script>alert(1)</script> ${7*7} {{7*7}} \u202e.wav"


def entry(tmp_path, **change):
    values = dict.fromkeys(AXES, 5.0)
    parts = tuple(SegmentScore(start, start + 2.0, values, {}) for start in (0.0, 1.0, 2.0))
    known = {"path": "a.wav", "seconds": 4.0, "scores": values, "spread": dict.fromkeys(AXES, 0.25), "segments": parts}
    score = Score(**{"id": "a.wav"} | known | change)
    return Entry(score, 16_000, b"png", tmp_path / "0123.flac")


def test_without_a_file_there_are_no_details():
    assert view.details(view.Subject("x", AXES), None) == ""


def test_scores_lie_among_the_ratings(tmp_path):
    html = view.details(view.Subject("x", AXES, reference=REFERENCE), entry(tmp_path))
    assert html.count("higher than 50 % of the rated clips") == 12
    assert html.count("± 0.2") == 4
    assert re.findall("<option.*?>(.*?)</option>", html) == ["all domains", "music", "speech"]


def test_no_reference_is_invented(tmp_path):
    html = view.details(view.Subject("x", AXES), entry(tmp_path))
    assert "rated clips" not in html
    assert "m-half" not in html
    assert html.count("<b>5.0</b>") == 4


def test_a_single_head_has_no_spread(tmp_path):
    html = view.details(view.Subject("x", AXES), entry(tmp_path, spread={}))
    assert "±" not in html


def test_flags_and_reasons_are_words(tmp_path):
    subject = view.Subject("x", AXES)
    assert "lie at full scale" in view.details(subject, entry(tmp_path, flags=("clipped",)))
    rejected = Entry(refused("b.wav", "not_audio", "it begins with 'dear'"))
    assert "the content is not audio" in view.details(subject, rejected)
    assert "it begins with" in unescape(view.details(subject, rejected))
    assert "m-card" not in view.details(subject, rejected)


def test_names_are_text(tmp_path):
    known = entry(tmp_path, id=HOSTILE)
    subject = view.Subject("<b>x", AXES, ("<i>",), ("<u>",))
    for html in (page.table_of(subject, (known,), 0), view.details(subject, known), view.head(subject)):
        assert "<script" not in html
        assert "<i>" not in html
        assert "\u202e" not in html


def test_the_download_is_what_the_command_writes(tmp_path):
    known = (entry(tmp_path, id=HOSTILE), Entry(refused("b.wav", "not_audio", "text")))
    html = page.table_of(view.Subject("x", AXES), known, 0)
    (address,) = re.findall('href="data:text/csv;charset=utf-8,(.*?)"', html)
    rows = list(csv.DictReader(io.StringIO(unquote(address))))
    assert list(rows[0]) == tables.columns(AXES, segments=False)
    assert [row["id"] for row in rows] == [HOSTILE, "b.wav"]
    assert [row["PQ"] for row in rows] == ["5.0", ""]
    assert rows[1]["reason"] == "not_audio"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.05, "0.05 s"), (12.34, "12.3 s"), (59.97, "60.0 s"), (545, "9:05 min")]
)
def test_lengths(seconds, text):
    assert view.clock(seconds) == text
