"""The report: one page that holds everything, escapes everything, is the same each time and opens in a browser."""

import os
import re
import shutil
import subprocess
from itertools import product

import numpy as np
import pandas as pd
import pytest
import soundfile

from mmmos.axes import AXES
from mmmos.errors import InputError
from mmmos.metrics import srcc
from mmmos.submissions.leaderboard import leaderboard
from mmmos.submissions.report import SOUND, plots, tables, write_report
from mmmos.submissions.report.excerpts import SECONDS, Excerpt, excerpt, hertz, mel, mp3, png, shades
from mmmos.submissions.report.svg import Plot, nice_ticks

HOSTILE = "<img src=x onerror=alert(1)>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def make_world(clips=40, seed=0):
    """Truth with ten ratings, systems and domains, and predictions of it."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"clip{i:03d}" for i in range(clips)], name="id")
    true = rng.uniform(2, 8, (clips, 4))
    ratings = np.clip(np.rint(true[:, None] + rng.normal(0, 1.2, (clips, 10, 4))), 0, 10)
    truth = pd.DataFrame(ratings.mean(axis=1), index=ids, columns=list(AXES))
    predictions = truth + rng.normal(0, 1, (clips, 4))
    truth["system"] = [f"sys{i % 5}" for i in range(clips)]
    truth["domain"] = [("speech", "music")[i % 2] for i in range(clips)]
    for place, axis in enumerate(AXES):
        truth[f"{axis}_ratings"] = [tuple(row) for row in ratings[:, :, place]]
    return predictions, truth


@pytest.fixture
def parts():
    predictions, truth = make_world()
    cells = product(["encoder"], ["wavlm", HOSTILE], ["pam"], ["all"], ["mean", *AXES], ["utt_SRCC"])
    contributions = pd.DataFrame(cells, columns=["factor", "level", "set", "domain", "axis", "metric"])
    return {
        "title": f"Submission {HOSTILE}",
        "data": pd.DataFrame({"set": ["train", "eval"], "clips": [40, 40], "usable": [39, 40], "rejected": [1, 0]}),
        "leaderboards": {"pam": leaderboard({"ensemble": predictions, HOSTILE: predictions + 1}, truth)},
        "predictions": predictions,
        "truth": truth,
        "members": pd.DataFrame(
            {"run": ["ab12", "cd34"], "loss": ["mse", HOSTILE], "weight_PQ": [0.75, 0.25], "weight_CE": [0.5, 0.5]}
        ),
        "rejects": pd.DataFrame({"reason": ["too_short"]}, index=pd.Index([HOSTILE], name="id")),
        "flags": pd.DataFrame({"flag": ["clipped"], "clips": [3], "meaning": ["full scale"], "example": [HOSTILE]}),
        "notes": ["1 clip was rejected.", HOSTILE],
        "shown": "pam",
        "stability": pd.DataFrame({"key": ["ab12"], "name": [HOSTILE], "chosen": [0.93], "weight": [0.5]}),
        "contributions": contributions.assign(effect=0.012, low=-0.01, high=0.034, runs=4),
    }


def page_of(tmp_path, parts, **changes):
    return write_report(tmp_path / "report.html", **{**parts, **changes}).read_text(encoding="utf-8")


def test_the_page_holds_every_section(tmp_path, parts):
    page = page_of(tmp_path, parts)
    for text in (
        "Leaderboard: pam",
        "ensemble",
        "ab12",
        "0.750",
        "too_short",
        "1 clip was rejected.",
        "clipped",
        "93 %",
    ):
        assert text in page
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        *("Data", "Predictions", "Ranks", "Pooled and within domains", "Systems", "Bias", "Leaderboard: pam"),
        *("Members", "What contributes", "The clips that are farthest off"),
    ]
    assert 'aria-label="Predicted against true PC"' in page and "over systems" in page


def test_sections_without_data_are_left_out(tmp_path, parts):
    truth = parts["truth"][list(AXES)]
    page = page_of(tmp_path, parts, truth=truth, leaderboards={}, stability=None, contributions=None)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == ["Data", "Predictions", "Ranks", "Bias", "Members", "The clips that are farthest off"]
    assert "noise" not in page and 'class="band"' not in page


def test_the_summary_says_how_good_on_what_how_sure_and_what_is_possible(tmp_path, parts):
    page = page_of(tmp_path, parts)
    predicted, truth = parts["predictions"], parts["truth"]
    lead = re.search('<div class="lead">(.*?)</div>', page, re.DOTALL)[1]
    utt = np.mean([srcc(predicted[axis], truth[axis]) for axis in AXES])
    assert "On pam, 40 clips of 5 systems" in lead and f"clips with an SRCC of {utt:.3f} (95 % interval" in lead
    limit = tables.ceilings_of(truth).query("domain == 'all'")["utt_SRCC"].mean()
    assert f"a perfect model would rank clips with {limit:.3f}" in lead
    assert "no other row can be told apart from it" in lead


def test_every_text_is_escaped(tmp_path, parts):
    page = page_of(tmp_path, parts)
    assert HOSTILE not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 4


def test_the_page_is_self_contained_and_the_same_each_time(tmp_path, parts):
    page = page_of(tmp_path, parts)
    assert page == page_of(tmp_path, parts)
    assert set(re.findall(r"https?://[^\"]*", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) <= {"data:"}


def test_without_truth_the_distribution_of_each_axis_is_shown(tmp_path, parts):
    page = page_of(tmp_path, parts, truth=None, notes=[], rejects=parts["rejects"].iloc[:0], flags=parts["flags"][:0])
    assert "<svg" not in page and "Flagged clips" not in page
    assert "median" in page
    assert "every clip could be used" in page


def test_thousands_of_clips_make_a_small_page(tmp_path, parts):
    predictions, truth = make_world(3000)
    page = page_of(tmp_path, parts, predictions=predictions, truth=truth, ceilings=pd.DataFrame())
    assert 'class="dots dense"' in page and len(page) < 1_500_000


def test_predictions_of_other_clips_are_an_error_and_nothing_is_written(tmp_path, parts):
    with pytest.raises(InputError, match="without a prediction"):
        page_of(tmp_path, parts, predictions=parts["predictions"].iloc[1:])
    assert list(tmp_path.iterdir()) == []


def test_intervals_of_groups_are_those_of_their_clips_alone():
    predictions, truth = make_world()
    found = tables.correlations(tables.compared(predictions, truth), pd.DataFrame())
    music = truth.index[truth["domain"] == "music"]
    alone = tables.correlations(tables.compared(predictions.loc[music], truth.loc[music]), pd.DataFrame())
    part = found[found["group"] == "music"].drop(columns="group").reset_index(drop=True)
    pd.testing.assert_frame_equal(part, alone.drop(columns="group"))


def test_ranks_lie_as_far_apart_as_their_correlation_says():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    y = x + rng.normal(size=4000)
    u, v = (pd.Series(each).rank() / 4000 for each in (x, y))
    assert plots.distance(srcc(x, y)) == pytest.approx(np.sqrt(np.mean((u - v) ** 2)), rel=1e-3)


def test_bias_is_told_by_score_and_the_worst_clips_come_first():
    predictions, truth = make_world()
    predictions.loc["clip007"] += 9
    assert tables.worst(tables.compared(predictions, truth), 3).index[0] == "clip007"
    bins = tables.bias_by_score(np.array([1.2, 1.4, 5.0]), np.array([2.2, 2.4, 4.0]))
    assert bins["mean"].round(9).tolist() == [1.0, -1.0] and bins["clips"].tolist() == [2, 1]


def test_one_axis_is_not_compared_with_others(tmp_path, parts):
    page = page_of(tmp_path, parts, predictions=parts["predictions"][["PQ"]], truth=parts["truth"][["PQ"]])
    assert "the predictions rank clips" in page and "Among the axes" not in page


def test_what_is_not_known_is_not_drawn():
    plot, unknown = Plot((0, 1), (0, 1)), [np.nan, np.nan]
    plot.ticks()
    plot.labels()
    plot.line(unknown, unknown, "rule")
    plot.spans(unknown, unknown, unknown, "bar")
    plot.dots(unknown, unknown)
    assert plot.svg("nothing") == Plot((0, 1), (0, 1)).svg("nothing")
    constant = plots.ranks("PQ", "all clips", np.arange(5.0), np.zeros(5), np.nan, np.nan)
    assert 'class="dots"' in constant and "dash" not in constant and "band" not in constant


def test_a_line_is_broken_where_a_point_is_unknown():
    plot = Plot((0, 4), (0, 4))
    plot.line([0, 1, 2, 3, 4], [0, 1, np.nan, 3, 4], "rule")
    assert plot.svg("two parts").count('<path class="rule"') == 2


def test_ticks_are_round_numbers_inside_the_range():
    assert nice_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert nice_ticks(-0.3, 0.31, 4) == [-0.2, 0.0, 0.2]


@pytest.fixture
def tone(tmp_path):
    """Two seconds: 1 kHz, then 4 kHz."""
    time = np.arange(24_000) / 24_000
    wave = np.concatenate([np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 4000 * time)]) / 2
    soundfile.write(tmp_path / "tone.wav", wave, 24_000)
    return tmp_path / "tone.wav"


def test_a_spectrogram_shows_tones_where_they_are(tone):
    wave, rate = soundfile.read(tone, dtype="float32")
    picture = shades(wave, rate, 12_000)
    bands = hertz(np.linspace(0, float(mel(12_000)), len(picture) + 1))[:-1][::-1]
    for part, frequency in ((picture[:, 20:140], 1000), (picture[:, 180:300], 4000)):
        assert bands[part.mean(axis=1).argmin()] == pytest.approx(frequency, rel=0.06)


def test_an_excerpt_is_short_the_same_each_time_and_kept_as_json(tone):
    found = excerpt(tone)
    assert found == excerpt(tone) == Excerpt.of_json(found.as_json())
    assert found.seconds == pytest.approx(2) and found.picture.startswith(b"\x89PNG")
    assert excerpt(tone, 0.5, 1.0).seconds == pytest.approx(0.5)
    assert excerpt(tone.parent / "nothing.wav") is None
    (tone.parent / "text.wav").write_text("no audio")
    assert excerpt(tone.parent / "text.wav") is None


def test_an_excerpt_ends_after_its_seconds_and_what_is_too_short_has_none(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(20 * 8000), 8000)
    soundfile.write(tmp_path / "sample.wav", [0.5], 8000)
    assert excerpt(tmp_path / "long.wav").seconds == SECONDS
    assert excerpt(tmp_path / "sample.wav") is None


def test_without_an_encoder_or_a_rate_that_it_takes_there_is_no_sound(monkeypatch):
    wave = np.zeros(8000, np.float32)
    assert mp3(wave, 8000) and mp3(wave, 4000) == b""
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": ""})
    assert mp3(wave, 8000) == b""


def test_players_stop_where_the_page_would_grow_too_large(tmp_path, parts):
    small = png(np.zeros((2, 2), np.uint8))
    long = Excerpt(1.0, 8000.0, small, bytes(SOUND // 3))
    page = page_of(tmp_path, parts, excerpts=dict.fromkeys(parts["truth"].index, long))
    assert page.count("<audio") == 3 and page.count("<image") == 20
    assert "media-src data:" in page


@pytest.fixture
def hostile(tmp_path, parts, tone):
    """A page whose names try to be what they are not, with a script of ours that reports on it in the title."""
    names = [
        "<script>document.title='owned'</script>",
        "</style><h1>owned",
        "\u202egnp.exe",
        "'\"onclick=owned",
        "=cmd()",
        "long" * 60,
        "\udc80\x00",
    ]
    index = pd.Index([*names, *parts["truth"].index[len(names) :]], name="id", dtype=object)
    predictions, truth = (parts[name].set_axis(index) for name in ("predictions", "truth"))
    truth["system"] = [names[i % 5] for i in range(len(truth))]
    truth["domain"] = [names[i % 2] for i in range(len(truth))]
    board = leaderboard({name: predictions + i for i, name in enumerate(names)}, truth)
    page = page_of(
        tmp_path,
        parts,
        predictions=predictions,
        truth=truth,
        leaderboards={"pam": board},
        excerpts=dict.fromkeys(index, excerpt(tone)),
    )
    report = "<script>document.title = [document.documentElement.scrollWidth <= innerWidth, document.images.length]"
    probe = tmp_path / "probe.html"
    probe.write_text(page.replace("</body>", report + "</script></body>"), encoding="utf-8")
    return probe


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_page_opens_in_a_browser_and_fits_its_width(tmp_path, hostile, width, height):
    def browse(*options):
        command = [BROWSER, "--headless", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", *options, hostile.as_uri()]
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        return subprocess.run(command, capture_output=True, timeout=120, check=True)

    done = browse("--dump-dom")
    assert b"CONSOLE" not in done.stderr, done.stderr.decode()
    dom = done.stdout.decode()
    assert "<title>true,0</title>" in dom
    assert "<h1>owned" not in dom and 'onclick="owned' not in dom
    browse(f"--screenshot={tmp_path / 'shot.png'}")
    assert (tmp_path / "shot.png").stat().st_size > 20_000
