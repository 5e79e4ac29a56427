"""The model card says what ``bundle.json`` does, and no more."""

import json

import pytest

from mmmos.ensembles.bundle.about import ABOUT, CARD, About
from mmmos.ensembles.bundle.card import card


@pytest.fixture
def card_of(small):
    """The card of the small bundle with changed fields."""
    fields = json.loads(small.files[ABOUT])
    return lambda **changes: card(About.model_validate(fields | changes))


def quality(seen, levels):
    """A set whose every metric is 0.5 (0.4 to 0.6) on PQ and in the mean, and undefined on the other axes."""
    known, undefined = {"value": 0.5, "low": 0.4, "high": 0.6}, {"value": None}
    scores = {"mean": known, "PQ": known, "PC": undefined, "CE": undefined, "CU": undefined}
    metrics = [f"{level}_{metric}" for level in levels for metric in ("SRCC", "LCC", "KTAU", "MSE")]
    return {"set": "pam", "clips": 7, "systems": 3, "seen": seen, "scores": dict.fromkeys(metrics, scores)}


def test_the_card_is_that_of_the_bundle(small, card_of):
    assert card_of().encode() == small.files[CARD]
    assert "No set with scores was at hand." in card_of()


@pytest.mark.parametrize(("levels", "shown"), [(["utt"], {"clips"}), (["utt", "sys"], {"clips", "systems"})])
def test_quality_has_rows_of_the_levels_that_were_measured_and_dashes_where_it_is_undefined(levels, shown, card_of):
    rows = [line.strip("| ").split(" | ") for line in card_of(metrics=[quality(False, levels)]).splitlines()]
    cell = "0.500 (0.400 to 0.600)"
    assert [row for row in rows if row[:2] == ["pam", "7"]] == [
        ["pam", "7", level, *[cell] * 4] for level in sorted(shown)
    ]
    assert [row for row in rows if row[0] == "pam" and row[1] in shown] == [
        ["pam", level, cell, "–", "–", "–"] for level in sorted(shown)
    ]


def test_a_set_that_the_rule_looked_at_is_starred_and_the_star_is_explained(card_of):
    seen, unseen = (card_of(metrics=[quality(seen, ["utt"])]) for seen in (True, False))
    assert r"pam \*" in seen and "which flatters it" in seen
    assert r"\*" not in unseen and "which flatters it" not in unseen


def test_the_domains_that_it_learned_from_are_named(card_of):
    table = {axis: [5.0] * 21 for axis in ("PQ", "PC", "CE", "CU")}
    assert "are of these domains: music, speech." in card_of(reference={"": table, "music": table, "speech": table})
    assert "domains" not in card_of(reference={"": table})


def test_weights_that_may_not_be_used_commercially_are_said_first(small, card_of):
    encoders = json.loads(small.files[ABOUT])["encoders"]
    free, bound = card_of(), card_of(encoders=[encoders[0] | {"commercial": False}, *encoders[1:]])
    assert "commercial" not in free
    assert "neither may this ensemble" in bound and bound.count("not for commercial use") == 1
