"""Small ensembles on features in memory, and the files of their bundles."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmmos.ensembles.bundle import files_of
from mmmos.ensembles.bundle.about import ABOUT, digest_of
from mmmos.ensembles.ensemble import Ensemble, select
from mmmos.ensembles.runs import load_run
from mmmos.ensembles.shift.anchoring import anchoring
from mmmos.ensembles.training.train import train
from mmmos.features.table import Features
from mmmos.files import pretty_json


def feature_set(name: str, layers: int, dim: int, **facts) -> dict:
    """A feature set of ``bundle.json``; its encoder is never loaded."""
    of_melstats = {"name": "melstats", "family": "melstats", "rate": 32000, "hop": 0.01, "minimum": 1024}
    names = [f"{name}{number}" for number in range(layers)]
    facts = {**of_melstats, "licence": "MIT", "layers": layers, "dim": dim, "layer_names": names, **facts}
    window = {"window": 10.0, "hop": 10.0, "dtype": "float32", "frames": []}
    return {"name": name, "encoder": "melstats", **window, "facts": facts, "fingerprint": "0" * 64, "commercial": True}


def facts_of(ensemble: Ensemble, features: Features) -> dict:
    """What ``bundle.json`` says beside the runs, as far as reading asks for it."""
    pool = ensemble.pool
    used = sorted({name for member in ensemble.selection.members for name in pool.specs[member].features})
    shapes = {name: features[name].raw.shape[1:] for name in used}
    return {
        "name": "small",
        "mmmos": "0.1.0",
        "axes": list(pool.axes),
        "recipe": pool.name,
        "pool": len(pool),
        "rule": ensemble.rule.model_dump(mode="json"),
        "encoders": [feature_set(name, *shape) for name, shape in shapes.items()],
        "licences": dict.fromkeys(used, "MIT"),
    }


def packed(ensemble: Ensemble, features: Features, **changes) -> dict[str, bytes]:
    """The files of an ensemble's bundle."""
    pool, rule = ensemble.pool, ensemble.rule
    members, weights = ensemble.selection.members, ensemble.selection.weights
    runs = [load_run(pool.folder, pool.keys[member]) for member in members]
    by_domain = rule.calibrate_by == "domain"
    lines = None if rule.calibrate is None else anchoring(pool, members, weights, rule.calibrate, by_domain=by_domain)
    return files_of(facts_of(ensemble, features) | changes, runs, weights, lines, rule.calibrate)


def sealed(fields: dict) -> bytes:
    """``bundle.json`` with its digest, as one who wants to deceive would write it."""
    return pretty_json(fields | {"digest": digest_of(fields)}).encode()


def changed(files: dict[str, bytes], change) -> dict[str, bytes]:
    """The files with fields of ``bundle.json`` changed in place and sealed again."""
    fields = json.loads(files[ABOUT])
    change(fields)
    return files | {ABOUT: sealed(fields)}


def laid_out(files: dict[str, bytes], folder: Path) -> Path:
    """The files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@dataclass(frozen=True)
class Small:
    """An ensemble, the features of its clips, and the files of its bundle."""

    ensemble: Ensemble
    features: Features
    files: dict[str, bytes]


@pytest.fixture(scope="session")
def small(build, tmp_path_factory) -> Small:
    """Four members with two heads each, on the scale of pam by domain."""
    world = build.world()
    clips = world.clips.assign(domain=np.where(np.arange(len(world.clips)) % 2, "music", "speech"))
    entry = {"folds": 2, "calibration": "affine"}
    recipe = build.recipe(
        {"head": "ridge", "normalise": "standard", **entry},
        {"head": ["extra_trees"], "options": {"trees": 3}, **entry},
        {"head": "mlp", "options": {"hidden": 4, "epochs": 2}, **entry},
        {"head": "svr", **entry},
    )
    pool = train(recipe, world.features, clips, folder=tmp_path_factory.mktemp("small"))
    ensemble = select(pool, "average", calibrate="pam", calibrate_by="domain")
    return Small(ensemble, world.features, packed(ensemble, world.features))


@pytest.fixture(scope="session")
def tools():
    """The makers above."""

    class Tools:
        changed, laid_out, packed, sealed = map(staticmethod, (changed, laid_out, packed, sealed))

    return Tools
