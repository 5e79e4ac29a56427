"""Axes: four of them, under every spelling in use."""

import pytest

from mmmos import axes
from mmmos.errors import UnknownName


@pytest.mark.parametrize("short", axes.AXES)
def test_every_spelling_leads_to_the_short_name(short):
    long = axes.LONG_NAMES[short]
    for name in (short, short.lower(), long, long.upper(), long.replace("_", " "), f" {short} "):
        assert axes.axis(name) == axes.find_axis(name) == short


def test_another_name_is_refused_with_the_nearest():
    assert axes.find_axis("Production_Qualty") is None
    with pytest.raises(UnknownName, match="Did you mean 'Production_Quality'"):
        axes.axis("Production_Qualty")
