"""Heads as ONNX: onnxruntime gives what runs and bundles say, for every head that can be exported, on any batch."""

import copy
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest

from mmmos import registry
from mmmos.ensembles import heads, runs
from mmmos.ensembles.bundle import files_of, read_bundle, write_bundle
from mmmos.ensembles.bundle.about import EncoderFacts, FeatureSet
from mmmos.ensembles.calibration import Calibration
from mmmos.ensembles.onnx import check, export_onnx
from mmmos.ensembles.onnx.check import check_same, run_graph
from mmmos.ensembles.onnx.graph import Graph
from mmmos.ensembles.onnx.heads import DECODERS, HEADS
from mmmos.ensembles.onnx.runs import calibrated, scores_of_run

AXES = ("PQ", "PC", "CE", "CU")
QUICK = {"epochs": 2, "lr": 0.02}
SMALL = QUICK | {"hidden": 16}
TREES = {"extra_trees", "gradient_boosting", "random_forest"}
OPTIONS = {
    "adversarial": SMALL,
    "blstm": QUICK | {"width": 8, "hidden": 8, "depth": 2},
    "gaussian": SMALL,
    "layersum": QUICK | {"depth": 3, "hidden": 16},
    "linear": QUICK,
    "mlp": SMALL | {"depth": 2},
    **{name: {"trees": 5} for name in TREES},
}
NAMES = sorted(HEADS)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """``trained(head, **spec)``: a run, trained once, of two folds on "a" and "b" or as the spec says."""
    from mmmos.ensembles.training.train import train

    folder, known = tmp_path_factory.mktemp("runs"), {}

    def make(head, **spec):
        key = json.dumps([head, spec], sort_keys=True)
        if key not in known:
            spec = {"features": [["a", "b"]], "folds": 2, "options": OPTIONS.get(head, {})} | spec
            recipe = {"grid": [{"head": head} | spec]}
            pool = train(recipe_of(recipe), world.features, world.clips, folder=folder, jobs=1)
            known[key] = runs.load_run(pool.folder, pool.keys[0])
        return known[key]

    return make


def recipe_of(table):
    from mmmos.ensembles.recipe import EnsembleRecipe

    return EnsembleRecipe.model_validate(table)


def graph_of(run, features):
    """A run alone as the bytes of a graph, and what it reads."""
    graph, sets = Graph(), {name: features[name] for name in run.spec.features}
    inputs = {name: graph.input(name, ["clips", *array.raw.shape[1:]]) for name, array in sets.items()}
    scores, single = scores_of_run(run, inputs, {name: array.layer_names for name, array in sets.items()})
    graph.output("scores", scores, ["clips", 4])
    graph.output("single", single, ["clips", len(run.members), 4])
    model = graph.model("run", "", {}, "0").SerializeToString(deterministic=True)
    return model, {name: array.raw for name, array in sets.items()}


def bundle_of(members, features, folder, weights=None, anchoring=None):
    """Runs as a bundle, written and read again."""
    used = {name: features[name] for run in members for name in run.spec.features}
    sets = [feature_set(array) for array in used.values()]
    facts = {
        "name": "mine",
        "mmmos": "0.1",
        "axes": list(AXES),
        "recipe": "quick",
        "pool": len(members),
        "rule": {"rule": "average"},
        "encoders": [each.model_dump(mode="json") for each in sets],
        "licences": dict.fromkeys(used, "MIT"),
    }
    weights = np.full((len(members), 4), 1 / len(members)) if weights is None else np.asarray(weights)
    files = files_of(facts, members, weights, anchoring, "pam" if anchoring else None)
    return read_bundle(write_bundle(files, folder / f"bundle{len(list(folder.iterdir()))}"))


def feature_set(array):
    _, layers, dim = array.raw.shape
    facts = EncoderFacts(
        name=array.name,
        family="test",
        rate=16000,
        layers=layers,
        dim=dim,
        hop=0.02,
        minimum=400,
        licence="MIT",
        layer_names=array.layer_names,
    )
    given = {"window": 10.0, "hop": 10.0, "dtype": "float16", "commercial": True}
    return FeatureSet(name=array.name, encoder="melstats", facts=facts, fingerprint=array.fingerprint, **given)


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def raw_of(bundle, features, rows=slice(None)):
    return {each.name: features[each.name].raw[rows] for each in bundle.about.encoders}


