"""The packaged recipes: each can be read, spells what its description says, and trains."""

import re
from collections import Counter

import pytest

import mmmos
from mmmos import recipe, registry
from mmmos.ensembles import recipe as ensembles
from mmmos.ensembles.training.train import train
from mmmos.features import spec as features
from mmmos.features.encoders.melstats import LAYERS
from mmmos.submissions.formats import read_format

ENCODERS = ("wavlm-base-plus", "muq-large-msd-iter", "m2d-clap-as-ft")
LOSSES = {"utmos", "contrastive", "dcq", "ccc"}


def read(name):
    return ensembles.read_recipe(name, "no workspace")


def text(shelf, name):
    return recipe.find(shelf, name, "no workspace").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", recipe.names("features", "no workspace"))
def test_feature_recipes_name_registered_encoders(name):
    tables = features.read_recipe(name, "no workspace").tables()
    assert {table.encoder for table in tables} <= set(registry.names("encoders"))


@pytest.mark.parametrize("name", recipe.names("submissions", "no workspace"))
def test_formats_can_be_read(name):
    assert read_format(name, "no workspace").axes


@pytest.mark.parametrize("shelf", recipe.SHELVES)
def test_the_shelf_says_what_lies_on_it(shelf):
    readme = next(path for path in recipe.packaged_files(shelf) if path.name == "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`([a-z\d-]+)\.toml`", readme)) == set(recipe.names(shelf, "no workspace"))


def kilobytes(table) -> float:
    """What the frames of a table take for a second of audio, in float16 with a norm for each layer."""
    card = registry.load("encoders", table.encoder)
    layers = card.layers if table.frames == "all" else 1
    return layers * (2 * card.dim + 4) / card.hop / 1000


def test_frames_cost_what_the_recipes_say():
    found = [kilobytes(table) for table in features.read_recipe("mmmos", "no workspace").tables()]
    said = re.search(r"WavLM\s*#?\s*(\d+), MuQ (\d+), M2D (\d+) kB a second", text("features", "mmmos"))
    assert said and [float(number) for number in said.groups()] == pytest.approx(found, rel=0.02)
    (whole,) = features.read_recipe("aesa-net", "no workspace").tables()
    assert kilobytes(whole) == pytest.approx(1000, rel=0.02) and "1 MB a second" in text("features", "aesa-net")


def test_quick_is_36_varied_heads_on_blocks_of_melstats():
    found = read("quick")
    specs = found.specs({"melstats": LAYERS})
    assert len(specs) == 36 and len({spec.head for spec in specs}) == 4
    assert "bandmean" not in {layer for spec in specs for layer in spec.layers}
    assert found.select.on == "pam" and found.select.k < len(specs)


def test_mmmos_is_three_aggregators_by_four_losses_four_ablations_and_the_papers_rule():
    found = read("mmmos")
    specs = found.specs(ENCODERS)
    whole = [spec for spec in specs if spec.features == ENCODERS]
    assert {(spec.head, spec.loss) for spec in whole} == {
        (head, loss) for head in ("linear", "blstm", "blstm_t") for loss in LOSSES
    }
    assert len(specs) == 16 and len(whole) == 12 and {s.head for s in specs if s not in whole} == {"linear"}
    assert {spec.options["lr"] for spec in specs} == {1e-4} and {spec.folds for spec in specs} == {1}
    assert {(spec.head, spec.options["batch"]) for spec in specs} == {("linear", 32), ("blstm", 32), ("blstm_t", 16)}
    assert (found.select.rule, found.select.on, found.select.k) == ("intersect", ["dev", "pam"], 8)


def test_mmmos_pam_trains_on_pam_and_reads_it_out_of_fold():
    found = read("mmmos-pam")
    assert found.train == ["train", "pam"] and found.kept_out_of_folds()
    assert set(found.select.on) <= set(found.open_sets(["train", "dev", "pam", "eval"]))
    assert {spec.loss for spec in found.specs(ENCODERS)} == LOSSES


