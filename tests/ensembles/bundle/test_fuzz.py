"""Mutants of a bundle, their digests mended: read and scored, or refused with a sentence; never anything else."""

import copy
import hashlib
import json
import random
import warnings

import numpy as np
import pytest
from safetensors.numpy import load, save

from mmmos.ensembles.bundle import read_bundle
from mmmos.ensembles.bundle.about import ABOUT
from mmmos.errors import MmmosError

VALUES = (
    *(None, True, False, -1, 0, 1, 64, 2**40, 1e308, 1e-300, "", "x", "a" * 2000, [], {}, [[]], {"depth": 3}),
    *("all", "last", "weighted", ["a1"], "b", "../x", "knn", "ridge", "mlp", "layersum", "blstm_t", "soft_bins"),
)
ARRAYS = (
    lambda x: x.reshape(-1),
    lambda x: x[:0] if x.ndim else x,
    lambda x: np.stack([x, x]),
    lambda x: x.astype("f4" if x.dtype.kind == "i" else "i4"),
    lambda x: np.full_like(x, 100_000),
    lambda x: -x,
)


def places(value, path=()):
    """The path of every value inside one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from places(part, (*path, key))


def with_a_value(fields, rng):
    """A field dropped, added or replaced."""
    *path, last = rng.choice([place for place in places(fields) if place[0] != "digest"])
    target = fields
    for key in path:
        target = target[key]
    if isinstance(target, dict) and rng.random() < 0.2:
        del target[last]
    elif isinstance(target, dict) and rng.random() < 0.2:
        target[str(rng.choice(VALUES))] = rng.choice(VALUES)
    else:
        target[last] = copy.deepcopy(rng.choice(VALUES))


def with_an_array(files, fields, rng):
    """An array dropped, renamed or changed, and the SHA-256 of its file."""
    name = rng.choice(sorted(fields["files"]))
    arrays = {key: np.array(array) for key, array in load(files[name]).items()}
    key = rng.choice(sorted(arrays))
    array = arrays.pop(key)
    if rng.random() < 0.8:
        arrays[key if rng.random() < 0.8 else f"{key}s"] = np.asarray(rng.choice(ARRAYS)(array), order="C")
    files[name] = save(arrays)
    fields["files"][name] = hashlib.sha256(files[name]).hexdigest()


@pytest.mark.parametrize("seed", range(4))
def test_a_mutant_is_scored_or_refused(seed, small, tools):
    rng, clip, refused = random.Random(seed), small.features.of(["clip100"]), 0
    for _ in range(60):
        files, fields = dict(small.files), json.loads(small.files[ABOUT])
        if rng.random() < 0.4:
            with_an_array(files, fields, rng)
        else:
            with_a_value(fields, rng)
        files[ABOUT] = tools.sealed(fields)
        try:
            with warnings.catch_warnings():
                # Of numbers that are absurd and finite.
                warnings.simplefilter("ignore", RuntimeWarning)
                assert read_bundle(files).predict(clip, ["music"]).scores.shape == (1, 4)
        except MmmosError as error:
            refused += 1
            assert len(str(error)) < 3000
    assert 20 < refused < 60
