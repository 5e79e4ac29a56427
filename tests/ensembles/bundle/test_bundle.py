"""What a bundle says is what its ensemble says, wherever it lies."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmmos.ensembles.bundle import read_bundle, write_bundle
from mmmos.ensembles.bundle.about import ABOUT, CARD
from mmmos.ensembles.bundle.bundle import _about
from mmmos.ensembles.bundle.write import is_written, quantiles_of
from mmmos.ensembles.ensemble import select
from mmmos.ensembles.runs import load_run
from mmmos.ensembles.training.train import train
from mmmos.errors import MmmosError, StoreError, UsageError

FEW = {"options": {"epochs": 2}}
GRIDS = {
    "linear": [{"head": ["ridge", "sklearn_linear"]}, {"head": "linear", "loss": ["mse", "soft_bins", "qamro"], **FEW}],
    "kernels": [{"head": ["svr", "knn", "kernel_ridge", "gaussian_process"], "normalise": ["standard"]}],
    "trees": [{"head": ["extra_trees", "random_forest", "gradient_boosting"], "options": {"trees": 4}}],
    "neural": [
        {"head": "mlp", "loss": ["coral", "utmos22", "contrastive"], "layers": "weighted", **FEW},
        {"head": ["gaussian", "blstm"], **FEW},
        {"head": "adversarial", "options": {"epochs": 2, "clusters": 3}},
        {"head": "layersum", "layers": "all", **FEW},
    ],
    "hidden": [{"head": "ridge", "normalise": "standard", "target": "pam", "leave_out": 0.3}],
    "alone": [{"head": "ridge", "folds": 1, "layers": ["last", "mean", ["a1"]], "features": ["a"]}],
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("by", [None, "set", "domain"])
def test_a_bundle_scores_as_its_ensemble_does(grid, by, tools, trained):
    world, pool = trained(grid)
    scale = {"calibrate": "pam", "calibrate_by": by} if by else {}
    ensemble = select(pool, "average", **scale)
    bundle = read_bundle(tools.packed(ensemble, world.features))
    for name in ("eval", "dev"):
        ids = list(pool.ids[name])
        found = bundle.predict(world.features.of(ids), list(pool.domains[name]))
        np.testing.assert_allclose(found.scores, ensemble.predict(name).to_numpy(), rtol=0, atol=1e-5)
        assert found.spread is not None and (found.spread > 0).all() and np.isfinite(found.spread).all()


@pytest.fixture(scope="module")
def trained(build, tmp_path_factory):
    """The pool of a grid, and its world, whose clips have domains; each trained once."""
    kept = {}

    def of(grid):
        if grid not in kept:
            world = build.world()
            world.clips["domain"] = np.array(["music", "speech", ""])[np.arange(len(world.clips)) % 3]
            recipe = build.recipe(*({"folds": 2} | entry for entry in GRIDS[grid]))
            kept[grid] = world, train(recipe, world.features, world.clips, folder=tmp_path_factory.mktemp(grid))
        return kept[grid]

    return of


def test_the_spread_is_the_weighted_deviation_of_all_heads(small):
    pool, selection = small.ensemble.pool, small.ensemble.selection
    ids, domains = list(pool.ids["eval"]), list(pool.domains["eval"])
    features, bundle = small.features.of(ids), read_bundle(small.files)
    values, weights = [], []
    for member, row in zip(selection.members, selection.weights, strict=True):
        run = load_run(pool.folder, pool.keys[member])
        for said in run.standardised(features):
            scores = run.scores(said).astype(np.float64)
            values.append([bundle.anchoring.of(d)(s) for s, d in zip(scores, domains, strict=True)])
            weights.append(row / len(run.members))
    mean = np.einsum("hca,ha->ca", values, weights)
    variance = np.einsum("hca,ha->ca", (np.array(values) - mean) ** 2, weights)
    np.testing.assert_allclose(bundle.predict(features, domains).spread, np.sqrt(variance), rtol=1e-6)


def test_one_head_has_no_spread(trained, tools):
    world, pool = trained("alone")
    ensemble = select(pool, "best", on="pam")
    bundle = read_bundle(tools.packed(ensemble, world.features))
    assert bundle.predict(world.features.of(["clip000"])).spread is None


def test_negative_weights_count_as_much_in_the_spread(small, tools):
    def negative(fields):
        for member, weight in zip(fields["members"], (0.75, -0.25, 0.25, 0.25), strict=True):
            member["weights"] = dict.fromkeys(fields["axes"], weight)

    found = read_bundle(tools.changed(small.files, negative)).predict(small.features.of(["clip090"]))
    assert np.isfinite(found.scores).all() and (found.spread > 0).all()


def test_a_clip_has_the_same_bits_whatever_its_neighbours(small):
    bundle, ids = read_bundle(small.files), [f"clip{number:03d}" for number in range(100, 112)]
    together = bundle.predict(small.features.of(ids), ["music"] * len(ids))
    reverse = bundle.predict(small.features.of(ids[::-1]), ["music"] * len(ids))
    for row, clip in enumerate(ids):
        alone = bundle.predict(small.features.of([clip]), ["music"])
        for found, other in zip(together, alone, strict=True):
            assert found[row].tobytes() == other[0].tobytes()
    assert together.scores.tobytes() == reverse.scores[::-1].tobytes()


def test_a_domain_without_lines_has_those_of_all(small):
    bundle, clip = read_bundle(small.files), small.features.of(["clip110"])
    unknown, none = bundle.predict(clip, ["traffic"]), bundle.predict(clip)
    assert unknown.scores.tobytes() == none.scores.tobytes() != bundle.predict(clip, ["music"]).scores.tobytes()


def test_domains_are_one_for_each_clip(small):
    with pytest.raises(UsageError, match="2 clips and 1 domains"):
        read_bundle(small.files).predict(small.features.of(["clip100", "clip101"]), ["music"])


SCORE = """
import sys, numpy as np
from mmmos.ensembles.bundle import read_bundle
from mmmos.features.table import FeatureArray, Features
import pandas as pd
stored = np.load(sys.argv[2])
sets = {n: FeatureArray(n, n, tuple(f"{n}{i}" for i in range(stored[n].shape[1])), stored[n]) for n in ("a", "b")}
features = Features(("x",), ("x",), sets, pd.DataFrame())
found = read_bundle(sys.argv[1]).predict(features, ["music"])
print(found.scores.tobytes().hex(), found.spread.tobytes().hex())
"""


def test_scores_have_the_same_bits_from_a_folder_a_zip_or_elsewhere(small, tmp_path, monkeypatch):
    features = small.features.of(["clip105"])
    np.savez(tmp_path / "x.npz", **{name: array.raw for name, array in features.sets.items()})
    folder = write_bundle(small.files, tmp_path / "made" / "small")
    packed = write_bundle(small.files, tmp_path / "small.zip")
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "other name")
    monkeypatch.chdir(tmp_path / "elsewhere")
    paths = {path.name: path for path in folder.iterdir()}
    sources = (folder, packed, elsewhere, "other name", paths, small.files)
    found = {read_bundle(each).predict(features, ["music"]).scores.tobytes().hex() for each in sources}
    command = [sys.executable, "-c", SCORE, packed, tmp_path / "x.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert found == {done.stdout.split()[0]}


def test_equal_ensembles_give_equal_bytes(small, tools, tmp_path):
    again = tools.packed(small.ensemble, small.features)
    assert again == small.files
    one, other = write_bundle(small.files, tmp_path / "one.zip"), write_bundle(again, tmp_path / "other.zip")
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as file:
        assert {(entry.date_time[0], entry.compress_type) for entry in file.infolist()} == {(1980, 0)}


def test_nothing_in_a_bundle_tells_of_the_machine(small, tmp_path):
    text = small.files[ABOUT].decode() + small.files[CARD].decode()
    for told in (str(small.ensemble.pool.folder), str(tmp_path.parent), "/home", "/tmp"):
        assert told not in text


def test_what_is_there_is_not_replaced_unless_it_is_a_bundle(small, tmp_path):
    folder = write_bundle(small.files, tmp_path / "small")
    with pytest.raises(UsageError, match="--overwrite"):
        write_bundle(small.files, folder)
    (folder / next(iter(small.files))).write_bytes(b"damaged")
    write_bundle(small.files, folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == small.files
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("all of it")
    (folder / "notes.txt").write_text("mine")
    for name in ("thesis", "thesis/chapter.txt", "small"):
        with pytest.raises(UsageError, match="other things than a bundle"):
            write_bundle(small.files, tmp_path / name, overwrite=True)
    (folder / "notes.txt").unlink()
    (folder / ".git").mkdir()
    with pytest.raises(UsageError, match="other things than a bundle"):
        write_bundle(small.files, folder, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "thesis"]


def test_the_former_bundle_stays_where_the_new_one_cannot_take_its_place(small, tmp_path, monkeypatch):
    folder, real = write_bundle(small.files, tmp_path / "small"), Path.rename

    def rename(path, target):
        if path.name.endswith(".tmp") and Path(target) == folder and path.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        write_bundle(small.files | {CARD: b"new"}, folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == small.files
    assert list(tmp_path.iterdir()) == [folder]
    shutil.rmtree(folder)
    with pytest.raises(PermissionError):
        write_bundle(small.files, folder)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(small, tmp_path, monkeypatch):
    from mmmos.ensembles.bundle import write

    calls = []

    def failing(path, data):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(write, "write_atomic", failing)
    with pytest.raises(OSError, match="No space"):
        write_bundle(small.files, tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_a_written_bundle_is_known_again_unless_more_than_its_card_changed(small, tmp_path):
    folder, packed = write_bundle(small.files, tmp_path / "small"), write_bundle(small.files, tmp_path / "small.zip")
    (folder / CARD).write_text("# Mine\n", encoding="utf-8")
    assert is_written(small.files, folder) and is_written(small.files, packed)
    assert not is_written(small.files | {ABOUT: b"{}"}, folder)
    (folder / CARD).unlink()
    assert not is_written(small.files, folder) and not is_written(small.files, tmp_path / "absent")


def test_quantiles_are_of_the_ratings_that_are_known():
    assert quantiles_of(np.array([np.nan, 4.0, 2.0, np.nan, 3.00004]), 5) == [2.0, 2.5, 3.0, 3.5, 4.0]


def test_hidden_files_and_an_edited_card_change_nothing(small, tools, tmp_path):
    folder = tools.laid_out(small.files, tmp_path / "small")
    for name in (".DS_Store", ".gitattributes"):
        (folder / name).write_bytes(b"\0\1")
    (folder / ".git").mkdir()
    (folder / CARD).write_text("# Mine\n", encoding="utf-8")
    assert read_bundle(folder).digest == read_bundle(small.files).digest
    (folder / CARD).unlink()
    assert read_bundle(folder).name == "small"


def test_every_flipped_byte_is_detected_or_harmless(small):
    """Every byte of bundle.json, a sample of the others: the same bundle in another spelling, or a sentence."""
    digest, text = read_bundle(small.files).digest, small.files[ABOUT]
    harmless = 0
    for place in range(len(text)):
        flipped = bytearray(text)
        flipped[place] ^= 1 << place % 7
        try:
            about = _about(InMemory(small.files | {ABOUT: bytes(flipped)}))
        except MmmosError:
            continue
        harmless += 1
        assert about.digest == digest
    assert harmless < len(text) / 2
    for name in set(small.files) - {ABOUT, CARD}:
        for place in range(0, len(small.files[name]), max(len(small.files[name]) // 40, 1)):
            flipped = bytearray(small.files[name])
            flipped[place] ^= 1 << place % 8
            with pytest.raises(StoreError, match="another SHA-256"):
                read_bundle(small.files | {name: bytes(flipped)})


class InMemory:
    def __init__(self, files):
        self.where, self.sizes, self._files = "The bundle", {name: len(data) for name, data in files.items()}, files

    def read(self, name):
        return self._files[name]

    def close(self):
        pass


def test_a_bundle_of_a_newer_format_asks_for_a_newer_mmmos(small):
    fields = json.loads(small.files[ABOUT]) | {"format": 2, "mmmos": "9.0", "wonders": {}}
    with pytest.raises(StoreError, match=r"format 2, and this MMMOS reads formats up to 1.*9\.0.*newer MMMOS"):
        read_bundle(small.files | {ABOUT: json.dumps(fields).encode()})
