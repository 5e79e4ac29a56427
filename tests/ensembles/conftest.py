"""Random features with a planted signal, and the table of clips that goes with them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from mmmos.axes import AXES
from mmmos.ensembles.recipe import EnsembleRecipe
from mmmos.ensembles.training import work
from mmmos.features.table import FeatureArray, Features
from mmmos.files import key_of

SIZES = {"train": 60, "dev": 20, "pam": 24, "eval": 16}


@dataclass(frozen=True)
class World:
    features: Features
    clips: pd.DataFrame


def make_features(sets: dict[str, np.ndarray], ids: list[str]) -> Features:
    arrays = {
        name: FeatureArray(name, key_of(name), tuple(f"{name}{i}" for i in range(raw.shape[1])), np.float32(raw))
        for name, raw in sets.items()
    }
    status = pd.DataFrame({"status": "done", "reason": "", "detail": ""}, index=ids)
    return Features(tuple(ids), tuple(key_of(clip) for clip in ids), arrays, status)


def make_world(seed: int = 0, noise: float = 0.3, sizes: dict[str, int] = SIZES, dim: int = 8) -> World:
    """Two feature sets, "a" (3 layers) and "b" (1 layer); scores are linear in layer a1 and in b."""
    rng = np.random.default_rng(seed)
    total = sum(sizes.values())
    a, b = rng.normal(size=(total, 3, dim)), rng.normal(size=(total, 1, dim // 2))
    signal = a[:, 1] @ rng.normal(size=(dim, 4)) + b[:, 0] @ rng.normal(size=(dim // 2, 4))
    scores = np.clip(5 + signal / signal.std() + noise * rng.normal(size=signal.shape), 0, 10)
    clips = pd.DataFrame(scores, columns=list(AXES), index=[f"clip{i:03d}" for i in range(total)])
    clips.index.name = "id"
    clips["set"] = np.repeat(list(sizes), list(sizes.values()))
    clips["group"] = [f"g{i // 2}" for i in range(total)]
    clips["system"] = [f"s{i % 4}" for i in range(total)]
    clips["path"] = clips.index + ".wav"
    return World(make_features({"a": a, "b": b}, list(clips.index)), clips)


def make_recipe(*grid: dict, **rest) -> EnsembleRecipe:
    return EnsembleRecipe.model_validate({"grid": list(grid) or [{"head": "ridge"}], **rest})


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(scope="session")
def build():
    """The makers above, for tests that need worlds of their own."""

    class Build:
        world, features, recipe = staticmethod(make_world), staticmethod(make_features), staticmethod(make_recipe)

    return Build


@pytest.fixture
def one_thread():
    """Training as ``train`` does it: in one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fits(monkeypatch):
    """The specs that were really trained, in order."""
    counted = []

    def fit(specs, *rest, real=work.fit, **keywords):
        counted.extend(specs)
        return real(specs, *rest, **keywords)

    monkeypatch.setattr(work, "fit", fit)
    return counted
