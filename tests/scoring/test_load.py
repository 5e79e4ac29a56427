"""A bundle by its name: scores as the ensemble gives them of stored features, from any number of threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import mmmos
from mmmos.ensembles.bundle import read_bundle
from mmmos.features.extraction.extract import extract
from mmmos.pipeline.bundles import export
from mmmos.scoring import naming


def test_an_exported_bundle_scores_as_it_does_with_a_store(workspace):
    export("challenge.toml", "demo")
    assert naming.names() == ["demo"]
    scorer = mmmos.load("demo", device="cpu", threads=2)
    clips = mmmos.read_manifest("test.csv", labels=False).head(6)
    table = scorer(clips)
    assert list(table.index) == list(clips.index) and table["reason"].isna().all()
    features = extract(clips, "melstats", store="again", device="cpu")
    predicted = read_bundle("submissions/demo/bundle").predict(features, [None] * len(features))
    axes = list(scorer.axes)
    np.testing.assert_allclose(table[axes].to_numpy(), predicted.scores, atol=1e-5)
    np.testing.assert_allclose(table[[f"{axis}_spread" for axis in axes]].to_numpy(), predicted.spread, atol=1e-5)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(scorer, clips["path"]))
    assert [[row[axis] for axis in axes] for row in rows] == table[axes].to_numpy().tolist()
