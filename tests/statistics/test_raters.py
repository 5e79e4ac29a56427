"""Ceilings of rater noise: against simulated raters, and the measured ones of the evaluation set."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmmos.axes import AXES, LONG_NAMES
from mmmos.statistics import ceiling_table, ceilings

RATINGS = Path(__file__).parents[3] / "shared/data/audiomos2025_track2/audiomos2025_track2_human_annotations.jsonl"

# Of one random split into halves, and of one random rater: hence the tolerances below.
MEASURED = {
    "PQ": {"utt_LCC": 0.932, "utt_SRCC": 0.934, "sys_half_LCC": 0.995, "sys_half_SRCC": 0.986, "utt_single_LCC": 0.590},
    "PC": {"utt_LCC": 0.959, "utt_SRCC": 0.959, "sys_half_LCC": 0.998, "sys_half_SRCC": 0.974, "utt_single_LCC": 0.699},
    "CE": {"utt_LCC": 0.947, "utt_SRCC": 0.948, "sys_half_LCC": 0.997, "sys_half_SRCC": 0.989, "utt_single_LCC": 0.634},
    "CU": {"utt_LCC": 0.943, "utt_SRCC": 0.945, "sys_half_LCC": 0.996, "sys_half_SRCC": 0.992, "utt_single_LCC": 0.625},
}
EXACT = {
    "PQ": {"utt_MSE": 0.283, "MSE": 0.889, "LCC": 0.765, "SRCC": 0.761, "KTAU": 0.576},
    "PC": {"utt_MSE": 0.190, "MSE": 0.672, "LCC": 0.846, "SRCC": 0.808, "KTAU": 0.614},
    "CE": {"utt_MSE": 0.331, "MSE": 1.058, "LCC": 0.815, "SRCC": 0.803, "KTAU": 0.611},
    "CU": {"utt_MSE": 0.387, "MSE": 1.297, "LCC": 0.791, "SRCC": 0.787, "KTAU": 0.597},
}


@pytest.mark.skipif(not RATINGS.is_file(), reason="the ratings of the evaluation set are not here")
@pytest.mark.parametrize("axis", AXES)
def test_the_measured_ceilings_of_the_evaluation_set(axis):
    rows = [json.loads(line) for line in RATINGS.read_text(encoding="utf-8").splitlines()]
    systems = [row["data_path"].split("-")[2] for row in rows]
    found = ceilings([row[LONG_NAMES[axis]] for row in rows], systems, splits=60)
    for key, value in MEASURED[axis].items():
        assert found[key] == pytest.approx(value, abs=0.01 if key == "utt_single_LCC" else 0.0015), key
    for key, value in EXACT[axis].items():
        assert round(found[key if key == "utt_MSE" else f"utt_oracle_{key}"], 3) == value, key


def simulated(clips=3000, raters=10, seed=0):
    """Expected ratings (clips,), ratings (clips, raters) and systems (clips,)."""
    rng = np.random.default_rng(seed)
    systems = np.arange(clips) % 30
    expected = 5 + rng.normal(size=30)[systems] + rng.normal(size=clips)
    return expected, expected[:, None] + 2 * rng.normal(size=(clips, raters)), systems


@pytest.mark.parametrize("raters", [4, 10])
def test_a_perfect_model_reaches_the_ceiling_and_the_floor(raters):
    expected, ratings, systems = simulated(raters=raters)
    found = ceilings(ratings, systems, splits=20)
    truth = ratings.mean(axis=1)
    assert found["utt_LCC"] == pytest.approx(np.corrcoef(expected, truth)[0, 1], abs=0.01)
    assert found["utt_MSE"] == pytest.approx(np.mean((expected - truth) ** 2), rel=0.05)
    x, y = (np.bincount(systems, values) / np.bincount(systems) for values in (expected, truth))
    assert found["sys_LCC"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=0.005)
    assert found["sys_MSE"] == pytest.approx(4 / raters / 100, rel=0.05)
    assert found["utt_LCC"] < found["sys_LCC"] <= 1
    assert found["utt_half_LCC"] < found["utt_LCC"]


def test_one_rater_against_the_others_by_hand():
    ratings = np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 7.0], [2.0, 6.0, 1.0]])
    others = [(row.sum() - one) / 2 for row in ratings for one in row]
    assert ceilings(ratings)["utt_single_LCC"] == pytest.approx(np.corrcoef(ratings.ravel(), others)[0, 1])


def test_ceilings_do_not_depend_on_the_order_of_raters_and_are_reproducible():
    _, ratings, systems = simulated(clips=300)
    found = ceilings(ratings, systems)
    assert found == ceilings(ratings, systems)
    mixed = ceilings(np.random.default_rng(1).permuted(ratings, axis=1), systems)
    assert {key: round(value, 2) for key, value in mixed.items()} == pytest.approx(
        {key: round(value, 2) for key, value in found.items()}, abs=0.011
    )


def test_without_systems_there_is_no_system_level():
    assert {key.split("_")[0] for key in ceilings(simulated(clips=50)[1])} == {"utt"}


def test_raters_who_only_guess_have_no_ceiling():
    ratings = np.random.default_rng(3).normal(size=(4, 2))
    ratings[:, 1] = -ratings[:, 0]
    assert np.isnan(ceilings(ratings)["utt_LCC"])
    assert np.isnan(ceilings(np.ones((5, 4)))["utt_SRCC"])


@pytest.mark.parametrize("ratings", [[1.0, 2.0], [[1.0], [2.0]], np.ones((0, 5)), [[1.0, np.nan]]])
def test_ratings_that_say_nothing_of_noise_are_refused(ratings):
    with pytest.raises(ValueError, match="two raters or more"):
        ceilings(ratings)
    with pytest.raises(ValueError, match="systems must name"):
        ceilings(np.ones((3, 2)), ["a"])


def test_the_table_has_every_axis_with_ratings(caplog):
    _, ratings, systems = simulated(clips=60)
    lists = [tuple(row) for row in ratings]
    clips = pd.DataFrame(
        {"PQ_ratings": lists, "CE_ratings": [*lists[:-2], None, lists[-1][:3]], "CU_ratings": [(5.0,)] * 60}
    ).assign(system=[f"s{number}" for number in systems])
    table = ceiling_table(clips, splits=5)
    assert list(table.columns) == ["axis", "level", "metric", "value"]
    assert list(table["axis"].unique()) == ["PQ", "CE"] and "CU" in caplog.text
    value = table.set_index(["axis", "level", "metric"])["value"]
    found = ceilings(ratings[:58], systems[:58], splits=5)
    assert value["CE", "utterance", "MSE"] == pytest.approx(found["utt_MSE"])
    assert value["CE", "system", "SRCC"] == pytest.approx(found["sys_SRCC"])
    assert set(ceiling_table(clips.drop(columns="system"), splits=5)["level"]) == {"utterance"}
    assert ceiling_table(clips[["system"]]).empty
