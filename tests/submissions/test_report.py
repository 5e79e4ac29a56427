"""The report: one page that holds everything, escapes everything and is the same each time."""

import re

import numpy as np
import pandas as pd
import pytest

from mmmos.axes import AXES
from mmmos.errors import InputError
from mmmos.submissions.leaderboard import leaderboard
from mmmos.submissions.report import write_report

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    ids = pd.Index([f"clip{i:03d}" for i in range(40)], name="id")
    truth = pd.DataFrame(rng.uniform(1, 9, (40, 4)).round(1), index=ids, columns=list(AXES))
    predictions = truth + rng.normal(0, 1, (40, 4))
    truth["system"] = [f"sys{i % 5}" for i in range(40)]
    return {
        "title": f"Submission {HOSTILE}",
        "data": pd.DataFrame({"set": ["train", "eval"], "clips": [40, 40], "usable": [39, 40], "rejected": [1, 0]}),
        "leaderboards": {"pam": leaderboard({"ensemble": predictions}, truth, intervals=10)},
        "predictions": predictions,
        "truth": truth,
        "members": pd.DataFrame({"run": ["ab12", "cd34"], "loss": ["mse", HOSTILE], "weight": [0.75, 0.25]}),
        "rejects": pd.DataFrame({"reason": ["too_short"]}, index=pd.Index([HOSTILE], name="id")),
        "flags": pd.DataFrame({"flag": ["clipped"], "clips": [3], "meaning": ["full scale"], "example": [HOSTILE]}),
        "notes": ["1 clip was rejected.", HOSTILE],
    }


def page_of(tmp_path, parts, **changes):
    return write_report(tmp_path / "report.html", **{**parts, **changes}).read_text(encoding="utf-8")


def test_the_page_holds_data_leaderboards_figures_members_and_rejects(tmp_path, parts):
    page = page_of(tmp_path, parts)
    for text in ("Leaderboard: pam", "ensemble", "ab12", "0.750", "too_short", "1 clip was rejected.", "clipped"):
        assert text in page
    assert page.count("<svg") == 4
    assert 'aria-label="Predicted against true PC"' in page
    assert "over systems" in page


def test_every_text_is_escaped(tmp_path, parts):
    page = page_of(tmp_path, parts)
    assert HOSTILE not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 4


def test_the_page_is_self_contained_and_the_same_each_time(tmp_path, parts):
    page = page_of(tmp_path, parts)
    assert page == page_of(tmp_path, parts)
    assert set(re.findall(r"https?://[^\"]*", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)}
    assert references <= set(ids)


def test_without_truth_the_distribution_of_each_axis_is_shown(tmp_path, parts):
    page = page_of(tmp_path, parts, truth=None, notes=[], rejects=parts["rejects"].iloc[:0], flags=parts["flags"][:0])
    assert "<svg" not in page and "Flagged clips" not in page
    assert "median" in page
    assert "every clip could be used" in page


def test_many_clips_are_drawn_as_pixels(tmp_path, parts, monkeypatch):
    small = page_of(tmp_path, parts)
    monkeypatch.setattr("mmmos.submissions.report.RASTER_ABOVE", 10)
    page = page_of(tmp_path, parts)
    assert "data:image/png" not in small
    assert page.count("data:image/png") == 4
    assert page == page_of(tmp_path, parts)


def test_predictions_of_other_clips_are_an_error_and_nothing_is_written(tmp_path, parts):
    with pytest.raises(InputError, match="without a prediction"):
        page_of(tmp_path, parts, predictions=parts["predictions"].iloc[1:])
    assert list(tmp_path.iterdir()) == []