def same(found, expected, within=1e-5):
    assert np.abs(np.asarray(found) - expected).max() < within


@pytest.mark.parametrize("normalise", ["unit", "raw", "standard"])
@pytest.mark.parametrize("name", NAMES)
def test_every_head_gives_the_scores_of_its_run_on_clips_of_the_world(name, normalise, trained, world):
    run = trained(name, normalise=normalise)
    model, raw = graph_of(run, world.features)
    found = run_graph(model, raw)
    assert found.scores.dtype == np.float32
    same(found.scores, run.predict(world.features))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        (name, layers)
        for name in ("linear", "ridge", "blstm", "extra_trees")
        for layers in ("all", "last", "mean", "weighted", ["a2", "a0"])
        if layers != "weighted" or heads.is_neural(name)
    ],
)
def test_every_choice_of_layers(name, layers, trained, world):
    run = trained(name, layers=[layers], features="a", normalise="unit")
    model, raw = graph_of(run, world.features)
    same(run_graph(model, raw).scores, run.predict(world.features))


@pytest.mark.parametrize("loss", [*DECODERS, "ccc", "triplet"])
def test_every_decoding_of_a_loss(loss, trained, world):
    run = trained("mlp", loss=loss)
    model, raw = graph_of(run, world.features)
    same(run_graph(model, raw).scores, run.predict(world.features))


def test_every_registered_loss_can_be_exported():
    from mmmos.ensembles.losses import loss

    found = [loss(name) for name in registry.names("losses")]
    assert {each.name for each in found if each.decode is not None} == set(DECODERS)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": False, "unit": False, "activation": "silu"},
        {"activation": "relu", "hidden": 0, "depth": 2},
        {"activation": "tanh", "depth": 1},
    ],
)
def test_options_of_layersum(options, trained, world):
    run = trained("layersum", options=OPTIONS["layersum"] | options)
    model, raw = graph_of(run, world.features)
    same(run_graph(model, raw).scores, run.predict(world.features))


def test_neighbours_that_are_equally_far_share_a_place(trained, world):
    run = copy.deepcopy(trained("knn"))
    for member in run.members:
        clips, targets = member.head.arrays["clips"], member.head.arrays["targets"]
        pairs = np.stack([targets, targets + 1], axis=1).reshape(-1, 4)
        member.head.arrays = {"clips": np.repeat(clips, 2, axis=0), "targets": pairs}
    model, raw = graph_of(run, world.features)
    same(run_graph(model, raw).scores, run.predict(world.features))


def test_hidden_dimensions_stay_hidden(trained, world):
    run = trained("svr", normalise="standard", target="eval", leave_out=0.25)
    assert np.isinf(run.members[0].standardise.scales[0]).any()
    model, raw = graph_of(run, world.features)
    same(run_graph(model, raw).scores, run.predict(world.features))


@pytest.mark.parametrize("name", ["knn", "ridge", "mlp", "gradient_boosting", "layersum", "svr"])
@pytest.mark.parametrize("normalise", ["unit", "standard"])
def test_extreme_embeddings(name, normalise, trained, build, world):
    run = trained(name, normalise=normalise)
    model, _ = graph_of(run, world.features)
    rng = np.random.default_rng(0)
    sets = {"a": rng.normal(size=(40, 3, 8)), "b": rng.normal(size=(40, 1, 4))}
    for number, scale in enumerate((0, 1e-30, 1e-12, 1e6, 1e15)):
        for raw in sets.values():
            raw[number::8] *= scale
    features = build.features(sets, [str(clip) for clip in range(40)])
    found = run_graph(model, {name: features[name].raw for name in "ab"})
    assert np.isfinite(found.scores).all()
    same(found.scores, run.predict(features))


