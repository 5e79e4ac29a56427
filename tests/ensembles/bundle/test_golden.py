"""Bundles of earlier releases load and score as they did.

The folder of a release is made with that release, once, and never changed again:

    python tests/ensembles/bundle/test_golden.py tests/data/bundles/0.1
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmmos.ensembles.bundle import read_bundle
from mmmos.features.table import FeatureArray, Features

RELEASES = sorted((Path(__file__).parents[2] / "data" / "bundles").glob("[0-9]*"))

RECIPE = """
[[grid]]
head = "ridge"
layers = ["fine"]
normalise = "standard"
folds = 2
[[grid]]
head = "mlp"
layers = ["fine", "finedev"]
folds = 2
options = { hidden = 4, epochs = 8, batch = 4 }
[[grid]]
head = "extra_trees"
layers = ["sorteddev"]
folds = 2
options = { trees = 3 }
[[grid]]
head = "svr"
layers = ["flux"]
folds = 2
[select]
rule = "average"
calibrate = "pam"
"""


def signal(rate: int) -> np.ndarray:
    """Three seconds: a rising tone, its octave that comes and goes, and a click each half second."""
    t = np.arange(3 * rate) / rate
    tone = 0.4 * np.sin(2 * np.pi * (220 * t + 40 * t**2)) + 0.2 * np.sin(2 * np.pi * 440 * t) * np.sin(np.pi * t) ** 2
    clicks = 0.3 * np.exp(-200 * (t % 0.5))
    return (tone + clicks).astype(np.float32)


def scored(bundle) -> dict[str, dict[str, list[float]]]:
    """Scores and spread of the signal by domain."""
    import torch

    ((spec, encoder),) = bundle.encoders("cpu")
    states = encoder.encode(torch.from_numpy(signal(spec.encoder.rate))[None])
    array = FeatureArray(spec.name, spec.fingerprint, spec.encoder.names(), states.mean(2).numpy())
    features = Features(("signal",), ("signal",), {spec.name: array}, pd.DataFrame())
    found = {domain: bundle.predict(features, [domain or None]) for domain in ("", "music")}
    return {
        domain: {"scores": scores[0].tolist(), "spread": spread[0].tolist()}
        for domain, (scores, spread) in found.items()
    }


@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_a_bundle_of_an_earlier_release_scores_as_it_did(release):
    expected = json.loads((release / "expected.json").read_text(encoding="utf-8"))
    bundle = read_bundle(release / "bundle")
    assert (bundle.name, bundle.about.format) == ("golden", expected["format"])
    for domain, found in scored(bundle).items():
        for what, values in found.items():
            np.testing.assert_allclose(values, expected["signal"][domain][what], rtol=0, atol=1e-4)


def test_there_is_a_bundle_of_the_first_release_and_it_is_small():
    assert "0.1" in {folder.name for folder in RELEASES}
    for folder in RELEASES:
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 100_000


def make(folder: Path) -> None:
    """Write the golden folder of this release."""
    from tempfile import TemporaryDirectory

    import mmmos
    from mmmos import pipeline
    from mmmos.pipeline.bundles import export

    with TemporaryDirectory() as scratch:
        path = mmmos.make_corpus(scratch, size="tiny")
        (Path(scratch) / "ensembles").mkdir()
        (Path(scratch) / "ensembles" / "small.toml").write_text(RECIPE)
        path.write_text(path.read_text().replace('"quick"', '"small"').replace('"demo"', '"golden"'))
        pipeline.run(path, jobs=1, intervals=0)
        export(path, to=folder / "bundle")
    bundle = read_bundle(folder / "bundle")
    expected = {"format": bundle.about.format, "signal": scored(bundle)}
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
