"""Names of files that are no UTF-8 go through every stage: with pyarrow, whose texts cannot hold them, and without."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import mmmos
from mmmos import cli
from mmmos.axes import AXES
from mmmos.cli.output import put_table
from mmmos.ensembles.ensemble import Ensemble
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import SelectRecipe
from mmmos.ensembles.selectors import Selection
from mmmos.features.extraction.extract import status
from mmmos.features.sharing.exports import export
from mmmos.scoring import tables
from mmmos.scoring.score import Score
from mmmos.submissions.board import for_people, write_leaderboard
from mmmos.submissions.leaderboard import leaderboard
from mmmos.submissions.report import write_report

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bytes in names")

GOOD, BAD = os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"th\xe9.wav")
ESCAPED = "caf\\udce9.wav"


@pytest.fixture
def folder(tmp_path):
    """A clip of noise, and a file that is no audio."""
    noise, wave = io.BytesIO(), np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(noise, wave, 16000, format="WAV")
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / GOOD).write_bytes(noise.getvalue())
    (folder / BAD).write_bytes(b"no audio at all, but text that is long enough to be looked at")
    return folder


def test_features(folder, tmp_path, capsys):
    store, clips = tmp_path / "store", mmmos.read_manifest(str(folder))
    assert mmmos.read_manifest(clips).index.equals(clips.index)
    found = mmmos.extract(clips, "melstats", store=store)
    assert found.ids == (GOOD,) and list(found.rejected().index) == [BAD]
    assert set(found.flagged()["example"]) <= {GOOD} and found.flagged()["clips"].dtype == int
    assert status(clips, "melstats", store=store).equals(found.status)
    lost = tmp_path / "list.jsonl"
    lost.write_text("".join(json.dumps({"path": f"{place}/{GOOD}"}) + "\n" for place in (folder, "/no")))
    clips = mmmos.read_manifest(str(lost))
    left_out = export(clips, "melstats", tmp_path / "shared", store=store).left_out
    assert list(left_out.index) == [f"/no/{GOOD}"] and GOOD in left_out["detail"].iloc[0]

    shown = ["features", "show", "melstats", str(folder), "--store", str(store)]
    assert cli._call(shown, False) == 3 and ESCAPED in capsys.readouterr().out
    assert cli._call([*shown, "--json"], False) == 3
    assert [row["id"] for row in json.loads(capsys.readouterr().out)] == [GOOD, BAD]
    assert cli._call(["features", "extract", "melstats", str(folder), "--store", str(store)], False) == 3
    assert "th\\udce9.wav: " in capsys.readouterr().err
    assert cli._call(["features", "show", "--rejected", "--store", str(store)], False) == 0
    assert "th\\udce9.wav" in capsys.readouterr().out


def test_scores_in_files():
    scores = Score(GOOD, f"/x/{GOOD}", None, None, 1.0, dict.fromkeys(AXES, 5.0), dict.fromkeys(AXES, 0.1))
    rows = [tables.row_of(score, AXES, None) for score in (scores, Score(BAD, BAD, reason="missing", detail=BAD))]
    lines = b"".join(tables.pieces(rows, "jsonl", AXES, segments=False)).decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [GOOD, BAD]
    texts = [b"".join(tables.pieces(rows, "csv", AXES, segments=False)).decode()]
    if sys.modules.get("pyarrow"):
        table = pd.read_parquet(io.BytesIO(tables.parquet(rows, AXES, segments=False)))
        assert list(table["id"]) == [ESCAPED, "th\\udce9.wav"] and table["PQ"].dtype == float
        texts.append(table.to_csv())
    assert all(f"/x/{ESCAPED}" in text for text in texts)


def test_leaderboard_and_report(tmp_path, capsys):
    ids = pd.Index([f"{GOOD}{number}" for number in range(8)], dtype=object, name="id")
    truth = pd.DataFrame(np.random.default_rng(0).uniform(1, 9, (8, 4)), ids, list(AXES))
    pool = Pool("odd", tmp_path, "", AXES, (), ("a",), {"pam": tuple(ids)}, {"pam": truth.to_numpy()[None]}, {}, {})
    ensemble = Ensemble(pool, Selection(np.zeros(1, np.int64), np.ones((1, 4))), SelectRecipe())
    predictions = ensemble.predict(list(ids))
    assert predictions.index.equals(ids) and predictions.equals(ensemble.predict("pam"))

    systems = {clip: f"{GOOD}{place % 3}" for place, clip in enumerate(ids)}
    named = truth.assign(system=pd.Series(systems.values(), ids, dtype=object))
    about = pd.DataFrame({"members": [1, 2]}, index=pd.Index([GOOD, "b"], dtype=object))
    entries = {GOOD: predictions, "b": predictions + truth.to_numpy()[::-1]}
    board = leaderboard(entries, truth, systems=systems, intervals=5, about=about)
    assert board["model"].iloc[0] == GOOD and board["members"].iloc[0] == 1
    put_table(for_people(board))
    assert ESCAPED in capsys.readouterr().out
    files = write_leaderboard(board, tmp_path)
    files.append(
        write_report(
            tmp_path / "report.html",
            title="odd",
            data=pd.DataFrame({"clips": [8]}),
            leaderboards={"pam": board},
            predictions=predictions,
            truth=named,
            members=pd.DataFrame({"key": ["a"], "weight_PQ": [1.0]}),
            rejects=pd.DataFrame({"reason": "missing"}, index=ids[:1]),
            flags=pd.DataFrame(),
        )
    )
    assert all("udce9" in path.read_text(encoding="utf-8") for path in files)
    with pytest.raises(mmmos.MmmosError, match="8 ids cannot be written"):
        mmmos.write_submission(predictions, list(ids), format="csv", to=tmp_path / "answer")


@pytest.mark.skipif(sys.modules.get("pyarrow", "unknown") is None, reason="runs the tests above")
def test_the_same_without_pyarrow():
    code = "import sys; sys.modules['pyarrow'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