def test_calibration_within_its_knots_at_them_and_far_outside():
    x = np.array([[-1.0, 0.0, 0.5, 3.0], [0.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    y = np.array([[2.0, 2.5, 5.0, 5.0], [1.0, 7.0, 7.0, 7.0], [4.0, 4.0, 4.0, 4.0]])
    calibration = Calibration(x, y, np.array([0.5, 0.0, 2.0]))
    scores = np.concatenate([np.linspace(-60, 60, 401), x.ravel()]).astype(np.float32)
    graph = Graph()
    given = graph.input("scores_in", ["clips", 3])
    graph.output("scores", calibrated(given.cast(np.float64), calibration), ["clips", 3])
    model = graph.model("lines", "", {}, "0").SerializeToString()
    rows = np.stack([scores] * 3, axis=1)
    same(run_graph(model, {"scores_in": rows}).scores, calibration(rows))


def test_a_run_of_isotonic_calibration(trained, build, world):
    run = trained("ridge", calibration="isotonic", normalise="raw")
    assert run.calibration.x.shape[1] > 1
    far = build.features({name: world.features[name].raw * 20 for name in "ab"}, list(world.features.ids))
    model, raw = graph_of(run, far)
    same(run_graph(model, raw).scores, run.predict(far), within=1e-4)


@pytest.fixture
def bundle(trained, world, tmp_path):
    """Members of several kinds with weights of both signs, a single head among them, and anchored."""
    members = [
        trained("ridge", normalise="raw"),
        trained("extra_trees", features="a"),
        trained("mlp", folds=1, normalise="standard"),
        trained("svr", features="b", calibration="isotonic"),
    ]
    weights = [[0.5, 0.1, 0.9, 0.0], [0.3, 0.4, 0.1, 0.6], [0.4, 0.3, 0.2, 0.6], [-0.2, 0.2, -0.2, -0.2]]
    return bundle_of(members, world.features, tmp_path, weights, anchoring_of(domains=("music",)))


def anchoring_of(domains=()):
    from mmmos.ensembles.shift.anchoring import Anchoring

    lines = Calibration(np.full((4, 1), 5.0), np.full((4, 1), 4.0), np.array([0.5, 0.7, 1.0, 1.3]))
    return Anchoring(lines, {name: Calibration(lines.x, lines.y + 1, lines.slope) for name in domains})


def test_a_bundle_gives_scores_and_spread_of_any_number_of_clips(bundle, world, tmp_path):
    path = export_onnx(bundle, tmp_path / "heads.onnx")
    expected, session = bundle.predict(world.features), session_of(path)
    for rows in (slice(None), slice(0, 1), slice(3, 10)):
        scores, spread = session.run(["scores", "spread"], raw_of(bundle, world.features, rows))
        assert scores.dtype == spread.dtype == np.float32
        assert scores.shape == spread.shape == expected.scores[rows].shape
        if len(scores):
            same(scores, expected.scores[rows])
            same(spread, expected.spread[rows])


def test_the_file_says_what_it_is(bundle, world, tmp_path):
    path = export_onnx(bundle, tmp_path / "heads.onnx")
    session = session_of(path)
    inputs = {each.name: (each.type, each.shape) for each in session.get_inputs()}
    assert inputs == {"a": ("tensor(float)", ["clips", 3, 8]), "b": ("tensor(float)", ["clips", 1, 4])}
    assert [(each.name, each.shape) for each in session.get_outputs()] == [
        ("scores", ["clips", 4]),
        ("spread", ["clips", 4]),
    ]
    told = session.get_modelmeta().custom_metadata_map
    assert (told["bundle"], told["digest"], told["mmmos"]) == ("mine", bundle.digest, "0.1")
    assert json.loads(told["axes"]) == list(AXES) and json.loads(told["licences"]) == {"a": "MIT", "b": "MIT"}
    sets = json.loads(told["feature_sets"])
    assert sets["a"]["fingerprint"] == world.features["a"].fingerprint and sets["a"]["layer_names"] == [
        "a0",
        "a1",
        "a2",
    ]
    assert "pam" in told["anchoring"] and "music" in told["anchoring"] and "cannot be chosen" in told["anchoring"]
    opsets = {each.domain: each.version for each in onnx.load(path).opset_import}
    assert opsets == {"": 17, "ai.onnx.ml": 3}


def test_the_same_bundle_gives_the_same_bytes(bundle, tmp_path):
    first, second = (export_onnx(bundle, tmp_path / name) for name in ("one.onnx", "two.onnx"))
    assert first.read_bytes() == second.read_bytes()


def test_what_members_share_is_in_the_graph_once(trained, world, tmp_path):
    members = [trained("ridge", normalise="unit"), trained("svr", normalise="unit")]
    model = onnx.load(export_onnx(bundle_of(members, world.features, tmp_path), tmp_path / "heads.onnx"))
    assert sum(node.op_type == "Equal" for node in model.graph.node) == 2, "unit vectors of each feature set"


def test_one_head_has_no_spread(trained, world, tmp_path):
    single = bundle_of([trained("linear", folds=1)], world.features, tmp_path)
    session = session_of(export_onnx(single, tmp_path / "heads.onnx"))
    assert [each.name for each in session.get_outputs()] == ["scores"]
    (scores,) = session.run(None, raw_of(single, world.features))
    same(scores, single.predict(world.features).scores)


def refused(bundle, tmp_path, error=None):
    from mmmos.errors import SetupError

    with pytest.raises(error or SetupError) as caught:
        export_onnx(bundle, tmp_path / "heads.onnx")
    assert not (tmp_path / "heads.onnx").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("head", "spec", "said"),
    [
        ("linear", {"samples": "windows"}, "windows"),
        ("attention", {}, "no form in ONNX"),
    ],
)
def test_heads_that_read_windows_or_frames_are_refused_by_name(head, spec, said, trained, world, tmp_path):
    """A bundle whose member reads more than a vector for a clip; no scores are asked of it."""
    from dataclasses import replace

    good = bundle_of([trained("ridge")], world.features, tmp_path)
    (run,) = good.members
    other = replace(good, members=(replace(run, spec=run.spec.model_copy(update={"head": head} | spec)),))
    text = refused(other, tmp_path)
    assert head in text and said in text and "kernel_ridge" in text and "mlp" in text


def test_a_loss_of_a_plug_in_is_refused(trained, world, tmp_path):
    from dataclasses import replace

    run = trained("mlp", loss="soft_bins")
    bundle = bundle_of([run], world.features, tmp_path)
    head = bundle.members[0].members[0].head
    head._criterion = replace(head.criterion(), name="mine")
    assert "'mine'" in refused(bundle, tmp_path) and "soft_bins" in refused(bundle, tmp_path)


def test_a_feature_set_may_not_be_called_like_an_output(trained, world, tmp_path):
    from dataclasses import replace

    bundle = bundle_of([trained("ridge", features="a")], world.features, tmp_path)
    sets = tuple(each.model_copy(update={"name": "spread"}) for each in bundle.about.encoders)
    text = refused(replace(bundle, about=bundle.about.model_copy(update={"encoders": sets})), tmp_path)
    assert "'spread'" in text


def test_other_scores_leave_no_file(bundle, tmp_path, monkeypatch):
    from mmmos.ensembles.model import Predicted
    from mmmos.ensembles.onnx import export

    def predicted(*arguments, real=export._predicted):
        scores, spread = real(*arguments)
        return Predicted(scores + np.array([0, 2e-4, 0, 0]), spread)

    monkeypatch.setattr(export, "_predicted", predicted)
    text = refused(bundle, tmp_path)
    assert "128 of 128 clips" in text and "Nothing was written" in text
    assert not list(tmp_path.glob(".*"))


def test_a_failed_export_keeps_the_file_that_is_there(bundle, tmp_path, monkeypatch):
    from mmmos.ensembles.onnx import graph
    from mmmos.errors import SetupError

    path = tmp_path / "heads.onnx"
    path.write_bytes(b"of yesterday")
    monkeypatch.setattr(graph, "MOST", 1000)
    with pytest.raises(SetupError, match="more than the 2 GB"):
        export_onnx(bundle, path)
    assert path.read_bytes() == b"of yesterday"


def test_a_graph_that_onnxruntime_cannot_run_is_a_sentence():
    from mmmos.errors import SetupError

    with pytest.raises(SetupError, match="cannot run the graph"):
        run_graph(b"no graph", {})


def test_only_heads_that_jump_may_differ_and_only_on_few_clips():
    from mmmos.ensembles.model import Predicted
    from mmmos.errors import SetupError

    scores = np.full((64, 4), 5.0)
    ours, edge, nan = Predicted(scores, None), scores.copy(), scores.copy()
    edge[:2, 0] += 0.1
    nan[3, 1] = np.nan
    check_same(ours, Predicted(scores + 0.9e-4, None), jumps=False)
    check_same(ours, Predicted(edge, None), jumps=True)
    edge_and_more = edge.copy()
    edge_and_more[2] += 0.1
    for found, jumps in ((edge, False), (edge_and_more, True), (nan, False)):
        with pytest.raises(SetupError, match="other scores"):
            check_same(ours, Predicted(found, None), jumps=jumps)


def test_embeddings_of_the_check_lie_where_heads_were_fitted(trained, world):
    """Kernels see distances far from what they saw in training, and are 0 there: such clips would compare nothing."""
    members = [trained("svr", normalise="raw"), trained("mlp", normalise="standard", features="a")]
    shapes, names = {"a": (3, 8), "b": (1, 4)}, {"a": ("a0", "a1", "a2"), "b": ("b0",)}
    raw = check.embeddings(members, shapes, names)
    assert {name: array.shape for name, array in raw.items()} == {"a": (128, 3, 8), "b": (128, 1, 4)}
    clips = [str(clip) for clip in range(128)]
    for number, run in enumerate(members):
        ours = run.predict(_features(raw, clips, world))[number::2]
        spread = run.predict(world.features).std(axis=0)
        assert (ours.std(axis=0) > 0.3 * spread).all()


def _features(raw, clips, world):
    from mmmos.features.table import FeatureArray, Features

    sets = {name: FeatureArray(name, "", world.features[name].layer_names, array) for name, array in raw.items()}
    return Features(tuple(clips), tuple(clips), sets, pd.DataFrame(index=clips))


@pytest.mark.parametrize("damage", ["cycle", "shared", "elsewhere"])
def test_forests_that_are_none_are_refused(damage, trained, world, tmp_path):
    """A bundle may come from anywhere; onnxruntime walks its trees without a bound."""
    from mmmos.errors import StoreError

    bundle = bundle_of([trained("random_forest")], world.features, tmp_path)
    arrays = bundle.members[0].members[0].head.arrays
    left, right = arrays["left"].copy(), arrays["right"]
    inner = np.flatnonzero(left != np.arange(len(left)))
    left[inner[0]] = {"cycle": inner[0], "shared": right[inner[0]], "elsewhere": arrays["starts"][1]}[damage]
    arrays["left"] = left
    refused(bundle, tmp_path, StoreError)


def test_thresholds_part_the_same_float32_numbers():
    from mmmos.ensembles.onnx.heads import _not_above

    rng = np.random.default_rng(0)
    x = rng.normal(size=4000).astype(np.float32)
    thresholds = np.concatenate([(x[:-1].astype(float) + x[1:]) / 2, x[:-1], np.nextafter(x[:-1].astype(float), 9)])
    rounded = _not_above(thresholds)
    assert rounded.dtype == np.float32
    assert all(np.array_equal(x <= new, x <= old) for new, old in zip(rounded, thresholds, strict=True))


def test_only_bundles_and_onnx_files(bundle, tmp_path):
    from mmmos.errors import UsageError

    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        export_onnx(bundle, tmp_path / "bundle.json")

    class Other:
        name = "audiobox"

    with pytest.raises(UsageError, match="audiobox"):
        export_onnx(Other(), tmp_path / "heads.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra_the_command_is_named(package, bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert "pip install 'mmmos[onnx]'" in refused(bundle, tmp_path)


def test_the_command(bundle, tmp_path, monkeypatch, capsys):
    from mmmos.cli.onnx import onnx as command

    monkeypatch.chdir(tmp_path)
    path = str(bundle.folder / "bundle0")
    assert command(path) == 0
    told = capsys.readouterr()
    assert told.out == "heads.onnx\n" and told.err.startswith("mine: ")
    assert command(path, to=tmp_path / "two.onnx") == 0
    assert (tmp_path / "two.onnx").read_bytes() == (tmp_path / "heads.onnx").read_bytes()


def test_the_command_does_not_fetch_audiobox_to_refuse_it(tmp_path, monkeypatch):
    from mmmos.cli.onnx import onnx as command
    from mmmos.errors import UsageError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="checkpoint of Audiobox"):
        command("audiobox")
