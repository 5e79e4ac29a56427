"""Everything that a scorer takes; audio that is bad has a reason, a call that is wrong an error."""

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from mmmos.errors import Rejected, UsageError
from mmmos.scoring.inputs import Clip, opened
from mmmos.scoring.score import columns

KEYS = [
    *("id", "path", "start", "end", "seconds", "PQ", "PC", "CE", "CU"),
    *("PQ_spread", "PC_spread", "CE_spread", "CU_spread", "flags", "reason", "detail"),
]


@pytest.fixture
def clip(make_clips):
    return make_clips(1)[0].path


@pytest.fixture
def expected(scorer, clip):
    return scorer(clip)


def same(row, expected):
    """Whether a row has the same scores and flags."""
    names = [*KEYS[5:13], "seconds"]
    return row[names].astype(float).tolist() == expected[names].astype(float).tolist() and row["flags"] == []


def test_one_path_is_a_series(scorer, clip):
    row = scorer(clip)
    assert isinstance(row, pd.Series) and list(row.index) == KEYS == columns(scorer.axes)
    assert row["id"] == row["path"] == row.name == clip
    assert row["seconds"] == 0.5 and row["reason"] is None and row["flags"] == []
    assert scorer(Path(clip)).equals(row)


def test_samples_with_a_rate(scorer, clip, expected):
    samples, rate = soundfile.read(clip, dtype="float32")
    stereo = np.stack([samples, samples], axis=1)
    for given in (samples, samples.astype(np.float64), samples[:, None], stereo, np.asfortranarray(stereo)):
        assert same(scorer(given, rate), expected)
        assert same(scorer((given, rate)), expected)
    for given in (torch.from_numpy(samples), torch.from_numpy(stereo.T), torch.from_numpy(samples).requires_grad_()):
        assert same(scorer(given, rate=float(rate)), expected)
    assert scorer(samples, rate)["id"] == "0" and scorer(samples, rate)["path"] is None


def test_integers_are_brought_to_full_scale(scorer, clip):
    samples, rate = soundfile.read(clip, dtype="int16")
    exact = (samples / 2**15).astype(np.float32)
    pd.testing.assert_series_equal(scorer(samples, rate), scorer(exact, rate))
    pd.testing.assert_series_equal(scorer(torch.from_numpy(samples), rate), scorer(exact, rate))
    half = torch.from_numpy(exact).to(torch.bfloat16)
    pd.testing.assert_series_equal(scorer(half, rate), scorer(half.float(), rate))


def test_binary_file_objects(scorer, clip, expected, put):
    with Path(clip).open("rb") as file:
        row = scorer(file)
        assert same(row, expected) and (row["id"], row["path"]) == ("0", None)
    assert same(scorer(io.BytesIO(Path(clip).read_bytes())), expected)
    empty, text = scorer([io.BytesIO(), io.BytesIO(b"<html>" * 99)])["detail"]
    assert empty == "the file has 0 bytes" and "tmp" not in text
    closed = io.BytesIO()
    closed.close()
    assert scorer(closed)["reason"] == "unreadable"


def test_entries_of_audiobox(scorer, clip, expected):
    samples, rate = soundfile.read(clip, dtype="float32")
    assert same(scorer({"path": clip}), expected)
    assert same(scorer({"path": torch.from_numpy(samples)[None], "sample_rate": rate}), expected)
    row = scorer({"path": clip, "start_time": 0.1, "end_time": 0.4})
    assert (row["start"], row["end"], row["seconds"]) == (0.1, 0.4, 0.3)
    part = samples[800:3200]
    assert same(row, scorer(part, rate))
    table = scorer([{"path": clip}, {"path": clip, "start_time": 0.1}])
    assert list(table.index) == [clip, f"{clip}#2"]


def test_lists_and_iterators_are_tables(scorer, clip, expected):
    samples, rate = soundfile.read(clip, dtype="float32")
    mixed = [clip, (samples, rate), Path(clip), {"path": clip}]
    for given in (mixed, tuple(mixed), iter(mixed), pd.Series(mixed)):
        table = scorer(given)
        assert list(table.index) == [clip, "1", f"{clip}#2", f"{clip}#3"] and table.index.name == "id"
        assert list(table.columns) == KEYS[1:] and all(same(row, expected) for _, row in table.iterrows())
    nothing = scorer([])
    assert nothing.shape == (0, len(KEYS) - 1) and nothing["PQ"].dtype == float
    assert len(scorer([samples, samples], rate)) == 2


