"""Stand-in models over a tiny encoder, and clips of noise."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mmmos.axes import AXES
from mmmos.ensembles.model import Loaded, Predicted
from mmmos.features.encoders import encoder
from mmmos.features.spec import EncoderSpec, FeatureSpec
from mmmos.scoring.inputs import Clip
from mmmos.scoring.scorer import Scorer

SPEC = EncoderSpec("tiny", "tiny", 8000, 2, 3, 0.02, 160, "none")


@dataclass
class Tiny:
    """Linear, frames of 160 samples; ``lengths`` of the waves it was given, one list for each call."""

    spec: EncoderSpec = SPEC
    lengths: list[list[int]] = field(default_factory=list)
    sleep: float = 0.0
    fails_above: float = np.inf

    def encode(self, waves):
        self.lengths.append([waves.shape[1]] * len(waves))
        time.sleep(self.sleep)
        if float(waves.abs().max()) > self.fails_above:
            raise ZeroDivisionError("division by zero")
        frames = waves.unfold(1, 160, 160)
        states = torch.stack([frames.mean(-1), frames[..., 0], 1 + frames[..., -1]], -1)
        return torch.stack([states, 2 * states], 1)


@dataclass
class Linear:
    """A model: a fixed linear map of the means of all feature sets; with frames, of the first frame as well."""

    sets: list[Loaded]
    axes: tuple[str, ...] = AXES
    name: str = "linear"
    digest: str = "0" * 64
    domains: list[str | None] = field(default_factory=list)

    def encoders(self, device):
        return self.sets

    def predict(self, features, domains):
        assert len(features) == len(domains) == 1
        self.domains += domains
        parts = [features[spec.name].raw.ravel() for spec, _ in self.sets]
        for spec, _ in self.sets:
            if spec.frames:
                frames = features.frames(spec.name, 0)
                assert len(frames.unit) == frames.windows[-1]
                parts.append((frames.unit[0].astype(np.float32) * frames.norm[0][:, None]).ravel())
        x = torch.from_numpy(np.concatenate(parts))
        weights = torch.randn(len(x), len(self.axes), generator=torch.Generator().manual_seed(0))
        scores = (5 + x @ weights / len(x)).double().numpy()[None]
        return Predicted(scores, scores / 10)


@pytest.fixture
def tiny():
    return Tiny()


@pytest.fixture
def linear():
    """Makes a model of feature sets: (name, encoder, what the feature set has of its own)."""

    def make(*sets):
        return Linear([Loaded(FeatureSpec(name, each.spec, **options), each) for name, each, options in sets])

    return make


@pytest.fixture
def model(linear, tiny):
    """A model over the tiny encoder with windows of 0.2 s."""
    return linear(("tiny", tiny, {"window": 0.2, "hop": 0.2}))


@pytest.fixture
def scorer(model):
    return Scorer(model, device="cpu", threads=2)


@pytest.fixture(scope="session")
def melstats():
    return encoder("melstats", device="cpu")


@pytest.fixture
def mixed(linear, tiny, melstats):
    """A model over two encoders of different rates and windows, one of which keeps frames."""
    slow = replace(tiny, spec=replace(tiny.spec, rate=11_025))
    return linear(
        ("tiny", slow, {"window": 0.2, "hop": 0.1, "dtype": "float32", "frames": ("1",)}),
        ("melstats", melstats, {"window": 0.5, "hop": 0.5}),
    )


@pytest.fixture(scope="session")
def noise():
    def make(seconds=0.5, seed=0, rate=8000, channels=None, peak=0.5):
        shape = round(seconds * rate) if channels is None else (round(seconds * rate), channels)
        return np.random.default_rng(seed).uniform(-peak, peak, shape).astype(np.float32)

    return make


@pytest.fixture
def make_clips(tmp_path, noise):
    """Clips of noise of different lengths and rates, as float files."""

    def make(count=4, seconds=0.5, rate=8000):
        clips = []
        for number in range(count):
            path = tmp_path / f"c{number}.wav"
            own = rate if isinstance(rate, int) else rate[number % len(rate)]
            soundfile.write(path, noise(seconds * (1 + number % 3 / 2), number, own), own, "FLOAT")
            clips.append(Clip(f"c{number}", str(path)))
        return clips

    return make


@pytest.fixture
def put(tmp_path):
    """Writes bytes to a file."""

    def write(name, content=b""):
        path = Path(tmp_path) / name
        path.write_bytes(content)
        return str(path)

    return write