def test_audiobox_is_the_published_head_on_raw_windows():
    (spec,) = read("audiobox").specs(["audiobox-aesthetics"])
    assert (spec.head, spec.loss, spec.layers, spec.normalise, spec.samples) == (
        "layersum",
        "mae_mse",
        "all",
        "raw",
        "windows",
    )
    usual = registry.load("heads", "layersum").Options().model_dump()
    assert {name: spec.options[name] for name in ("depth", "hidden", "norm", "activation", "unit")} == {
        name: usual[name] for name in ("depth", "hidden", "norm", "activation", "unit")
    }


def test_aesa_net_is_the_papers_loss_and_optimiser():
    (spec,) = read("aesa-net").specs(["beats-iter3-plus"])
    assert (spec.head, spec.loss, spec.loss_options, spec.layers) == ("aesa", "triplet", {"alpha": 0.2}, "weighted")
    assert (spec.options["lr"], spec.options["epochs"], spec.options["depth"]) == (1e-4, 100, 2)


def test_linear_probe_is_every_layer_of_every_encoder_alone():
    layers = {"wavlm": tuple(map(str, range(13))), "m2d": ("final",)}
    specs = read("linear-probe").specs(layers)
    assert [(spec.head, spec.features, spec.layers) for spec in specs] == [
        ("ridge", (name,), layer) for name, names in layers.items() for layer in names
    ]


@pytest.mark.parametrize("layers", [{"melstats": LAYERS}, {"wavlm": tuple(map(str, range(13))), "m2d": ("final",)}])
def test_large_is_500_small_heads_on_any_features(layers):
    specs = read("large").specs(layers)
    assert len(specs) == len(set(specs)) == 500
    assert max(spec.options.get("hidden", 0) for spec in specs) <= 64
    assert min(Counter(spec.loss for spec in specs).values()) > 25 and len({spec.seed for spec in specs}) == 4


@pytest.fixture(scope="module")
def embedded(tiny_workspace, tmp_path_factory):
    """The tiny corpus, with melstats under the names of the paper's encoders: windows, frames and all layers."""
    clips = mmmos.read_manifest({name: tiny_workspace / f"{name}.csv" for name in ("train", "dev", "pam")})
    kept = {"encoder": "melstats", "window": 2.0, "frames": "all", "dtype": "float32"}
    asked = features.FeatureRecipe(encoders=[kept | {"name": name} for name in ENCODERS])
    return mmmos.extract(clips, asked, store=tmp_path_factory.mktemp("store")), clips


def short(entry):
    """A table with fewer epochs and draws, and small heads."""
    small = {"epochs": 2, "hidden": 8, "width": 8, "shared": 8}
    options = {name: small.get(name, value) for name, value in entry.options.items()}
    return entry.model_copy(update={"options": options, "draw": entry.draw and 4})


@pytest.mark.parametrize(
    ("name", "heads"),
    [("mmmos", 16), ("mmmos-pam", 8), ("audiobox", 1), ("aesa-net", 1), ("linear-probe", 60), ("large", 12)],
)
def test_recipes_train_and_select(name, heads, embedded, tmp_path, caplog):
    found = read(name)
    found = found.model_copy(update={"grid": [short(entry) for entry in found.grid]})
    pool = train(found, *embedded, folder=tmp_path, name=name, jobs=1)
    assert len(pool) == heads and not caplog.messages
    assert len(mmmos.select(pool, found.select)) == min(found.select.k or heads, heads)


def test_mmmos_without_frames_leaves_out_the_heads_that_read_them(embedded, tmp_path, caplog):
    clips = embedded[1]
    asked = features.FeatureRecipe(
        encoders=[{"encoder": "melstats", "window": 2.0, "name": name} for name in ENCODERS], dtype="float32"
    )
    found = read("mmmos")
    found = found.model_copy(update={"grid": [short(entry) for entry in found.grid]})
    pool = train(found, mmmos.extract(clips, asked, store=tmp_path), clips, folder=tmp_path, jobs=1)
    assert len(pool) == 12 and "blstm_t" not in {spec.head for spec in pool.specs}
    assert "keeps no frames" in caplog.text
