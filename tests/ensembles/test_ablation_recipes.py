"""The recipes that are made for ``mmmos ensembles ablate``: what they spell, that they train, that they can be read."""

import pytest

from mmmos import recipe
from mmmos.ensembles import ablation
from mmmos.ensembles.recipe import read_recipe
from mmmos.ensembles.training.train import train
from mmmos.features.encoders.melstats import LAYERS

SMALL = {"epochs": 1, "hidden": 4}


def read(name):
    found = read_recipe(name, "no workspace")
    grid = [
        entry.model_copy(update={"options": {key: SMALL.get(key, value) for key, value in entry.options.items()}})
        for entry in found.grid
    ]
    return found.model_copy(update={"grid": grid})


@pytest.mark.parametrize(("name", "one", "three"), [("ablation", 12, 84), ("curves", 30, 30), ("triplets", 12, 12)])
def test_they_spell_as_many_heads_as_they_say(name, one, three):
    found = read(name)
    assert len(found.specs({"melstats": LAYERS})) == one
    assert len(found.specs(["wavlm-base-plus", "muq-large-msd-iter", "m2d-clap-as-ft"])) == three
    text = recipe.find("ensembles", name, "no workspace").read_text(encoding="utf-8")
    assert f"mmmos ensembles ablate {name}" in text


@pytest.mark.parametrize(
    ("name", "heads", "factors"),
    [
        ("ablation", 36, {"encoder", "features", "head", "loss", "seed"}),
        ("curves", 30, {"encoder", "head", "share", "seed"}),
        ("triplets", 12, {"encoder", "loss", "seed"}),
    ],
)
def test_they_train_and_every_factor_can_be_compared(name, heads, factors, world, tmp_path, caplog):
    pool = train(read(name), world.features, world.clips, folder=tmp_path, name=name, jobs=1)
    assert len(pool) == heads and not caplog.messages
    table = ablation.contributions(pool, on="pam", resamples=0)
    assert set(table["factor"]) == factors
    unknown = set(table.loc[table["effect"].isna(), "factor"])
    assert unknown == (set() if name == "ablation" else {"encoder"})
    if name == "curves":
        curve = ablation.learning_curve(pool, on="oof", resamples=0)
        values = curve.loc[curve["axis"] == "mean", "value"].tolist()
        assert values[-1] > values[0] + 0.1 and not curve["note"].any()
