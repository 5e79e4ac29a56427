"""Feature sets in memory that keep frames, and untrained heads on them."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch

from mmmos import registry
from mmmos.ensembles.heads.frames import frames_of
from mmmos.ensembles.spec import HeadSpec
from mmmos.features.pooling import split
from mmmos.features.table import FeatureArray, Features


@dataclass
class Rows:
    """Of windows or frames what a store gives."""

    unit: np.ndarray
    norm: np.ndarray
    span: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    clip: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    windows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass
class InMemory:
    """``raw`` frames (frames, layers, dim) of each window of each clip, and their ``spans`` in s, by key."""

    raw: dict[str, list[np.ndarray]]
    spans: dict[str, np.ndarray]
    dtype: str
    reads: int = 0

    def gather(self, keys):
        unit, norm = split(np.stack([part.mean(0) for key in keys for part in self.raw[key]]), self.dtype)
        clip = np.repeat(np.arange(len(keys)), [len(self.raw[key]) for key in keys])
        return Rows(unit, norm, np.concatenate([self.spans[key] for key in keys]), clip)

    def frames(self, key):
        self.reads += 1
        unit, norm = split(np.concatenate(self.raw[key]), self.dtype)
        for array in (unit, norm):
            array.flags.writeable = False
        return Rows(unit, norm, windows=np.cumsum([0, *map(len, self.raw[key])]))


def make_features(seconds, sets, dtype="float32", kept=None, seed=0):
    """Clips whose windows have so many ``seconds``; ``sets``: (hop, layers, dim) by name; ``kept`` layers of frames."""
    keys = tuple(f"k{number}" for number in range(len(seconds)))
    spans = {
        key: np.stack([np.cumsum(each) - each, np.cumsum(each)], 1) for key, each in zip(keys, seconds, strict=True)
    }
    rng, arrays = np.random.default_rng(seed), {}
    for name, (hop, layers, dim) in sets.items():
        raw = {
            key: [3 * rng.normal(size=(max(round(s / hop), 1), layers, dim)).astype(np.float32) for s in each]
            for key, each in zip(keys, seconds, strict=True)
        }
        names = tuple(str(layer) for layer in range(layers))
        means = np.stack([np.concatenate(raw[key]).mean(0) for key in keys])
        columns = [names.index(layer) for layer in (names if kept is None else kept)]
        stored = {key: [part[:, columns] for part in parts] for key, parts in raw.items()}
        source = InMemory(stored, spans, dtype)
        arrays[name] = FeatureArray(name, name, names, means, source, tuple(names[c] for c in columns), hop)
    status = pd.DataFrame({"status": "done"}, index=list(keys))
    return Features(keys, keys, arrays, status)


@pytest.fixture(scope="session")
def framed():
    """The maker above; ``frames``: those of a spec; ``raw``: what is stored of a clip, all windows together."""

    class Framed:
        features = staticmethod(make_features)

        @staticmethod
        def frames(features, head="blstm_t", **spec):
            return frames_of(HeadSpec(head=head, features=tuple(features.sets), **spec), features)

        @staticmethod
        def raw(features, name, clip):
            return np.concatenate(features[name].source.raw[features.keys[clip]])

    return Framed


@pytest.fixture(scope="session")
def untrained():
    """Makes a head with the parameters it starts from."""

    def make(name, shapes, axes=4, seed=0, weighted=False, loss="mse", **options):
        head = registry.load("heads", name)(options=options, weighted=weighted, loss=loss, seed=seed)
        module = head.build(shapes, axes, [torch.Generator().manual_seed(seed)])
        return head.learned(shapes, axes, {key: value.detach().clone() for key, value in module.named_parameters()})

    return make
