"""The packaged recipes: each can be read, and spells what its description says."""

import pytest

from mmmos import recipe, registry
from mmmos.ensembles import grid as ensembles
from mmmos.features import spec as features
from mmmos.features.encoders.melstats import LAYERS
from mmmos.submissions.formats import read_format


@pytest.mark.parametrize("name", recipe.names("features", "no workspace"))
def test_feature_recipes_name_registered_encoders(name):
    tables = features.read_recipe(name, "no workspace").tables()
    assert {table.encoder for table in tables} <= set(registry.names("encoders"))


@pytest.mark.parametrize("name", recipe.names("submissions", "no workspace"))
def test_formats_can_be_read(name):
    assert read_format(name, "no workspace").axes == ("PQ", "PC", "CE", "CU")


def test_quick_is_36_varied_heads_on_blocks_of_melstats():
    found = ensembles.read_recipe("quick", "no workspace")
    specs = found.specs({"melstats": LAYERS})
    assert len(specs) == 36 and len({spec.head for spec in specs}) == 4
    assert "bandmean" not in {layer for spec in specs for layer in spec.layers}
    assert found.select.on == "pam" and found.select.k < len(specs)


def test_mmmos_is_16_heads_on_all_encoders_and_the_papers_rule():
    found = ensembles.read_recipe("mmmos", "no workspace")
    encoders = ("wavlm", "muq", "m2d")
    specs = found.specs(encoders)
    assert len(specs) == 16 and {spec.features for spec in specs} == {encoders}
    assert {spec.loss for spec in specs} == {"utmos", "contrastive", "dcq", "ccc"}
    assert (found.select.rule, found.select.on, found.select.k) == ("intersect", ["dev", "pam"], 8)