def test_a_table_keeps_numbers_as_numbers_where_some_are_unknown(scorer, clip, put):
    table = scorer([clip, put("text.wav", b"text" * 99)])
    assert table["PQ"].dtype == table["start"].dtype == float
    assert table["reason"].tolist() == [None, "not_audio"] and table["PQ"].isna().tolist() == [False, True]


def test_manifests(scorer, model, clip, expected):
    table = pd.DataFrame(
        {"path": [clip, clip], "start": [np.nan, 0.1], "domain": ["speech", None]}, index=["one", "two"]
    )
    scores = scorer(table)
    assert list(scores.index) == ["one", "two"] and same(scores.loc["one"], expected)
    assert scores["start"].tolist()[1] == 0.1 and max(model.domains, key=str) == "speech"
    other = table.assign(path=str(Path(clip).with_suffix(".flac")))
    assert same(scorer(other).loc["one"], expected), "audio is found by its stem"


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        (np.zeros(0), 8000, "no_samples"),
        (np.full(8000, np.nan), 8000, "non_finite"),
        (np.zeros(8000), 10, "bad_rate"),
        (np.zeros(80), 8000, "too_short"),
    ],
)
def test_samples_that_cannot_be_used_have_a_reason(scorer, samples, rate, reason):
    row = scorer(samples, rate)
    assert row["reason"] == reason and row["detail"] and row["PQ"] is None


@pytest.mark.parametrize(
    ("given", "rate", "says"),
    [
        (np.zeros(8000), None, r"Samples need their rate in Hz: scorer\(samples, rate\)"),
        (np.zeros(8000), "8000", "A rate is a whole number of Hz; got '8000'"),
        (np.zeros(8000), 22050.5, "A rate is a whole number of Hz"),
        (np.zeros(8000), float("nan"), "A rate is a whole number of Hz"),
        (np.zeros(8000), True, "A rate is a whole number of Hz"),
        (np.zeros((2, 8000)), 8000, r"got \(2, 8000\)\. Transpose it\?"),
        (torch.zeros(8000, 2), 8000, r"\(channels, samples\), with 1 to 32 channels; got \(8000, 2\)\. Transpose it\?"),
        (np.zeros((3, 2, 100)), 8000, "got 3 dimensions"),
        (np.zeros(8000, bool), 8000, "got bool"),
        (np.zeros(8000, complex), 8000, "got complex128"),
        (np.zeros(8000, np.int64), 8000, "integers of 8, 16 or 32 bits; got int64"),
        (np.array(["a.wav"]), 8000, "got <U5"),
        ((8000, np.zeros(8000)), None, r"A pair is \(samples, rate\), in this order"),
        ((np.zeros(8000), 8000), 8000, "has its own"),
        ("a.wav", 8000, "A rate belongs to samples; a file tells its own"),
        (["a.wav", 3.0], None, "entry 1 is float"),
        (b"RIFF", None, r"io\.BytesIO\(content\)"),
        (io.StringIO("x"), None, 'open it with "rb"'),
        (None, None, "got NoneType"),
        (3, None, "got int"),
        ({"file": "a.wav"}, None, "A dict needs 'path'.*got file"),
        ({"path": "a.wav", "start_time": "1"}, None, "start_time is a number of seconds; got '1'"),
        ({"path": np.zeros(8000)}, None, "Samples need their rate"),
        (pd.DataFrame({"file": ["a.wav"]}), None, "column 'path'"),
    ],
)
def test_a_wrong_call_is_an_error(scorer, given, rate, says):
    with pytest.raises(UsageError, match=says):
        scorer(given, rate)


def test_a_file_that_is_written_to_while_it_is_read_is_rejected(clip):
    with pytest.raises(Rejected, match=r"changed: .* was written to while"), opened(Clip("a", clip)) as stream:
        list(stream.blocks)
        with Path(clip).open("ab") as file:
            file.write(b"more")


@pytest.mark.skipif(sys.platform == "win32", reason="names of any bytes")
def test_names_of_any_bytes_are_kept(scorer, clip, tmp_path):
    odd = tmp_path / "a\nb \udcff 🎧.wav"
    odd.write_bytes(Path(clip).read_bytes())
    row = scorer(odd)
    assert row["path"] == str(odd) and row["reason"] is None
